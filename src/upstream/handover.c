#include "upstream/handover.h"

#include <stdlib.h>
#include <string.h>

#include "codec/json.h"
#include "base/mem.h"

enum {
	SAME_MAX = 64,       /* records of the same key, value and timestamp */
	STRAGGLER_STEPS = 2, /* calls of handover_expire() that one may see, and stay */
	TOLD_STEPS = 13,
	FORMER = 1 << HANDOVER_FORMER,
	MAIN = 1 << HANDOVER_MAIN,
	NEXT = 1 << HANDOVER_NEXT,
};

struct record {
	struct map_node node;       /* handover::changes, by identity() */
	TAILQ_ENTRY(record) of_all; /* handover::told, or ::pending */
	unsigned brought;           /* bit() of each connection that has brought it */
	unsigned age; /* calls of handover_expire() since it is told, or a straggler */
	struct notification change; /* its text is the one below */
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

/* Such a record; NULL: none. *same: how many others have this id. */
static struct record *find(const struct handover *h, enum handover_from from, uint64_t id,
			   unsigned *same)
{
	struct map_node *node = map_first(&h->changes, id);

	for (*same = 0; node; node = map_next(node), ++*same) {
		struct record *r = map_entry(node, struct record, node);
		if (may_bring(h, from, r))
			return r;
	}
	return NULL;
}

/* Has this connection brought any change of the key? If not, the answer may be wrong. */
static bool has_spoken(const struct handover *h, enum handover_from from, uint64_t key_hash)
{
	size_t place = key_hash % HANDOVER_SPOKEN_BITS;

	return h->spoken[from][place / 8] >> (place % 8) & 1;
}

static void note_spoken(struct handover *h, enum handover_from from, uint64_t key_hash)
{
	size_t place = key_hash % HANDOVER_SPOKEN_BITS;

	h->spoken[from][place / 8] |= (uint8_t)(1U << (place % 8));
}

/* ---- records ---- */

static bool has_room(const struct handover *h, size_t text_bytes)
{
	return h->bytes + HANDOVER_RECORD_BYTES + text_bytes <= h->max_bytes;
}

static void end_pending(struct handover *h, struct record *r)
{
	TAILQ_REMOVE(&h->pending, r, of_all);
	h->bytes -= r->change.text.n;
	free(r->text);
	r->text = NULL;
	r->change.text = (struct span){0};
}

static void free_record(struct handover *h, struct record *r)
{
	if (r->text)
		end_pending(h, r);
	else
		TAILQ_REMOVE(&h->told, r, of_all);
	map_remove(&h->changes, &r->node);
	h->bytes -= HANDOVER_RECORD_BYTES;
	free(r);
}

/* Frees a record of a told change that no connection is to bring any more. */
static void check_told(struct handover *h, struct record *r)
{
	if (!(h->awaited & ~r->brought))
		free_record(h, r);
}

/* For a change that was told. May free r. */
static void add_told(struct handover *h, struct record *r)
{
	r->age = 0;
	TAILQ_INSERT_TAIL(&h->told, r, of_all);
	check_told(h, r);
}

static void add_pending(struct handover *h, struct record *r)
{
	r->text = mem_strndup(r->change.text.p, r->change.text.n);
	r->change.text.p = r->text;
	h->bytes += r->change.text.n;
	TAILQ_INSERT_TAIL(&h->pending, r, of_all);
}

/* Needs room. */
static void make_record(struct handover *h, enum handover_from from,
			const struct notification *change, uint64_t id, bool told)
{
	struct record *r = mem_zalloc(sizeof(*r));

	r->brought = bit(from);
	r->change = *change;
	map_add(&h->changes, &r->node, id);
	h->bytes += HANDOVER_RECORD_BYTES;
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
	struct record *first = r->brought & NEXT ? TAILQ_FIRST(&h->pending) : r, *next;

	for (; first != r; first = next) {
		next = TAILQ_NEXT(first, of_all);
		if (first->brought & NEXT && first->change.key_hash == r->change.key_hash)
			deliver(h, first);
	}
	deliver(h, r);
}

/* Those of at least this age. */
static void lose_stragglers(struct handover *h, unsigned age)
{
	struct record *r, *next;

	for (r = TAILQ_FIRST(&h->pending); r; r = next) {
		next = TAILQ_NEXT(r, of_all);
		if (r->brought & NEXT || r->age < age)
			continue;
		tell(h, r, h->ops->straggler);
		free_record(h, r);
	}
}

/* ---- notifications ---- */

/* Are changes of the key that this connection brings first told at once? */
static bool leads(const struct handover *h, enum handover_from from, uint64_t key_hash)
{
	return from == HANDOVER_MAIN ||
	       (from == HANDOVER_FORMER && !has_spoken(h, HANDOVER_MAIN, key_hash));
}

/* Another connection has brought this change before. */
static void bring_again(struct handover *h, enum handover_from from, struct record *r)
{
	h->doubles++;
	r->brought |= bit(from);
	if (!r->text)
		check_told(h, r);
	else if (leads(h, from, r->change.key_hash))
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

	if (leads(h, from, change->key_hash)) {
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
	bool fits = true;
	if (r)
		bring_again(h, from, r);
	else
		fits = bring_first(h, from, frame, &change, id, same >= SAME_MAX);
	note_spoken(h, from, change.key_hash);
	return fits;
}

/* ---- connections ---- */

void handover_init(struct handover *h, uint64_t seed, const struct handover_ops *ops, void *owner)
{
	*h = (struct handover){.ops = ops, .owner = owner, .seed = seed};
	TAILQ_INIT(&h->told);
	TAILQ_INIT(&h->pending);
}

void handover_limit(struct handover *h, size_t max_bytes)
{
	h->max_bytes = max_bytes;
}

/* These connections are compared from now on, and this one is not. moved: each has taken the place
 * of the one before it. */
static void compare(struct handover *h, unsigned awaited, unsigned gone, bool moved)
{
	struct record *r, *next;

	h->awaited = awaited;
	TAILQ_FOREACH (r, &h->pending, of_all)
		r->brought = (r->brought & ~gone) >> moved;
	for (r = TAILQ_FIRST(&h->told); r; r = next) {
		next = TAILQ_NEXT(r, of_all);
		r->brought = (r->brought & ~gone) >> moved;
		check_told(h, r);
	}
}

void handover_begin(struct handover *h)
{
	h->awaited |= NEXT;
	memset(h->spoken[HANDOVER_NEXT], 0, sizeof(h->spoken[0]));
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
	memmove(h->spoken[HANDOVER_FORMER], h->spoken[HANDOVER_MAIN], 2 * sizeof(h->spoken[0]));
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

bool handover_expire(struct handover *h)
{
	struct record *r, *next;

	lose_stragglers(h, STRAGGLER_STEPS);
	TAILQ_FOREACH (r, &h->pending, of_all)
		r->age += !(r->brought & NEXT);
	for (r = TAILQ_FIRST(&h->told); r; r = next) {
		next = TAILQ_NEXT(r, of_all);
		if (++r->age == TOLD_STEPS)
			free_record(h, r);
	}
	if (!h->changes.n && !(h->awaited & FORMER))
		h->awaited &= NEXT;
	return h->awaited & MAIN;
}

void handover_forget(struct handover *h)
{
	lose_stragglers(h, 0);
	compare(h, h->awaited & NEXT, FORMER, false);
}

void handover_fini(struct handover *h)
{
	while (!TAILQ_EMPTY(&h->pending))
		free_record(h, TAILQ_FIRST(&h->pending));
	compare(h, 0, 0, false);
}
