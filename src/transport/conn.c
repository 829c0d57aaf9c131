#include "transport/conn.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/secret.h"
#include "base/timer.h"

enum {
	UNSENT_MAX = 256 << 10, /* unsent bytes from which on others keep theirs */
	PARTS_PATIENCE = 8,     /* in keepalives: how long a message may take to come */
};

struct conn {
	const struct conn_shared *shared;
	const struct conn_ops *ops;
	void *owner;
	char *path; /* secret; NULL once it is open */

	struct dial *dial;      /* until it is open */
	char why[DIAL_WHY_MAX]; /* why it has ended */
	struct websocket *websocket;
	bool open, congested;

	struct event *keepalive;
	int64_t heard_at; /* the coarse clock, as all of these */
	int64_t whole_at; /* the last whole message, or pong */
	int64_t ping_at;  /* when the unanswered keepalive ping was sent; 0: there is none */
	uint32_t pings;   /* sent so far */
	uint32_t asked;   /* the last ping of the owner */
	int64_t asked_at; /* when it was sent; 0: it was answered, or there was none */

	/* How long the machine had slept (clock_slept_ms()) when it last received something is not
	 * read on each message. By then it was at least its value at our last check: */
	int64_t looked_at;
	int64_t slept_ms;        /* at that check */
	int64_t slept_before_ms; /* ... and at the one before it */
};

static const struct websocket_ops websocket_ops;

int64_t conn_heard_ms(const struct conn *c)
{
	return c->heard_at + (c->heard_at > c->looked_at ? c->slept_ms : c->slept_before_ms);
}

/* ---- the end ---- */

static void drop_websocket(struct conn *c)
{
	event_del(c->keepalive);
	if (c->websocket)
		websocket_free(c->websocket);
	c->websocket = NULL;
	c->open = c->congested = false;
}

static void drop_dial(struct conn *c)
{
	if (c->dial)
		dial_free(c->dial);
	c->dial = NULL;
}

static void end(struct conn *c, const struct websocket_end *websocket_end)
{
	char why[DIAL_WHY_MAX]; /* the owner may free the connection and then log why */
	struct conn_end e = {.why = why, .retry_after_s = -1, .heard_ms = conn_heard_ms(c)};

	memcpy(why, c->why, sizeof(why));
	if (websocket_end) {
		e.http_status = websocket_end->http_status;
		e.retry_after_s = websocket_end->retry_after_s;
		e.close_code = websocket_end->close_code;
		e.dropped = c->open && !websocket_end->close_code;
	}
	drop_websocket(c);
	drop_dial(c);
	secret_free(&c->path);
	c->ops->ended(c->owner, &e);
}

void conn_free(struct conn *c)
{
	drop_dial(c);
	drop_websocket(c);
	secret_free(&c->path);
	event_free(c->keepalive);
	free(c);
}

/* ---- connecting ---- */

static void on_connected(void *owner, int fd, int left_ms)
{
	struct conn *c = owner;
	const struct conn_settings *settings = &c->shared->settings;
	const char *why = NULL;
	struct websocket_target target = {
		.host = settings->host,
		.port = settings->port,
		.path = c->path,
		.tls = settings->tls,
		.timeout_ms = left_ms,
		.max_message = settings->max_message,
	};

	c->websocket =
		websocket_connect(c->shared->websockets, fd, &target, &websocket_ops, c, &why);
	if (!c->websocket)
		dial_give_up(c->dial, why);
}

static void on_no_address(void *owner, const char *why)
{
	struct conn *c = owner;

	snprintf(c->why, sizeof(c->why), "%s", why);
	end(c, NULL);
}

static const struct dial_ops dial_ops = {.connected = on_connected, .failed = on_no_address};

/* ---- keepalive ---- */

static void heard(struct conn *c)
{
	c->heard_at = c->whole_at = clock_mono_coarse_ms();
	c->ping_at = 0;
}

/* A part of a long message keeps the connection alive, but not for ever: the message may never end.
 */
static void heard_part(struct conn *c)
{
	int64_t now = clock_mono_coarse_ms();

	if (now - c->whole_at >= PARTS_PATIENCE * c->shared->settings.keepalive_ms)
		return;
	c->heard_at = now;
	c->ping_at = 0;
}

static void send_ping(struct conn *c)
{
	c->shared->stats->upstream_pings++;
	websocket_ping(c->websocket, ++c->pings);
}

static void look(struct conn *c, int64_t now)
{
	if (c->heard_at > c->looked_at)
		c->slept_before_ms = c->slept_ms;
	c->slept_ms = clock_slept_ms();
	c->looked_at = now;
}

void conn_check(struct conn *c)
{
	if (!c->open || c->ping_at)
		return;
	c->ping_at = clock_mono_coarse_ms();
	look(c, c->ping_at);
	send_ping(c);
	timer_start(c->keepalive, 0);
}

static void on_keepalive(evutil_socket_t fd, short what, void *arg)
{
	struct conn *c = arg;
	int64_t now = clock_mono_coarse_ms(), limit = c->shared->settings.keepalive_ms,
		patience = limit / 2;
	int64_t since = c->ping_at && now - c->ping_at >= patience ? c->ping_at : c->asked_at;

	(void)fd;
	(void)what;
	look(c, now);
	if (since && now - since >= patience) {
		snprintf(c->why, sizeof(c->why),
			 "the connection was lost: no answer to a ping for %" PRId64 " ms",
			 now - since);
		end(c, NULL);
		return;
	}
	if (!c->ping_at && now - c->heard_at >= limit) {
		c->ping_at = now;
		send_ping(c);
	}
	int64_t at = c->ping_at ? c->ping_at + patience : c->heard_at + limit;
	if (c->asked_at && c->asked_at + patience < at)
		at = c->asked_at + patience;
	timer_start(c->keepalive, at - now);
}

/* ---- what the WebSocket reports ---- */

static void on_open(void *owner)
{
	struct conn *c = owner;

	c->open = true;
	dial_good(c->dial);
	drop_dial(c);
	secret_free(&c->path);
	heard(c);
	c->slept_ms = c->slept_before_ms = clock_slept_ms();
	timer_start(c->keepalive, c->shared->settings.keepalive_ms);
	c->ops->open(c->owner);
}

static void on_message(void *owner, struct span text, unsigned flags)
{
	struct conn *c = owner;

	heard(c);
	c->ops->message(c->owner, text, flags);
}

static void on_heard(void *owner)
{
	heard_part(owner);
}

static void on_pong(void *owner, uint32_t number)
{
	struct conn *c = owner;

	heard(c);
	if (!number || number > c->pings)
		return;
	if (number >= c->asked)
		c->asked_at = 0;
	c->ops->pong(c->owner, number);
}

static void on_drained(void *owner)
{
	struct conn *c = owner;

	if (!c->congested)
		return;
	c->congested = false;
	c->ops->drained(c->owner);
}

/* Before it was open: a service that answers speaks for all its addresses. */
static void on_unopened(struct conn *c, const struct websocket_end *websocket_end)
{
	if (!websocket_end->http_status) {
		drop_websocket(c);
		dial_next(c->dial, websocket_end->why);
		return;
	}
	snprintf(c->why, sizeof(c->why), "%s", websocket_end->why);
	dial_bad(c->dial);
	end(c, websocket_end);
}

static void on_closed(void *owner, const struct websocket_end *websocket_end)
{
	struct conn *c = owner;

	if (!c->open) {
		on_unopened(c, websocket_end);
		return;
	}
	if (websocket_end->close_code)
		snprintf(c->why, sizeof(c->why), "%s", websocket_end->why);
	else
		snprintf(c->why, sizeof(c->why), "the connection was lost: %s", websocket_end->why);
	end(c, websocket_end);
}

static const struct websocket_ops websocket_ops = {
	.open = on_open,
	.message = on_message,
	.heard = on_heard,
	.pong = on_pong,
	.drained = on_drained,
	.closed = on_closed,
};

/* ---- public functions ---- */

struct conn *conn_new(const struct conn_shared *shared, const char *path,
		      const struct conn_ops *ops, void *owner)
{
	const struct conn_settings *settings = &shared->settings;
	struct dial_target target = {
		.host = settings->host,
		.port = settings->port,
		.proxy_host = settings->proxy_host,
		.proxy_port = settings->proxy_port,
		.proxy_login = settings->proxy_login,
		.address_ms = settings->connect_timeout_ms,
	};
	struct conn *c = mem_zalloc(sizeof(*c));

	*c = (struct conn){.shared = shared, .ops = ops, .owner = owner, .path = secret_dup(path)};
	c->keepalive = timer_new(shared->base, on_keepalive, c);
	c->dial = dial_new(shared->base, &target, shared->memory, &dial_ops, c);
	return c;
}

void conn_retime(struct conn *c)
{
	if (c->open)
		timer_start(c->keepalive, 0);
}

void conn_send(struct conn *c, struct span head, struct span body)
{
	websocket_send(c->websocket, head, body);
}

bool conn_sendable(struct conn *c)
{
	if (!c->open || !websocket_is_open(c->websocket))
		return false;
	if (websocket_unsent(c->websocket) >= UNSENT_MAX)
		c->congested = true;
	return !c->congested;
}

size_t conn_unsent(const struct conn *c)
{
	return c->open ? websocket_unsent(c->websocket) : 0;
}

uint32_t conn_ping(struct conn *c)
{
	send_ping(c);
	c->asked = c->pings;
	c->asked_at = clock_mono_coarse_ms();
	timer_start(c->keepalive, 0);
	return c->pings;
}

void conn_close(struct conn *c, int code)
{
	websocket_close(c->websocket, code);
}
