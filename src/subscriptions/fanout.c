#include "subscriptions/fanout.h"

#include <stdlib.h>

#include "subscriptions/conflation.h"
#include "base/mem.h"
#include "subscriptions/events.h"

struct fanout {
	size_t output_soft;
	const struct fanout_ops *ops;
	void *owner;
	struct stats *stats;
	LIST_HEAD(, peer) audience;
	uint64_t changes; /* counts changes; see fanout_peer::change */
};

struct fanout *fanout_new(size_t output_soft, const struct fanout_ops *ops, void *owner,
			  struct stats *stats)
{
	struct fanout *f = mem_zalloc(sizeof(*f));

	*f = (struct fanout){
		.output_soft = output_soft, .ops = ops, .owner = owner, .stats = stats};
	LIST_INIT(&f->audience);
	return f;
}

void fanout_set(struct fanout *f, size_t output_soft)
{
	f->output_soft = output_soft;
}

void fanout_free(struct fanout *f)
{
	free(f);
}

/* ---- the audience ---- */

void fanout_join(struct peer *peer)
{
	peer->fanout = (struct fanout_peer){.conflation = NULL};
}

static void drop_conflated(struct peer *peer)
{
	if (peer->fanout.conflation)
		conflation_free(peer->fanout.conflation);
	peer->fanout.conflation = NULL;
}

static bool is_in_audience(const struct peer *peer)
{
	return peer->fanout.of_audience.le_prev != NULL;
}

static void leave_audience(struct peer *peer)
{
	LIST_REMOVE(peer, fanout.of_audience);
	peer->fanout.of_audience.le_prev = NULL;
}

void fanout_update_audience(struct fanout *f, struct peer *peer)
{
	bool listens = peer->topics.n > 0;

	if (listens == is_in_audience(peer))
		return;
	if (listens)
		LIST_INSERT_HEAD(&f->audience, peer, fanout.of_audience);
	else
		leave_audience(peer);
}

void fanout_leave(struct peer *peer)
{
	if (is_in_audience(peer))
		leave_audience(peer);
	drop_conflated(peer);
}

/* ---- one line to one client ---- */

static void conflate(struct fanout *f, struct peer *peer, struct shared_line *shared)
{
	if (!peer->fanout.conflation)
		peer->fanout.conflation = conflation_new();
	f->stats->notifications_conflated += conflation_put(peer->fanout.conflation, shared);
}

/* Is its unread output too much, even after a flush? Kept answers do not count: the client could
 * not have read them. */
static bool is_slow(struct fanout *f, struct peer *peer)
{
	if (outq_len(&peer->out) < f->output_soft)
		return false;
	f->ops->flush(f->owner, peer);
	return outq_len(&peer->out) >= f->output_soft;
}

void fanout_push(struct fanout *f, struct peer *peer, struct shared_line *shared)
{
	if (peer->silent)
		return;
	if (peer->fanout.conflation || is_slow(f, peer)) {
		conflate(f, peer, shared);
	} else {
		outq_push(&peer->out, shared);
		f->stats->lines_out++;
	}
	f->ops->changed(f->owner, peer);
}

static void push_conflated(struct fanout *f, struct peer *peer, struct shared_line *shared,
			   uint64_t skipped)
{
	f->stats->lines_out++;
	if (skipped)
		events_add_skipped(&peer->out.own, shared_line_span(shared), skipped);
	else
		outq_push(&peer->out, shared);
}

void fanout_catch_up(struct fanout *f, struct peer *peer)
{
	struct shared_line *shared;
	uint64_t skipped;

	while (peer->fanout.conflation && outq_len(&peer->out) < f->output_soft) {
		if (!conflation_take(peer->fanout.conflation, &shared, &skipped)) {
			drop_conflated(peer);
			return;
		}
		push_conflated(f, peer, shared, skipped);
		shared_line_unref(shared);
	}
}

/* ---- subscriptions that have ended ---- */

struct search {
	const struct topics *topics;
	const struct peer *peer;
	bool found;
};

static void look_at(void *owner, struct topic *t)
{
	struct search *search = owner;

	search->found |= topics_find_sub(search->topics, search->peer, t) != NULL;
}

/* A line of our own about a key or a pattern is only for the subscribers of exactly that. */
static bool still_listens(void *owner, const struct shared_line *shared)
{
	struct search *search = owner;
	enum topic_kind kind = shared->pattern ? TOPIC_PATTERN : TOPIC_KEY;
	struct topic *t = topics_find_topic(search->topics, kind, shared->key, shared->key_hash);

	search->found = t && topics_find_sub(search->topics, search->peer, t);
	if (!search->found && !shared->own)
		topics_match_patterns(search->topics, shared->key, look_at, search);
	return search->found;
}

void fanout_drop_unwanted(const struct topics *topics, struct peer *peer)
{
	struct search search = {topics, peer, false};

	if (!peer->fanout.conflation)
		return;
	if (!peer->topics.n) {
		drop_conflated(peer);
		return;
	}
	conflation_keep(peer->fanout.conflation, still_listens, &search);
}

/* ---- one line to many ---- */

static struct shared_line *line_about(struct span line, struct span about)
{
	struct shared_line *shared = shared_line_new(line.n, about);

	memcpy(shared->text, line.p, line.n);
	return shared;
}

void fanout_push_topic(struct fanout *f, const struct topic *t, struct span line)
{
	struct shared_line *shared = line_about(line, topic_text(t));

	shared->own = true;
	shared->pattern = t->kind == TOPIC_PATTERN;
	shared->key_hash = t->by_text.hash;
	for (uint32_t i = 0; i < t->n; i++)
		fanout_push(f, t->receivers[i].peer, shared);
	shared_line_unref(shared);
}

void fanout_push_all(struct fanout *f, struct span line)
{
	struct shared_line *shared = line_about(line, (struct span){0});
	struct peer *peer;

	LIST_FOREACH (peer, &f->audience, fanout.of_audience)
		fanout_push(f, peer, shared);
	shared_line_unref(shared);
}

/* ---- changes ---- */

struct delivery {
	struct fanout *fanout;
	const struct wire_frame *frame;
	const struct notification *change;
	struct span key;
	struct shared_line *shared; /* made when the first receiver is found */
	bool wanted;                /* there is a receiver, perhaps a silent one */
};

static struct shared_line *line_of_change(struct delivery *d)
{
	if (d->shared)
		return d->shared;
	/* events_change_max() is an upper bound. */
	d->shared = shared_line_new(events_change_max(d->frame), d->key);
	d->shared->n = (uint32_t)events_write_change(d->frame, d->shared->text);
	d->shared->key_hash = d->change->key_hash;
	d->shared->value_hash = d->change->value_hash;
	return d->shared;
}

static void deliver(void *owner, struct topic *t)
{
	struct delivery *d = owner;
	struct fanout *f = d->fanout;

	for (uint32_t i = 0; i < t->n; i++) {
		struct peer *peer = t->receivers[i].peer;
		if (peer->fanout.change == f->changes)
			continue;
		peer->fanout.change = f->changes;
		d->wanted = true;
		if (peer->silent)
			continue;
		if (t->reading &&
		    f->ops->hold_back(f->owner, t->receivers[i].sub, line_of_change(d)))
			continue;
		fanout_push(f, peer, line_of_change(d));
	}
}

/* A topic that the present token does not cover has a gap. A change of it, from a former
 * connection, may be older than values that were read since. */
static void deliver_pattern(void *owner, struct topic *t)
{
	if (topic_is_covered(t))
		deliver(owner, t);
}

static void find_covered(void *owner, struct topic *t)
{
	*(bool *)owner |= topic_is_covered(t);
}

void fanout_change(struct fanout *f, struct topics *topics, const struct wire_frame *frame,
		   const struct notification *change, struct span key)
{
	struct delivery d = {
		.fanout = f, .frame = frame, .change = change, .key = key, .shared = NULL};
	struct topic *t = topics_find_topic(topics, TOPIC_KEY, key, change->key_hash);
	bool covered = !t || !t->n || topic_is_covered(t);

	f->changes++;
	if (!covered)
		topics_match_patterns(topics, key, find_covered, &covered);
	/* Subscribers of the key come first: a change that is held back from them must not reach
	 * them through a pattern. */
	if (t && t->n && covered) {
		deliver(&d, t);
		t->changes++;
		t->last_value = change->value_hash;
	}
	topics_match_patterns(topics, key, deliver_pattern, &d);
	if (d.shared)
		shared_line_unref(d.shared);
	f->stats->notifications_unwanted += !d.wanted;
}
