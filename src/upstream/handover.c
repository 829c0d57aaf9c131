#include "upstream/handover.h"

#include <stdlib.h>
#include <string.h>

#include "codec/json.h"
#include "base/mem.h"

enum {
	SAME_MAX = 64, /* records of the same key, value and timestamp */
	FORMER = 1 << HANDOVER_FORMER,
	MAIN = 1 << HANDOVER_MAIN,
	NEXT = 1 << HANDOVER_NEXT,
};

struct key {
	struct map_node node; /* handover::keys */
	struct records told;  /* in the order of telling */
	struct records pending;
	unsigned spoken; /* bit() of each connection that has brought any change of it */
};

struct record {
	struct map_node node;       /* handover::changes, by identity() */
	TAILQ_ENTRY(record) of_all; /* handover::pending */
	TAILQ_ENTRY(record) of_key; /* key::told, or key::pending */
	struct key *key;
	unsigned brought; /* bit() of each connection that has brought it, or, if it was told, a
			     later change of the key */
	uint64_t number;  /* in order of arrival */
	bool old;         /* it was a straggler at the last handover_expire() */
	struct notification change; /* its text is NULL, or the one below */
	char *text;                 /* owned, while pending; NULL: it was told */
};

static unsigned bit(enum handover_from from)
{
	return 1U << from;
}

/* ---- lookup ---- */

/* The service chooses timestamps, so they are hashed with the seed as well. */
static uint64_t identity(const struct handover *h, const struct notification *change)
{
	const uint64_t parts[] = {change->key_hash, change->value_hash,
				  (uint64_t)change->timestamp};

	return json_bytes_hash((struct span){(const char *)parts, sizeof(parts)}, h->seed);
}

/* Can this record be the change that the connection brings now, and not another with the same id?
 */
static bool may_bring(const struct handover *h, enum handover_from from, const struct record *r)
{
	bool known = r->change.timestamp || r->text;

	return !(r->brought & bit(from)) &&
	       (known || from != HANDOVER_MAIN || !(h->awaited & MAIN));
}

/* The earliest such record; NULL: none. *same: how many records have this id. */
static struct record *find(const struct handover *h, enum handover_from from, uint64_t id,
			   unsigned *same)
{
	struct map_node *node = map_first(&h->changes, id);
	struct record *first = NULL;

	for (*same = 0; node; node = map_next(node), ++*same) {
		struct record *r = map_entry(node, struct record, node);
		if (may_bring(h, from, r) && (!first || r->number < first->number))
			first = r;
	}
	return first;
}

static struct key *find_key(const struct handover *h, uint64_t hash)
{
	struct map_node *node = map_first(&h->keys, hash);

	return node ? map_entry(node, struct key, node) : NULL;
}

/* ---- records ---- */

/* For a change, its key, and text to keep. */
static bool has_room(const struct handover *h, size_t text_bytes)
{
	return h->n + 2 <= h->limits.records && h->text_bytes + text_bytes <= h->limits.text_bytes;
}

static struct key *make_key(struct handover *h, uint64_t hash)
{
	struct key *key = find_key(h, hash);

	if (key)
		return key;
	key = mem_zalloc(sizeof(*key));
	TAILQ_INIT(&key->told);
	TAILQ_INIT(&key->pending);
	map_add(&h->keys, &key->node, hash);
	h->n++;
	return key;
}

static void end_pending(struct handover *h, struct record *r)
{
	TAILQ_REMOVE(&h->pending, r, of_all);
	TAILQ_REMOVE(&r->key->pending, r, of_key);
	h->text_bytes -= r->change.text.n;
	free(r->text);
	r->text = NULL;
	r->change.text = (struct span){0};
}

static void free_record(struct handover *h, struct record *r)
{
	if (r->text)
		end_pending(h, r);
	else
		TAILQ_REMOVE(&r->key->told, r, of_key);
	map_remove(&h->changes, &r->node);
	free(r);
	h->n--;
}

/* These connections bring none of the key's told changes up to r any more. Frees the records that
 * no connection is to bring any more. */
static void pass(struct handover *h, unsigned who, struct record *r)
{
	struct record *earlier;

	for (; r && (who & ~r->brought); r = earlier) {
		earlier = TAILQ_PREV(r, records, of_key);
		r->brought |= who;
		if (!(h->awaited & ~r->brought))
			free_record(h, r);
	}
}

/* For a change that was told, or is about to be. May free r. */
static void add_told(struct handover *h, struct record *r)
{
	unsigned who = r->brought;

	TAILQ_INSERT_TAIL(&r->key->told, r, of_key);
	r->brought = 0;
	pass(h, who, r);
}

static void add_pending(struct handover *h, struct record *r)
{
	r->text = mem_strndup(r->change.text.p, r->change.text.n);
	r->change.text.p = r->text;
	h->text_bytes += r->change.text.n;
	TAILQ_INSERT_TAIL(&h->pending, r, of_all);
	TAILQ_INSERT_TAIL(&r->key->pending, r, of_key);
	if (r->brought & NEXT) /* all told ones are earlier */
		pass(h, NEXT, TAILQ_LAST(&r->key->told, records));
}

/* Needs room. */
static void make_record(struct handover *h, enum handover_from from,
			const struct notification *change, uint64_t id, bool told)
{
	struct record *r = mem_zalloc(sizeof(*r));

	*r = (struct record){.key = make_key(h, change->key_hash),
			     .brought = bit(from),
			     .number = h->made++,
			     .change = *change};
	r->key->spoken |= bit(from);
	map_add(&h->changes, &r->node, id);
	h->n++;
	if (told)
		add_told(h, r);
	else
		add_pending(h, r);
}

/* ---- telling ---- */

static void tell(struct handover *h, const struct record *r,
		 void (*to)(void *, const struct wire_frame *, const struct notification *))
{
	struct wire_frame frame;

	wire_parse(r->change.text, &frame);
	to(h->owner, &frame, &r->change);
}

/* May free r. */
static void deliver(struct handover *h, struct record *r)
{
	tell(h, r, h->ops->change);
	end_pending(h, r);
	add_told(h, r);
}

/* Held changes of the key that came before r, if it was held, are told first: behind it they would
 * be late. */
static void deliver_up_to(struct handover *h, struct record *r)
{
	struct record *first = r->brought & NEXT ? TAILQ_FIRST(&r->key->pending) : r, *next;

	for (; first != r; first = next) {
		next = TAILQ_NEXT(first, of_key);
		if (first->brought & NEXT)
			deliver(h, first);
	}
	deliver(h, r);
}

/* Those that were there at the last handover_expire(), or all. */
static void lose_stragglers(struct handover *h, bool all)
{
	struct record *r, *next;

	for (r = TAILQ_FIRST(&h->pending); r; r = next) {
		next = TAILQ_NEXT(r, of_all);
		if (r->brought & NEXT)
			continue;
		if (r->old || all) {
			tell(h, r, h->ops->straggler);
			free_record(h, r);
		} else {
			r->old = true;
		}
	}
}

/* ---- notifications ---- */

/* Are changes of the key that this connection brings first told at once? */
static bool leads(enum handover_from from, const struct key *key)
{
	return from == HANDOVER_MAIN || (from == HANDOVER_FORMER && !(key && key->spoken & MAIN));
}

/* Another connection has brought this change before. */
static void bring_again(struct handover *h, enum handover_from from, struct record *r)
{
	bool leading = leads(from, r->key);

	h->doubles++;
	r->key->spoken |= bit(from);
	if (!r->text) {
		pass(h, bit(from), r);
		return;
	}
	r->brought |= bit(from);
	if (leading)
		deliver_up_to(h, r);
}

/* The record is full. Gives up the next connection; if there is none, or that is not enough, the
 * comparison with the former one ends. */
static bool make_room(struct handover *h)
{
	bool fits = !(h->awaited & NEXT);

	handover_abort(h);
	if (h->awaited && !has_room(h, 0)) {
		h->ops->straggler(h->owner, NULL, NULL);
		handover_forget(h);
	}
	return fits;
}

/* No connection has brought this change before. It is told at once, held, or a straggler. */
static bool bring_first(struct handover *h, enum handover_from from, const struct wire_frame *frame,
			const struct notification *change, uint64_t id, bool crowded)
{
	bool fits = true;

	if (leads(from, find_key(h, change->key_hash))) {
		fits = has_room(h, 0) || make_room(h);
		h->ops->change(h->owner, frame, change);
		if (!crowded && (h->awaited & ~bit(from)))
			make_record(h, from, change, id, true);
	} else if (!crowded && has_room(h, change->text.n)) {
		make_record(h, from, change, id, false);
	} else if (from == HANDOVER_NEXT) {
		fits = make_room(h);
	} else {
		h->ops->straggler(h->owner, frame, change);
	}
	return fits;
}

bool handover_brings(struct handover *h, enum handover_from from, const struct wire_frame *frame)
{
	struct notification change = notification_of(frame, h->seed);
	unsigned same;

	if (from != HANDOVER_MAIN && !(h->awaited & bit(from)))
		return true;
	if (!h->awaited) {
		h->ops->change(h->owner, frame, &change);
		return true;
	}
	uint64_t id = identity(h, &change);
	struct record *r = find(h, from, id, &same);
	if (!r)
		return bring_first(h, from, frame, &change, id, same >= SAME_MAX);
	bring_again(h, from, r);
	return true;
}

/* ---- connections ---- */

void handover_init(struct handover *h, uint64_t seed, const struct handover_ops *ops, void *owner)
{
	*h = (struct handover){.ops = ops, .owner = owner, .seed = seed};
	TAILQ_INIT(&h->pending);
}

void handover_limit(struct handover *h, const struct handover_limits *limits)
{
	h->limits = *limits;
}

/* The key has no records, and its spoken bits do not matter. */
static bool is_idle(const struct handover *h, const struct key *key)
{
	unsigned matters = (h->awaited & NEXT) | (h->awaited & FORMER ? MAIN : 0);

	return TAILQ_EMPTY(&key->told) && TAILQ_EMPTY(&key->pending) && !(key->spoken & matters);
}

/* These connections are compared from now on, and this one is not. moved: each connection has
 * taken the place of the one before it since the bits were set. */
static void compare(struct handover *h, unsigned awaited, unsigned gone, bool moved)
{
	struct map_walk of_changes = {0}, of_keys = {0};
	struct map_node *node;

	h->awaited = awaited;
	while ((node = map_walk(&h->changes, &of_changes))) {
		struct record *r = map_entry(node, struct record, node);
		r->brought = (r->brought & ~gone) >> moved;
		if (!r->text && !(awaited & ~r->brought))
			free_record(h, r);
	}
	while ((node = map_walk(&h->keys, &of_keys))) {
		struct key *key = map_entry(node, struct key, node);
		key->spoken = (key->spoken & ~gone) >> moved;
		if (is_idle(h, key)) {
			map_remove(&h->keys, &key->node);
			free(key);
			h->n--;
		}
	}
}

void handover_begin(struct handover *h)
{
	h->awaited |= NEXT;
}

/* Held changes are dropped: the main connection will bring them. */
void handover_abort(struct handover *h)
{
	struct record *r, *next;

	for (r = TAILQ_FIRST(&h->pending); r; r = next) {
		next = TAILQ_NEXT(r, of_all);
		if (r->brought == NEXT)
			free_record(h, r);
	}
	compare(h, h->awaited & (FORMER | MAIN), NEXT, false);
}

void handover_move(struct handover *h)
{
	struct record *r, *next;

	if (!(h->awaited & NEXT)) {
		handover_forget(h);
		return;
	}
	compare(h, MAIN | FORMER, 0, true);
	for (r = TAILQ_FIRST(&h->pending); r; r = next) {
		next = TAILQ_NEXT(r, of_all);
		if (r->brought & MAIN)
			deliver(h, r);
	}
}

void handover_former_gone(struct handover *h)
{
	compare(h, h->awaited & (MAIN | NEXT), 0, false);
}

void handover_expire(struct handover *h)
{
	lose_stragglers(h, false);
}

void handover_forget(struct handover *h)
{
	lose_stragglers(h, true);
	compare(h, h->awaited & NEXT, FORMER, false);
}

void handover_fini(struct handover *h)
{
	while (!TAILQ_EMPTY(&h->pending))
		free_record(h, TAILQ_FIRST(&h->pending));
	compare(h, 0, 0, false);
}
