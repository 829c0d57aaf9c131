#include "upstream/handover.h"

#include <stdlib.h>
#include <string.h>

#include "codec/json.h"
#include "base/mem.h"

enum { SAME_MAX = 64 }; /* records of the same key, value and timestamp */

struct key {
	struct map_node node;                   /* handover::keys */
	struct records records[RECORD_STATE_N]; /* as in struct handover */
	unsigned spoken; /* bit() of each connection that has brought any change of it */
};

struct record {
	struct map_node node;       /* handover::changes, by identity() */
	TAILQ_ENTRY(record) of_all; /* handover::records */
	TAILQ_ENTRY(record) of_key; /* key::records */
	struct key *key;
	enum record_state state;
	unsigned brought; /* bit() of each connection that has brought it, or a later change of the
			     key */
	uint64_t number;  /* in order of arrival */
	bool old;         /* a straggler that was there at the last handover_expire() */
	struct notification change; /* with its text, unless delivered */
	char *text;                 /* of the change, owned; NULL: none */
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
	bool known = r->change.timestamp || r->state != RECORD_DELIVERED;

	return !(r->brought & bit(from)) && (known || from != HANDOVER_MAIN || !h->former);
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
	for (int i = 0; i < RECORD_STATE_N; i++)
		TAILQ_INIT(&key->records[i]);
	map_add(&h->keys, &key->node, hash);
	h->n++;
	return key;
}

static void leave_state(struct handover *h, struct record *r)
{
	TAILQ_REMOVE(&h->records[r->state], r, of_all);
	TAILQ_REMOVE(&r->key->records[r->state], r, of_key);
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

static bool has_former(const struct handover *h)
{
	return h->former && !h->former_gone;
}

/* bit() of each connection that may bring again what another has brought. */
static unsigned awaited(const struct handover *h)
{
	return (h->next ? bit(HANDOVER_NEXT) : 0) | (h->former ? bit(HANDOVER_MAIN) : 0) |
	       (has_former(h) ? bit(HANDOVER_FORMER) : 0);
}

/* These connections bring none of the key's delivered changes up to r any more. Frees the records
 * that no connection is to bring any more. */
static void pass(struct handover *h, unsigned who, struct record *r)
{
	struct record *earlier;

	for (; r && (who & ~r->brought); r = earlier) {
		earlier = TAILQ_PREV(r, records, of_key);
		r->brought |= who;
		if (!(awaited(h) & ~r->brought))
			free_record(h, r);
	}
}

static void enter_state(struct handover *h, struct record *r, enum record_state state)
{
	r->state = state;
	TAILQ_INSERT_TAIL(&h->records[state], r, of_all);
	TAILQ_INSERT_TAIL(&r->key->records[state], r, of_key);
}

/* For a change that was told, or is about to be. May free r. */
static void enter_delivered(struct handover *h, struct record *r)
{
	unsigned who = r->brought;

	enter_state(h, r, RECORD_DELIVERED);
	r->brought = 0;
	pass(h, who, r);
}

/* Needs room. */
static void make_record(struct handover *h, enum handover_from from,
			const struct notification *change, uint64_t id, enum record_state state)
{
	struct record *r = mem_zalloc(sizeof(*r));
	struct key *key = make_key(h, change->key_hash);

	*r = (struct record){
		.key = key, .brought = bit(from), .number = h->made++, .change = *change};
	r->change.text = (struct span){0};
	key->spoken |= bit(from);
	map_add(&h->changes, &r->node, id);
	h->n++;
	if (state == RECORD_DELIVERED) {
		enter_delivered(h, r);
		return;
	}
	r->text = mem_strndup(change->text.p, change->text.n);
	r->change.text = (struct span){r->text, change->text.n};
	h->text_bytes += change->text.n;
	enter_state(h, r, state);
	if (state == RECORD_HELD) /* all delivered ones are earlier */
		pass(h, bit(from), TAILQ_LAST(&key->records[RECORD_DELIVERED], records));
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
	leave_state(h, r);
	drop_text(h, r);
	enter_delivered(h, r);
}

static void lose(struct handover *h, struct record *straggler)
{
	tell(h, straggler, h->ops->straggler);
	free_record(h, straggler);
}

/* Held changes of the key that came before r are told first: behind it they would be late. */
static void deliver_up_to(struct handover *h, struct record *r)
{
	struct records *held = &r->key->records[RECORD_HELD];
	struct record *first;

	while (r->state == RECORD_HELD && (first = TAILQ_FIRST(held)) != r)
		deliver(h, first);
	deliver(h, r);
}

/* ---- notifications ---- */

/* Are changes of the key that this connection brings first told at once? */
static bool leads(enum handover_from from, const struct key *key)
{
	return from == HANDOVER_MAIN ||
	       (from == HANDOVER_FORMER && !(key && key->spoken & bit(HANDOVER_MAIN)));
}

/* Another connection has brought this change before. */
static void bring_again(struct handover *h, enum handover_from from, struct record *r)
{
	bool leading = leads(from, r->key);

	h->doubles++;
	r->key->spoken |= bit(from);
	if (r->state == RECORD_DELIVERED) {
		pass(h, bit(from), r);
		return;
	}
	r->brought |= bit(from);
	if (leading) {
		deliver_up_to(h, r);
	} else if (r->state == RECORD_STRAGGLER && from == HANDOVER_NEXT) {
		leave_state(h, r);
		enter_state(h, r, RECORD_HELD);
	}
}

/* The record is full. Gives up the next connection; if there is none, or that is not enough, the
 * comparison with the former one ends. */
static bool make_room(struct handover *h)
{
	bool fits = !h->next;

	handover_abort(h);
	if (h->former && !has_room(h, 0)) {
		h->ops->straggler(h->owner, NULL, NULL);
		handover_forget(h);
	}
	return fits;
}

/* Told at once, and recorded if another connection may bring it, too. */
static bool bring_now(struct handover *h, enum handover_from from, const struct wire_frame *frame,
		      const struct notification *change, uint64_t id, bool crowded)
{
	bool fits = has_room(h, 0) || make_room(h);

	h->ops->change(h->owner, frame, change);
	if (!crowded && (awaited(h) & ~bit(from)))
		make_record(h, from, change, id, RECORD_DELIVERED);
	return fits;
}

/* No connection has brought this change before. */
static bool bring_first(struct handover *h, enum handover_from from, const struct wire_frame *frame,
			const struct notification *change, uint64_t id, bool crowded)
{
	bool room = !crowded && has_room(h, change->text.n);

	if (from != HANDOVER_NEXT && leads(from, find_key(h, change->key_hash)))
		return bring_now(h, from, frame, change, id, crowded);
	if (room)
		make_record(h, from, change, id,
			    from == HANDOVER_NEXT ? RECORD_HELD : RECORD_STRAGGLER);
	else if (from == HANDOVER_NEXT)
		return make_room(h);
	else
		h->ops->straggler(h->owner, frame, change);
	return true;
}

bool handover_brings(struct handover *h, enum handover_from from, const struct wire_frame *frame)
{
	struct notification change = notification_of(frame, h->seed);
	unsigned same;

	if ((from == HANDOVER_NEXT && !h->next) || (from == HANDOVER_FORMER && !has_former(h)))
		return true;
	if (!h->next && !h->former) {
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
	for (int i = 0; i < RECORD_STATE_N; i++)
		TAILQ_INIT(&h->records[i]);
}

void handover_limit(struct handover *h, const struct handover_limits *limits)
{
	h->limits = *limits;
}

/* The key has no records, and its spoken bits do not matter. */
static bool is_idle(const struct handover *h, const struct key *key)
{
	unsigned matters =
		(h->next ? bit(HANDOVER_NEXT) : 0) | (has_former(h) ? bit(HANDOVER_MAIN) : 0);

	for (int i = 0; i < RECORD_STATE_N; i++) {
		if (!TAILQ_EMPTY(&key->records[i]))
			return false;
	}
	return !(key->spoken & matters);
}

static void free_key(struct handover *h, struct key *key)
{
	map_remove(&h->keys, &key->node);
	free(key);
	h->n--;
}

/* The bits of who, after a move or an abort. */
static unsigned recast(const struct handover *h, unsigned who, bool moved)
{
	if (moved)
		return (who & bit(HANDOVER_NEXT) ? bit(HANDOVER_MAIN) : 0) |
		       (who & bit(HANDOVER_MAIN) ? bit(HANDOVER_FORMER) : 0);
	return h->next ? who : who & ~bit(HANDOVER_NEXT);
}

/* Other connections are compared from now on. */
static void tidy(struct handover *h, bool moved)
{
	struct map_walk of_changes = {0}, of_keys = {0};
	struct map_node *node;

	while ((node = map_walk(&h->changes, &of_changes))) {
		struct record *r = map_entry(node, struct record, node);
		r->brought = recast(h, r->brought, moved);
		if (r->state == RECORD_DELIVERED && !(awaited(h) & ~r->brought))
			free_record(h, r);
	}
	while ((node = map_walk(&h->keys, &of_keys))) {
		struct key *key = map_entry(node, struct key, node);
		key->spoken = recast(h, key->spoken, moved);
		if (is_idle(h, key))
			free_key(h, key);
	}
}

void handover_begin(struct handover *h)
{
	h->next = true;
}

/* The connection that was to make it due is gone. Perhaps the former one has brought it as well. */
static void drop_held(struct handover *h, struct record *r)
{
	if (!h->former || !(r->brought & bit(HANDOVER_FORMER))) {
		free_record(h, r);
		return;
	}
	leave_state(h, r);
	enter_state(h, r, RECORD_STRAGGLER);
}

void handover_abort(struct handover *h)
{
	struct record *r;

	while ((r = TAILQ_FIRST(&h->records[RECORD_HELD])))
		drop_held(h, r);
	h->next = false;
	tidy(h, false);
}

void handover_move(struct handover *h)
{
	struct record *r;

	if (!h->next) {
		handover_forget(h);
		return;
	}
	h->next = false;
	h->former = true;
	h->former_gone = false;
	tidy(h, true);
	while ((r = TAILQ_FIRST(&h->records[RECORD_HELD])))
		deliver(h, r);
}

void handover_former_gone(struct handover *h)
{
	h->former_gone = true;
	tidy(h, false);
}

void handover_expire(struct handover *h)
{
	struct record *r;

	while ((r = TAILQ_FIRST(&h->records[RECORD_STRAGGLER])) && r->old)
		lose(h, r);
	TAILQ_FOREACH (r, &h->records[RECORD_STRAGGLER], of_all)
		r->old = true;
}

void handover_forget(struct handover *h)
{
	struct record *r;

	while ((r = TAILQ_FIRST(&h->records[RECORD_STRAGGLER])))
		lose(h, r);
	h->former = false;
	tidy(h, false);
}

void handover_fini(struct handover *h)
{
	for (int i = 0; i < RECORD_STATE_N; i++) {
		while (!TAILQ_EMPTY(&h->records[i]))
			free_record(h, TAILQ_FIRST(&h->records[i]));
	}
	h->next = h->former = false;
	tidy(h, false);
}
