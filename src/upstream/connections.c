#include "upstream/connections.h"

#include <stdlib.h>

#include "transport/websocket.h"
#include "base/mem.h"
#include "base/timer.h"

enum {
	TICK_MS = 2500,    /* while connections are compared, or one lingers */
	LINGER_TICKS = 3,  /* so it lingers for at least 5 s */
	REPLACED_MAX = 16, /* more replaced connections, and the next takeover waits */
	CLOSE_NORMAL = 1000,
};

static const struct conn_ops conn_ops;

/* ---- connections ---- */

static struct connection *connection_new(struct connections *cs, const char *path, bool token)
{
	struct connection *c = mem_zalloc(sizeof(*c));

	*c = (struct connection){.connections = cs,
				 .endpoint = endpoint_take(cs->endpoints),
				 .number = ++cs->last_number,
				 .token = token};
	c->conn = conn_new(&c->endpoint->shared, path, &conn_ops, c);
	TAILQ_INSERT_TAIL(&cs->all, c, of_all);
	return c;
}

static void connection_free(struct connection *c)
{
	struct connections *cs = c->connections;

	TAILQ_REMOVE(&cs->all, c, of_all);
	conn_free(c->conn);
	endpoint_leave(cs->endpoints, c->endpoint);
	free(c);
}

/* ---- replaced connections ---- */

/* Closes replaced connections that are not needed any more. */
static void close_idle(struct connections *cs)
{
	struct connection *c;

	TAILQ_FOREACH (c, &cs->all, of_all) {
		bool needed = c == cs->main || c == cs->next || c->busy;
		if (!needed && !(c == cs->former && cs->lingers))
			conn_close(c->conn, CLOSE_NORMAL);
	}
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct connections *cs = arg;
	bool compared = handover_expire(&cs->handover);

	(void)fd;
	(void)what;
	cs->lingers -= cs->lingers > 0;
	close_idle(cs);
	if (compared || cs->former)
		timer_start(cs->tick, TICK_MS);
}

void connections_idle(struct connections *cs, uint32_t number)
{
	struct connection *c;

	TAILQ_FOREACH (c, &cs->all, of_all) {
		if (c->number == number)
			c->busy = false;
	}
	close_idle(cs);
}

static void replaced_ended(struct connections *cs, struct connection *c, const struct conn_end *end)
{
	uint32_t number = c->number;

	if (c == cs->former) {
		cs->former = NULL;
		handover_former_gone(&cs->handover);
	}
	connection_free(c);
	cs->ops->replaced_ended(cs->owner, number, end);
}

/* Without a limit, slow requests and new subscriptions could open any number of connections. */
bool connections_too_many(const struct connections *cs)
{
	const struct connection *c;
	unsigned n = 0;

	TAILQ_FOREACH (c, &cs->all, of_all)
		n += c->busy;
	return n >= REPLACED_MAX;
}

/* ---- the next connection ---- */

void connections_connect(struct connections *cs, const char *path, bool token)
{
	cs->next = connection_new(cs, path, token);
	/* Already now: the service may subscribe the new connection before we know that it is open.
	 */
	if (cs->main)
		handover_begin(&cs->handover);
}

void connections_drop_next(struct connections *cs)
{
	struct connection *c = cs->next;

	cs->next = NULL;
	cs->ping = 0;
	cs->proven = false;
	handover_abort(&cs->handover);
	if (c)
		connection_free(c);
}

static void next_ended(struct connections *cs, const struct conn_end *end)
{
	bool token = cs->next->token;

	connections_drop_next(cs);
	cs->ops->next_ended(cs->owner, token, end);
}

/* ---- taking over ---- */

/* The former connection lingers if both bring notifications, or if it has late writes. */
static void take_over(struct connections *cs)
{
	struct connection *old = cs->main;
	bool both = old && old->token && cs->next->token;

	cs->main = cs->next;
	cs->next = NULL;
	cs->ping = 0;
	cs->proven = false;
	cs->lingers = LINGER_TICKS;
	if (both) /* new subscriptions become live after the held changes */
		handover_move(&cs->handover);
	if (old) {
		cs->stats->upstream_handovers++;
		cs->former = old;
		old->busy = true; /* until connections_idle() */
		if (!cs->ops->moved(cs->owner) && !both)
			cs->lingers = 0;
	} else {
		cs->ops->first(cs->owner);
	}
	if (!both) /* subscribers learn first that there is a connection */
		handover_move(&cs->handover);
	if (!old)
		handover_former_gone(&cs->handover);
	if (!event_pending(cs->tick, EV_TIMEOUT, NULL))
		timer_start(cs->tick, TICK_MS);
	close_idle(cs);
}

/* A next connection that is not open yet may be subscribed already, and bring changes again that
 * this one has brought: they are compared until that one has failed. A proven one takes over. */
static void main_ended(struct connections *cs, const struct conn_end *end)
{
	uint32_t number = cs->main->number;
	bool token = cs->main->token;
	struct connection *c = cs->main;

	cs->main = NULL;                /* nothing is sent on it any more */
	handover_forget(&cs->handover); /* stragglers are told before the loss is */
	connection_free(c);
	cs->ops->main_ended(cs->owner, number, token, end);
	if (cs->proven)
		take_over(cs);
}

/* ---- events of connections ---- */

static void on_open(void *owner)
{
	struct connection *c = owner;
	struct connections *cs = c->connections;

	cs->stats->upstream_connects++;
	if (!cs->main && !c->token) /* it brings no notifications */
		take_over(cs);
	else
		cs->ping = conn_ping(c->conn);
}

static void on_pong(void *owner, uint32_t number)
{
	struct connection *c = owner;
	struct connections *cs = c->connections;

	if (!cs->ping || number < cs->ping || c != (cs->proven ? cs->main : cs->next))
		return;
	if (cs->proven || !cs->main) {
		take_over(cs);
	} else {
		cs->proven = true;
		cs->ping = conn_ping(cs->main->conn);
	}
}

/* Connections replaced before the former one have brought everything they could. */
static void notified(struct connections *cs, const struct connection *c,
		     const struct wire_frame *frame)
{
	static const struct conn_end too_many = {
		.why = "too many notifications during the handover", .retry_after_s = -1};
	bool fits = true;

	cs->stats->upstream_notifications++;
	cs->ops->arrived(cs->owner, frame);
	if (c == cs->main)
		fits = handover_brings(&cs->handover, HANDOVER_MAIN, frame);
	else if (c == cs->next)
		fits = handover_brings(&cs->handover, HANDOVER_NEXT, frame);
	else if (c == cs->former)
		fits = handover_brings(&cs->handover, HANDOVER_FORMER, frame);
	cs->stats->upstream_doubles = cs->handover.doubles;
	if (!fits)
		next_ended(cs, &too_many);
}

static void on_message(void *owner, struct span text, unsigned flags)
{
	struct connection *c = owner;
	struct connections *cs = c->connections;
	struct wire_frame frame;

	cs->stats->upstream_messages_in++;
	cs->stats->upstream_bytes_in += text.n;
	wire_parse(text, &frame);
	if (flags) {
		frame.kind = WIRE_UNUSABLE;
		frame.fault = flags & WEBSOCKET_TRUNCATED ? "it is too long" : "it is binary";
	}
	if (frame.kind == WIRE_NOTIFICATION)
		notified(cs, c, &frame);
	else
		cs->ops->frame(cs->owner, &frame);
}

static void on_drained(void *owner)
{
	struct connection *c = owner;

	if (c == c->connections->main)
		c->connections->ops->drained(c->connections->owner);
}

static void on_ended(void *owner, const struct conn_end *end)
{
	struct connection *c = owner;
	struct connections *cs = c->connections;

	if (c == cs->main)
		main_ended(cs, end);
	else if (c == cs->next)
		next_ended(cs, end);
	else
		replaced_ended(cs, c, end);
}

static const struct conn_ops conn_ops = {
	.open = on_open,
	.message = on_message,
	.pong = on_pong,
	.drained = on_drained,
	.ended = on_ended,
};

/* ---- all connections ---- */

void connections_check(struct connections *cs)
{
	struct connection *c;

	TAILQ_FOREACH (c, &cs->all, of_all)
		conn_check(c->conn);
}

void connections_set_times(struct connections *cs, const struct conn_settings *settings)
{
	struct connection *c;

	endpoint_set_times(cs->endpoints->present, settings);
	TAILQ_FOREACH (c, &cs->all, of_all) {
		endpoint_set_times(c->endpoint, settings);
		conn_retime(c->conn);
	}
}

void connections_init(struct connections *cs, struct event_base *base, struct endpoints *endpoints,
		      uint64_t seed, const struct connections_ops *ops, void *owner,
		      struct stats *stats)
{
	*cs = (struct connections){
		.ops = ops, .owner = owner, .stats = stats, .endpoints = endpoints};
	TAILQ_INIT(&cs->all);
	handover_init(&cs->handover, seed, &ops->stream, owner);
	cs->tick = timer_new(base, on_tick, cs);
}

void connections_stop(struct connections *cs)
{
	struct connection *c;

	event_del(cs->tick);
	connections_drop_next(cs);
	handover_fini(&cs->handover);
	cs->main = cs->former = NULL;
	TAILQ_FOREACH (c, &cs->all, of_all)
		conn_close(c->conn, CLOSE_NORMAL);
}

void connections_fini(struct connections *cs)
{
	while (!TAILQ_EMPTY(&cs->all))
		connection_free(TAILQ_FIRST(&cs->all));
	event_free(cs->tick);
}
