#include "handover.h"

#include <stdlib.h>
#include <string.h>

#include "mem.h"

/* Records of one and the same change that are looked at. If a connection brings it more often than
 * that within a handover, some of these may be told twice. */
enum { LOOKS_MAX = 16 };

enum record_state {
	RECORD_DELIVERED,
	RECORD_HELD,      /* the next connection has brought it, the main one has not */
	RECORD_STRAGGLER, /* only the former connection has brought it, perhaps too late */
	RECORD_STATE_N
};

struct key {
	struct map_node node;                   /* handover::keys */
	struct records records[RECORD_STATE_N]; /* by state, in the order of entering it */
	unsigned spoken; /* 1 << enum handover_from: who has brought changes of it */
};

struct record {
	struct map_node node;           /* handover::changes */
	TAILQ_ENTRY(record) of_key;     /* key::records */
	TAILQ_ENTRY(record) of_waiting; /* handover::held or stragglers, unless delivered */
	struct key *key;
	enum record_state state;
	unsigned brought; /* 1 << enum handover_from: who has brought it, or a later one of key */
	uint64_t number;  /* in order of arrival */
	bool old;         /* a straggler that was there at the last handover_expire() */
	struct change change; /* with its text, unless delivered */
	char *text;           /* of the change, owned; or NULL */
};

static unsigned bit(enum handover_from from)
{
	return 1U << from;
}

/* ---- finding ---- */

static uint64_t identity(const struct change *change)
{
	return change->key_hash ^ change->value_hash * UINT64_C(0x9e3779b97f4a7c15) ^
	       (uint64_t)change->timestamp * UINT64_C(0xc2b2ae3d27d4eb4f);
}

static bool is_same(const struct change *one, const struct change *other)
{
	return one->key_hash == other->key_hash && one->value_hash == other->value_hash &&
	       one->timestamp == other->timestamp;
}

/* The earliest record of this change that the connection has not brought; NULL: none. */
static struct record *find(const struct handover *h, enum handover_from from,
			   const struct change *change)
{
	struct map_node *node = map_first(&h->changes, identity(change));
	struct record *first = NULL;

	for (unsigned looks = 0; node && looks < LOOKS_MAX; looks++, node = map_next(node)) {
		struct record *r = map_entry(node, struct record, node);
		if (!(r->brought & bit(from)) && is_same(&r->change, change) &&
		    (!first || r->number < first->number))
			first = r;
	}
	return first;
}

static struct key *find_key(const struct handover *h, uint64_t hash)
{
	struct map_node *node = map_first(&h->keys, hash);

	return node ? map_entry(node, struct key, node) : NULL;
}

/* ---- records come and go ---- */

static bool is_full(const struct handover *h)
{
	return h->n >= h->limits.records;
}

/* NULL: no room. */
static struct key *make_key(struct handover *h, uint64_t hash)
{
	struct key *key = find_key(h, hash);

	if (key || is_full(h))
		return key;
	key = mem_zalloc(sizeof(*key));
	for (int i = 0; i < RECORD_STATE_N; i++)
		TAILQ_INIT(&key->records[i]);
	map_add(&h->keys, &key->node, hash);
	h->n++;
	return key;
}

/* Those that wait to be delivered; NULL: it was. */
static struct records *waiting(struct handover *h, const struct record *r)
{
	if (r->state == RECORD_DELIVERED)
		return NULL;
	return r->state == RECORD_HELD ? &h->held : &h->stragglers;
}

static void enter_state(struct handover *h, struct record *r, enum record_state state)
{
	r->state = state;
	TAILQ_INSERT_TAIL(&r->key->records[state], r, of_key);
	if (waiting(h, r))
		TAILQ_INSERT_TAIL(waiting(h, r), r, of_waiting);
}

static void leave_state(struct handover *h, struct record *r)
{
	TAILQ_REMOVE(&r->key->records[r->state], r, of_key);
	if (waiting(h, r))
		TAILQ_REMOVE(waiting(h, r), r, of_waiting);
}

/* A record is born delivered, or keeps the text to be delivered later. NULL: no room. */
static struct record *make_record(struct handover *h, enum handover_from from,
				  const struct change *change, enum record_state state)
{
	size_t n = state == RECORD_DELIVERED ? 0 : change->text.n;
	struct key *key = make_key(h, change->key_hash);

	if (!key || is_full(h) || n > h->limits.text_bytes - h->text_bytes)
		return NULL;
	struct record *r = mem_zalloc(sizeof(*r));
	*r = (struct record){
		.key = key, .brought = bit(from), .number = h->made++, .change = *change};
	r->text = mem_strndup(change->text.p, n);
	r->change.text = (struct span){r->text, n};
	map_add(&h->changes, &r->node, identity(change));
	enter_state(h, r, state);
	key->spoken |= bit(from);
	h->n++;
	h->text_bytes += n;
	return r;
}

static void drop_text(struct handover *h, struct record *r)
{
	h->text_bytes -= r->change.text.n;
	r->change.text = (struct span){0};
	free(r->text);
	r->text = NULL;
}

static void free_record(struct handover *h, struct record *r)
{
	leave_state(h, r);
	drop_text(h, r);
	map_remove(&h->changes, &r->node);
	free(r);
	h->n--;
}

/* Frees a delivered record that no connection is expected to bring any more. */
static void release(struct handover *h, struct record *r)
{
	unsigned expected = (h->next ? bit(HANDOVER_NEXT) : 0) |
			    (h->former ? bit(HANDOVER_MAIN) : 0) |
			    (h->former && !h->former_gone ? bit(HANDOVER_FORMER) : 0);

	if (r->state == RECORD_DELIVERED && !(expected & ~r->brought))
		free_record(h, r);
}

static void each_record(struct handover *h, void (*visit)(struct handover *h, struct record *r))
{
	struct map_walk walk = {0};
	struct map_node *node;

	while ((node = map_walk(&h->changes, &walk)))
		visit(h, map_entry(node, struct record, node));
}

static void each_key(struct handover *h, void (*visit)(struct handover *h, struct key *key))
{
	struct map_walk walk = {0};
	struct map_node *node;

	while ((node = map_walk(&h->keys, &walk)))
		visit(h, map_entry(node, struct key, node));
}

static void free_key(struct handover *h, struct key *key)
{
	map_remove(&h->keys, &key->node);
	free(key);
	h->n--;
}

/* Fewer connections are compared than before. */
static void release_all(struct handover *h)
{
	each_record(h, release);
	if (!h->next && !h->former)
		each_key(h, free_key); /* none has a record left */
}

/* ---- telling ---- */

static void tell(struct handover *h, const struct record *r,
		 void (*to)(void *, const struct wire_frame *, const struct change *))
{
	struct wire_frame frame;

	wire_parse(r->change.text, &frame);
	to(h->owner, &frame, &r->change);
}

static void deliver(struct handover *h, struct record *r)
{
	tell(h, r, h->ops->change);
	leave_state(h, r);
	drop_text(h, r);
	enter_state(h, r, RECORD_DELIVERED);
}

static void deliver_held(struct handover *h)
{
	while (!TAILQ_EMPTY(&h->held))
		deliver(h, TAILQ_FIRST(&h->held));
}

static void lose(struct handover *h, struct record *straggler)
{
	tell(h, straggler, h->ops->straggler);
	free_record(h, straggler);
}

/* ---- what they bring ---- */

/* Is what this connection brings of the key delivered at once? The former one's is as long as the
 * main one has brought nothing of it. */
static bool leads(enum handover_from from, const struct key *key)
{
	return from == HANDOVER_MAIN ||
	       (from == HANDOVER_FORMER && !(key && key->spoken & bit(HANDOVER_MAIN)));
}

/* The connection has brought this delivered record, so it brings none any more that was delivered
 * before it. */
static void pass(struct handover *h, enum handover_from from, struct record *r)
{
	struct record *earlier;

	for (; r && !(r->brought & bit(from)); r = earlier) {
		earlier = TAILQ_PREV(r, records, of_key);
		r->brought |= bit(from);
		release(h, r);
	}
}

/* Changes that were held before this one are told first: behind it they would be late. */
static void deliver_up_to(struct handover *h, struct record *r)
{
	while (r->state == RECORD_HELD)
		deliver(h, TAILQ_FIRST(&r->key->records[RECORD_HELD]));
}

/* The main connection has brought this straggler, and brings no earlier one of the key any more. */
static void deliver_straggler(struct handover *h, struct record *r)
{
	struct record *first;

	while ((first = TAILQ_FIRST(&r->key->records[RECORD_STRAGGLER])) != r)
		lose(h, first);
	deliver(h, r);
}

/* Another connection has brought this change before. */
static void bring_again(struct handover *h, enum handover_from from, struct record *r)
{
	h->doubles++;
	if (r->state == RECORD_STRAGGLER && from == HANDOVER_NEXT) {
		leave_state(h, r);
		enter_state(h, r, RECORD_HELD);
	} else if (r->state == RECORD_STRAGGLER) {
		deliver_straggler(h, r);
	} else if (r->state == RECORD_HELD && leads(from, r->key)) {
		deliver_up_to(h, r);
	}
	r->key->spoken |= bit(from);
	if (r->state == RECORD_DELIVERED)
		pass(h, from, r);
	else
		r->brought |= bit(from);
}

/* Told at once, and recorded if another connection may bring it too. */
static bool bring_now(struct handover *h, enum handover_from from, const struct wire_frame *frame,
		      const struct change *change)
{
	bool expected = h->next || from == HANDOVER_FORMER || (h->former && !h->former_gone);

	h->ops->change(h->owner, frame, change);
	return !expected || make_record(h, from, change, RECORD_DELIVERED);
}

static bool hold(struct handover *h, const struct change *change)
{
	struct record *r = make_record(h, HANDOVER_NEXT, change, RECORD_HELD);

	if (r)
		pass(h, HANDOVER_NEXT, TAILQ_LAST(&r->key->records[RECORD_DELIVERED], records));
	return r;
}

/* The main connection may have told a later change of the key already. */
static bool bring_late(struct handover *h, const struct wire_frame *frame,
		       const struct change *change)
{
	if (leads(HANDOVER_FORMER, find_key(h, change->key_hash)))
		return bring_now(h, HANDOVER_FORMER, frame, change);
	if (!make_record(h, HANDOVER_FORMER, change, RECORD_STRAGGLER))
		h->ops->straggler(h->owner, frame, change);
	return true;
}

static bool bring_first(struct handover *h, enum handover_from from, const struct wire_frame *frame,
			const struct change *change)
{
	switch (from) {
	case HANDOVER_MAIN:
		return bring_now(h, from, frame, change);
	case HANDOVER_NEXT:
		return hold(h, change);
	case HANDOVER_FORMER:
		return bring_late(h, frame, change);
	case HANDOVER_FROM_N:
		break;
	}
	return true;
}

/* By its value alone a change can't be told from an earlier one. */
static bool is_always_new(const struct handover *h, enum handover_from from,
			  const struct change *change)
{
	return from == HANDOVER_MAIN && h->former && !change->timestamp;
}

/* The record is full. Without a next connection that could be given up, the comparison with the
 * former one ends, and what that may be late with is lost. */
static bool has_room(struct handover *h)
{
	if (h->next)
		return false;
	if (!h->former_gone)
		h->ops->straggler(h->owner, NULL, NULL);
	handover_forget(h);
	return true;
}

bool handover_brings(struct handover *h, enum handover_from from, const struct wire_frame *frame)
{
	struct change change = change_of(frame, h->seed);
	struct record *r = NULL;

	if ((from == HANDOVER_NEXT && !h->next) || (from == HANDOVER_FORMER && !h->former))
		return true;
	if (!is_always_new(h, from, &change))
		r = find(h, from, &change);
	if (r)
		bring_again(h, from, r);
	else if (!bring_first(h, from, frame, &change))
		return has_room(h);
	return true;
}

/* ---- connections come and go ---- */

void handover_init(struct handover *h, uint64_t seed, const struct handover_ops *ops, void *owner)
{
	*h = (struct handover){.ops = ops, .owner = owner, .seed = seed};
	TAILQ_INIT(&h->held);
	TAILQ_INIT(&h->stragglers);
}

void handover_limit(struct handover *h, const struct handover_limits *limits)
{
	h->limits = *limits;
}

void handover_begin(struct handover *h)
{
	h->next = true;
}

/* It was to be delivered by a connection that is gone. The former one has brought it, perhaps. */
static void drop_held(struct handover *h, struct record *r)
{
	if (h->former && (r->brought & bit(HANDOVER_FORMER))) {
		leave_state(h, r);
		enter_state(h, r, RECORD_STRAGGLER);
	} else {
		free_record(h, r);
	}
}

void handover_abort(struct handover *h)
{
	while (!TAILQ_EMPTY(&h->held))
		drop_held(h, TAILQ_FIRST(&h->held));
	h->next = false;
	release_all(h);
}

static unsigned moved(unsigned who)
{
	return (who & bit(HANDOVER_NEXT) ? bit(HANDOVER_MAIN) : 0) |
	       (who & bit(HANDOVER_MAIN) ? bit(HANDOVER_FORMER) : 0);
}

static void move_record(struct handover *h, struct record *r)
{
	r->brought = moved(r->brought);
	release(h, r);
}

static void move_key(struct handover *h, struct key *key)
{
	(void)h;
	key->spoken = moved(key->spoken);
}

void handover_move(struct handover *h)
{
	if (!h->next) {
		handover_forget(h);
		return;
	}
	deliver_held(h);
	h->next = false;
	h->former = true;
	h->former_gone = false;
	each_record(h, move_record);
	each_key(h, move_key);
}

void handover_former_gone(struct handover *h)
{
	h->former_gone = true;
	release_all(h);
}

void handover_expire(struct handover *h)
{
	struct record *r;

	while ((r = TAILQ_FIRST(&h->stragglers)) && r->old)
		lose(h, r);
	TAILQ_FOREACH (r, &h->stragglers, of_waiting)
		r->old = true;
}

void handover_forget(struct handover *h)
{
	while (!TAILQ_EMPTY(&h->stragglers))
		lose(h, TAILQ_FIRST(&h->stragglers));
	h->former = false;
	release_all(h);
}

void handover_fini(struct handover *h)
{
	h->next = h->former = false;
	each_record(h, free_record);
	release_all(h);
}
