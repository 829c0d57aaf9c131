#include "upstream.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include <event2/util.h>

#include "alarm.h"
#include "clock.h"
#include "conn.h"
#include "link.h"
#include "log.h"
#include "mem.h"
#include "place.h"
#include "relay.h"
#include "secret.h"
#include "ticket.h"
#include "timer.h"

enum {
	COMPLAIN_EVERY_MS = 10000, /* about unusable messages */
	RETRY_AFTER_MAX_MS = 600000,
	STABLE_MAX_MS = 30000, /* a connection that has lasted so long proves that backing off can
				  start anew */
	ERROR_MAX = 500,
	GRACE_MS = 5000,    /* for the old lane to bring what the new one has brought already */
	LINGER_MS = 5000,   /* an old lane may be late by so much */
	LATE_MS = 30000,    /* ... and a new one */
	LEFT_MAX = 16,      /* old lanes that still wait for answers; then no other one is left */
	REFUSALS_MANY = 20, /* of lists, in a row: more than it takes to find one culprit */
	REFUSAL_PAUSE_MS = 100,
	REFUSAL_PAUSE_MAX_MS = 2000,
	HTTP_UNAUTHORIZED = 401,
	HTTP_FORBIDDEN = 403,
};

static const char *const state_names[] = {"connecting", "connected", "backoff", "unauthorized",
					  "stopped"};
_Static_assert(sizeof(state_names) / sizeof(state_names[0]) == UPSTREAM_STATE_N,
	       "a name for each state");

TAILQ_HEAD(lane_list, lane);

/* What has become of the lane that is being made. */
enum attempt {
	ATTEMPT_NONE,
	ATTEMPT_MINTING,
	ATTEMPT_CONNECTING,
	ATTEMPT_PROVING,  /* it is open beside the present one, and was sent a ping */
	ATTEMPT_CATCHING, /* ... has answered it; the present one was sent a ping */
	ATTEMPT_ALIGNING, /* ... has answered that as well */
	ATTEMPT_N
};

struct lane {
	TAILQ_ENTRY(lane) of_left; /* upstream::left, once another has taken its place */
	struct upstream *upstream;
	struct place *place;
	struct conn *conn;
	uint32_t number;
	bool token;                   /* opened with one */
	int64_t renew_at, expires_at; /* ... of clock_boot_ms(), once it counts */
	int64_t until;                /* of an old one: it stays so long at least */
	bool waits;                   /* ... and until its requests are answered */
	bool closing;
};

struct upstream {
	struct event_base *base;
	struct places places; /* that lanes lead to */
	char *key_hint;
	int64_t backoff_min_ms, backoff_max_ms, batch_ms;
	const struct upstream_ops *ops;
	void *owner;
	struct stats *stats;

	enum upstream_state state;
	int64_t since;
	char last_error[ERROR_MAX], token_error[ERROR_MAX];
	uint64_t opened; /* connections, those that took over not counted */

	struct ticket *ticket;
	struct alarm *renewal;
	uint32_t last_number;
	struct lane *main;     /* the one that counts; or NULL */
	struct lane *next;     /* the one that is being made, from ATTEMPT_CONNECTING on */
	struct lane_list left; /* the latest last */
	struct lane *former;   /* of these, the one before main, which relay compares it with; or
				  NULL: that has ended, and no older one stands in for it */

	enum attempt attempt;
	bool reused;           /* next was opened with a token that was not minted for it */
	bool fallback;         /* next was opened with the key since no token could be had */
	bool fallback_refused; /* ... because the key was refused one */
	int fallback_pause_s;  /* ... and the service asked for this pause; -1: it did not */
	int64_t token_at;      /* no token is asked for before, whatever becomes of connections */
	uint32_t ping;         /* that ATTEMPT_PROVING or CATCHING waits for */
	struct event *turn;    /* an attempt begins from a fresh stack */
	struct event *retry;   /* ... after a pause */
	int64_t retry_at;
	unsigned failures;          /* attempts in a row, each over all addresses */
	unsigned refusals;          /* of lists, in a row */
	unsigned handover_failures; /* the same of attempts to replace a lane that is there */
	struct event *batch;        /* subscribe_batch is over */
	struct event *grace;        /* GRACE_MS are */
	struct event *linger;       /* some old lane's time may be */

	struct relay relay;     /* what they bring */
	struct event *late_end; /* LATE_MS are over */
	int64_t complained_at;
};

static const struct conn_ops conn_ops;
static void too_much(struct upstream *u);
static bool needs_another(const struct upstream *u);
static void move_over(struct upstream *u, bool waited);
static void next_ended(struct upstream *u, const struct conn_end *end);
static void main_is_silent(struct upstream *u);

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
	u->ops->changed(u->owner);
}

static void keep_text(char kept[ERROR_MAX], const char *text)
{
	snprintf(kept, ERROR_MAX, "%s", text);
}

/* ---- pauses between attempts ---- */

static int64_t random_up_to(int64_t max)
{
	uint64_t r;

	evutil_secure_rng_get_bytes(&r, sizeof(r));
	return max > 0 ? (int64_t)(r % ((uint64_t)max + 1)) : 0;
}

/* Doubling with full jitter: anything between nothing and a limit that doubles, so that many
 * daemons that lost the service at once do not come back at once. */
static int64_t backoff_ms(const struct upstream *u)
{
	int64_t limit = u->backoff_min_ms;
	unsigned failures = u->main ? u->handover_failures : u->failures;

	for (unsigned i = 1; i < failures && limit < u->backoff_max_ms; i++)
		limit *= 2;
	if (limit > u->backoff_max_ms)
		limit = u->backoff_max_ms;
	return random_up_to(limit);
}

/* What the service asked for by Retry-After. Whoever answers in its place may ask for a day; but
 * ten minutes at most are obeyed, so that a service that is back does not stay unused for long. */
static int64_t asked_pause_ms(const struct upstream *u, int retry_after_s)
{
	int64_t ms = (int64_t)retry_after_s * 1000;
	int64_t most =
		u->backoff_max_ms > RETRY_AFTER_MAX_MS ? u->backoff_max_ms : RETRY_AFTER_MAX_MS;

	return ms < most ? ms : most;
}

/* The next attempt comes after a pause. While a connection is there its state does not change by
 * that. */
static void pause_until(struct upstream *u, enum upstream_state state, int64_t ms,
			const char *cause)
{
	u->retry_at = clock_mono_ms() + ms;
	timer_start(u->retry, ms);
	if (!u->main)
		set_state(u, state, cause);
}

static void count_failure(struct upstream *u)
{
	if (u->main) {
		u->handover_failures++;
		u->stats->upstream_handover_failures++;
	} else {
		u->failures++;
		u->stats->upstream_connect_failures++;
	}
}

static void pause_after(struct upstream *u, int retry_after_s, const char *cause)
{
	int64_t ms;

	count_failure(u);
	ms = backoff_ms(u);
	if (ms < asked_pause_ms(u, retry_after_s))
		ms = asked_pause_ms(u, retry_after_s);
	pause_until(u, UPSTREAM_BACKOFF, ms, cause);
}

static void key_refused(struct upstream *u, const char *why)
{
	char cause[2 * ERROR_MAX];

	snprintf(cause, sizeof(cause), "the service has refused the key from %s: %s", u->key_hint,
		 why);
	count_failure(u);
	if (u->main) /* else its state tells */
		log_error("upstream: %s", cause);
	pause_until(u, UPSTREAM_UNAUTHORIZED, u->backoff_max_ms, cause);
}

static long retry_ms(const struct upstream *u)
{
	int64_t left = u->retry_at - clock_mono_ms();

	return left > 0 ? (long)left : 0;
}

/* ---- lanes ---- */

static struct lane *lane_new(struct upstream *u, const char *path, bool token)
{
	struct lane *l = mem_zalloc(sizeof(*l));

	*l = (struct lane){.upstream = u,
			   .place = place_take(&u->places),
			   .number = ++u->last_number,
			   .token = token};
	l->conn = conn_new(&l->place->conn, path, &conn_ops, l);
	return l;
}

static void lane_free(struct lane *l)
{
	conn_free(l->conn);
	place_leave(&l->upstream->places, l->place);
	free(l);
}

/* Does it lead to where lanes are not made for any more? */
static bool is_outdated(const struct upstream *u, const struct lane *l)
{
	return l->place != u->places.present;
}

/* ---- old lanes ---- */

static void set_linger(struct upstream *u)
{
	struct lane *l;
	int64_t first = -1;

	TAILQ_FOREACH (l, &u->left, of_left) {
		if (!l->closing && !l->waits && (first < 0 || l->until < first))
			first = l->until;
	}
	if (first < 0)
		event_del(u->linger);
	else
		timer_start(u->linger, first - clock_mono_ms());
}

static void close_left(struct lane *l)
{
	if (l->closing)
		return;
	l->closing = true;
	if (l == l->upstream->former)
		relay_former_gone(&l->upstream->relay);
	conn_close(l->conn, 1000);
}

/* Closes the old lanes that nothing is waited for from any more. */
static void tidy_left(struct upstream *u)
{
	struct lane *l;
	int64_t now = clock_mono_ms();

	TAILQ_FOREACH (l, &u->left, of_left) {
		bool newest = !TAILQ_NEXT(l, of_left);
		bool busy = u->ops->in_flight(u->owner, l->number);
		l->waits = busy && l->until <= now; /* upstream_lane_idle() tells */
		if (!busy && (!newest || l->until <= now))
			close_left(l);
	}
	set_linger(u);
}

static void on_linger(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	tidy_left(arg);
}

void upstream_lane_idle(struct upstream *u, uint32_t lane)
{
	struct lane *l;

	TAILQ_FOREACH (l, &u->left, of_left) {
		if (l->number == lane)
			l->waits = false;
	}
	/* Not from within the caller, who may be in the middle of something. */
	if (!TAILQ_EMPTY(&u->left))
		timer_start(u->linger, 0);
}

/* The old lane was gone from the router's view before, or is now: what was on its way there is
 * lost. */
static void drop_left(struct upstream *u, struct lane *l)
{
	uint32_t number = l->number;

	if (l == u->former) {
		relay_former_gone(&u->relay);
		u->former = NULL;
	}
	TAILQ_REMOVE(&u->left, l, of_left);
	lane_free(l);
	set_linger(u);
	u->ops->down(u->owner, number);
	if (u->main && needs_another(u)) /* it may have had to wait */
		upstream_want(u);
}

static void leave_lane(struct upstream *u, struct lane *l)
{
	l->until = clock_mono_ms() + LINGER_MS;
	TAILQ_INSERT_TAIL(&u->left, l, of_left);
	u->former = l;
	tidy_left(u);
}

/* Are there so many that the next handover has to wait? Else whoever makes requests that take long
 * and subscribes meanwhile could have any number of connections open. */
static bool too_many_left(const struct upstream *u)
{
	const struct lane *l;
	unsigned n = 0;

	TAILQ_FOREACH (l, &u->left, of_left)
		n += !l->closing;
	return n >= LEFT_MAX;
}

/* ---- notifications ---- */

static void on_late_end(evutil_socket_t fd, short what, void *arg)
{
	struct upstream *u = arg;

	(void)fd;
	(void)what;
	relay_forget(&u->relay);
}

static void relay_brings(void *owner, const struct wire_frame *frame, const struct change *change)
{
	struct upstream *u = owner;

	u->ops->change(u->owner, frame, change);
}

static bool relay_asks_covers(void *owner, const struct wire_frame *frame,
			      const struct change *change, bool former)
{
	struct upstream *u = owner;
	const struct lane *l = former ? u->former : u->main;

	return l && l->token && u->ops->covers(u->owner, frame, change, former);
}

static const struct relay_ops relay_ops = {.change = relay_brings, .covers = relay_asks_covers};

/* Of the old lanes only the one before main can have something that the others have not. What an
 * older one brings, which may be late by any time, has been told. */
static void notified(struct upstream *u, const struct lane *l, const struct wire_frame *frame)
{
	bool fits = true;

	u->stats->upstream_notifications++;
	if (l == u->main)
		fits = relay_present(&u->relay, frame);
	else if (l == u->next)
		fits = relay_next(&u->relay, frame);
	else if (l == u->former)
		fits = relay_former(&u->relay, frame);
	if (!fits)
		too_much(u);
	else if (u->attempt == ATTEMPT_ALIGNING && relay_aligned(&u->relay))
		move_over(u, false);
}

/* ---- making a lane ---- */

/* The next attempt begins in the next turn of the loop. */
static void again_at_once(struct upstream *u)
{
	event_active(u->turn, EV_TIMEOUT, 1);
}

static void drop_attempt(struct upstream *u)
{
	ticket_cancel(u->ticket);
	event_del(u->grace);
	if (u->next)
		lane_free(u->next);
	u->next = NULL;
	relay_abort(&u->relay);
	u->attempt = ATTEMPT_NONE;
}

/* The reason goes where people look: a lane that could not be replaced is there still. */
static void keep_reason(struct upstream *u, const char *why)
{
	keep_text(u->main ? u->token_error : u->last_error, why);
	if (u->main)
		log_warning("upstream: the connection could not be replaced, it stays: %s", why);
}

static void too_much(struct upstream *u)
{
	static const char why[] = "too many notifications during the handover";

	drop_attempt(u);
	ticket_reject(u->ticket);
	keep_reason(u, why);
	u->ops->list_failed(u->owner);
	pause_after(u, -1, why);
}

static void connect_lane(struct upstream *u, const char *path, bool token)
{
	u->attempt = ATTEMPT_CONNECTING;
	u->next = lane_new(u, path, token);
	/* From now on, since the service may know the new one's subscriptions before we know that
	 * it is open. */
	if (u->main)
		relay_begin(&u->relay);
}

/* Is there a reason to replace the lane that counts? */
static bool needs_another(const struct upstream *u)
{
	if (is_outdated(u, u->main))
		return true;
	if (!u->main->token)
		return u->ops->wants(u->owner);
	return u->ops->stale(u->owner) || clock_boot_ms() >= u->main->renew_at;
}

/* Without a token. */
static void connect_with_key(struct upstream *u)
{
	char *path = ticket_make_key_path(u->ticket);

	connect_lane(u, path, false);
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
	return !u->main && clock_mono_ms() < u->token_at;
}

static void begin_attempt(struct upstream *u)
{
	const char *path = u->main ? NULL : ticket_path(u->ticket);

	if (u->state == UPSTREAM_STOPPED || u->attempt != ATTEMPT_NONE ||
	    (u->main && (!needs_another(u) || too_many_left(u))))
		return;
	event_del(u->retry);
	event_del(u->batch);
	u->reused = u->fallback = false;
	if (!u->main)
		set_state(u, UPSTREAM_CONNECTING, u->places.present->host);
	if (!u->ops->wants(u->owner) && (!u->main || is_outdated(u, u->main))) {
		connect_with_key(u);
	} else if (path && !u->ops->stale(u->owner)) {
		u->reused = true;
		connect_lane(u, path, true);
	} else if (token_must_wait(u)) {
		int64_t left = u->token_at - clock_mono_ms();
		fall_back(u, (int)((left + 999) / 1000));
	} else {
		u->attempt = ATTEMPT_MINTING;
		ticket_ask(u->ticket);
	}
}

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	begin_attempt(arg);
}

/* ---- tokens ---- */

/* The lane that is there has no token, or an old one, and that is so for a while. */
static void stay_without(struct upstream *u, bool refused, int retry_after_s)
{
	if (!refused) {
		pause_after(u, retry_after_s, u->token_error);
		return;
	}
	key_refused(u, u->token_error);
	u->ops->refuse_all(u->owner, u->token_error, retry_ms(u));
}

/* There is none to be had for now. */
static void no_token(struct upstream *u, const struct ticket_answer *answer)
{
	bool refused = answer->verdict == TICKET_UNAUTHORIZED;

	keep_text(u->token_error, answer->why);
	u->token_at = clock_mono_ms() +
		      (refused ? u->backoff_max_ms : asked_pause_ms(u, answer->retry_after_s));
	u->fallback_refused = refused;
	u->ops->list_failed(u->owner);
	if (u->main) {
		log_warning("upstream: no token, the connection stays as it is: %s", answer->why);
		stay_without(u, refused, answer->retry_after_s);
		return;
	}
	fall_back(u, answer->retry_after_s);
}

/* Another list, at once while a culprit is searched for, and after a pause if there is no end of
 * them. */
static void again_after_refusal(struct upstream *u)
{
	unsigned beyond = u->refusals++ < REFUSALS_MANY ? 0 : u->refusals - REFUSALS_MANY;
	int64_t ms = (int64_t)beyond * REFUSAL_PAUSE_MS;

	timer_start(u->batch, ms < REFUSAL_PAUSE_MAX_MS ? ms : REFUSAL_PAUSE_MAX_MS);
}

/* The list was empty: what was asked for had no room and is refused by now, or nobody asks any
 * more, or somebody has only just come. */
static void nothing_listed(struct upstream *u)
{
	static const struct ticket_answer no_room = {
		TICKET_FAILED, "a token has no room for anything that is subscribed to", -1};

	if (u->ops->stale(u->owner)) {
		u->ops->list_failed(u->owner);
		again_at_once(u);
	} else if (u->ops->wants(u->owner)) {
		no_token(u, &no_room);
	} else if (!u->main || u->main->token || is_outdated(u, u->main)) {
		connect_with_key(u);
	} else {
		u->ops->list_failed(u->owner);
	}
}

static void on_ticket(void *owner, const struct ticket_answer *answer)
{
	struct upstream *u = owner;

	u->attempt = ATTEMPT_NONE;
	switch (answer->verdict) {
	case TICKET_READY:
		u->refusals = 0;
		connect_lane(u, ticket_new_path(u->ticket), true);
		break;
	case TICKET_NONE:
		nothing_listed(u);
		break;
	case TICKET_TOO_LONG:
		u->ops->list_failed(u->owner);
		again_at_once(u);
		break;
	case TICKET_REFUSED:
		if (u->ops->list_refused(u->owner, answer->why))
			again_after_refusal(u);
		else
			no_token(u, answer);
		break;
	case TICKET_UNAUTHORIZED:
	case TICKET_FAILED:
		no_token(u, answer);
		break;
	case TICKET_VERDICT_N:
		break;
	}
}

static size_t ticket_makes_list(void *owner, size_t budget, struct buf *list)
{
	struct upstream *u = owner;

	return u->ops->make_list(u->owner, budget, list);
}

static const struct ticket_ops ticket_ops = {.make_list = ticket_makes_list, .answer = on_ticket};

static void on_renewal(void *owner)
{
	struct upstream *u = owner;

	if (u->main && u->main->token && !event_pending(u->retry, EV_TIMEOUT, NULL))
		begin_attempt(u);
}

/* ---- taking over ---- */

static void watch_token(struct upstream *u)
{
	u->main->renew_at = ticket_renew_at(u->ticket);
	u->main->expires_at = ticket_expires_at(u->ticket);
	alarm_set(u->renewal, u->main->renew_at);
}

/* What subscribers wait for: the lane that counts has its token, or needs none. */
static void tell_subscribers(struct upstream *u)
{
	if (u->main->token) {
		ticket_accept(u->ticket); /* nothing, if it is the one that was in force */
		u->token_error[0] = '\0';
		watch_token(u);
		u->ops->live(u->owner);
	} else if (!u->fallback) {
		u->token_error[0] = '\0';
		alarm_clear(u->renewal);
		ticket_forget(u->ticket);
		u->ops->without(u->owner);
	}
}

/* There was no lane, or it is gone: the next one is it at once. */
static void become_main(struct upstream *u)
{
	event_del(u->grace);
	u->main = u->next;
	u->next = NULL;
	u->attempt = ATTEMPT_NONE;
	u->opened++;
	u->handover_failures = 0;
	set_state(u, UPSTREAM_CONNECTED, u->main->place->host);
	u->ops->up(u->owner, u->main->number);
	tell_subscribers(u);
	relay_move(&u->relay, false);
	relay_former_gone(&u->relay);
	timer_start(u->late_end, LATE_MS);
	if (u->fallback)
		stay_without(u, u->fallback_refused, u->fallback_pause_s);
	else if (needs_another(u))
		upstream_want(u);
}

/* The next lane takes the place of the one that counts. Returns that. */
static struct lane *replace_main(struct upstream *u, bool waited)
{
	struct lane *old = u->main;

	event_del(u->grace);
	u->main = u->next;
	u->next = NULL;
	u->former = NULL;
	u->attempt = ATTEMPT_NONE;
	u->handover_failures = 0;
	u->stats->upstream_handovers++;
	timer_start(u->late_end, LATE_MS);
	log_info("upstream: a new connection has taken over");
	u->ops->moved(u->owner, u->main->number);
	tell_subscribers(u);
	u->stats->upstream_doubles += relay_move(&u->relay, waited);
	return old;
}

static void move_over(struct upstream *u, bool waited)
{
	leave_lane(u, replace_main(u, waited));
}

/* The new lane has been silent, the old one has been, or it has not brought in time what the new
 * one has. Of an old one that is silent nobody knows what it still had: that is a loss. */
static void on_grace(evutil_socket_t fd, short what, void *arg)
{
	static const struct conn_end silent = {.why = "no answer to a ping", .retry_after_s = -1};
	struct upstream *u = arg;

	(void)fd;
	(void)what;
	if (u->attempt == ATTEMPT_PROVING)
		next_ended(u, &silent);
	else if (u->attempt == ATTEMPT_CATCHING)
		main_is_silent(u);
	else if (u->attempt == ATTEMPT_ALIGNING)
		move_over(u, true);
}

static void opened(struct upstream *u)
{
	u->stats->upstream_connects++;
	if (!u->main) {
		become_main(u);
		return;
	}
	u->attempt = ATTEMPT_PROVING;
	u->ping = conn_ping(u->next->conn);
	timer_start(u->grace, u->places.present->conn.keepalive_ms / 2);
}

static void on_open(void *owner)
{
	struct lane *l = owner;

	opened(l->upstream);
}

static void on_pong(void *owner, uint32_t number)
{
	struct lane *l = owner;
	struct upstream *u = l->upstream;

	if (u->attempt == ATTEMPT_PROVING && l == u->next && number >= u->ping) {
		u->attempt = ATTEMPT_CATCHING;
		u->ping = conn_ping(u->main->conn);
		timer_start(u->grace, u->places.present->conn.keepalive_ms / 2);
	} else if (u->attempt == ATTEMPT_CATCHING && l == u->main && number >= u->ping) {
		u->attempt = ATTEMPT_ALIGNING;
		if (relay_aligned(&u->relay))
			move_over(u, false);
		else
			timer_start(u->grace, GRACE_MS);
	}
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

static void on_message(void *owner, struct span text, unsigned flags)
{
	struct lane *l = owner;
	struct upstream *u = l->upstream;
	struct wire_frame frame;

	u->stats->upstream_messages_in++;
	u->stats->upstream_bytes_in += text.n;
	wire_parse(text, &frame);
	if (flags) {
		frame.has_id |= frame.kind == WIRE_ANSWER;
		frame.kind = WIRE_UNUSABLE;
		frame.fault = flags & LINK_TRUNCATED ? "it is too long" : "it is binary";
	}
	if (frame.kind == WIRE_NOTIFICATION) {
		notified(u, l, &frame);
		return;
	}
	if (frame.kind == WIRE_UNUSABLE)
		complain(u, &frame);
	u->ops->frame(u->owner, &frame);
}

static void on_drained(void *owner)
{
	struct lane *l = owner;

	if (l == l->upstream->main)
		l->upstream->ops->drained(l->upstream->owner);
}

/* ---- how lanes end ---- */

/* What is on its way on it is lost, and so may be what it has not brought yet. */
static void lose_main(struct upstream *u, const struct conn_end *end)
{
	struct lane *l = u->main;
	uint32_t number = l->number;
	bool token = l->token;

	relay_forget(&u->relay); /* what it has brought comes before the word that it is lost */
	u->main = u->former = NULL;
	lane_free(l);
	alarm_clear(u->renewal);
	if (token) /* first: nothing is to be read for subscribers over what is left */
		u->ops->lost(u->owner, clock_wall_ms() - (clock_mono_ms() - end->heard_ms));
	u->ops->down(u->owner, number);
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

static void main_ended(struct upstream *u, const struct conn_end *end)
{
	keep_text(u->last_error, end->why);
	u->stats->upstream_disconnects++;
	if (u->attempt == ATTEMPT_ALIGNING) { /* it has brought all that only it could */
		struct lane *old = replace_main(u, false);
		uint32_t number = old->number;
		relay_former_gone(&u->relay);
		lane_free(old);
		u->ops->down(u->owner, number);
		return;
	}
	count_loss(u);
	lose_main(u, end);
	if (u->next && conn_is_open(u->next->conn)) {
		become_main(u);
		return;
	}
	relay_abort(&u->relay);
	event_del(u->turn);
	event_del(u->batch);
	if (u->attempt != ATTEMPT_NONE)
		set_state(u, UPSTREAM_CONNECTING, u->last_error);
	else
		pause_until(u, UPSTREAM_BACKOFF, backoff_ms(u), u->last_error);
}

static void main_is_silent(struct upstream *u)
{
	struct conn_end end = {.was_open = true,
			       .why = "the connection was lost: no answer to a ping",
			       .retry_after_s = -1,
			       .heard_ms = conn_heard_ms(u->main->conn)};

	main_ended(u, &end);
}

static bool is_refusal(int http_status)
{
	return http_status == HTTP_UNAUTHORIZED || http_status == HTTP_FORBIDDEN;
}

/* The service would not have the token. One that was in force before may have been revoked: another
 * is minted at once, as for one that was too long. Of a new one it is not the key's fault. */
static void token_refused(struct upstream *u, const struct conn_end *end)
{
	struct ticket_answer answer = {TICKET_FAILED, end->why, end->retry_after_s};
	bool too_long = ticket_was_refused(u->ticket, end->http_status);

	if (u->reused && is_refusal(end->http_status)) {
		ticket_forget(u->ticket);
		again_at_once(u);
	} else if (too_long) {
		u->ops->list_failed(u->owner);
		again_at_once(u);
	} else if (end->retry_after_s < 0) {
		no_token(u, &answer);
	} else {
		u->ops->list_failed(u->owner);
		pause_after(u, end->retry_after_s, end->why);
	}
}

static void next_ended(struct upstream *u, const struct conn_end *end)
{
	bool token = u->next->token;

	drop_attempt(u);
	keep_reason(u, end->why);
	if (token && end->http_status) {
		token_refused(u, end);
		return;
	}
	ticket_reject(u->ticket);
	u->ops->list_failed(u->owner);
	if (!is_refusal(end->http_status)) {
		pause_after(u, end->retry_after_s, end->why);
		return;
	}
	key_refused(u, end->why);
	u->ops->refuse_all(u->owner, end->why, retry_ms(u));
}

static void on_ended(void *owner, const struct conn_end *end)
{
	struct lane *l = owner;
	struct upstream *u = l->upstream;

	if (u->state == UPSTREAM_STOPPED) {
		if (l == u->former)
			u->former = NULL;
		if (l == u->main)
			u->main = NULL;
		else
			TAILQ_REMOVE(&u->left, l, of_left);
		lane_free(l);
	} else if (l == u->main) {
		main_ended(u, end);
	} else if (l == u->next) {
		next_ended(u, end);
	} else {
		drop_left(u, l);
	}
}

static const struct conn_ops conn_ops = {
	.open = on_open,
	.message = on_message,
	.pong = on_pong,
	.drained = on_drained,
	.ended = on_ended,
};

/* ---- for the rooms above ---- */

void upstream_send(struct upstream *u, struct span head, struct span body)
{
	conn_send(u->main->conn, head, body);
}

bool upstream_sendable(struct upstream *u)
{
	return u->main && conn_sendable(u->main->conn);
}

void upstream_want(struct upstream *u)
{
	if (u->state == UPSTREAM_STOPPED || u->attempt != ATTEMPT_NONE || !u->main ||
	    event_pending(u->retry, EV_TIMEOUT, NULL) || event_pending(u->batch, EV_TIMEOUT, NULL))
		return;
	timer_start(u->batch, u->batch_ms);
}

static void make_ticket(struct upstream *u, const struct upstream_settings *s)
{
	struct ticket_settings settings = {
		.minter = {.host = s->place.host,
			   .port = s->place.port,
			   .tls = s->place.tls,
			   .path_prefix = s->path_prefix,
			   .ca_file = s->place.ca_file,
			   .proxy_host = s->place.proxy_host,
			   .proxy_port = s->place.proxy_port,
			   .timeout_ms = (int)s->place.connect_timeout_ms},
		.api_key = s->api_key,
		.fields = s->subscribe_fields,
		.access_pattern = s->access_pattern,
		.lifetime_ms = s->token_lifetime_ms,
	};

	u->ticket = ticket_new(u->base, &settings, &ticket_ops, u, u->stats);
}

static void take_times(struct upstream *u, const struct upstream_settings *s)
{
	places_set_times(&u->places, &s->place);
	u->backoff_min_ms = s->backoff_min_ms;
	u->backoff_max_ms = s->backoff_max_ms;
	u->batch_ms = s->subscribe_batch_ms;
	free(u->key_hint);
	u->key_hint = mem_strdup(s->key_hint);
}

static void make_timers(struct upstream *u, struct event_base *base)
{
	u->turn = event_new(base, -1, 0, on_turn, u);
	u->retry = event_new(base, -1, 0, on_turn, u);
	u->batch = event_new(base, -1, 0, on_turn, u);
	u->grace = event_new(base, -1, 0, on_grace, u);
	u->linger = event_new(base, -1, 0, on_linger, u);
	u->late_end = event_new(base, -1, 0, on_late_end, u);
}

struct upstream *upstream_new(struct event_base *base, const struct upstream_settings *settings,
			      const struct upstream_ops *ops, void *owner, struct stats *stats)
{
	const char *why = NULL;
	struct upstream *u = mem_zalloc(sizeof(*u));

	*u = (struct upstream){
		.base = base,
		.ops = ops,
		.owner = owner,
		.stats = stats,
		.state = UPSTREAM_CONNECTING,
		.since = clock_mono_ms(),
	};
	places_init(&u->places, base, stats);
	u->renewal = alarm_new(base, on_renewal, u);
	struct place *place = u->renewal ? place_new(&u->places, &settings->place, &why) : NULL;
	if (!place) {
		log_error("upstream: %s", why ? why : strerror(errno));
		if (u->renewal)
			alarm_free(u->renewal);
		places_fini(&u->places);
		free(u);
		return NULL;
	}
	places_set(&u->places, place);
	TAILQ_INIT(&u->left);
	take_times(u, settings);
	relay_init(&u->relay, settings->seed, &relay_ops, u);
	make_ticket(u, settings);
	make_timers(u, base);
	again_at_once(u);
	return u;
}

static void give_up_attempt(struct upstream *u)
{
	if (u->attempt == ATTEMPT_NONE)
		return;
	drop_attempt(u);
	ticket_reject(u->ticket);
	u->ops->list_failed(u->owner);
}

/* From now on lanes are made with this. What is under way with the former settings is given up. */
static void change_place(struct upstream *u, struct place *place,
			 const struct upstream_settings *settings)
{
	give_up_attempt(u);
	places_set(&u->places, place);
	ticket_free(u->ticket);
	make_ticket(u, settings);
}

/* What is waited for is waited for so long from now on. */
static void retime(struct upstream *u)
{
	struct lane *l;

	if (u->main)
		conn_retime(u->main->conn);
	if (u->next)
		conn_retime(u->next->conn);
	TAILQ_FOREACH (l, &u->left, of_left)
		conn_retime(l->conn);
	if (u->attempt == ATTEMPT_PROVING || u->attempt == ATTEMPT_CATCHING)
		timer_start(u->grace, u->places.present->conn.keepalive_ms / 2);
	if (u->main && u->main->token && !is_outdated(u, u->main))
		watch_token(u);
}

int upstream_reload(struct upstream *u, const struct upstream_settings *settings, bool another)
{
	if (another) {
		const char *why = NULL;
		struct place *place = place_new(&u->places, &settings->place, &why);
		if (!place) {
			log_error("upstream: %s", why);
			return -EINVAL;
		}
		change_place(u, place, settings);
	} else if (settings->place.connect_timeout_ms <
			   u->places.present->conn.connect_timeout_ms &&
		   u->attempt < ATTEMPT_PROVING) {
		give_up_attempt(u); /* it would be waited for as long as before */
	}
	take_times(u, settings);
	ticket_set_times(u->ticket, settings->place.connect_timeout_ms,
			 settings->token_lifetime_ms);
	retime(u);
	/* Whoever has changed something wants to see what comes of it. */
	u->failures = u->handover_failures = 0;
	u->token_at = 0;
	event_del(u->retry);
	again_at_once(u);
	return 0;
}

void upstream_stop(struct upstream *u)
{
	struct lane *l, *next;

	set_state(u, UPSTREAM_STOPPED, "the daemon stops");
	event_del(u->retry);
	event_del(u->batch);
	event_del(u->linger);
	alarm_clear(u->renewal);
	drop_attempt(u);
	relay_forget(&u->relay);
	if (u->main)
		conn_close(u->main->conn, 1000);
	for (l = TAILQ_FIRST(&u->left); l; l = next) {
		next = TAILQ_NEXT(l, of_left);
		close_left(l);
	}
}

bool upstream_closed(const struct upstream *u)
{
	return !u->main && TAILQ_EMPTY(&u->left);
}

void upstream_free(struct upstream *u)
{
	struct lane *l;

	if (!u)
		return;
	if (u->state != UPSTREAM_STOPPED)
		upstream_stop(u);
	if (u->main)
		lane_free(u->main);
	while ((l = TAILQ_FIRST(&u->left))) {
		TAILQ_REMOVE(&u->left, l, of_left);
		lane_free(l);
	}
	ticket_free(u->ticket);
	places_fini(&u->places);
	alarm_free(u->renewal);
	event_free(u->turn);
	event_free(u->retry);
	event_free(u->batch);
	event_free(u->grace);
	event_free(u->linger);
	event_free(u->late_end);
	free(u->key_hint);
	free(u);
}

enum upstream_state upstream_state(const struct upstream *u)
{
	return u->state;
}

bool upstream_has_token(const struct upstream *u)
{
	return u->main ? u->main->token : u->ops->wants(u->owner);
}

const char *upstream_url(const struct upstream *u)
{
	return u->main ? u->main->place->shown : u->places.present->shown;
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

int64_t upstream_token_expires_ms(const struct upstream *u)
{
	int64_t left;

	if (!u->main || !u->main->token)
		return -1;
	left = u->main->expires_at - clock_boot_ms();
	return left > 0 ? left : 0;
}

size_t upstream_unsent(const struct upstream *u)
{
	return u->main ? conn_unsent(u->main->conn) : 0;
}

long upstream_retry_ms(const struct upstream *u)
{
	if (u->state != UPSTREAM_BACKOFF && u->state != UPSTREAM_UNAUTHORIZED)
		return -1;
	return retry_ms(u);
}
