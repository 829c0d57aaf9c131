#include "cache/entry.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { SWEEP = 100 }; /* entries of a step, while room is needed */

static struct entry *of_order(const struct treap_node *node)
{
	return map_entry(node, struct entry, order);
}

static struct span key_of(const struct treap_node *node)
{
	return entry_key(of_order(node));
}

static uint64_t priority_of(const struct treap_node *node)
{
	return of_order(node)->by_key.hash * UINT64_C(0x9e3779b97f4a7c15);
}

void entries_init(struct entries *es, uint8_t (*origin_of)(void *owner, struct span key),
		  void *owner)
{
	*es = (struct entries){.order = {.key = key_of, .priority = priority_of},
			       .origin_of = origin_of,
			       .owner = owner,
			       .swept = true};
	shapes_init(&es->shapes);
	TAILQ_INIT(&es->recent);
}

static bool is_stale(const struct entries *es, const struct entry *e)
{
	return e->generation != es->generation || es->dropped[e->origin];
}

static size_t value_size(const struct entry *e)
{
	return e->value_n + (e->shape ? shape_own_size(e->shape) : 0);
}

/* ---- what an entry believes ---- */

static void count(struct entries *es, const struct entry *e, bool in)
{
	if (e->state == ENTRY_EMPTY || is_stale(es, e))
		return;
	es->n += in ? 1 : SIZE_MAX;
	es->n_of[e->origin] += in ? 1 : SIZE_MAX;
	if (e->state == ENTRY_FOUND)
		es->found_of[e->origin] += in ? 1 : SIZE_MAX;
}

void entries_clear(struct entries *es, struct entry *e)
{
	count(es, e, false);
	es->bytes -= value_size(e);
	if (e->shape)
		shape_unref(&es->shapes, e->shape);
	free(e->value);
	e->shape = NULL;
	e->value = NULL;
	e->value_n = 0;
	e->state = ENTRY_EMPTY;
}

void entries_set(struct entries *es, struct entry *e, enum entry_state state, struct shape *shape,
		 struct span value)
{
	entries_clear(es, e);
	e->state = (uint8_t)state;
	e->shape = shape;
	if (value.n) {
		e->value = mem_strndup(value.p, value.n);
		e->value_n = (uint32_t)value.n;
	}
	es->bytes += value_size(e);
	count(es, e, true);
	entries_touch(es, e);
}

/* ---- entries come and go ---- */

struct entry *entries_make(struct entries *es, struct span key, uint64_t hash, uint8_t origin)
{
	struct entry *e = mem_zalloc(sizeof(*e) + key.n);

	e->generation = es->generation;
	e->key_n = (uint16_t)key.n;
	e->origin = origin;
	memcpy(e->key, key.p, key.n);
	map_add(&es->keys, &e->by_key, hash);
	treap_add(&es->order, &e->order);
	if (origin == ORIGIN_KEYS)
		TAILQ_INSERT_TAIL(&es->recent, e, link);
	es->bytes += key.n + ENTRY_COUNTED;
	return e;
}

void entries_drop(struct entries *es, struct entry *e)
{
	entries_clear(es, e);
	if (e->origin == ORIGIN_KEYS)
		TAILQ_REMOVE(&es->recent, e, link);
	es->bytes -= e->key_n + ENTRY_COUNTED;
	treap_remove(&es->order, &e->order);
	map_remove(&es->keys, &e->by_key);
	free(e);
}

void entries_touch(struct entries *es, struct entry *e)
{
	if (e->origin != ORIGIN_KEYS || TAILQ_LAST(&es->recent, entry_list) == e)
		return;
	TAILQ_REMOVE(&es->recent, e, link);
	TAILQ_INSERT_TAIL(&es->recent, e, link);
}

static void renew(struct entries *es, struct entry *e)
{
	entries_clear(es, e);
	if (e->origin == ORIGIN_KEYS)
		TAILQ_REMOVE(&es->recent, e, link);
	e->generation = es->generation;
	e->told = 0;
	e->origin = es->origin_of(es->owner, entry_key(e));
	if (e->origin == ORIGIN_KEYS)
		TAILQ_INSERT_TAIL(&es->recent, e, link);
}

/* One of a former generation is gone, or renewed if requests refer to it. */
static struct entry *current(struct entries *es, struct entry *e)
{
	if (!is_stale(es, e))
		return e;
	if (!entry_is_busy(e)) {
		entries_drop(es, e);
		return NULL;
	}
	renew(es, e);
	return e;
}

void entries_renew(struct entries *es, struct entry *e)
{
	if (is_stale(es, e))
		renew(es, e);
}

struct entry *entries_find(struct entries *es, struct span key, uint64_t hash)
{
	struct map_node *node = map_first(&es->keys, hash);

	while (node && !span_equal(entry_key(map_entry(node, struct entry, by_key)), key))
		node = map_next(node);
	return node ? current(es, map_entry(node, struct entry, by_key)) : NULL;
}

struct entry *entries_from(struct entries *es, struct span key)
{
	struct treap_node *node = treap_from(&es->order, key);

	while (node && !current(es, of_order(node)))
		node = treap_from(&es->order, key);
	return node ? of_order(node) : NULL;
}

struct entry *entries_behind(struct entries *es, struct span key)
{
	struct treap_node *node = treap_after(&es->order, key);

	while (node && !current(es, of_order(node)))
		node = treap_after(&es->order, key);
	return node ? of_order(node) : NULL;
}

bool entries_shrink(struct entries *es, size_t bytes)
{
	struct entry *e, *next;

	while (es->bytes > bytes && entries_sweep(es, SWEEP))
		;
	for (e = TAILQ_FIRST(&es->recent); e && es->bytes > bytes; e = next) {
		next = TAILQ_NEXT(e, link);
		if (entry_is_busy(e))
			entries_clear(es, e);
		else
			entries_drop(es, e);
	}
	return es->bytes <= bytes;
}

/* ---- forgetting ---- */

/* Of all that there are. */
static void renumber(struct entries *es)
{
	struct map_walk w = {0};
	struct map_node *node;

	while ((node = map_walk(&es->keys, &w)))
		map_entry(node, struct entry, by_key)->generation = 0;
}

static void sweep_anew(struct entries *es)
{
	es->swept = false;
	buf_release(&es->sweep_from);
}

void entries_forget(struct entries *es)
{
	if (es->generation == UINT16_MAX)
		renumber(es); /* with the next number, 1, they are of a former generation */
	es->generation = (uint16_t)(es->generation == UINT16_MAX ? 1 : es->generation + 1);
	es->n = 0;
	memset(es->n_of, 0, sizeof(es->n_of));
	memset(es->found_of, 0, sizeof(es->found_of));
	memset(es->dropped, 0, sizeof(es->dropped));
	sweep_anew(es);
}

void entries_forget_origin(struct entries *es, uint8_t origin)
{
	es->n -= es->n_of[origin];
	es->n_of[origin] = es->found_of[origin] = 0;
	es->dropped[origin] = true;
	sweep_anew(es);
}

bool entries_sweep(struct entries *es, size_t n)
{
	struct treap_node *node;

	if (es->swept)
		return false;
	node = treap_from(&es->order, buf_span(&es->sweep_from));
	while (node && n--) {
		struct entry *e = of_order(node);
		node = treap_after(&es->order, entry_key(e));
		current(es, e);
	}
	buf_take(&es->sweep_from, buf_len(&es->sweep_from));
	es->swept = !node;
	if (node)
		buf_add(&es->sweep_from, key_of(node).p, key_of(node).n);
	return node != NULL;
}

void entries_fini(struct entries *es)
{
	struct map_walk w = {0};
	struct map_node *node;

	while ((node = map_walk(&es->keys, &w))) {
		struct entry *e = map_entry(node, struct entry, by_key);
		entries_clear(es, e);
		free(e);
	}
	map_fini(&es->keys);
	buf_release(&es->sweep_from);
	shapes_fini(&es->shapes);
}
