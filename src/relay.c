#include "relay.h"

void relay_init(struct relay *r, uint64_t seed, const struct relay_ops *ops, void *owner)
{
	*r = (struct relay){.ops = ops, .owner = owner, .seed = seed};
}

void relay_limit(struct relay *r, const struct handover_limits *limits)
{
	r->limits = *limits;
}

void relay_fini(struct relay *r)
{
	relay_abort(r);
	relay_forget(r);
}

/* ---- what is new to the clients ---- */

static void hand_up(struct relay *r, const struct change *change)
{
	struct wire_frame again;
	const struct wire_frame *frame = r->current;

	if (!frame || frame->text.p != change->text.p) { /* it was held */
		wire_parse(change->text, &again);
		frame = &again;
	}
	r->ops->change(r->owner, frame, change);
}

/* What the present lane brings, as far as the next one is concerned. */
static void believe(struct relay *r, const struct change *change)
{
	int error = 0;

	if (!r->next)
		hand_up(r, change);
	else if (r->early && r->current->text.p == change->text.p)
		error = handover_old_will_bring(r->next, change);
	else
		error = handover_old_brings(r->next, change);
	if (error)
		r->overflown = true;
}

/* Both comparisons deliver here: r->former to the next one, r->next to the clients. */
static void on_delivered(void *owner, const struct change *change)
{
	struct relay *r = owner;
	bool from_former = r->from_former;

	r->from_former = false;
	if (from_former)
		believe(r, change);
	else
		hand_up(r, change);
	r->from_former = from_former;
}

static const struct handover_ops handover_ops = {.deliver = on_delivered};

/* ---- lanes come and go ---- */

void relay_begin(struct relay *r)
{
	relay_abort(r);
	r->next = handover_new(&r->limits, &r->learned, &handover_ops, r);
}

void relay_abort(struct relay *r)
{
	if (r->next)
		handover_free(r->next);
	r->next = NULL;
	r->overflown = false;
}

bool relay_aligned(const struct relay *r)
{
	return !r->next || handover_aligned(r->next);
}

void relay_former_gone(struct relay *r)
{
	if (!r->former || !r->former_stays)
		return;
	r->former_stays = false;
	r->from_former = true;
	handover_old_gone(r->former);
	r->from_former = false;
	r->ops->let_go(r->owner);
}

void relay_forget(struct relay *r)
{
	relay_former_gone(r);
	if (r->former)
		handover_free(r->former);
	r->former = NULL;
}

bool relay_overflows(const struct relay *r)
{
	return r->overflown;
}

size_t relay_move(struct relay *r, bool waited)
{
	relay_forget(r);
	r->former = r->next;
	r->next = NULL;
	r->overflown = false; /* by what the former one was waited for with: there is no next now */
	if (!r->former)
		return 0;
	handover_move(r->former, waited);
	handover_old_stays(r->former);
	r->former_stays = true;
	return handover_dropped(r->former);
}

/* ---- what they bring ---- */

/* A comparison with the former lane that is full is of no more use; all went through it. */
static void pass_former(struct relay *r, int (*brings)(struct handover *, const struct change *),
			const struct change *change)
{
	r->from_former = true;
	int error = brings(r->former, change);
	r->from_former = false;
	if (error)
		relay_forget(r);
}

static int covered_brings(struct handover *h, const struct change *change)
{
	return handover_new_brings(h, change, true);
}

static int other_brings(struct handover *h, const struct change *change)
{
	return handover_new_brings(h, change, false);
}

bool relay_present(struct relay *r, const struct wire_frame *frame)
{
	struct change change = change_of(frame, r->seed);

	r->current = frame;
	if (!r->former)
		believe(r, &change);
	else if (r->former_stays && r->ops->covers(r->owner, frame, &change, true))
		pass_former(r, covered_brings, &change);
	else
		pass_former(r, other_brings, &change);
	r->current = NULL;
	return !r->overflown;
}

bool relay_next(struct relay *r, const struct wire_frame *frame)
{
	struct change change = change_of(frame, r->seed);

	if (!r->next)
		return true;
	r->current = frame;
	bool covered = r->ops->covers(r->owner, frame, &change, false);
	if (handover_new_brings(r->next, &change, covered) < 0)
		r->overflown = true;
	r->current = NULL;
	return !r->overflown;
}

bool relay_former(struct relay *r, const struct wire_frame *frame)
{
	struct change change = change_of(frame, r->seed);

	if (!r->former)
		return true;
	r->current = frame;
	r->early = true;
	pass_former(r, handover_old_brings, &change);
	r->early = false;
	r->current = NULL;
	r->ops->let_go(r->owner);
	return !r->overflown;
}

bool relay_holds(const struct relay *r, uint64_t key_hash)
{
	return r->former && handover_holds(r->former, key_hash);
}
