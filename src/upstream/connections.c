#include "upstream/connections.h"

#include <stdlib.h>

#include "transport/websocket.h"
#include "base/mem.h"
#include "base/timer.h"

enum {
	LINGER_MS = 5000, /* the former connection's notifications may be late by so much */
	LATE_STEP_MS = 5000,
	LATE_STEPS = 6, /* ... and the main one's by so many steps */
	LEFT_MAX =
		16, /* connections that were left and wait for answers; then no other one is left */
	CLOSE_NORMAL = 1000,
};

static const struct conn_ops conn_ops;

/* ---- connections ---- */

static struct connection *connection_new(struct connections *s, const char *path, bool token)
{
	struct connection *l = mem_zalloc(sizeof(*l));

	*l = (struct connection){.connections = s,
				 .endpoint = endpoint_take(s->endpoints),
				 .number = ++s->last_number,
				 .token = token};
	l->conn = conn_new(&l->endpoint->conn, path, &conn_ops, l);
	TAILQ_INSERT_TAIL(&s->all, l, of_all);
	return l;
}

static void connection_free(struct connection *l)
{
	struct connections *s = l->connections;

	TAILQ_REMOVE(&s->all, l, of_all);
	conn_free(l->conn);
	endpoint_leave(s->endpoints, l->endpoint);
	free(l);
}

static bool is_left(const struct connection *l)
{
	return l != l->connections->main && l != l->connections->next;
}

bool connections_is_outdated(const struct connections *s, const struct connection *l)
{
	return l->endpoint != s->endpoints->present;
}

/* ---- those that were left ---- */

static void close_lane(struct connection *l)
{
	if (!l->closing)
		conn_close(l->conn, CLOSE_NORMAL);
	l->closing = true;
}

/* Closes those that nothing is waited for from any more. */
static void close_idle(struct connections *s)
{
	bool lingers = event_pending(s->linger, EV_TIMEOUT, NULL);
	struct connection *l;

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

void connections_idle(struct connections *s, uint32_t number)
{
	struct connection *l;

	TAILQ_FOREACH (l, &s->all, of_all) {
		if (l->number == number)
			l->busy = false;
	}
	close_idle(s);
}

static void left_ended(struct connections *s, struct connection *l, const struct conn_end *end)
{
	uint32_t number = l->number;

	if (l == s->former) {
		s->former = NULL;
		event_del(s->linger);
		handover_former_gone(&s->handover);
	}
	connection_free(l);
	s->ops->left_ended(s->owner, number, end);
}

/* Else a client that makes requests that take long and subscribes meanwhile could have any number
 * of connections open. */
bool connections_are_many(const struct connections *s)
{
	const struct connection *l;
	unsigned n = 0;

	TAILQ_FOREACH (l, &s->all, of_all)
		n += is_left(l) && !l->closing;
	return n >= LEFT_MAX;
}

/* ---- the next connection ---- */

void connections_connect(struct connections *s, const char *path, bool token)
{
	s->stage = CONNECTIONS_CONNECTING;
	s->next = connection_new(s, path, token);
	/* From now on, since the service may know the new one's subscriptions before we know that
	 * it is open. */
	if (s->main)
		handover_begin(&s->handover);
}

void connections_drop_next(struct connections *s)
{
	struct connection *l = s->next;

	event_del(s->grace);
	s->next = NULL;
	s->stage = CONNECTIONS_NONE;
	handover_abort(&s->handover);
	if (l)
		connection_free(l);
}

static void next_ended(struct connections *s, const char *why)
{
	const struct conn_end end = {.why = why, .retry_after_s = -1};

	s->ops->next_ended(s->owner, &end);
}

/* ---- taking over ---- */

/* From now on the former connection is late, or the main one is. */
static void watch_late(struct connections *s)
{
	s->late_steps = 0;
	if (!event_pending(s->late, EV_TIMEOUT, NULL))
		timer_start(s->late, LATE_STEP_MS);
}

static void on_late(evutil_socket_t fd, short what, void *arg)
{
	struct connections *s = arg;

	(void)fd;
	(void)what;
	if (++s->late_steps == LATE_STEPS) {
		handover_forget(&s->handover);
		return;
	}
	handover_expire(&s->handover);
	timer_start(s->late, LATE_STEP_MS);
}

void connections_take_over(struct connections *s)
{
	struct connection *old = s->main;
	bool both = old && old->token && s->next->token;

	event_del(s->grace);
	s->main = s->next;
	s->next = NULL;
	s->stage = CONNECTIONS_NONE;
	if (old) {
		s->former = old;
		old->busy = true; /* until connections_idle() */
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

void connections_drop_main(struct connections *s)
{
	struct connection *l = s->main;

	s->main = NULL;                /* nothing is sent on it any more */
	handover_forget(&s->handover); /* stragglers come before the word that it is lost */
	connection_free(l);
	/* A next one that is not open yet may be subscribed already, and bring again what this one
	 * has brought: they are compared until it has failed. */
}

static void main_is_silent(struct connections *s)
{
	const struct conn_end end = {.was_open = true,
				     .why = "the connection was lost: no answer to a ping",
				     .retry_after_s = -1,
				     .heard_ms = conn_heard_ms(s->main->conn)};

	s->ops->main_ended(s->owner, &end);
}

/* The next connection has not answered its ping, or the main one has not. Nobody knows what a
 * silent main connection still had to bring: that is a loss. */
static void on_grace(evutil_socket_t fd, short what, void *arg)
{
	struct connections *s = arg;

	(void)fd;
	(void)what;
	if (s->stage == CONNECTIONS_PROVING)
		next_ended(s, "no answer to a ping");
	else if (s->stage == CONNECTIONS_CATCHING)
		main_is_silent(s);
}

/* For the answer to a ping. */
static void start_grace(struct connections *s)
{
	timer_start(s->grace, s->endpoints->present->conn.way.keepalive_ms / 2);
}

static void begin_stage(struct connections *s, enum connections_stage stage,
			struct connection *pinged)
{
	s->stage = stage;
	s->ping = conn_ping(pinged->conn);
	start_grace(s);
}

/* ---- what they bring ---- */

static void on_open(void *owner)
{
	struct connection *l = owner;
	struct connections *s = l->connections;

	s->stats->upstream_connects++;
	if (!s->main && !l->token) /* it is told of nothing */
		connections_take_over(s);
	else
		begin_stage(s, CONNECTIONS_PROVING, l);
}

static void on_pong(void *owner, uint32_t number)
{
	struct connection *l = owner;
	struct connections *s = l->connections;
	bool proven = s->stage == CONNECTIONS_PROVING && l == s->next && number >= s->ping;
	bool caught_up = s->stage == CONNECTIONS_CATCHING && l == s->main && number >= s->ping;

	if (caught_up || (proven && !s->main))
		connections_take_over(s);
	else if (proven)
		begin_stage(s, CONNECTIONS_CATCHING, s->main);
}

/* A connection that was left before the former one has brought all that it could bring. */
static void notified(struct connections *s, const struct connection *l,
		     const struct wire_frame *frame)
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
	struct connection *l = owner;
	struct connections *s = l->connections;
	struct wire_frame frame;

	s->stats->upstream_messages_in++;
	s->stats->upstream_bytes_in += text.n;
	wire_parse(text, &frame);
	if (flags) {
		frame.has_id |= frame.kind == WIRE_ANSWER;
		frame.kind = WIRE_UNUSABLE;
		frame.fault = flags & WEBSOCKET_TRUNCATED ? "it is too long" : "it is binary";
	}
	if (frame.kind == WIRE_NOTIFICATION)
		notified(s, l, &frame);
	else
		s->ops->frame(s->owner, &frame);
}

static void on_drained(void *owner)
{
	struct connection *l = owner;

	if (l == l->connections->main)
		l->connections->ops->drained(l->connections->owner);
}

static void on_ended(void *owner, const struct conn_end *end)
{
	struct connection *l = owner;
	struct connections *s = l->connections;

	if (s->stopped) {
		s->main = l == s->main ? NULL : s->main;
		connection_free(l);
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

void connections_check(struct connections *s)
{
	struct connection *l;

	TAILQ_FOREACH (l, &s->all, of_all)
		conn_check(l->conn);
}

void connections_set_times(struct connections *s, const struct conn_way *way)
{
	struct connection *l;

	endpoint_set_times(s->endpoints->present, way);
	TAILQ_FOREACH (l, &s->all, of_all) {
		endpoint_set_times(l->endpoint, way);
		conn_retime(l->conn);
	}
	if (s->stage == CONNECTIONS_PROVING || s->stage == CONNECTIONS_CATCHING)
		start_grace(s);
}

void connections_init(struct connections *s, struct event_base *base, struct endpoints *endpoints,
		      uint64_t seed, const struct connections_ops *ops, void *owner,
		      struct stats *stats)
{
	*s = (struct connections){
		.ops = ops, .owner = owner, .stats = stats, .endpoints = endpoints};
	TAILQ_INIT(&s->all);
	handover_init(&s->handover, seed, &ops->stream, owner);
	s->grace = timer_new(base, on_grace, s);
	s->linger = timer_new(base, on_linger, s);
	s->late = timer_new(base, on_late, s);
}

void connections_stop(struct connections *s)
{
	struct connection *l;

	s->stopped = true;
	event_del(s->linger);
	event_del(s->late);
	connections_drop_next(s);
	handover_fini(&s->handover);
	s->former = NULL;
	TAILQ_FOREACH (l, &s->all, of_all)
		close_lane(l);
}

bool connections_are_gone(const struct connections *s)
{
	return TAILQ_EMPTY(&s->all);
}

void connections_fini(struct connections *s)
{
	while (!TAILQ_EMPTY(&s->all))
		connection_free(TAILQ_FIRST(&s->all));
	event_free(s->grace);
	event_free(s->linger);
	event_free(s->late);
}
