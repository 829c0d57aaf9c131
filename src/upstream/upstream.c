#include "upstream/upstream.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/suspend.h"
#include "base/timer.h"
#include "transport/conn.h"
#include "upstream/attempts.h"
#include "upstream/connections.h"
#include "upstream/endpoint.h"

enum {
	COMPLAIN_EVERY_MS = 10000, /* about unusable messages, to the log and to subscribers */
	LATE_MAX_MS = 60000,       /* a change that was missed is no older than that */
};

static const char *const state_names[] = {"connecting", "connected", "backoff", "unauthorized",
					  "stopped"};
_Static_assert(sizeof(state_names) / sizeof(state_names[0]) == UPSTREAM_STATE_N,
	       "a name for each state");

/* Messages of the service that can't be used. */
struct unusable {
	int64_t complained_at; /* the last log line */
	struct event *missed;  /* subscribers are told; pending also for a while after that */
	int64_t missed_since;  /* clock_boot_ms() of the first notification; 0: none to tell of */
};

struct upstream {
	const struct upstream_ops *ops;
	struct upstream_users users;
	struct stats *stats;

	enum upstream_state state;
	int64_t since;   /* of that state */
	uint64_t opened; /* connections, without those that took over */

	struct endpoints endpoints;
	struct connections connections;
	struct attempts attempts;
	struct unusable unusable;
	struct suspend *suspend;
};

/* ---- states ---- */

const char *upstream_state_name(enum upstream_state state)
{
	return state_names[state];
}

static void set_state(struct upstream *u, enum upstream_state state, const char *cause)
{
	int64_t now = clock_mono_ms();

	if (u->state == state)
		return;
	log_at(state == UPSTREAM_UNAUTHORIZED ? LOG_LEVEL_ERROR : LOG_LEVEL_NOTICE,
	       "upstream: %s -> %s after %" PRId64 " ms: %s", state_names[u->state],
	       state_names[state], now - u->since, cause);
	u->state = state;
	u->since = now;
	u->ops->changed(u->users.owner);
}

static void on_phase(void *owner, enum attempts_phase phase, const char *cause)
{
	static const enum upstream_state states[ATTEMPTS_PHASE_N] = {
		[ATTEMPTS_CONNECTING] = UPSTREAM_CONNECTING,
		[ATTEMPTS_BACKOFF] = UPSTREAM_BACKOFF,
		[ATTEMPTS_UNAUTHORIZED] = UPSTREAM_UNAUTHORIZED,
	};

	set_state(owner, states[phase], cause);
}

/* ---- sleep ---- */

/* The connections may be dead. */
static void on_resume(void *owner, int64_t slept_ms)
{
	struct upstream *u = owner;

	log_info("upstream: the machine has slept for %" PRId64 " s", slept_ms / 1000);
	connections_check(&u->connections);
	attempts_slept(&u->attempts, slept_ms);
}

/* ---- the main connection changes ---- */

/* The list of its token is in force, or it has no token. */
static void settle_list(struct upstream *u)
{
	attempts_succeeded(&u->attempts);
	u->ops->cache.live(u->users.cache, u->connections.main->token);
}

static void on_first(void *owner)
{
	struct upstream *u = owner;

	u->opened++;
	set_state(u, UPSTREAM_CONNECTED, u->connections.main->endpoint->host);
	u->ops->cache.up(u->users.cache);
	u->ops->up(u->users.router, u->connections.main->number, clock_mono_ms());
	settle_list(u);
	attempts_after_first(&u->attempts);
}

static bool on_moved(void *owner)
{
	struct upstream *u = owner;

	log_info("upstream: a new connection has taken over");
	u->ops->cache.up(u->users.cache);
	bool late_writes =
		u->ops->moved(u->users.router, u->connections.main->number, clock_mono_ms());
	settle_list(u);
	return late_writes;
}

/* ---- messages ---- */

static void complain(struct upstream *u, const struct wire_frame *frame)
{
	int64_t now = clock_mono_ms();

	if (u->unusable.complained_at && now - u->unusable.complained_at < COMPLAIN_EVERY_MS)
		return;
	u->unusable.complained_at = now;
	log_warning("upstream: a message of the service can't be used: %s (%" PRIu64 " so far)",
		    frame->fault, u->stats->upstream_unusable + 1);
}

static void on_missed(evutil_socket_t fd, short what, void *arg)
{
	struct upstream *u = arg;
	int64_t since = u->unusable.missed_since;

	(void)fd;
	(void)what;
	if (!since)
		return;
	u->unusable.missed_since = 0;
	timer_start(u->unusable.missed, COMPLAIN_EVERY_MS);
	u->ops->missed(u->users.subscriptions, since);
}

/* A notification was missed. Subscribers are told at once, from a fresh stack; further ones are
 * told together after a while, since each time is a line for every subscription. */
static void note_missed(struct upstream *u, int64_t since)
{
	if (!u->unusable.missed_since || since < u->unusable.missed_since)
		u->unusable.missed_since = since > 1 ? since : 1;
	if (!event_pending(u->unusable.missed, EV_TIMEOUT, NULL))
		timer_start(u->unusable.missed, 0);
	u->ops->cache.missed(u->users.cache);
	u->ops->unreadable(u->users.subscriptions);
}

static void on_frame(void *owner, const struct wire_frame *frame)
{
	struct upstream *u = owner;

	if (frame->kind == WIRE_UNUSABLE)
		complain(u, frame);
	if (frame->notifies)
		note_missed(u, clock_boot_ms());
	else if (frame->kind == WIRE_UNUSABLE && !frame->has_id)
		u->ops->cache.missed(u->users.cache); /* it may have been a notification */
	u->ops->frame(u->users.router, frame, clock_mono_coarse_ms());
}

static void on_change(void *owner, const struct wire_frame *frame,
		      const struct notification *change)
{
	struct upstream *u = owner;

	u->ops->cache.change(u->users.cache, frame, change);
	u->ops->change(u->users.subscriptions, frame, change);
}

/* frame NULL: a change of any key may be missed. */
static void on_straggler(void *owner, const struct wire_frame *frame,
			 const struct notification *change)
{
	struct upstream *u = owner;

	if (frame) {
		u->ops->cache.arrived(u->users.cache, frame);
		u->ops->straggler(u->users.subscriptions, frame, change);
	} else {
		note_missed(u, clock_boot_ms() - LATE_MAX_MS);
	}
}

static void on_drained(void *owner)
{
	struct upstream *u = owner;

	u->ops->drained(u->users.router, clock_mono_ms());
}

/* ---- how connections end ---- */

/* As upstream_ops::down(). */
static bool tell_down(struct upstream *u, uint32_t number, const struct conn_end *end)
{
	return u->ops->down(u->users.router, number, end->close_code, end->dropped,
			    clock_mono_ms());
}

static void tell_lost(struct upstream *u, int64_t heard_ms)
{
	u->ops->cache.lost(u->users.cache, heard_ms);
	u->ops->list.lost(u->users.subscriptions, heard_ms);
}

static void on_arrived(void *owner, const struct wire_frame *frame)
{
	struct upstream *u = owner;

	u->ops->cache.arrived(u->users.cache, frame);
}

/* In-flight requests are lost, and perhaps changes that it has not brought yet. */
static void on_main_ended(void *owner, uint32_t number, bool token, const struct conn_end *end)
{
	struct upstream *u = owner;
	int64_t lasted_ms = clock_mono_ms() - u->since;

	u->stats->upstream_disconnects++;
	attempts_main_ended(&u->attempts, end->why);
	if (token) /* first: the router must not read for subscribers that do not know of the loss
		    */
		tell_lost(u, end->heard_ms);
	bool excused = tell_down(u, number, end);
	attempts_after_loss(&u->attempts, lasted_ms, excused);
}

static void on_next_ended(void *owner, bool token, const struct conn_end *end)
{
	struct upstream *u = owner;

	attempts_next_ended(&u->attempts, token, end);
}

/* Requests that were in flight there are lost. */
static void on_replaced_ended(void *owner, uint32_t number, const struct conn_end *end)
{
	struct upstream *u = owner;

	if (u->state == UPSTREAM_STOPPED)
		return;
	tell_down(u, number, end);
	attempts_check(&u->attempts); /* the next connection may have had to wait for this */
}

static const struct connections_ops connections_ops = {
	.first = on_first,
	.moved = on_moved,
	.main_ended = on_main_ended,
	.next_ended = on_next_ended,
	.replaced_ended = on_replaced_ended,
	.drained = on_drained,
	.frame = on_frame,
	.arrived = on_arrived,
	.stream = {.change = on_change, .straggler = on_straggler},
};

/* ---- public functions ---- */

void upstream_send(struct upstream *u, struct span head, struct span body)
{
	conn_send(u->connections.main->conn, head, body);
}

bool upstream_sendable(struct upstream *u)
{
	return u->connections.main && conn_sendable(u->connections.main->conn);
}

void upstream_connection_idle(struct upstream *u, uint32_t connection)
{
	connections_idle(&u->connections, connection);
}

void upstream_want(struct upstream *u)
{
	if (u->state != UPSTREAM_STOPPED)
		attempts_want(&u->attempts);
}

/* The parts that may fail; -errno, logged. */
static int make_parts(struct upstream *u, struct event_base *base,
		      const struct upstream_settings *settings)
{
	const struct attempts_context context = {.base = base,
						 .endpoints = &u->endpoints,
						 .connections = &u->connections,
						 .list = &u->ops->list,
						 .subscriptions = u->users.subscriptions,
						 .phase_changed = on_phase,
						 .router = u->users.router,
						 .spend = u->ops->spend,
						 .spend_refused = u->ops->spend_refused,
						 .owner = u,
						 .stats = u->stats};
	const char *why = NULL;
	struct endpoint *endpoint = endpoint_new(&u->endpoints, &settings->endpoint, &why);
	int err = -EINVAL;

	if (endpoint) {
		endpoints_set(&u->endpoints, endpoint);
		u->suspend = suspend_new(base, on_resume, u);
		err = u->suspend ? attempts_init(&u->attempts, &context, &settings->attempts)
				 : -errno;
	}
	if (err < 0)
		log_error("upstream: %s", why ? why : strerror(-err));
	return err;
}

struct upstream *upstream_new(struct event_base *base, const struct upstream_settings *settings,
			      const struct upstream_ops *ops, const struct upstream_users *users,
			      struct stats *stats)
{
	struct upstream *u = mem_zalloc(sizeof(*u));

	*u = (struct upstream){
		.ops = ops,
		.users = *users,
		.stats = stats,
		.state = UPSTREAM_CONNECTING,
		.since = clock_mono_ms(),
	};
	endpoints_init(&u->endpoints, base, stats);
	if (make_parts(u, base, settings) < 0) {
		suspend_free(u->suspend);
		endpoints_fini(&u->endpoints);
		free(u);
		return NULL;
	}
	connections_init(&u->connections, base, &u->endpoints, settings->seed, &connections_ops, u,
			 stats);
	handover_limit(&u->connections.handover, settings->compared_bytes);
	u->unusable.missed = timer_new(base, on_missed, u);
	suspend_every(u->suspend, u->endpoints.present->shared.settings.keepalive_ms);
	attempts_begin(&u->attempts);
	return u;
}

/* From now on connections are made for this endpoint. */
static int change_endpoint(struct upstream *u, const struct upstream_settings *settings)
{
	const char *why = NULL;
	struct endpoint *endpoint = endpoint_new(&u->endpoints, &settings->endpoint, &why);

	if (!endpoint) {
		log_error("upstream: %s", why);
		return -EINVAL;
	}
	attempts_give_up(&u->attempts);
	endpoints_set(&u->endpoints, endpoint);
	attempts_set_endpoint(&u->attempts, &settings->attempts);
	return 0;
}

int upstream_reload(struct upstream *u, const struct upstream_settings *settings, bool another)
{
	const struct conn_settings *conn = &settings->endpoint.conn;

	if (another) {
		int err = change_endpoint(u, settings);
		if (err < 0)
			return err;
	} else if (conn->connect_timeout_ms <
			   u->endpoints.present->shared.settings.connect_timeout_ms &&
		   !u->connections.ping) {
		attempts_give_up(&u->attempts); /* it would last as long as before */
	}
	handover_limit(&u->connections.handover, settings->compared_bytes);
	attempts_set_times(&u->attempts, &settings->attempts, conn->connect_timeout_ms);
	connections_set_times(&u->connections, conn);
	suspend_every(u->suspend, u->endpoints.present->shared.settings.keepalive_ms);
	/* At once: somebody who has changed a setting wants to see its effect. */
	attempts_begin(&u->attempts);
	return 0;
}

void upstream_stop(struct upstream *u)
{
	set_state(u, UPSTREAM_STOPPED, "the daemon stops");
	event_del(u->unusable.missed);
	suspend_stop(u->suspend);
	attempts_stop(&u->attempts);
	connections_stop(&u->connections);
}

bool upstream_closed(const struct upstream *u)
{
	return TAILQ_EMPTY(&u->connections.all);
}

void upstream_free(struct upstream *u)
{
	if (!u)
		return;
	if (u->state != UPSTREAM_STOPPED)
		upstream_stop(u);
	connections_fini(&u->connections);
	attempts_fini(&u->attempts);
	endpoints_fini(&u->endpoints);
	suspend_free(u->suspend);
	event_free(u->unusable.missed);
	free(u);
}

enum upstream_state upstream_state(const struct upstream *u)
{
	return u->state;
}

bool upstream_has_token(const struct upstream *u)
{
	if (u->connections.main)
		return u->connections.main->token;
	return u->attempts.keyless || u->ops->list.wants(u->users.subscriptions);
}

const char *upstream_url(const struct upstream *u)
{
	return u->connections.main ? u->connections.main->endpoint->shown
				   : u->endpoints.present->shown;
}

int64_t upstream_since_ms(const struct upstream *u)
{
	return clock_mono_ms() - u->since;
}

uint64_t upstream_reconnects(const struct upstream *u)
{
	return u->opened ? u->opened - 1 : 0;
}

const char *upstream_last_error(const struct upstream *u)
{
	return u->attempts.last_error[0] ? u->attempts.last_error : NULL;
}

const char *upstream_token_error(const struct upstream *u)
{
	return u->attempts.token_error[0] ? u->attempts.token_error : NULL;
}

const char *upstream_why_not_live(const struct upstream *u)
{
	const char *why = upstream_token_error(u);

	if (u->state != UPSTREAM_CONNECTED)
		return why ? why : upstream_last_error(u);
	if (!why && attempts_handover_ms(&u->attempts) >= 0)
		return "there are many new subscriptions, and the next handover comes later";
	return why;
}

int64_t upstream_token_expires_ms(const struct upstream *u)
{
	int64_t left;

	if (!u->connections.main || !u->connections.main->token)
		return -1;
	left = u->attempts.expires_at - clock_boot_ms();
	return left > 0 ? left : 0;
}

size_t upstream_unsent(const struct upstream *u)
{
	return u->connections.main ? conn_unsent(u->connections.main->conn) : 0;
}

long upstream_handover_ms(const struct upstream *u)
{
	return u->state == UPSTREAM_CONNECTED ? attempts_handover_ms(&u->attempts) : -1;
}

long upstream_retry_ms(const struct upstream *u)
{
	if (u->state == UPSTREAM_CONNECTED)
		return upstream_handover_ms(u);
	if (u->state != UPSTREAM_BACKOFF && u->state != UPSTREAM_UNAUTHORIZED)
		return -1;
	return attempts_retry_ms(&u->attempts);
}
