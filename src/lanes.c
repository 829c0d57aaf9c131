#include "lanes.h"

#include <stdlib.h>

#include "clock.h"
#include "link.h"
#include "mem.h"
#include "timer.h"

enum {
	LINGER_MS = 5000, /* an old lane's notifications may be late by so much */
	LATE_STEP_MS = 5000,
	LATE_STEPS = 6, /* ... and a new one's by so many steps */
	LEFT_MAX = 16,  /* old lanes that still wait for answers; then no other one is left */
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
	return l;
}

static void lane_free(struct lane *l)
{
	conn_free(l->conn);
	place_leave(l->lanes->places, l->place);
	free(l);
}

bool lanes_is_outdated(const struct lanes *s, const struct lane *l)
{
	return l->place != s->places->present;
}

/* ---- old lanes ---- */

static void set_linger(struct lanes *s)
{
	struct lane *l;
	int64_t first = -1;

	TAILQ_FOREACH (l, &s->left, of_left) {
		if (!l->closing && !l->waits && (first < 0 || l->until < first))
			first = l->until;
	}
	if (first < 0)
		event_del(s->linger);
	else
		timer_start(s->linger, first - clock_mono_ms());
}

static void close_left(struct lane *l)
{
	if (l->closing)
		return;
	l->closing = true;
	conn_close(l->conn, CLOSE_NORMAL);
}

/* Closes the old lanes that nothing is waited for from any more. */
static void tidy_left(struct lanes *s)
{
	struct lane *l;
	int64_t now = clock_mono_ms();

	TAILQ_FOREACH (l, &s->left, of_left) {
		bool newest = !TAILQ_NEXT(l, of_left);
		bool busy = s->ops->in_flight(s->owner, l->number);
		l->waits = busy && l->until <= now; /* lanes_idle() tells */
		if (!busy && (!newest || l->until <= now))
			close_left(l);
	}
	set_linger(s);
}

static void on_linger(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	tidy_left(arg);
}

void lanes_idle(struct lanes *s, uint32_t number)
{
	struct lane *l;

	TAILQ_FOREACH (l, &s->left, of_left) {
		if (l->number == number)
			l->waits = false;
	}
	/* Not from within the caller, who may be in the middle of something. */
	if (!TAILQ_EMPTY(&s->left))
		timer_start(s->linger, 0);
}

static void drop_left(struct lanes *s, struct lane *l)
{
	uint32_t number = l->number;

	if (l == s->former) {
		handover_former_gone(&s->handover);
		s->former = NULL;
	}
	TAILQ_REMOVE(&s->left, l, of_left);
	lane_free(l);
	set_linger(s);
	s->ops->left_ended(s->owner, number);
}

static void leave_lane(struct lanes *s, struct lane *l)
{
	l->until = clock_mono_ms() + (l->token ? LINGER_MS : 0);
	TAILQ_INSERT_TAIL(&s->left, l, of_left);
	s->former = l;
	tidy_left(s);
}

/* Else whoever makes requests that take long and subscribes meanwhile could have any number of
 * connections open. */
bool lanes_are_many(const struct lanes *s)
{
	const struct lane *l;
	unsigned n = 0;

	TAILQ_FOREACH (l, &s->left, of_left)
		n += !l->closing;
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
	event_del(s->grace);
	if (s->next)
		lane_free(s->next);
	s->next = NULL;
	handover_abort(&s->handover);
	s->stage = LANES_NONE;
}

bool lanes_next_is_open(const struct lanes *s)
{
	return s->stage > LANES_CONNECTING;
}

bool lanes_next_is_proven(const struct lanes *s)
{
	return s->stage > LANES_PROVING;
}

/* ---- taking over ---- */

static struct lane *next_is_main(struct lanes *s)
{
	struct lane *old = s->main;

	event_del(s->grace);
	s->main = s->next;
	s->next = NULL;
	s->stage = LANES_NONE;
	return old;
}

void lanes_take_first(struct lanes *s)
{
	next_is_main(s);
}

/* What the next lane has brought is told, and compared with what a main one that is gone had
 * brought. */
static void take_stream(struct lanes *s)
{
	s->late_steps = 0;
	handover_move(&s->handover);
	if (!event_pending(s->late, EV_TIMEOUT, NULL))
		timer_start(s->late, LATE_STEP_MS);
}

void lanes_settle(struct lanes *s)
{
	take_stream(s);
	handover_former_gone(&s->handover);
}

/* The next lane takes the place of the one that counts. */
static void move_over(struct lanes *s)
{
	struct lane *old = next_is_main(s);

	s->stats->upstream_handovers++;
	s->ops->moved(s->owner);
	take_stream(s);
	leave_lane(s, old);
}

void lanes_drop_main(struct lanes *s)
{
	struct lane *l = s->main;

	s->main = s->former = NULL;    /* nothing is sent on it any more */
	handover_forget(&s->handover); /* stragglers come before the word that it is lost */
	lane_free(l);
	/* A next one that is not open yet may be subscribed already, and bring again what this one
	 * has brought: they are compared until it has failed. */
}

static void note_end(struct lanes *s, const struct conn_end *end)
{
	s->close_code = end->close_code;
	s->dropped = end->dropped;
}

static void main_is_silent(struct lanes *s)
{
	struct conn_end end = {.was_open = true,
			       .why = "the connection was lost: no answer to a ping",
			       .retry_after_s = -1,
			       .heard_ms = conn_heard_ms(s->main->conn)};

	note_end(s, &end);
	s->ops->main_ended(s->owner, &end);
}

/* The next lane has not answered its ping, or the main one has not. Nobody knows what a silent main
 * lane still had to bring: that is a loss. */
static void on_grace(evutil_socket_t fd, short what, void *arg)
{
	static const struct conn_end silent = {.why = "no answer to a ping", .retry_after_s = -1};
	struct lanes *s = arg;

	(void)fd;
	(void)what;
	if (s->stage == LANES_PROVING)
		s->ops->next_ended(s->owner, &silent);
	else if (s->stage == LANES_CATCHING)
		main_is_silent(s);
}

/* For the answer to a ping. */
static void start_grace(struct lanes *s)
{
	timer_start(s->grace, s->places->present->conn.way.keepalive_ms / 2);
}

static void on_open(void *owner)
{
	struct lane *l = owner;
	struct lanes *s = l->lanes;

	s->stats->upstream_connects++;
	if (!s->main && !s->next->token) { /* it is told of nothing */
		s->ops->first(s->owner);
		return;
	}
	s->stage = LANES_PROVING;
	s->ping = conn_ping(s->next->conn);
	start_grace(s);
}

static void on_pong(void *owner, uint32_t number)
{
	struct lane *l = owner;
	struct lanes *s = l->lanes;

	if (s->stage == LANES_PROVING && l == s->next && number >= s->ping) {
		if (!s->main) {
			s->ops->first(s->owner);
			return;
		}
		s->stage = LANES_CATCHING;
		s->ping = conn_ping(s->main->conn);
		start_grace(s);
	} else if (s->stage == LANES_CATCHING && l == s->main && number >= s->ping) {
		move_over(s);
	}
}

/* ---- messages ---- */

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

static void on_change(void *owner, const struct wire_frame *frame, const struct change *change)
{
	struct lanes *s = owner;

	s->ops->change(s->owner, frame, change);
}

static void on_straggler(void *owner, const struct wire_frame *frame, const struct change *change)
{
	struct lanes *s = owner;

	s->ops->straggler(s->owner, frame, change);
}

static const struct handover_ops handover_ops = {.change = on_change, .straggler = on_straggler};

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
		s->ops->too_much(s->owner);
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

/* ---- how lanes end ---- */

static void forget(struct lanes *s, struct lane *l)
{
	if (l == s->former)
		s->former = NULL;
	if (l == s->main)
		s->main = NULL;
	else
		TAILQ_REMOVE(&s->left, l, of_left);
	lane_free(l);
}

static void on_ended(void *owner, const struct conn_end *end)
{
	struct lane *l = owner;
	struct lanes *s = l->lanes;

	note_end(s, end);
	if (s->stopped)
		forget(s, l);
	else if (l == s->main)
		s->ops->main_ended(s->owner, end);
	else if (l == s->next)
		s->ops->next_ended(s->owner, end);
	else
		drop_left(s, l);
}

static const struct conn_ops conn_ops = {
	.open = on_open,
	.message = on_message,
	.pong = on_pong,
	.drained = on_drained,
	.ended = on_ended,
};

/* ---- all of them ---- */

static void each_lane(struct lanes *s, void (*visit)(struct lane *l, const struct conn_way *way),
		      const struct conn_way *way)
{
	struct lane *l;

	if (s->main)
		visit(s->main, way);
	if (s->next)
		visit(s->next, way);
	TAILQ_FOREACH (l, &s->left, of_left)
		visit(l, way);
}

void lanes_limit(struct lanes *s, const struct handover_limits *limits)
{
	handover_limit(&s->handover, limits);
}

static void check(struct lane *l, const struct conn_way *way)
{
	(void)way;
	conn_check(l->conn);
}

void lanes_check(struct lanes *s)
{
	each_lane(s, check, NULL);
}

static void set_times(struct lane *l, const struct conn_way *way)
{
	place_set_times(l->place, way);
	conn_retime(l->conn);
}

void lanes_set_times(struct lanes *s, const struct conn_way *way)
{
	place_set_times(s->places->present, way);
	each_lane(s, set_times, way);
	if (s->stage == LANES_PROVING || s->stage == LANES_CATCHING)
		start_grace(s);
}

void lanes_init(struct lanes *s, struct event_base *base, struct places *places, uint64_t seed,
		const struct lanes_ops *ops, void *owner, struct stats *stats)
{
	*s = (struct lanes){.ops = ops, .owner = owner, .stats = stats, .places = places};
	TAILQ_INIT(&s->left);
	handover_init(&s->handover, seed, &handover_ops, s);
	s->grace = timer_new(base, on_grace, s);
	s->linger = timer_new(base, on_linger, s);
	s->late = timer_new(base, on_late, s);
}

void lanes_stop(struct lanes *s)
{
	struct lane *l;

	s->stopped = true;
	event_del(s->linger);
	lanes_drop_next(s);
	handover_fini(&s->handover);
	if (s->main)
		conn_close(s->main->conn, CLOSE_NORMAL);
	TAILQ_FOREACH (l, &s->left, of_left)
		close_left(l);
}

bool lanes_are_gone(const struct lanes *s)
{
	return !s->main && TAILQ_EMPTY(&s->left);
}

void lanes_fini(struct lanes *s)
{
	struct lane *l;

	if (s->main)
		lane_free(s->main);
	while ((l = TAILQ_FIRST(&s->left))) {
		TAILQ_REMOVE(&s->left, l, of_left);
		lane_free(l);
	}
	event_free(s->grace);
	event_free(s->linger);
	event_free(s->late);
}
