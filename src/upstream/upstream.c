#include "upstream/upstream.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/util.h>

#include "base/alarm.h"
#include "base/backoff.h"
#include "base/clock.h"
#include "transport/conn.h"
#include "upstream/connections.h"
#include "base/log.h"
#include "base/mem.h"
#include "upstream/endpoint.h"
#include "base/secret.h"
#include "upstream/credentials.h"
#include "base/timer.h"
#include "base/suspend.h"

enum {
	COMPLAIN_EVERY_MS = 10000, /* about unusable messages, to the log and to subscribers */
	STABLE_MAX_MS = 30000, /* a connection that has lasted so long proves that backing off can
				  start anew */
	LATE_MAX_MS = 60000,   /* a change that is missed has happened since then */
	ERROR_MAX = 500,
	FUTILE_MANY = 20, /* lists in a row that came to nothing: more than it takes to find one
			     culprit, or the room that there is */
	FUTILE_PAUSE_MS = 100,
	FUTILE_PAUSE_MAX_MS = 2000,
	CHANGES_AT_ONCE = 64,   /* of the connection, because of what clients ask for */
	CHANGE_EVERY_MS = 1000, /* ... and from then on */
	HTTP_UNAUTHORIZED = 401,
	HTTP_FORBIDDEN = 403,
};

static const char *const state_names[] = {"connecting", "connected", "backoff", "unauthorized",
					  "stopped"};
_Static_assert(sizeof(state_names) / sizeof(state_names[0]) == UPSTREAM_STATE_N,
	       "a name for each state");

struct upstream {
	struct event_base *base;
	struct endpoints endpoints; /* that connections lead to */
	char *key_hint;
	int64_t backoff_min_ms, backoff_max_ms, batch_ms;
	const struct upstream_ops *ops;
	struct upstream_users users;
	struct stats *stats;

	enum upstream_state state;
	int64_t since;
	char last_error[ERROR_MAX], token_error[ERROR_MAX];
	uint64_t opened; /* connections, those that took over not counted */

	struct connections connections;
	struct credentials *credentials;
	struct alarm *renewal;
	struct suspend *wake;
	int64_t renew_at, expires_at; /* of clock_boot_ms(), of the main connection's token */
	bool minting;                 /* a token for the next connection */
	bool reused;                  /* next was opened with a token that was not minted for it */
	bool fallback;                /* next was opened with the key since no token could be had */
	bool fallback_refused;        /* ... because the key was refused one */
	int fallback_pause_s;         /* ... and the service asked for this pause; -1: it did not */
	int64_t token_at;    /* no token is asked for before, whatever becomes of connections */
	struct event *turn;  /* an attempt begins from a fresh stack */
	struct event *retry; /* ... after a pause */
	int64_t retry_at;
	unsigned failures;          /* attempts in a row, each over all addresses */
	unsigned futile;            /* lists in a row that came to nothing */
	int64_t changes_paid_at;    /* when CHANGES_AT_ONCE more are allowed again */
	unsigned handover_failures; /* the same of attempts to replace a connection that is there */
	struct event *batch;        /* subscribe_batch is over */
	int64_t complained_at;
	struct event *missed; /* subscribers are told so; pending also for a while after that */
	int64_t missed_since; /* of clock_boot_ms(); 0: none were */
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

static void keep_text(char kept[ERROR_MAX], const char *text)
{
	snprintf(kept, ERROR_MAX, "%s", text);
}

/* ---- pauses between attempts ---- */

static int64_t backoff_ms(const struct upstream *u)
{
	unsigned failures = u->connections.main ? u->handover_failures : u->failures;
	uint64_t random;

	evutil_secure_rng_get_bytes(&random, sizeof(random));
	return backoff_jitter(
		backoff_doubled(u->backoff_min_ms, failures ? failures - 1 : 0, u->backoff_max_ms),
		random);
}

/* The next attempt comes after a pause. While a connection is there its state does not change by
 * that. */
static void pause_until(struct upstream *u, enum upstream_state state, int64_t ms,
			const char *cause)
{
	u->retry_at = clock_mono_ms() + ms;
	timer_start(u->retry, ms);
	if (!u->connections.main)
		set_state(u, state, cause);
}

static void count_failure(struct upstream *u)
{
	if (u->connections.main) {
		u->handover_failures++;
		u->stats->upstream_handover_failures++;
	} else {
		u->failures++;
		u->stats->upstream_connect_failures++;
	}
}

static void pause_after(struct upstream *u, int retry_after_s, const char *cause)
{
	int64_t asked = backoff_asked_ms(retry_after_s, u->backoff_max_ms), ms;

	count_failure(u);
	ms = backoff_ms(u);
	pause_until(u, UPSTREAM_BACKOFF, ms > asked ? ms : asked, cause);
}

static void key_refused(struct upstream *u, const char *why)
{
	char cause[2 * ERROR_MAX];

	snprintf(cause, sizeof(cause), "the service has refused the key from %s: %s", u->key_hint,
		 why);
	count_failure(u);
	if (u->connections.main) /* else its state tells */
		log_error("upstream: %s", cause);
	pause_until(u, UPSTREAM_UNAUTHORIZED, u->backoff_max_ms, cause);
}

static long retry_ms(const struct upstream *u)
{
	int64_t left = u->retry_at - clock_mono_ms();

	return left > 0 ? (long)left : 0;
}

/* ---- making a connection ---- */

/* The next attempt begins in the next turn of the loop. */
static void again_at_once(struct upstream *u)
{
	timer_next_turn(u->turn);
}

static void drop_attempt(struct upstream *u)
{
	credentials_cancel(u->credentials);
	u->minting = false;
	connections_drop_next(&u->connections);
}

/* The reason goes where people look: a connection that could not be replaced is there still. */
static void keep_reason(struct upstream *u, const char *why)
{
	keep_text(u->connections.main ? u->token_error : u->last_error, why);
	if (u->connections.main)
		log_warning("upstream: the connection could not be replaced, it stays: %s", why);
}

/* Is a connection being made? */
static bool is_busy(const struct upstream *u)
{
	return u->minting || u->connections.next;
}

/* What the connection that is being made was to subscribe to is asked for anew. */
static void give_up_attempt(struct upstream *u)
{
	if (!is_busy(u))
		return;
	drop_attempt(u);
	credentials_reject(u->credentials);
	u->ops->list_failed(u->users.subscriptions);
}

/* Is there a reason to replace the connection that counts? */
static bool needs_another(const struct upstream *u)
{
	if (connections_is_outdated(&u->connections, u->connections.main))
		return true;
	if (!u->connections.main->token)
		return u->ops->wants(u->users.subscriptions);
	return u->ops->stale(u->users.subscriptions) || clock_boot_ms() >= u->renew_at;
}

/* Without a token. */
static void connect_with_key(struct upstream *u)
{
	char *path = credentials_make_key_path(u->credentials);

	connections_connect(&u->connections, path, false);
	secret_free(&path);
}

/* Requests need no token: while none can be had they go out with the key. */
static void fall_back(struct upstream *u, int pause_s)
{
	u->fallback = true;
	u->fallback_pause_s = pause_s;
	connect_with_key(u);
}

/* The connection that was there while a token was waited for is lost: it is waited for still. */
static bool token_must_wait(const struct upstream *u)
{
	return !u->connections.main && clock_mono_ms() < u->token_at;
}

/* A change of the connection costs the service a token and a handshake. A client that subscribes to
 * something new again and again could have them made without end. */
static void pay_change(struct upstream *u)
{
	int64_t now = clock_mono_ms(), most = now + CHANGES_AT_ONCE * CHANGE_EVERY_MS;

	if (u->changes_paid_at < now)
		u->changes_paid_at = now;
	else if (u->changes_paid_at > most) /* those of other reasons have not waited */
		u->changes_paid_at = most;
	u->changes_paid_at += CHANGE_EVERY_MS;
}

/* How long the next one has to wait. */
static int64_t change_wait_ms(const struct upstream *u)
{
	return u->changes_paid_at - CHANGES_AT_ONCE * CHANGE_EVERY_MS - clock_mono_ms();
}

static void begin_attempt(struct upstream *u)
{
	const char *path = u->connections.main ? NULL : credentials_path(u->credentials);

	if (u->state == UPSTREAM_STOPPED || is_busy(u) ||
	    (u->connections.main && (!needs_another(u) || connections_are_many(&u->connections))))
		return;
	event_del(u->retry);
	event_del(u->batch);
	u->reused = u->fallback = false;
	if (u->connections.main)
		pay_change(u);
	else
		set_state(u, UPSTREAM_CONNECTING, u->endpoints.present->host);
	if (!u->ops->wants(u->users.subscriptions) &&
	    (!u->connections.main ||
	     connections_is_outdated(&u->connections, u->connections.main))) {
		connect_with_key(u);
	} else if (path && !u->ops->stale(u->users.subscriptions)) {
		u->reused = true;
		connections_connect(&u->connections, path, true);
	} else if (token_must_wait(u)) {
		int64_t left = u->token_at - clock_mono_ms();
		fall_back(u, (int)((left + 999) / 1000));
	} else {
		u->minting = true;
		credentials_ask(u->credentials);
	}
}

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	begin_attempt(arg);
}

/* ---- tokens ---- */

/* The connection that is there has no token, or an old one, and that is so for a while. */
static void stay_without(struct upstream *u, bool refused, int retry_after_s)
{
	if (!refused) {
		pause_after(u, retry_after_s, u->token_error);
		return;
	}
	key_refused(u, u->token_error);
	u->ops->refuse_all(u->users.subscriptions, u->token_error, retry_ms(u));
}

/* There is none to be had for now. */
static void no_token(struct upstream *u, const struct credentials_answer *answer)
{
	bool refused = answer->verdict == CREDENTIALS_UNAUTHORIZED;

	keep_text(u->token_error, answer->why);
	u->token_at = clock_mono_ms() +
		      (refused ? u->backoff_max_ms
			       : backoff_asked_ms(answer->retry_after_s, u->backoff_max_ms));
	u->fallback_refused = refused;
	u->ops->list_failed(u->users.subscriptions);
	if (u->connections.main) {
		log_warning("upstream: no token, the connection stays as it is: %s", answer->why);
		stay_without(u, refused, answer->retry_after_s);
		return;
	}
	fall_back(u, answer->retry_after_s);
}

/* Another list, since the last one came to nothing: in the next turn while a culprit is searched
 * for, or the room that there is, and after a pause if there is no end of them. */
static void another_list(struct upstream *u)
{
	unsigned beyond = u->futile++ < FUTILE_MANY ? 0 : u->futile - FUTILE_MANY;
	int64_t ms = (int64_t)beyond * FUTILE_PAUSE_MS;

	timer_start(u->batch, ms < FUTILE_PAUSE_MAX_MS ? ms : FUTILE_PAUSE_MAX_MS);
}

/* The list was empty: what was asked for had no room and is refused by now, or nobody asks any
 * more, or somebody has only just come. */
static void nothing_listed(struct upstream *u)
{
	static const struct credentials_answer no_room = {
		CREDENTIALS_FAILED, "a token has no room for anything that is subscribed to", -1};

	if (u->ops->stale(u->users.subscriptions)) {
		u->ops->list_failed(u->users.subscriptions);
		another_list(u);
	} else if (u->ops->wants(u->users.subscriptions)) {
		no_token(u, &no_room);
	} else if (!u->connections.main || u->connections.main->token ||
		   connections_is_outdated(&u->connections, u->connections.main)) {
		connect_with_key(u);
	} else {
		u->ops->list_failed(u->users.subscriptions);
	}
}

static void on_ticket(void *owner, const struct credentials_answer *answer)
{
	struct upstream *u = owner;

	u->minting = false;
	switch (answer->verdict) {
	case CREDENTIALS_READY:
		connections_connect(&u->connections, credentials_new_path(u->credentials), true);
		break;
	case CREDENTIALS_NONE:
		nothing_listed(u);
		break;
	case CREDENTIALS_TOO_LONG:
		u->ops->list_failed(u->users.subscriptions);
		another_list(u);
		break;
	case CREDENTIALS_REFUSED:
		if (u->ops->list_refused(u->users.subscriptions, answer->why))
			another_list(u);
		else
			no_token(u, answer);
		break;
	case CREDENTIALS_UNAUTHORIZED:
	case CREDENTIALS_FAILED:
		no_token(u, answer);
		break;
	case CREDENTIALS_VERDICT_N:
		break;
	}
}

static size_t ticket_makes_list(void *owner, size_t budget, struct buf *list)
{
	struct upstream *u = owner;

	return u->ops->make_list(u->users.subscriptions, budget, list);
}

static const struct credentials_ops credentials_ops = {.make_list = ticket_makes_list,
						       .answer = on_ticket};

static void on_renewal(void *owner)
{
	struct upstream *u = owner;

	if (u->connections.main && u->connections.main->token &&
	    !event_pending(u->retry, EV_TIMEOUT, NULL))
		begin_attempt(u);
}

/* ---- sleep ---- */

/* The connections may be dead; and pauses, which the timer has stood still in, are the shorter. */
static void on_wake(void *owner, int64_t slept_ms)
{
	struct upstream *u = owner;

	log_info("upstream: the machine has slept for %" PRId64 " s", slept_ms / 1000);
	connections_check(&u->connections);
	u->token_at -= slept_ms;
	u->retry_at -= slept_ms;
	if (event_pending(u->retry, EV_TIMEOUT, NULL))
		timer_start(u->retry, retry_ms(u));
}

/* ---- taking over ---- */

static void watch_token(struct upstream *u)
{
	u->renew_at = credentials_renew_at(u->credentials);
	u->expires_at = credentials_expires_at(u->credentials);
	alarm_set(u->renewal, u->renew_at);
}

/* What subscribers wait for: the connection that counts has its token, or needs none. */
static void tell_subscribers(struct upstream *u)
{
	if (u->connections.main->token) {
		credentials_accept(
			u->credentials); /* nothing, if it is the one that was in force */
		u->futile = 0;
		u->token_error[0] = '\0';
		watch_token(u);
		u->ops->live(u->users.subscriptions);
	} else if (!u->fallback) {
		u->token_error[0] = '\0';
		alarm_clear(u->renewal);
		credentials_forget(u->credentials);
		u->ops->without(u->users.subscriptions);
	}
}

/* There was no connection, or it is gone. */
static void on_first(void *owner)
{
	struct upstream *u = owner;

	u->opened++;
	u->handover_failures = 0;
	set_state(u, UPSTREAM_CONNECTED, u->connections.main->endpoint->host);
	u->ops->up(u->users.router, u->connections.main->number, clock_mono_ms());
	tell_subscribers(u);
	if (u->fallback)
		stay_without(u, u->fallback_refused, u->fallback_pause_s);
	else if (needs_another(u))
		upstream_want(u);
}

/* The next connection has taken the place of the one that counted. */
static bool on_moved(void *owner)
{
	struct upstream *u = owner;

	u->handover_failures = 0;
	log_info("upstream: a new connection has taken over");
	bool late_writes =
		u->ops->moved(u->users.router, u->connections.main->number, clock_mono_ms());
	tell_subscribers(u);
	return late_writes;
}

/* ---- messages ---- */

static void complain(struct upstream *u, const struct wire_frame *frame)
{
	int64_t now = clock_mono_ms();

	if (u->complained_at && now - u->complained_at < COMPLAIN_EVERY_MS)
		return;
	u->complained_at = now;
	log_warning("upstream: a message of the service can't be used: %s (%" PRIu64 " so far)",
		    frame->fault, u->stats->upstream_unusable + 1);
}

static void on_missed(evutil_socket_t fd, short what, void *arg)
{
	struct upstream *u = arg;
	int64_t since = u->missed_since;

	(void)fd;
	(void)what;
	if (!since)
		return;
	u->missed_since = 0;
	timer_start(u->missed, COMPLAIN_EVERY_MS);
	u->ops->missed(u->users.subscriptions, since);
}

/* The first is told at once, from a fresh stack; of more that come within a while all together,
 * since it is a line for every subscription. */
static void note_missed(struct upstream *u, int64_t since)
{
	if (!u->missed_since || since < u->missed_since)
		u->missed_since = since > 1 ? since : 1;
	if (!event_pending(u->missed, EV_TIMEOUT, NULL))
		timer_start(u->missed, 0);
	u->ops->unreadable(u->users.subscriptions);
}

static void on_frame(void *owner, const struct wire_frame *frame)
{
	struct upstream *u = owner;

	if (frame->kind == WIRE_UNUSABLE)
		complain(u, frame);
	if (frame->notifies)
		note_missed(u, clock_boot_ms());
	u->ops->frame(u->users.router, frame, clock_mono_coarse_ms());
}

static void on_change(void *owner, const struct wire_frame *frame,
		      const struct notification *change)
{
	struct upstream *u = owner;

	u->ops->change(u->users.subscriptions, frame, change);
}

/* Of none in particular: all subscribers may have missed something. */
static void on_straggler(void *owner, const struct wire_frame *frame,
			 const struct notification *change)
{
	struct upstream *u = owner;

	if (frame)
		u->ops->straggler(u->users.subscriptions, frame, change);
	else
		note_missed(u, clock_boot_ms() - LATE_MAX_MS);
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

/* In-flight requests are lost; changes that it has not brought yet may be. Returns whether one
 * request was at fault. */
static bool lose_main(struct upstream *u, const struct conn_end *end)
{
	uint32_t number = u->connections.main->number;
	bool token = u->connections.main->token;

	connections_drop_main(&u->connections);
	alarm_clear(u->renewal);
	if (token) /* first: nothing is to be read for subscribers over what is left */
		u->ops->lost(u->users.subscriptions, end->heard_ms);
	return tell_down(u, number, end);
}

/* Backing off starts anew only after a stable connection, so that a service that accepts and drops
 * is not hammered. */
static void count_loss(struct upstream *u)
{
	int64_t stable = u->backoff_max_ms < STABLE_MAX_MS ? u->backoff_max_ms : STABLE_MAX_MS;

	if (clock_mono_ms() - u->since >= stable)
		u->failures = 0;
	u->failures++;
}

static void on_main_ended(void *owner, const struct conn_end *end)
{
	struct upstream *u = owner;

	keep_text(u->last_error, end->why);
	u->stats->upstream_disconnects++;
	count_loss(u);
	if (lose_main(u, end) && u->failures)
		u->failures--;
	if (u->connections.stage == CONNECTIONS_CATCHING) {
		connections_take_over(&u->connections);
		return;
	}
	event_del(u->turn);
	event_del(u->batch);
	if (is_busy(u))
		set_state(u, UPSTREAM_CONNECTING, u->last_error);
	else
		pause_until(u, UPSTREAM_BACKOFF, backoff_ms(u), u->last_error);
}

static bool is_refusal(int http_status)
{
	return http_status == HTTP_UNAUTHORIZED || http_status == HTTP_FORBIDDEN;
}

/* The service would not have the token. One that was in force before may have been revoked: another
 * is minted at once, as for one that was too long. Of a new one it is not the key's fault. */
static void token_refused(struct upstream *u, const struct conn_end *end)
{
	struct credentials_answer answer = {CREDENTIALS_FAILED, end->why, end->retry_after_s};
	bool too_long = credentials_was_refused(u->credentials, end->http_status);

	if (u->reused && is_refusal(end->http_status)) {
		credentials_forget(u->credentials);
		again_at_once(u);
	} else if (too_long) {
		u->ops->list_failed(u->users.subscriptions);
		another_list(u);
	} else if (end->retry_after_s < 0) {
		no_token(u, &answer);
	} else {
		u->ops->list_failed(u->users.subscriptions);
		pause_after(u, end->retry_after_s, end->why);
	}
}

static void on_next_ended(void *owner, const struct conn_end *end)
{
	struct upstream *u = owner;
	bool token = u->connections.next->token;

	drop_attempt(u);
	keep_reason(u, end->why);
	if (token && end->http_status) {
		token_refused(u, end);
		return;
	}
	credentials_reject(u->credentials);
	u->ops->list_failed(u->users.subscriptions);
	if (!is_refusal(end->http_status)) {
		pause_after(u, end->retry_after_s, end->why);
		return;
	}
	key_refused(u, end->why);
	u->ops->refuse_all(u->users.subscriptions, end->why, retry_ms(u));
}

/* The old connection was gone from the router's view before, or is now: what was on its way there
 * is lost. */
static void on_left_ended(void *owner, uint32_t number, const struct conn_end *end)
{
	struct upstream *u = owner;

	tell_down(u, number, end);
	if (u->connections.main && needs_another(u)) /* it may have had to wait */
		upstream_want(u);
}

static const struct connections_ops connections_ops = {
	.first = on_first,
	.moved = on_moved,
	.main_ended = on_main_ended,
	.next_ended = on_next_ended,
	.left_ended = on_left_ended,
	.drained = on_drained,
	.frame = on_frame,
	.stream = {.change = on_change, .straggler = on_straggler},
};

/* ---- for the rooms above ---- */

void upstream_send(struct upstream *u, struct span head, struct span body)
{
	conn_send(u->connections.main->conn, head, body);
}

bool upstream_sendable(struct upstream *u)
{
	return u->connections.main && conn_sendable(u->connections.main->conn);
}

void upstream_lane_idle(struct upstream *u, uint32_t connection)
{
	connections_idle(&u->connections, connection);
}

void upstream_want(struct upstream *u)
{
	if (u->state == UPSTREAM_STOPPED || is_busy(u) || !u->connections.main ||
	    event_pending(u->retry, EV_TIMEOUT, NULL) || event_pending(u->batch, EV_TIMEOUT, NULL))
		return;
	int64_t wait = change_wait_ms(u);
	timer_start(u->batch, wait > u->batch_ms ? wait : u->batch_ms);
}

static void make_ticket(struct upstream *u, const struct upstream_settings *s)
{
	struct credentials_settings settings = {
		.token_client = {.host = s->endpoint.conn.host,
				 .port = s->endpoint.conn.port,
				 .tls = s->endpoint.conn.tls,
				 .path_prefix = s->path_prefix,
				 .ca_file = s->endpoint.ca_file,
				 .proxy_host = s->endpoint.conn.proxy_host,
				 .proxy_port = s->endpoint.conn.proxy_port,
				 .proxy_login = s->endpoint.conn.proxy_login,
				 .timeout_ms = s->endpoint.conn.connect_timeout_ms},
		.api_key = s->api_key,
		.fields = s->subscribe_fields,
		.access_pattern = s->access_pattern,
		.lifetime_ms = s->token_lifetime_ms,
	};

	u->credentials = credentials_new(u->base, &settings, &credentials_ops, u, u->stats);
}

static void take_times(struct upstream *u, const struct upstream_settings *s)
{
	handover_limit(&u->connections.handover, &s->held);
	u->backoff_min_ms = s->backoff_min_ms;
	u->backoff_max_ms = s->backoff_max_ms;
	u->batch_ms = s->subscribe_batch_ms;
	free(u->key_hint);
	u->key_hint = mem_strdup(s->key_hint);
}

static void make_timers(struct upstream *u, struct event_base *base)
{
	u->turn = timer_new(base, on_turn, u);
	u->retry = timer_new(base, on_turn, u);
	u->batch = timer_new(base, on_turn, u);
	u->missed = timer_new(base, on_missed, u);
}

struct upstream *upstream_new(struct event_base *base, const struct upstream_settings *settings,
			      const struct upstream_ops *ops, const struct upstream_users *users,
			      struct stats *stats)
{
	const char *why = NULL;
	struct upstream *u = mem_zalloc(sizeof(*u));

	*u = (struct upstream){
		.base = base,
		.ops = ops,
		.users = *users,
		.stats = stats,
		.state = UPSTREAM_CONNECTING,
		.since = clock_mono_ms(),
	};
	endpoints_init(&u->endpoints, base, stats);
	u->renewal = alarm_new(base, on_renewal, u);
	u->wake = suspend_new(base, on_wake, u);
	struct endpoint *endpoint = u->renewal && u->wake
					    ? endpoint_new(&u->endpoints, &settings->endpoint, &why)
					    : NULL;
	if (!endpoint) {
		log_error("upstream: %s", why ? why : strerror(errno));
		if (u->renewal)
			alarm_free(u->renewal);
		suspend_free(u->wake);
		endpoints_fini(&u->endpoints);
		free(u);
		return NULL;
	}
	endpoints_set(&u->endpoints, endpoint);
	connections_init(&u->connections, base, &u->endpoints, settings->seed, &connections_ops, u,
			 stats);
	take_times(u, settings);
	make_ticket(u, settings);
	make_timers(u, base);
	suspend_every(u->wake, u->endpoints.present->shared.settings.keepalive_ms);
	again_at_once(u);
	return u;
}

/* From now on connections are made with this. What is under way with the former settings is given
 * up. */
static void change_place(struct upstream *u, struct endpoint *endpoint,
			 const struct upstream_settings *settings)
{
	give_up_attempt(u);
	endpoints_set(&u->endpoints, endpoint);
	credentials_free(u->credentials);
	make_ticket(u, settings);
}

/* What is waited for is waited for so long from now on. */
static void retime(struct upstream *u, const struct upstream_settings *s)
{
	connections_set_times(&u->connections, &s->endpoint.conn);
	if (u->connections.main && u->connections.main->token &&
	    !connections_is_outdated(&u->connections, u->connections.main))
		watch_token(u);
	suspend_every(u->wake, u->endpoints.present->shared.settings.keepalive_ms);
}

int upstream_reload(struct upstream *u, const struct upstream_settings *settings, bool another)
{
	if (another) {
		const char *why = NULL;
		struct endpoint *endpoint = endpoint_new(&u->endpoints, &settings->endpoint, &why);
		if (!endpoint) {
			log_error("upstream: %s", why);
			return -EINVAL;
		}
		change_place(u, endpoint, settings);
	} else if (settings->endpoint.conn.connect_timeout_ms <
			   u->endpoints.present->shared.settings.connect_timeout_ms &&
		   u->connections.stage <= CONNECTIONS_CONNECTING) {
		give_up_attempt(u); /* it would be waited for as long as before */
	}
	take_times(u, settings);
	credentials_set_times(u->credentials, settings->endpoint.conn.connect_timeout_ms,
			      settings->token_lifetime_ms);
	retime(u, settings);
	/* Whoever has changed something wants to see what comes of it. */
	u->failures = u->handover_failures = 0;
	u->token_at = 0;
	event_del(u->retry);
	again_at_once(u);
	return 0;
}

void upstream_stop(struct upstream *u)
{
	set_state(u, UPSTREAM_STOPPED, "the daemon stops");
	event_del(u->retry);
	event_del(u->batch);
	event_del(u->missed);
	alarm_clear(u->renewal);
	suspend_stop(u->wake);
	credentials_cancel(u->credentials);
	u->minting = false;
	connections_stop(&u->connections);
}

bool upstream_closed(const struct upstream *u)
{
	return connections_are_gone(&u->connections);
}

void upstream_free(struct upstream *u)
{
	if (!u)
		return;
	if (u->state != UPSTREAM_STOPPED)
		upstream_stop(u);
	connections_fini(&u->connections);
	credentials_free(u->credentials);
	endpoints_fini(&u->endpoints);
	alarm_free(u->renewal);
	suspend_free(u->wake);
	event_free(u->turn);
	event_free(u->retry);
	event_free(u->batch);
	event_free(u->missed);
	free(u->key_hint);
	free(u);
}

enum upstream_state upstream_state(const struct upstream *u)
{
	return u->state;
}

bool upstream_has_token(const struct upstream *u)
{
	return u->connections.main ? u->connections.main->token
				   : u->ops->wants(u->users.subscriptions);
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
	return u->last_error[0] ? u->last_error : NULL;
}

const char *upstream_token_error(const struct upstream *u)
{
	return u->token_error[0] ? u->token_error : NULL;
}

const char *upstream_why_not_live(const struct upstream *u)
{
	const char *why = upstream_token_error(u);

	return why || u->state == UPSTREAM_CONNECTED ? why : upstream_last_error(u);
}

int64_t upstream_token_expires_ms(const struct upstream *u)
{
	int64_t left;

	if (!u->connections.main || !u->connections.main->token)
		return -1;
	left = u->expires_at - clock_boot_ms();
	return left > 0 ? left : 0;
}

size_t upstream_unsent(const struct upstream *u)
{
	return u->connections.main ? conn_unsent(u->connections.main->conn) : 0;
}

long upstream_retry_ms(const struct upstream *u)
{
	if (u->state != UPSTREAM_BACKOFF && u->state != UPSTREAM_UNAUTHORIZED)
		return -1;
	return retry_ms(u);
}
