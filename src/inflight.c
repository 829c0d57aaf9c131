#include "inflight.h"

#include <stdlib.h>

#include "mem.h"

enum { PLACE_BITS = 16 };
#define PLACE_MASK ((UINT64_C(1) << PLACE_BITS) - 1)
#define GENERATION_MASK ((UINT64_C(1) << (53 - PLACE_BITS)) - 1)

void inflight_init(struct inflight *f, unsigned places)
{
	size_t chains = 64;

	while (chains < 2 * (size_t)places)
		chains *= 2;
	*f = (struct inflight){
		.place = mem_zalloc(places * sizeof(*f->place)),
		.free = mem_alloc(places * sizeof(*f->free)),
		.places = places,
		.reads = mem_zalloc(chains * sizeof(*f->reads)),
		.reads_mask = chains - 1,
	};
	while (f->n_free < places) {
		f->free[f->n_free] = places - 1 - f->n_free;
		f->n_free++;
	}
}

void inflight_fini(struct inflight *f)
{
	free(f->place);
	free(f->free);
	free(f->reads);
	*f = (struct inflight){0};
}

static struct pending **chain(const struct inflight *f, uint64_t key_hash)
{
	return &f->reads[key_hash & f->reads_mask];
}

/* Marks the reads of p's key that were sent before p. 64 bits of keyed hash stand for client and
 * key: a collision costs a read its repetition, nothing else. */
static void overtake(struct inflight *f, const struct pending *p)
{
	for (struct pending *q = *chain(f, p->key_hash); q; q = q->next_read)
		if (q->key_hash == p->key_hash &&
		    q->wire_id >> PLACE_BITS < p->wire_id >> PLACE_BITS)
			q->overtaken = true;
}

void inflight_add(struct inflight *f, struct pending *p)
{
	uint32_t place = f->free[--f->n_free];

	f->generation = (f->generation + 1) & GENERATION_MASK;
	p->wire_id = f->generation << PLACE_BITS | place;
	f->place[place] = p;
	p->overtaken = false;
	if (!p->key_hash)
		return;
	if (request_op_is_read(p->op)) {
		p->next_read = *chain(f, p->key_hash);
		*chain(f, p->key_hash) = p;
	} else {
		overtake(f, p);
	}
}

struct pending *inflight_find(const struct inflight *f, uint64_t wire_id)
{
	uint64_t place = wire_id & PLACE_MASK;

	if (place >= f->places || !f->place[place] || f->place[place]->wire_id != wire_id)
		return NULL;
	return f->place[place];
}

void inflight_remove(struct inflight *f, struct pending *p, bool answered)
{
	uint32_t place = (uint32_t)(p->wire_id & PLACE_MASK);

	if (p->key_hash && request_op_is_read(p->op)) {
		struct pending **at = chain(f, p->key_hash);
		while (*at != p)
			at = &(*at)->next_read;
		*at = p->next_read;
		p->next_read = NULL;
		if (answered)
			overtake(f, p);
	}
	f->place[place] = NULL;
	f->free[f->n_free++] = place;
}

static int by_generation(const void *a, const void *b)
{
	const struct pending *p = *(struct pending *const *)a, *q = *(struct pending *const *)b;

	return p->wire_id < q->wire_id ? -1 : p->wire_id > q->wire_id;
}

struct pending **inflight_in_order(const struct inflight *f, size_t *n)
{
	struct pending **all = mem_alloc((inflight_count(f) + 1) * sizeof(*all));

	*n = 0;
	for (uint32_t i = 0; i < f->places; i++)
		if (f->place[i])
			all[(*n)++] = f->place[i];
	qsort(all, *n, sizeof(*all), by_generation);
	return all;
}
