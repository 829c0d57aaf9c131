#include "fanout.h"

#include <stdlib.h>

#include "lag.h"
#include "mem.h"
#include "notice.h"

struct fanout {
	size_t output_soft;
	const struct fanout_ops *ops;
	void *owner;
	struct stats *stats;
	LIST_HEAD(, peer) audience;
	uint64_t changes; /* numbers them, for peer::change */
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
	LIST_INIT(&peer->subs);
	peer->n_subs = 0;
	peer->n_globs = 0;
	peer->in_audience = false;
	peer->change = 0;
	peer->lag = NULL;
	peer->lag_bytes = 0;
}

static void drop_lag(struct peer *peer)
{
	if (peer->lag)
		lag_free(peer->lag);
	peer->lag = NULL;
	peer->lag_bytes = 0;
}

void fanout_audience(struct fanout *f, struct peer *peer)
{
	bool listens = peer->n_subs > 0;

	if (listens == peer->in_audience)
		return;
	peer->in_audience = listens;
	if (listens)
		LIST_INSERT_HEAD(&f->audience, peer, of_audience);
	else
		LIST_REMOVE(peer, of_audience);
}

void fanout_leave(struct peer *peer)
{
	if (peer->in_audience)
		LIST_REMOVE(peer, of_audience);
	peer->in_audience = false;
	drop_lag(peer);
}

/* ---- one line to one client ---- */

static void put_aside(struct fanout *f, struct peer *peer, struct note *note)
{
	if (!peer->lag)
		peer->lag = lag_new();
	f->stats->notifications_conflated += lag_put(peer->lag, note);
	peer->lag_bytes = peer->lag->bytes;
}

/* Is there no more room for this client, even after its socket was offered what there is? Answers
 * that wait for others before them are not what it could have read. */
static bool is_slow(struct fanout *f, struct peer *peer)
{
	if (outq_len(peer->out) < f->output_soft)
		return false;
	f->ops->flush(f->owner, peer);
	return outq_len(peer->out) >= f->output_soft;
}

void fanout_push(struct fanout *f, struct peer *peer, struct note *note)
{
	if (peer->lag || is_slow(f, peer)) {
		put_aside(f, peer, note);
	} else {
		outq_push(peer->out, note);
		f->stats->lines_out++;
	}
	f->ops->changed(f->owner, peer);
}

static void push_late(struct fanout *f, struct peer *peer, struct note *note, uint64_t skipped)
{
	f->stats->lines_out++;
	if (skipped)
		notice_skipped(&peer->out->own, note_line(note), skipped);
	else
		outq_push(peer->out, note);
}

void fanout_catch_up(struct fanout *f, struct peer *peer)
{
	struct note *note;
	uint64_t skipped;

	while (peer->lag && outq_len(peer->out) < f->output_soft) {
		if (!lag_take(peer->lag, &note, &skipped)) {
			drop_lag(peer);
			return;
		}
		push_late(f, peer, note, skipped);
		note_unref(note);
		peer->lag_bytes = peer->lag->bytes;
	}
}

/* ---- what an ended subscription leaves behind ---- */

struct listener {
	const struct subs *subs;
	const struct peer *peer;
	bool found;
};

static void look_at(void *owner, struct topic *t)
{
	struct listener *l = owner;

	l->found |= subs_find(l->subs, l->peer, t) != NULL;
}

/* What we say of a key or a pattern is for who is subscribed to that very one. */
static bool still_listens(void *owner, const struct note *note)
{
	struct listener *l = owner;
	enum topic_kind kind = note->pattern ? TOPIC_PATTERN : TOPIC_KEY;
	struct topic *t = subs_find_topic(l->subs, kind, note->key, note->key_hash);

	l->found = t && subs_find(l->subs, l->peer, t);
	if (!l->found && !note->own)
		subs_match_patterns(l->subs, note->key, look_at, l);
	return l->found;
}

void fanout_forget(const struct subs *subs, struct peer *peer)
{
	struct listener listener = {subs, peer, false};

	if (!peer->lag)
		return;
	if (!peer->n_subs) {
		drop_lag(peer);
		return;
	}
	lag_keep(peer->lag, still_listens, &listener);
	peer->lag_bytes = peer->lag->bytes;
}

/* ---- one line to many ---- */

static struct note *make_note(struct span line, struct span about)
{
	struct note *note = note_new(line.n, about);

	memcpy(note->text, line.p, line.n);
	return note;
}

void fanout_topic(struct fanout *f, const struct topic *t, struct span line)
{
	struct note *note = make_note(line, topic_text(t));

	note->own = true;
	note->pattern = t->kind == TOPIC_PATTERN;
	note->key_hash = t->by_text.hash;
	for (uint32_t i = 0; i < t->n; i++)
		fanout_push(f, t->receivers[i].peer, note);
	note_unref(note);
}

void fanout_all(struct fanout *f, struct span line)
{
	struct note *note = make_note(line, (struct span){0});
	struct peer *peer;

	LIST_FOREACH (peer, &f->audience, of_audience)
		fanout_push(f, peer, note);
	note_unref(note);
}

/* ---- changes ---- */

struct delivery {
	struct fanout *fanout;
	const struct wire_frame *frame;
	const struct change *change;
	struct span key;
	struct note *note; /* made for the first receiver */
};

static struct note *note_of(struct delivery *d)
{
	if (d->note)
		return d->note;
	/* Its length is known for certain only if nothing has to be left out. */
	d->note = note_new(notice_change_max(d->frame), d->key);
	d->note->n = (uint32_t)notice_change(d->frame, d->note->text);
	d->note->key_hash = d->change->key_hash;
	d->note->value_hash = d->change->value_hash;
	return d->note;
}

static void deliver(void *owner, struct topic *t)
{
	struct delivery *d = owner;
	struct fanout *f = d->fanout;

	for (uint32_t i = 0; i < t->n; i++) {
		struct peer *peer = t->receivers[i].peer;
		if (peer->change == f->changes)
			continue;
		peer->change = f->changes;
		if (t->reading && f->ops->hold(f->owner, t->receivers[i].sub, note_of(d)))
			continue;
		fanout_push(f, peer, note_of(d));
	}
}

/* A topic that the present token does not cover has a gap. What a former connection brings of it
 * still may be older than what was read since. */
static void deliver_pattern(void *owner, struct topic *t)
{
	if (t->covered)
		deliver(owner, t);
}

static void find_covered(void *owner, struct topic *t)
{
	*(bool *)owner |= t->covered;
}

void fanout_change(struct fanout *f, struct subs *subs, const struct wire_frame *frame,
		   const struct change *change, struct span key)
{
	struct delivery d = {f, frame, change, key, NULL};
	struct topic *t = subs_find_topic(subs, TOPIC_KEY, key, change->key_hash);
	bool covered = !t || !t->n || t->covered;

	f->changes++;
	if (!covered)
		subs_match_patterns(subs, key, find_covered, &covered);
	/* The key's own subscribers first: those for whom it is held back must not get it by a
	 * pattern. */
	if (t && t->n && covered) {
		deliver(&d, t);
		t->changes++;
		t->last_value = change->value_hash;
	}
	subs_match_patterns(subs, key, deliver_pattern, &d);
	if (d.note)
		note_unref(d.note);
	else
		f->stats->notifications_unwanted++;
}
