#include "requests/inflight.h"

#include <stdlib.h>

#include "base/mem.h"

enum { SLOT_BITS = 16 };
#define SLOT_MASK ((UINT64_C(1) << SLOT_BITS) - 1)
/* An id repeats after 2^37 requests, long after the first use has ended. */
#define GENERATION_MASK ((UINT64_C(1) << (53 - SLOT_BITS)) - 1)

static struct pending_list *chain(const struct inflight *f, uint64_t key_hash)
{
	return &f->keys[key_hash & f->keys_mask];
}

/* Makes that many chains, a power of two, of those that there are. */
static void make_chains(struct inflight *f, size_t chains)
{
	struct pending_list *former = f->keys;
	size_t n = former ? f->keys_mask + 1 : 0;
	struct pending *p;

	f->keys = mem_alloc(chains * sizeof(*f->keys));
	f->keys_mask = chains - 1;
	for (size_t i = 0; i < chains; i++)
		TAILQ_INIT(&f->keys[i]);
	for (size_t i = 0; i < n; i++) {
		while ((p = TAILQ_FIRST(&former[i]))) {
			TAILQ_REMOVE(&former[i], p, inflight.of_key);
			TAILQ_INSERT_TAIL(chain(f, p->key_hash), p, inflight.of_key);
		}
	}
	free(former);
}

static void make_slots(struct inflight *f, uint32_t n_slots)
{
	f->slots = mem_resize(f->slots, n_slots * sizeof(*f->slots));
	f->free = mem_resize(f->free, n_slots * sizeof(*f->free));
	for (uint32_t i = n_slots; i-- > f->n_slots;) {
		f->slots[i] = NULL;
		f->free[f->n_free++] = i;
	}
	f->n_slots = f->limit = n_slots;
}

static void make_room(struct inflight *f, uint32_t n_slots)
{
	size_t chains = f->keys ? f->keys_mask + 1 : 64;

	while (chains < 2 * (size_t)n_slots)
		chains *= 2;
	make_slots(f, n_slots);
	if (chains > f->keys_mask + 1)
		make_chains(f, chains);
}

void inflight_init(struct inflight *f, unsigned n_slots)
{
	*f = (struct inflight){.n_slots = 0};
	make_room(f, n_slots);
}

void inflight_fini(struct inflight *f)
{
	free(f->slots);
	free(f->free);
	free(f->keys);
	free(f->connections);
}

void inflight_set(struct inflight *f, unsigned n_slots)
{
	f->limit = n_slots;
	if (n_slots > f->n_slots)
		make_room(f, n_slots);
}

/* The last request with this key_hash, from `from` backwards. A 64-bit keyed hash stands for client
 * and key. If two collide, a request waits for the other or is not sent again; nothing else
 * happens. */
static struct pending *find_key(struct pending *from, uint64_t key_hash)
{
	while (from && from->key_hash != key_hash)
		from = TAILQ_PREV(from, pending_list, inflight.of_key);
	return from;
}

struct pending *inflight_last_of_key(const struct inflight *f, uint64_t key_hash)
{
	return find_key(TAILQ_LAST(chain(f, key_hash), pending_list), key_hash);
}

/* A request for this key takes effect: marks the reads of it, from `from` backwards, which must
 * not be repeated behind it. Stops at a write or a marked read, which has marked those before
 * itself. */
static void overtake(struct pending *from, uint64_t key_hash)
{
	struct pending *p = find_key(from, key_hash);

	while (p && request_op_is_read(p->op) && !p->inflight.overtaken) {
		p->inflight.overtaken = true;
		p = find_key(TAILQ_PREV(p, pending_list, inflight.of_key), key_hash);
	}
}

/* The same for requests that the rate limit may still refuse. Stops at a marked one, which has
 * marked those before itself. */
static void follow(struct pending *from, uint64_t key_hash)
{
	struct pending *p = find_key(from, key_hash);

	while (p && !p->inflight.followed) {
		p->inflight.followed = true;
		p = find_key(TAILQ_PREV(p, pending_list, inflight.of_key), key_hash);
	}
}

bool inflight_has_effect(const struct pending *p, enum inflight_end end)
{
	return end == INFLIGHT_ANSWERED || (end == INFLIGHT_SILENT && !request_op_is_read(p->op));
}

/* ---- connections, of which there are few ---- */

static struct connection_load *find_load(const struct inflight *f, uint32_t connection)
{
	for (size_t i = 0; i < f->n_connections; i++) {
		if (f->connections[i].connection == connection)
			return &f->connections[i];
	}
	return NULL;
}

unsigned inflight_on(const struct inflight *f, uint32_t connection)
{
	const struct connection_load *load = find_load(f, connection);

	return load ? load->n : 0;
}

static void add_load(struct inflight *f, uint32_t connection)
{
	struct connection_load *load = find_load(f, connection);

	if (!load) {
		f->connections = mem_resize(f->connections,
					    (f->n_connections + 1) * sizeof(*f->connections));
		load = &f->connections[f->n_connections++];
		*load = (struct connection_load){.connection = connection};
	}
	load->n++;
}

static void remove_load(struct inflight *f, uint32_t connection)
{
	struct connection_load *load = find_load(f, connection);

	if (--load->n == 0)
		*load = f->connections[--f->n_connections];
}

/* ---- requests ---- */

/* Behind those of its client and key that are in flight. */
static void enter_chain(struct inflight *f, struct pending *p)
{
	p->inflight.overtaken = p->inflight.followed = p->inflight.follows = false;
	if (!p->key_hash)
		return;
	if (f->n_keys++ > f->keys_mask)
		make_chains(f, 2 * (f->keys_mask + 1));
	struct pending *before = inflight_last_of_key(f, p->key_hash);
	p->inflight.follows = before != NULL;
	if (!request_op_is_read(p->op))
		overtake(before, p->key_hash);
	TAILQ_INSERT_TAIL(chain(f, p->key_hash), p, inflight.of_key);
}

void inflight_add(struct inflight *f, struct pending *p, uint32_t connection)
{
	uint32_t slot = f->free[--f->n_free];

	p->inflight.sequence = ++f->sequence;
	p->inflight.wire_id = (p->inflight.sequence & GENERATION_MASK) << SLOT_BITS | slot;
	f->slots[slot] = p;
	p->inflight.connection = connection;
	p->inflight.companion = p->inflight.lone = false;
	add_load(f, connection);
	enter_chain(f, p);
}

void inflight_set_lone(struct inflight *f, struct pending *p)
{
	p->inflight.lone = true;
	f->n_lone++;
}

void inflight_add_companion(struct inflight *f, struct pending *p, const struct pending *leader)
{
	p->inflight.sequence = leader->inflight.sequence;
	p->inflight.wire_id = leader->inflight.wire_id;
	p->inflight.connection = leader->inflight.connection;
	p->inflight.companion = true;
	p->inflight.lone = false;
	enter_chain(f, p);
}

void inflight_pass(struct inflight *f, struct pending *p, struct pending *companion)
{
	f->slots[p->inflight.wire_id & SLOT_MASK] = companion;
	p->inflight.companion = true;
	companion->inflight.companion = false;
	companion->inflight.lone = p->inflight.lone;
}

struct pending *inflight_find(const struct inflight *f, uint64_t wire_id)
{
	uint64_t slot = wire_id & SLOT_MASK;

	if (slot >= f->n_slots || !f->slots[slot] || f->slots[slot]->inflight.wire_id != wire_id)
		return NULL;
	return f->slots[slot];
}

void inflight_remove(struct inflight *f, struct pending *p, enum inflight_end end)
{
	uint32_t slot = (uint32_t)(p->inflight.wire_id & SLOT_MASK);

	if (p->key_hash) {
		if (end == INFLIGHT_ANSWERED && request_op_is_read(p->op))
			overtake(TAILQ_PREV(p, pending_list, inflight.of_key), p->key_hash);
		if (p->inflight.follows && inflight_has_effect(p, end))
			follow(TAILQ_PREV(p, pending_list, inflight.of_key), p->key_hash);
		TAILQ_REMOVE(chain(f, p->key_hash), p, inflight.of_key);
		f->n_keys--;
	}
	if (p->inflight.companion)
		return;
	f->slots[slot] = NULL;
	f->free[f->n_free++] = slot;
	f->n_lone -= p->inflight.lone;
	remove_load(f, p->inflight.connection);
}

static int by_sequence(const void *a, const void *b)
{
	const struct pending *p = *(struct pending *const *)a, *q = *(struct pending *const *)b;

	return p->inflight.sequence < q->inflight.sequence ? -1 : 1;
}

struct pending **inflight_in_order(const struct inflight *f, size_t *n)
{
	struct pending **all = mem_alloc((inflight_count(f) + 1) * sizeof(*all));

	*n = 0;
	for (uint32_t i = 0; i < f->n_slots; i++)
		if (f->slots[i])
			all[(*n)++] = f->slots[i];
	qsort(all, *n, sizeof(*all), by_sequence);
	return all;
}
