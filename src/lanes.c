#include "lanes.h"

#include <stdlib.h>

#include "link.h"
#include "mem.h"
#include "timer.h"

enum {
	LINGER_MS = 5000, /* the former lane's notifications may be late by so much */
	LATE_STEP_MS = 5000,
	LATE_STEPS = 6, /* ... and the main one's by so many steps */
	LEFT_MAX = 16,  /* lanes that were left and wait for answers; then no other one is left */
	CLOSE_NORMAL = 1000,
};

static const struct conn_ops conn_ops;

/* ---- lanes ---- */

static struct lane *lane_new(struct lanes *s, const char *path, bool token)
{
	struct lane *l = mem_zalloc(sizeof(*l));

	*l = (struct lane){.lanes = s,
			   .place = place_take(s->places),
			   .number = ++s->last_number,
			   .token = token};
	l->conn = conn_new(&l->place->conn, path, &conn_ops, l);
	TAILQ_INSERT_TAIL(&s->all, l, of_all);
	return l;
}

static void lane_free(struct lane *l)
{
	struct lanes *s = l->lanes;

	TAILQ_REMOVE(&s->all, l, of_all);
	conn_free(l->conn);
	place_leave(s->places, l->place);
	free(l);
}

static bool is_left(const struct lane *l)
{
	return l != l->lanes->main && l != l->lanes->next;
}

bool lanes_is_outdated(const struct lanes *s, const struct lane *l)
{
	return l->place != s->places->present;
}

/* ---- those that were left ---- */

static void close_lane(struct lane *l)
{
	if (!l->closing)
		conn_close(l->conn, CLOSE_NORMAL);
	l->closing = true;
}

/* Closes those that nothing is waited for from any more. */
static void close_idle(struct lanes *s)
{
	bool lingers = event_pending(s->linger, EV_TIMEOUT, NULL);
	struct lane *l;

	TAILQ_FOREACH (l, &s->all, of_all) {
		if (is_left(l) && !l->busy && !(l == s->former && lingers))
			close_lane(l);
	}
}

static void on_linger(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	close_idle(arg);
}

void lanes_idle(struct lanes *s, uint32_t number)
{
	struct lane *l;

	TAILQ_FOREACH (l, &s->all, of_all) {
		if (l->number == number)
			l->busy = false;
	}
	close_idle(s);
}

static void left_ended(struct lanes *s, struct lane *l, const struct conn_end *end)
{
	uint32_t number = l->number;

	if (l == s->former) {
		s->former = NULL;
		event_del(s->linger);
		handover_former_gone(&s->handover);
	}
	lane_free(l);
	s->ops->left_ended(s->owner, number, end);
}

/* Else a client that makes requests that take long and subscribes meanwhile could have any number
 * of connections open. */
bool lanes_are_many(const struct lanes *s)
{
	const struct lane *l;
	unsigned n = 0;

	TAILQ_FOREACH (l, &s->all, of_all)
		n += is_left(l) && !l->closing;
	return n >= LEFT_MAX;
}

/* ---- the next lane ---- */

void lanes_connect(struct lanes *s, const char *path, bool token)
{
	s->stage = LANES_CONNECTING;
	s->next = lane_new(s, path, token);
	/* From now on, since the service may know the new one's subscriptions before we know that
	 * it is open. */
	if (s->main)
		handover_begin(&s->handover);
}

void lanes_drop_next(struct lanes *s)
{
	struct lane *l = s->next;

	event_del(s->grace);
	s->next = NULL;
	s->stage = LANES_NONE;
	handover_abort(&s->handover);
	if (l)
		lane_free(l);
}

static void next_ended(struct lanes *s, const char *why)
{
	const struct conn_end end = {.why = why, .retry_after_s = -1};

	s->ops->next_ended(s->owner, &end);
}

/* ---- taking over ---- */

/* From now on the former lane is late, or the main one is. */
static void watch_late(struct lanes *s)
{
	s->late_steps = 0;
	if (!event_pending(s->late, EV_TIMEOUT, NULL))
		timer_start(s->late, LATE_STEP_MS);
}

static void on_late(evutil_socket_t fd, short what, void *arg)
{
	struct lanes *s = arg;

	(void)fd;
	(void)what;
	if (++s->late_steps == LATE_STEPS) {
		handover_forget(&s->handover);
		return;
	}
	handover_expire(&s->handover);
	timer_start(s->late, LATE_STEP_MS);
}

void lanes_take_over(struct lanes *s)
{
	struct lane *old = s->main;
	bool both = old && old->token && s->next->token;

	event_del(s->grace);
	s->main = s->next;
	s->next = NULL;
	s->stage = LANES_NONE;
	if (old) {
		s->former = old;
		old->busy = true; /* until lanes_idle() */
		timer_start(s->linger, LINGER_MS);
		s->stats->upstream_handovers++;
		if (both) /* new subscriptions are live behind what was held */
			handover_move(&s->handover);
		if (!s->ops->moved(s->owner) && !both)
			event_del(s->linger);
	} else {
		s->ops->first(s->owner);
	}
	if (!both) /* subscribers are told first that there is a connection */
		handover_move(&s->handover);
	if (!old)
		handover_former_gone(&s->handover);
	watch_late(s);
	close_idle(s);
}

void lanes_drop_main(struct lanes *s)
{
	struct lane *l = s->main;

	s->main = NULL;                /* nothing is sent on it any more */
	handover_forget(&s->handover); /* stragglers come before the word that it is lost */
	lane_free(l);
	/* A next one that is not open yet may be subscribed already, and bring again what this one
	 * has brought: they are compared until it has failed. */
}

static void main_is_silent(struct lanes *s)
{
	const struct conn_end end = {.was_open = true,
				     .why = "the connection was lost: no answer to a ping",
				     .retry_after_s = -1,
				     .heard_ms = conn_heard_ms(s->main->conn)};

	s->ops->main_ended(s->owner, &end);
}

/* The next lane has not answered its ping, or the main one has not. Nobody knows what a silent main
 * lane still had to bring: that is a loss. */
static void on_grace(evutil_socket_t fd, short what, void *arg)
{
	struct lanes *s = arg;

	(void)fd;
	(void)what;
	if (s->stage == LANES_PROVING)
		next_ended(s, "no answer to a ping");
	else if (s->stage == LANES_CATCHING)
		main_is_silent(s);
}

/* For the answer to a ping. */
static void start_grace(struct lanes *s)
{
	timer_start(s->grace, s->places->present->conn.way.keepalive_ms / 2);
}

static void begin_stage(struct lanes *s, enum lanes_stage stage, struct lane *pinged)
{
	s->stage = stage;
	s->ping = conn_ping(pinged->conn);
	start_grace(s);
}

/* ---- what they bring ---- */

static void on_open(void *owner)
{
	struct lane *l = owner;
	struct lanes *s = l->lanes;

	s->stats->upstream_connects++;
	if (!s->main && !l->token) /* it is told of nothing */
		lanes_take_over(s);
	else
		begin_stage(s, LANES_PROVING, l);
}

static void on_pong(void *owner, uint32_t number)
{
	struct lane *l = owner;
	struct lanes *s = l->lanes;
	bool proven = s->stage == LANES_PROVING && l == s->next && number >= s->ping;
	bool caught_up = s->stage == LANES_CATCHING && l == s->main && number >= s->ping;

	if (caught_up || (proven && !s->main))
		lanes_take_over(s);
	else if (proven)
		begin_stage(s, LANES_CATCHING, s->main);
}

/* A lane that was left before the former one has brought all that it could bring. */
static void notified(struct lanes *s, const struct lane *l, const struct wire_frame *frame)
{
	bool fits = true;

	s->stats->upstream_notifications++;
	if (l == s->main)
		fits = handover_brings(&s->handover, HANDOVER_MAIN, frame);
	else if (l == s->next)
		fits = handover_brings(&s->handover, HANDOVER_NEXT, frame);
	else if (l == s->former)
		fits = handover_brings(&s->handover, HANDOVER_FORMER, frame);
	s->stats->upstream_doubles = s->handover.doubles;
	if (!fits)
		next_ended(s, "too many notifications during the handover");
}

static void on_message(void *owner, struct span text, unsigned flags)
{
	struct lane *l = owner;
	struct lanes *s = l->lanes;
	struct wire_frame frame;

	s->stats->upstream_messages_in++;
	s->stats->upstream_bytes_in += text.n;
	wire_parse(text, &frame);
	if (flags) {
		frame.has_id |= frame.kind == WIRE_ANSWER;
		frame.kind = WIRE_UNUSABLE;
		frame.fault = flags & LINK_TRUNCATED ? "it is too long" : "it is binary";
	}
	if (frame.kind == WIRE_NOTIFICATION)
		notified(s, l, &frame);
	else
		s->ops->frame(s->owner, &frame);
}

static void on_drained(void *owner)
{
	struct lane *l = owner;

	if (l == l->lanes->main)
		l->lanes->ops->drained(l->lanes->owner);
}

static void on_ended(void *owner, const struct conn_end *end)
{
	struct lane *l = owner;
	struct lanes *s = l->lanes;

	if (s->stopped) {
		s->main = l == s->main ? NULL : s->main;
		lane_free(l);
	} else if (l == s->main) {
		s->ops->main_ended(s->owner, end);
	} else if (l == s->next) {
		s->ops->next_ended(s->owner, end);
	} else {
		left_ended(s, l, end);
	}
}

static const struct conn_ops conn_ops = {
	.open = on_open,
	.message = on_message,
	.pong = on_pong,
	.drained = on_drained,
	.ended = on_ended,
};

/* ---- all of them ---- */

void lanes_check(struct lanes *s)
{
	struct lane *l;

	TAILQ_FOREACH (l, &s->all, of_all)
		conn_check(l->conn);
}

void lanes_set_times(struct lanes *s, const struct conn_way *way)
{
	struct lane *l;

	place_set_times(s->places->present, way);
	TAILQ_FOREACH (l, &s->all, of_all) {
		place_set_times(l->place, way);
		conn_retime(l->conn);
	}
	if (s->stage == LANES_PROVING || s->stage == LANES_CATCHING)
		start_grace(s);
}

void lanes_init(struct lanes *s, struct event_base *base, struct places *places, uint64_t seed,
		const struct lanes_ops *ops, void *owner, struct stats *stats)
{
	*s = (struct lanes){.ops = ops, .owner = owner, .stats = stats, .places = places};
	TAILQ_INIT(&s->all);
	handover_init(&s->handover, seed, &ops->stream, owner);
	s->grace = timer_new(base, on_grace, s);
	s->linger = timer_new(base, on_linger, s);
	s->late = timer_new(base, on_late, s);
}

void lanes_stop(struct lanes *s)
{
	struct lane *l;

	s->stopped = true;
	event_del(s->linger);
	event_del(s->late);
	lanes_drop_next(s);
	handover_fini(&s->handover);
	s->former = NULL;
	TAILQ_FOREACH (l, &s->all, of_all)
		close_lane(l);
}

bool lanes_are_gone(const struct lanes *s)
{
	return TAILQ_EMPTY(&s->all);
}

void lanes_fini(struct lanes *s)
{
	while (!TAILQ_EMPTY(&s->all))
		lane_free(TAILQ_FIRST(&s->all));
	event_free(s->grace);
	event_free(s->linger);
	event_free(s->late);
}
