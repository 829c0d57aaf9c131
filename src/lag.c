#include "lag.h"

#include <stdlib.h>

#include "mem.h"

struct lag *lag_new(void)
{
	struct lag *lag = mem_zalloc(sizeof(*lag));

	TAILQ_INIT(&lag->order);
	return lag;
}

/* Takes the entry out and frees it; its note stays the caller's. */
static struct note *remove_entry(struct lag *lag, struct lag_entry *e)
{
	struct note *note = e->note;

	if (e->replaceable)
		map_remove(&lag->keys, &e->by_key);
	TAILQ_REMOVE(&lag->order, e, order);
	lag->bytes -= note->n;
	free(e);
	return note;
}

void lag_free(struct lag *lag)
{
	struct lag_entry *e;

	while ((e = TAILQ_FIRST(&lag->order)))
		note_unref(remove_entry(lag, e));
	map_fini(&lag->keys);
	free(lag);
}

static struct lag_entry *find(const struct lag *lag, const struct note *note)
{
	struct map_node *node = note->key_hash ? map_first(&lag->keys, note->key_hash) : NULL;

	for (; node; node = map_next(node)) {
		struct lag_entry *e = map_entry(node, struct lag_entry, by_key);
		if (span_equal(e->note->key, note->key))
			return e;
	}
	return NULL;
}

static void replace(struct lag *lag, struct lag_entry *e, struct note *note)
{
	lag->bytes -= e->note->n;
	note_unref(e->note);
	e->note = note_ref(note);
	e->skipped++;
}

/* What we say of a key is about what came before it: later changes have to come behind. */
static void keep_place(struct lag *lag, struct lag_entry *e)
{
	map_remove(&lag->keys, &e->by_key);
	e->replaceable = false;
}

bool lag_put(struct lag *lag, struct note *note)
{
	struct lag_entry *e = note->pattern ? NULL : find(lag, note);

	lag->bytes += note->n;
	if (e && !note->own) {
		replace(lag, e, note);
		return true;
	}
	if (e)
		keep_place(lag, e);
	e = mem_zalloc(sizeof(*e));
	e->note = note_ref(note);
	e->replaceable = note->key_hash && !note->own;
	if (e->replaceable)
		map_add(&lag->keys, &e->by_key, note->key_hash);
	TAILQ_INSERT_TAIL(&lag->order, e, order);
	return false;
}

int lag_take(struct lag *lag, struct note **note, uint64_t *skipped)
{
	struct lag_entry *e = TAILQ_FIRST(&lag->order);

	if (!e)
		return 0;
	*skipped = e->skipped;
	*note = remove_entry(lag, e);
	return 1;
}

void lag_keep(struct lag *lag, bool (*wanted)(void *owner, const struct note *note), void *owner)
{
	struct lag_entry *next;

	for (struct lag_entry *e = TAILQ_FIRST(&lag->order); e; e = next) {
		next = TAILQ_NEXT(e, order);
		if (e->note->key_hash && !wanted(owner, e->note))
			note_unref(remove_entry(lag, e));
	}
}
