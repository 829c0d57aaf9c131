#include "upstream/attempts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/util.h>

#include "base/backoff.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/secret.h"
#include "base/timer.h"

enum {
	STABLE_MAX_MS = 30000,  /* a connection that has lasted so long ends a row of failures */
	FUTILE_LISTS_MANY = 20, /* in a row: more than it takes to find one culprit, or how long a
				   list may be */
	FUTILE_PAUSE_MS = 100,
	FUTILE_PAUSE_MAX_MS = 2000,
	HTTP_UNAUTHORIZED = 401,
	HTTP_FORBIDDEN = 403,
};

static bool has_main(const struct attempts *a)
{
	return a->context.connections->main != NULL;
}

/* Does it lead to a former endpoint? */
static bool main_is_outdated(const struct attempts *a)
{
	return a->context.connections->main->endpoint != a->context.endpoints->present;
}

static bool is_wanted(const struct attempts *a)
{
	return a->context.list->wants(a->context.subscriptions);
}

static bool is_stale(const struct attempts *a)
{
	return a->context.list->stale(a->context.subscriptions);
}

static void list_failed(struct attempts *a)
{
	a->context.list->failed(a->context.subscriptions);
}

static bool is_pausing(const struct attempts *a)
{
	return event_pending(a->pauses.retry, EV_TIMEOUT, NULL);
}

/* Is a connection being made? */
static bool is_busy(const struct attempts *a)
{
	return event_pending(a->ask, EV_TIMEOUT, NULL) || credentials_is_asking(a->credentials) ||
	       a->context.connections->next;
}

/* ---- reasons ---- */

static void keep_text(char kept[ATTEMPTS_ERROR_MAX], const char *text)
{
	snprintf(kept, ATTEMPTS_ERROR_MAX, "%s", text);
}

/* Why an attempt failed. If there is a main connection, it says why that could not be replaced. */
static void keep_reason(struct attempts *a, const char *why)
{
	keep_text(has_main(a) ? a->token_error : a->last_error, why);
	if (has_main(a))
		log_warning("upstream: the connection could not be replaced, it stays: %s", why);
}

/* ---- pauses ---- */

static int64_t backoff_ms(const struct attempts *a)
{
	unsigned failures = has_main(a) ? a->pauses.handover_failures : a->pauses.failures;
	uint64_t random;

	evutil_secure_rng_get_bytes(&random, sizeof(random));
	return backoff_jitter(
		backoff_doubled(a->backoff_min_ms, failures ? failures - 1 : 0, a->backoff_max_ms),
		random);
}

/* The next attempt comes after a pause. The state of a main connection does not change by that. */
static void pause_for(struct attempts *a, enum attempts_phase phase, int64_t ms, const char *cause)
{
	a->pauses.retry_at = clock_mono_ms() + ms;
	timer_start(a->pauses.retry, ms);
	if (!has_main(a))
		a->context.phase_changed(a->context.owner, phase, cause);
}

long attempts_retry_ms(const struct attempts *a)
{
	int64_t left = a->pauses.retry_at - clock_mono_ms();

	return left > 0 ? (long)left : 0;
}

static void count_failure(struct attempts *a)
{
	if (has_main(a)) {
		a->pauses.handover_failures++;
		a->context.stats->upstream_handover_failures++;
	} else {
		a->pauses.failures++;
		a->context.stats->upstream_connect_failures++;
	}
}

static void pause_after_failure(struct attempts *a, int retry_after_s, const char *cause)
{
	int64_t asked = backoff_asked_ms(retry_after_s, a->backoff_max_ms), ms;

	count_failure(a);
	ms = backoff_ms(a);
	pause_for(a, ATTEMPTS_BACKOFF, ms > asked ? ms : asked, cause);
}

static void key_refused(struct attempts *a, const char *why)
{
	char cause[2 * ATTEMPTS_ERROR_MAX];

	snprintf(cause, sizeof(cause), "%s %s: %s",
		 a->keyless ? "tokens are refused by" : "the service has refused the key from",
		 a->key_source, why);
	count_failure(a);
	if (has_main(a)) /* else the change of state is logged */
		log_error("upstream: %s", cause);
	pause_for(a, ATTEMPTS_UNAUTHORIZED, a->backoff_max_ms, cause);
	a->context.list->refuse_all(a->context.subscriptions, why, attempts_retry_ms(a));
}

static bool is_batching(const struct attempts *a)
{
	return event_pending(a->batch, EV_TIMEOUT, NULL);
}

/* The next attempt, or list, comes after this time. */
static void wait_for_others(struct attempts *a, int64_t ms)
{
	a->pauses.batch_at = clock_mono_ms() + ms;
	timer_start(a->batch, ms);
}

long attempts_handover_ms(const struct attempts *a)
{
	int64_t left = a->pauses.batch_at - clock_mono_ms();

	if (is_pausing(a))
		return attempts_retry_ms(a);
	if (!is_batching(a))
		return -1;
	return left > 0 ? (long)left : 0;
}

void attempts_slept(struct attempts *a, int64_t slept_ms)
{
	a->pauses.token_at -= slept_ms;
	a->pauses.retry_at -= slept_ms;
	if (is_pausing(a))
		timer_start(a->pauses.retry, attempts_retry_ms(a));
}

/* ---- an attempt begins, and is given up ---- */

void attempts_give_up(struct attempts *a)
{
	if (!is_busy(a))
		return;
	event_del(a->ask);
	credentials_cancel(a->credentials);
	connections_drop_next(a->context.connections);
	credentials_reject(a->credentials);
	list_failed(a);
}

/* Is there a reason to replace the main connection? */
static bool needs_another(const struct attempts *a)
{
	if (main_is_outdated(a))
		return true;
	if (!a->context.connections->main->token)
		return is_wanted(a);
	return is_stale(a) || clock_boot_ms() >= credentials_renew_at(a->credentials);
}

static void connect_with_key(struct attempts *a, enum attempts_means means)
{
	char *path = credentials_make_key_path(a->credentials);

	a->attempt.means = means;
	connections_connect(a->context.connections, path, false);
	secret_free(&path);
}

/* Requests need no token: while none can be had they go out with the key. */
static void fall_back(struct attempts *a, int pause_s)
{
	a->attempt.fallback_pause_s = pause_s;
	connect_with_key(a, ATTEMPTS_FALLBACK);
}

/* The main connection has no token, or an old one, and keeps that for a while; or there is no
 * connection meanwhile. */
static void stay_without(struct attempts *a, int retry_after_s)
{
	if (a->attempt.fallback_refused)
		key_refused(a, a->token_error);
	else
		pause_after_failure(a, retry_after_s, a->token_error);
}

/* No token can be had, and there is no main connection. */
static void do_without(struct attempts *a, int pause_s)
{
	if (!a->keyless) {
		fall_back(a, pause_s);
		return;
	}
	keep_text(a->last_error, a->token_error);
	stay_without(a, pause_s);
}

static bool must_wait(const struct attempts *a)
{
	return has_main(a) && (!needs_another(a) || connections_too_many(a->context.connections));
}

/* What is subscribed to until then is on the list. */
static void on_ask(evutil_socket_t fd, short what, void *arg)
{
	struct attempts *a = arg;

	(void)fd;
	(void)what;
	credentials_ask(a->credentials);
}

static void ask_in_turn(struct attempts *a)
{
	int64_t wait_ms = a->context.spend(a->context.router, clock_mono_ms());

	a->attempt.means = ATTEMPTS_NEW_TOKEN;
	if (wait_ms > 0)
		timer_start(a->ask, wait_ms);
	else
		credentials_ask(a->credentials);
}

static void begin(struct attempts *a)
{
	const char *path = has_main(a) ? NULL : credentials_path(a->credentials);
	int64_t token_wait_ms = a->pauses.token_at - clock_mono_ms();

	if (is_busy(a) || must_wait(a))
		return;
	event_del(a->pauses.retry);
	event_del(a->batch);
	if (has_main(a))
		handover_pace_began(&a->pauses.handovers, clock_mono_ms());
	else
		a->context.phase_changed(a->context.owner, ATTEMPTS_CONNECTING,
					 a->context.endpoints->present->host);
	if (!a->keyless && !is_wanted(a) && (!has_main(a) || main_is_outdated(a))) {
		connect_with_key(a, ATTEMPTS_KEY);
	} else if (path && !is_stale(a)) {
		a->attempt.means = ATTEMPTS_LAST_TOKEN;
		connections_connect(a->context.connections, path, true);
	} else if (!has_main(a) && token_wait_ms > 0) { /* asked for with a connection lost since */
		do_without(a, (int)((token_wait_ms + 999) / 1000));
	} else {
		ask_in_turn(a);
	}
}

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	begin(arg);
}

static void on_renewal(void *owner)
{
	struct attempts *a = owner;

	if (!is_pausing(a))
		begin(a);
}

void attempts_begin(struct attempts *a)
{
	a->pauses.failures = a->pauses.handover_failures = 0;
	a->pauses.token_at = 0;
	event_del(a->pauses.retry);
	timer_next_turn(a->turn);
}

void attempts_want(struct attempts *a)
{
	if (is_busy(a) || !has_main(a) || is_pausing(a) || is_batching(a))
		return;
	wait_for_others(a,
			handover_pace_wait_ms(&a->pauses.handovers, a->batch_ms, clock_mono_ms()));
}

void attempts_check(struct attempts *a)
{
	if (has_main(a) && needs_another(a))
		attempts_want(a);
}

/* ---- tokens ---- */

/* There is none to be had for now. answer: its verdict, why and retry_after_s. */
static void no_token(struct attempts *a, const struct credentials_answer *answer)
{
	bool refused = answer->verdict == CREDENTIALS_UNAUTHORIZED;

	keep_text(a->token_error, answer->why);
	a->pauses.token_at = clock_mono_ms() +
			     (refused ? a->backoff_max_ms
				      : backoff_asked_ms(answer->retry_after_s, a->backoff_max_ms));
	a->attempt.fallback_refused = refused;
	list_failed(a);
	if (has_main(a)) {
		log_warning("upstream: no token, the connection stays as it is: %s", answer->why);
		stay_without(a, answer->retry_after_s);
		return;
	}
	do_without(a, answer->retry_after_s);
}

/* Asks again with another list: in the next turn while a culprit is searched for, or how long a
 * list may be; after a pause if there is no end of them. */
static void another_list(struct attempts *a)
{
	unsigned n = a->pauses.futile_lists++;
	int64_t ms =
		n < FUTILE_LISTS_MANY ? 0 : (int64_t)(n + 1 - FUTILE_LISTS_MANY) * FUTILE_PAUSE_MS;

	wait_for_others(a, ms < FUTILE_PAUSE_MAX_MS ? ms : FUTILE_PAUSE_MAX_MS);
}

/* The list was empty: the names had no room and are refused by now, or nobody asks any more, or
 * somebody has only just asked. */
static void nothing_listed(struct attempts *a)
{
	static const struct credentials_answer no_room = {
		.verdict = CREDENTIALS_FAILED,
		.why = "a token has no room for anything that is subscribed to",
		.retry_after_s = -1};

	if (is_stale(a)) {
		list_failed(a);
		another_list(a);
	} else if (is_wanted(a)) {
		no_token(a, &no_room);
	} else if (!has_main(a) || a->context.connections->main->token || main_is_outdated(a)) {
		connect_with_key(a, ATTEMPTS_KEY);
	} else {
		list_failed(a);
	}
}

static void on_answer(void *owner, const struct credentials_answer *answer)
{
	struct attempts *a = owner;

	switch (answer->verdict) {
	case CREDENTIALS_READY:
		connections_connect(a->context.connections, credentials_new_path(a->credentials),
				    true);
		break;
	case CREDENTIALS_NONE:
		nothing_listed(a);
		break;
	case CREDENTIALS_TOO_LONG:
		list_failed(a);
		another_list(a);
		break;
	case CREDENTIALS_REFUSED:
		if (a->context.list->refused(a->context.subscriptions, answer->why))
			another_list(a);
		else
			no_token(a, answer);
		break;
	case CREDENTIALS_UNAUTHORIZED:
	case CREDENTIALS_FAILED:
		if (answer->limited && !a->keyless) /* the limit of an endpoint is another one */
			a->context.spend_refused(a->context.router, clock_mono_ms());
		no_token(a, answer);
		break;
	case CREDENTIALS_VERDICT_N:
		break;
	}
}

static size_t make_list(void *owner, size_t budget, struct buf *list)
{
	struct attempts *a = owner;

	return a->context.list->make(a->context.subscriptions, budget, list);
}

static const struct credentials_ops credentials_ops = {.make_list = make_list, .answer = on_answer};

/* ---- an attempt succeeds ---- */

static void watch_token(struct attempts *a)
{
	a->expires_at = credentials_expires_at(a->credentials);
	alarm_set(a->renewal, credentials_renew_at(a->credentials));
}

void attempts_succeeded(struct attempts *a)
{
	a->pauses.handover_failures = 0;
	if (a->context.connections->main->token) {
		credentials_accept(a->credentials);
		a->pauses.futile_lists = 0;
		a->token_error[0] = '\0';
		watch_token(a);
		a->context.list->live(a->context.subscriptions);
	} else if (a->attempt.means != ATTEMPTS_FALLBACK) {
		a->token_error[0] = '\0';
		alarm_clear(a->renewal);
		credentials_forget(a->credentials);
		a->context.list->without(a->context.subscriptions);
	}
}

void attempts_after_first(struct attempts *a)
{
	if (a->attempt.means == ATTEMPTS_FALLBACK)
		stay_without(a, a->attempt.fallback_pause_s);
	else
		attempts_check(a);
}

/* ---- connections end ---- */

static bool is_refusal(int http_status)
{
	return http_status == HTTP_UNAUTHORIZED || http_status == HTTP_FORBIDDEN;
}

/* The service refuses the token. The last token may have been revoked: another is minted at once,
 * as for one that was too long. For a new token the key is not at fault. */
static void token_refused(struct attempts *a, const struct conn_end *end)
{
	struct credentials_answer answer = {.verdict = CREDENTIALS_FAILED,
					    .why = end->why,
					    .retry_after_s = end->retry_after_s};
	bool too_long = credentials_was_refused(a->credentials, end->http_status);

	if (a->attempt.means == ATTEMPTS_LAST_TOKEN && is_refusal(end->http_status)) {
		credentials_forget(a->credentials);
		timer_next_turn(a->turn);
	} else if (too_long) {
		list_failed(a);
		another_list(a);
	} else if (end->retry_after_s < 0) {
		no_token(a, &answer);
	} else {
		list_failed(a);
		pause_after_failure(a, end->retry_after_s, end->why);
	}
}

void attempts_next_ended(struct attempts *a, bool token, const struct conn_end *end)
{
	keep_reason(a, end->why);
	if (token && end->http_status) {
		token_refused(a, end);
		return;
	}
	credentials_reject(a->credentials);
	list_failed(a);
	if (is_refusal(end->http_status))
		key_refused(a, end->why);
	else
		pause_after_failure(a, end->retry_after_s, end->why);
}

void attempts_main_ended(struct attempts *a, const char *why)
{
	keep_text(a->last_error, why);
	alarm_clear(a->renewal);
}

/* The pauses start anew only after a stable connection, so that they grow for a service that
 * accepts connections and drops them at once. */
static void count_loss(struct attempts *a, int64_t lasted_ms, bool excused)
{
	int64_t stable_ms = a->backoff_max_ms < STABLE_MAX_MS ? a->backoff_max_ms : STABLE_MAX_MS;

	if (lasted_ms >= stable_ms)
		a->pauses.failures = 0;
	a->pauses.failures += !excused;
}

void attempts_after_loss(struct attempts *a, int64_t lasted_ms, bool excused)
{
	count_loss(a, lasted_ms, excused);
	if (a->context.connections->proven)
		return;
	event_del(a->turn);
	event_del(a->batch);
	if (is_busy(a))
		a->context.phase_changed(a->context.owner, ATTEMPTS_CONNECTING, a->last_error);
	else
		pause_for(a, ATTEMPTS_BACKOFF, backoff_ms(a), a->last_error);
}

/* ---- settings ---- */

static struct credentials *make_credentials(struct attempts *a, const struct attempts_settings *s)
{
	struct credentials_settings settings = {
		.token_client = s->tokens,
		.path_prefix = s->path_prefix,
		.api_key = s->api_key,
		.fields = s->subscribe_fields,
		.access_pattern = s->access_pattern,
		.lifetime_ms = s->token_lifetime_ms,
	};

	a->keyless = !s->api_key;
	return credentials_new(a->context.base, &settings, &credentials_ops, a, a->context.stats);
}

static void take_times(struct attempts *a, const struct attempts_settings *s)
{
	a->backoff_min_ms = s->backoff_min_ms;
	a->backoff_max_ms = s->backoff_max_ms;
	a->batch_ms = s->subscribe_batch_ms;
	free(a->key_source);
	a->key_source = mem_strdup(s->key_source);
}

void attempts_set_endpoint(struct attempts *a, const struct attempts_settings *settings)
{
	credentials_free(a->credentials);
	a->credentials = make_credentials(a, settings);
}

void attempts_set_times(struct attempts *a, const struct attempts_settings *settings,
			int64_t connect_timeout_ms)
{
	take_times(a, settings);
	credentials_set_times(a->credentials, connect_timeout_ms, settings->token_lifetime_ms);
	if (has_main(a) && a->context.connections->main->token && !main_is_outdated(a))
		watch_token(a);
}

int attempts_init(struct attempts *a, const struct attempts_context *context,
		  const struct attempts_settings *settings)
{
	*a = (struct attempts){.context = *context,
			       .renewal = alarm_new(context->base, on_renewal, a)};
	if (!a->renewal)
		return -errno;
	a->turn = timer_new(context->base, on_turn, a);
	a->batch = timer_new(context->base, on_turn, a);
	a->ask = timer_new(context->base, on_ask, a);
	a->pauses.retry = timer_new(context->base, on_turn, a);
	take_times(a, settings);
	a->credentials = make_credentials(a, settings);
	return 0;
}

void attempts_stop(struct attempts *a)
{
	event_del(a->turn);
	event_del(a->batch);
	event_del(a->ask);
	event_del(a->pauses.retry);
	alarm_clear(a->renewal);
	credentials_cancel(a->credentials);
}

void attempts_fini(struct attempts *a)
{
	credentials_free(a->credentials);
	alarm_free(a->renewal);
	event_free(a->turn);
	event_free(a->batch);
	event_free(a->ask);
	event_free(a->pauses.retry);
	free(a->key_source);
}
