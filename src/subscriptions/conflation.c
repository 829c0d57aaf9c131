#include "subscriptions/conflation.h"

#include <stdlib.h>

#include "base/mem.h"

struct conflation *conflation_new(void)
{
	struct conflation *conflation = mem_zalloc(sizeof(*conflation));

	TAILQ_INIT(&conflation->order);
	return conflation;
}

/* Removes and frees the entry, but not its line. */
static struct shared_line *remove_entry(struct conflation *conflation, struct conflation_entry *e)
{
	struct shared_line *shared = e->shared;

	if (e->replaceable)
		map_remove(&conflation->keys, &e->by_key);
	TAILQ_REMOVE(&conflation->order, e, order);
	conflation->bytes -= shared->n;
	free(e);
	return shared;
}

void conflation_free(struct conflation *conflation)
{
	struct conflation_entry *e;

	while ((e = TAILQ_FIRST(&conflation->order)))
		shared_line_unref(remove_entry(conflation, e));
	map_fini(&conflation->keys);
	free(conflation);
}

static struct conflation_entry *find(const struct conflation *conflation,
				     const struct shared_line *shared)
{
	struct map_node *node =
		shared->key_hash ? map_first(&conflation->keys, shared->key_hash) : NULL;

	for (; node; node = map_next(node)) {
		struct conflation_entry *e = map_entry(node, struct conflation_entry, by_key);
		if (span_equal(e->shared->key, shared->key))
			return e;
	}
	return NULL;
}

static void replace(struct conflation *conflation, struct conflation_entry *e,
		    struct shared_line *shared)
{
	conflation->bytes -= e->shared->n;
	shared_line_unref(e->shared);
	e->shared = shared_line_ref(shared);
	e->skipped++;
}

/* A line of our own tells of the changes so far: later changes have to come behind it. */
static void keep_place(struct conflation *conflation, struct conflation_entry *e)
{
	map_remove(&conflation->keys, &e->by_key);
	e->replaceable = false;
}

bool conflation_put(struct conflation *conflation, struct shared_line *shared)
{
	struct conflation_entry *e = shared->pattern ? NULL : find(conflation, shared);

	conflation->bytes += shared->n;
	if (e && !shared->own) {
		replace(conflation, e, shared);
		return true;
	}
	if (e)
		keep_place(conflation, e);
	e = mem_zalloc(sizeof(*e));
	e->shared = shared_line_ref(shared);
	e->replaceable = shared->key_hash && !shared->own;
	if (e->replaceable)
		map_add(&conflation->keys, &e->by_key, shared->key_hash);
	TAILQ_INSERT_TAIL(&conflation->order, e, order);
	return false;
}

int conflation_take(struct conflation *conflation, struct shared_line **shared, uint64_t *skipped)
{
	struct conflation_entry *e = TAILQ_FIRST(&conflation->order);

	if (!e)
		return 0;
	*skipped = e->skipped;
	*shared = remove_entry(conflation, e);
	return 1;
}

void conflation_keep(struct conflation *conflation,
		     bool (*wanted)(void *owner, const struct shared_line *shared), void *owner)
{
	struct conflation_entry *next;

	for (struct conflation_entry *e = TAILQ_FIRST(&conflation->order); e; e = next) {
		next = TAILQ_NEXT(e, order);
		if (e->shared->key_hash && !wanted(owner, e->shared))
			shared_line_unref(remove_entry(conflation, e));
	}
}
