#include "access/token_requests.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/backoff.h"
#include "codec/json.h"
#include "base/mem.h"
#include "codec/reply.h"

enum {
	FAILURE_PAUSE_MS = 250, /* after a failure; doubles with each further one, up to ... */
	FAILURE_PAUSE_MAX_MS = 5000,
	REFUSAL_PAUSE_MS = 1000, /* the same after a 429 without a time */
	REFUSAL_PAUSE_MAX_MS = 60000,
	WHY_MAX = 300,
	HTTP_BAD_REQUEST = 400,
	HTTP_UNAUTHORIZED = 401,
	HTTP_FORBIDDEN = 403,
	HTTP_TOO_LARGE = 413,
	HTTP_UNPROCESSABLE = 422,
	HTTP_TOO_MANY = 429,
};

struct ask {
	struct pending *pending;
	struct peer *peer;
	uint64_t round;
	bool paid;               /* in the budgets of its client */
	void *minting;           /* the owner's handle; NULL: it waits */
	TAILQ_ENTRY(ask) of_all; /* token_requests::waiting or minting */
	struct request request;  /* its spans point into text */
	size_t size;
	char text[];
};

TAILQ_HEAD(ask_list, ask);

struct token_requests {
	struct token_requests_settings settings;
	const struct token_requests_ops *ops;
	void *owner;
	struct router *router;
	struct access *access;
	struct stats *stats;
	struct ask_list waiting; /* in the order of their rounds */
	struct ask_list minting;
	unsigned n, n_minting; /* all requests; those being minted */
	size_t bytes;
	uint64_t round;        /* of the last request that had its turn */
	int64_t next_at;       /* nothing is minted before: because of every_ms or the rate ... */
	bool spent;            /* the next one is counted against the rate limit */
	int64_t paused_until;  /* ... because the service failed or refused */
	bool asked;            /* the service asked for this pause */
	unsigned failures;     /* in a row */
	enum reply_error late; /* the error of requests that time out while they wait */
	char why[WHY_MAX];     /* ... and its text; "": the usual one */
};

struct token_requests *token_requests_new(const struct token_requests_settings *settings,
					  const struct token_requests_ops *ops, void *owner,
					  struct router *router, struct access *access,
					  struct stats *stats)
{
	struct token_requests *t = mem_zalloc(sizeof(*t));

	*t = (struct token_requests){.settings = *settings,
				     .ops = ops,
				     .owner = owner,
				     .router = router,
				     .access = access,
				     .stats = stats,
				     .late = REPLY_QUEUE_FULL};
	TAILQ_INIT(&t->waiting);
	TAILQ_INIT(&t->minting);
	return t;
}

void token_requests_set(struct token_requests *t, const struct token_requests_settings *settings)
{
	t->settings = *settings;
}

void token_requests_free(struct token_requests *t)
{
	free(t);
}

void token_requests_join(struct peer *peer)
{
	peer->token_requests = (struct token_requests_peer){.n = 0};
}

/* ---- turns ---- */

/* Turns are in rounds, with one turn per client in each. A new client is served in the present
 * round, whatever others have queued for later ones. */
static void wait_for_turn(struct token_requests *t, struct ask *a)
{
	struct ask *before = TAILQ_LAST(&t->waiting, ask_list);

	a->pending->deferred.timeout_error = (uint8_t)t->late;
	while (before && before->round > a->round)
		before = TAILQ_PREV(before, ask_list, of_all);
	if (before)
		TAILQ_INSERT_AFTER(&t->waiting, before, a, of_all);
	else
		TAILQ_INSERT_HEAD(&t->waiting, a, of_all);
}

/* It was not minted: it is the first of its round again. */
static void wait_again(struct token_requests *t, struct ask *a)
{
	struct ask *behind = TAILQ_FIRST(&t->waiting);

	TAILQ_REMOVE(&t->minting, a, of_all);
	t->n_minting--;
	a->minting = NULL;
	a->pending->deferred.timeout_error = (uint8_t)t->late;
	while (behind && behind->round < a->round)
		behind = TAILQ_NEXT(behind, of_all);
	if (behind)
		TAILQ_INSERT_BEFORE(behind, a, of_all);
	else
		TAILQ_INSERT_TAIL(&t->waiting, a, of_all);
}

static void free_ask(struct token_requests *t, struct ask *a)
{
	if (a->minting) {
		TAILQ_REMOVE(&t->minting, a, of_all);
		t->n_minting--;
	} else {
		TAILQ_REMOVE(&t->waiting, a, of_all);
	}
	t->n--;
	t->bytes -= a->size;
	a->peer->token_requests.n--;
	free(a);
}

/* The access pattern that its token is made with; own is where one of the daemon's is written. */
static struct span pattern_of(const struct ask *a, struct buf *own)
{
	struct buf pattern = {0};

	if (access_token(a->peer) != ACCESS_TOKEN_OWN)
		return a->request.access_pattern.text;
	access_token_pattern(a->peer, &pattern);
	json_add_string(own, buf_span(&pattern));
	buf_release(&pattern);
	return buf_span(own);
}

static void begin(struct token_requests *t, struct ask *a)
{
	struct token_requests_wish wish = {a->request.subscribe_keys.text,
					   a->request.subscribe_patterns.text,
					   a->request.access_pattern.text};
	struct buf text = {0};

	wish.access_pattern = pattern_of(a, &text);
	TAILQ_REMOVE(&t->waiting, a, of_all);
	TAILQ_INSERT_TAIL(&t->minting, a, of_all);
	t->n_minting++;
	t->round = a->round;
	a->pending->deferred.timeout_error = REPLY_TIMEOUT;
	a->minting = t->ops->mint(t->owner, &wish, a);
	buf_release(&text);
}

/* While the service is failing, one request at a time tries whether it is back. */
static bool has_place(const struct token_requests *t)
{
	return !router_is_stopping(t->router) &&
	       t->n_minting < (t->failures ? 1 : t->settings.at_once);
}

static int64_t next_turn(const struct token_requests *t)
{
	return t->next_at > t->paused_until ? t->next_at : t->paused_until;
}

/* The first one that the budgets of its client have room for. *next: when another one may have it;
 * -1: none waits for that. */
static struct ask *first_with_budget(struct token_requests *t, int64_t now, int64_t *next)
{
	struct ask *a;

	*next = -1;
	TAILQ_FOREACH (a, &t->waiting, of_all) {
		int64_t wait_ms = a->paid ? 0 : budget_rate_wait_ms(a->peer, now);
		if (wait_ms == 0)
			return a;
		a->pending->deferred.timeout_error = REPLY_RATE_LIMITED;
		if (*next < 0 || now + wait_ms < *next)
			*next = now + wait_ms;
	}
	return NULL;
}

/* None has room in its client's budgets: refuses those whose time is up before they could have it.
 */
static void refuse_over_budget(struct token_requests *t, int64_t now)
{
	struct ask *next;

	for (struct ask *a = TAILQ_FIRST(&t->waiting); a; a = next) {
		int64_t wait_ms = budget_rate_wait_ms(a->peer, now);
		next = TAILQ_NEXT(a, of_all);
		if (now + wait_ms > a->pending->deadline.at)
			router_refuse(t->router, a->pending, REPLY_RATE_LIMITED,
				      "the rate of its access section does not allow a token "
				      "within its time",
				      (long)wait_ms);
	}
}

static void pump(struct token_requests *t, int64_t now)
{
	struct ask *a;
	int64_t next;

	while (has_place(t) && !TAILQ_EMPTY(&t->waiting)) {
		if (!(a = first_with_budget(t, now, &next))) {
			t->ops->wake_at(t->owner, next);
			refuse_over_budget(t, now);
			return;
		}
		if (now < next_turn(t)) {
			t->ops->wake_at(t->owner, next_turn(t));
			return;
		}
		if (!t->spent) {
			t->next_at = now + router_spend(t->router, now);
			t->spent = true;
			continue;
		}
		t->next_at = now + t->settings.every_ms;
		t->spent = false;
		if (!a->paid)
			budget_pay(a->peer, now);
		a->paid = true;
		begin(t, a);
	}
}

void token_requests_wake(struct token_requests *t, int64_t now)
{
	pump(t, now);
}

/* ---- requests ---- */

static void copy_text(char **to, struct json_value *value)
{
	if (!value->text.p)
		return;
	memcpy(*to, value->text.p, value->text.n);
	value->text.p = *to;
	*to += value->text.n;
}

static struct ask *make_ask(struct token_requests *t, struct pending *p,
			    const struct request *request)
{
	size_t n = request->subscribe_keys.text.n + request->subscribe_patterns.text.n +
		   request->access_pattern.text.n;
	struct ask *a = mem_alloc(sizeof(*a) + n);
	struct peer *peer = p->peer;
	char *to = a->text;

	peer->token_requests.round =
		(peer->token_requests.round > t->round ? peer->token_requests.round : t->round) + 1;
	*a = (struct ask){.pending = p,
			  .peer = peer,
			  .round = peer->token_requests.round,
			  .request = *request,
			  .size = sizeof(*a) + n};
	a->request.id = (struct span){0};
	copy_text(&to, &a->request.subscribe_keys);
	copy_text(&to, &a->request.subscribe_patterns);
	copy_text(&to, &a->request.access_pattern);
	p->deferred.request = a;
	t->n++;
	t->bytes += a->size;
	peer->token_requests.n++;
	return a;
}

static bool is_full(const struct token_requests *t, const struct peer *peer)
{
	return t->n >= t->settings.max_asks ||
	       peer->token_requests.n >= t->settings.max_peer_asks ||
	       t->bytes >= t->settings.max_bytes;
}

/* Will its deadline pass during a pause that the service asked for? */
static bool is_hopeless(const struct token_requests *t, const struct ask *a)
{
	return t->asked && a->pending->deadline.at <= t->paused_until;
}

static void refuse_hopeless(struct token_requests *t, int64_t now)
{
	struct ask *next;

	for (struct ask *a = TAILQ_FIRST(&t->waiting); a; a = next) {
		next = TAILQ_NEXT(a, of_all);
		if (is_hopeless(t, a))
			router_refuse(t->router, a->pending, t->late, NULL,
				      (long)(t->paused_until - now));
	}
}

/* Hands the token on. */
static void settle(struct token_requests *t, struct pending *p, struct span token)
{
	struct buf object = {0};

	buf_room(&object, 6 * token.n + sizeof("{\"code\":200,\"token\":\"\"}"));
	buf_addf(&object, "{\"code\":200,\"token\":");
	json_add_string(&object, token);
	buf_addf(&object, "}");
	router_settle_secret(t->router, p, buf_span(&object));
	buf_wipe(&object);
}

/* The rules allow that, or it would not have come here. */
static void make_local(struct token_requests *t, struct pending *p, struct peer *peer,
		       const struct request *request)
{
	char why[ACCESS_PATTERN_WHY_MAX];
	struct buf token = {0};

	if (t->ops->make_local(t->owner, peer, request, &token, why) < 0)
		router_refuse(t->router, p, REPLY_BAD_REQUEST, why, -1);
	else
		settle(t, p, buf_span(&token));
	buf_wipe(&token);
}

void token_requests_ask(struct token_requests *t, struct peer *peer, const struct request *request,
			int64_t now)
{
	struct pending *p = router_defer(t->router, peer, request, now);

	if (router_is_stopping(t->router)) {
		router_refuse(t->router, p, REPLY_SHUTTING_DOWN, NULL, ROUTER_RESTART_MS);
	} else if (access_token(peer) == ACCESS_TOKEN_NO) {
		make_local(t, p, peer, request);
	} else if (is_full(t, peer)) {
		t->stats->requests_queue_full++;
		router_refuse(t->router, p, REPLY_QUEUE_FULL,
			      "too many requests for tokens are waiting", -1);
	} else {
		wait_for_turn(t, make_ask(t, p, request));
		refuse_hopeless(t, now);
		pump(t, now);
	}
}

const char *token_requests_deferred_end(struct token_requests *t, struct pending *p)
{
	struct ask *a = p->deferred.request;

	if (!a)
		return NULL;
	p->deferred.request = NULL;
	bool waits = !a->minting;
	if (a->minting)
		t->ops->cancel(t->owner, a->minting);
	free_ask(t, a);
	if (!TAILQ_EMPTY(&t->waiting) && has_place(t)) /* not from within this callback */
		t->ops->wake_at(t->owner, next_turn(t));
	if (p->deferred.timeout_error == REPLY_QUEUE_FULL)
		return "not minted within its time: other requests for tokens were before it";
	return waits && t->why[0] ? t->why : NULL;
}

/* ---- results ---- */

static void hand_over(struct token_requests *t, struct ask *a, const char *token)
{
	struct pending *p = a->pending;
	struct span text = {token, strlen(token)};
	struct buf pattern = {0};

	t->stats->tokens_for_clients++;
	t->ops->made(t->owner, a->peer, &a->request, pattern_of(a, &pattern), text);
	buf_release(&pattern);
	p->deferred.request = NULL;
	free_ask(t, a);
	settle(t, p, text);
}

static void set_late(struct token_requests *t, enum reply_error late, const char *why)
{
	struct ask *a;

	t->late = late;
	snprintf(t->why, sizeof(t->why), "%s", why);
	TAILQ_FOREACH (a, &t->waiting, of_all)
		a->pending->deferred.timeout_error = (uint8_t)late;
}

/* Pauses all requests. */
static void make_pause(struct token_requests *t, const struct token_requests_answer *answer,
		       int64_t now)
{
	bool refused = answer->http_status / 100 == 4;
	int64_t pause =
		refused ? backoff_doubled(REFUSAL_PAUSE_MS, t->failures, REFUSAL_PAUSE_MAX_MS)
			: backoff_doubled(FAILURE_PAUSE_MS, t->failures, FAILURE_PAUSE_MAX_MS);

	if (answer->http_status == HTTP_TOO_MANY && !t->settings.by_endpoint)
		router_spend_refused(t->router, now);
	t->failures++;
	t->asked = answer->retry_after_s >= 0 || answer->http_status == HTTP_TOO_MANY;
	t->paused_until =
		now +
		(answer->retry_after_s >= 0 ? backoff_asked_ms(answer->retry_after_s, 0) : pause);
	set_late(t, answer->http_status == HTTP_TOO_MANY ? REPLY_RATE_LIMITED : REPLY_UPSTREAM_DOWN,
		 answer->why);
	refuse_hopeless(t, now);
}

/* A success that was begun before the pause does not end it. */
static void recover(struct token_requests *t, int64_t now)
{
	if (!t->failures || now < t->paused_until)
		return;
	t->failures = 0;
	set_late(t, REPLY_QUEUE_FULL, "");
}

/* The error that ends the request; REPLY_N: it is tried again. */
static enum reply_error verdict_of(const struct token_requests *t,
				   const struct token_requests_answer *answer)
{
	switch (answer->http_status) {
	case HTTP_BAD_REQUEST:
	case HTTP_TOO_LARGE:
	case HTTP_UNPROCESSABLE:
		return REPLY_BAD_REQUEST;
	case HTTP_UNAUTHORIZED:
	case HTTP_FORBIDDEN:
		return t->settings.by_endpoint ? REPLY_FORBIDDEN : REPLY_UPSTREAM_DOWN;
	case 0:
	case HTTP_TOO_MANY:
		return REPLY_N;
	default:
		return answer->http_status >= 500 ? REPLY_N : REPLY_BAD_UPSTREAM;
	}
}

static void refuse(struct token_requests *t, struct ask *a, enum reply_error error, const char *why)
{
	char text[WHY_MAX + 100];

	snprintf(text, sizeof(text), "%s%s",
		 error == REPLY_BAD_REQUEST ? "the service refuses to mint such a token: " : "",
		 why);
	router_refuse(t->router, a->pending, error, text, -1);
}

static void failed(struct token_requests *t, struct ask *a,
		   const struct token_requests_answer *answer, int64_t now)
{
	enum reply_error error = verdict_of(t, answer);

	t->stats->token_failures++;
	if (error != REPLY_N)
		refuse(t, a, error, answer->why);
	if (error == REPLY_N || error == REPLY_UPSTREAM_DOWN)
		make_pause(t, answer, now);
	else
		recover(t, now);
}

void token_requests_minted(struct token_requests *t, void *ask,
			   const struct token_requests_answer *answer, int64_t now)
{
	struct ask *a = ask;

	wait_again(t, a); /* it is not being minted any more */
	if (answer->token) {
		recover(t, now);
		hand_over(t, a, answer->token);
	} else {
		failed(t, a, answer, now);
	}
	pump(t, now);
}

/* ---- new settings ---- */

void token_requests_interrupt(struct token_requests *t)
{
	struct ask *a;

	while ((a = TAILQ_FIRST(&t->minting))) {
		t->ops->cancel(t->owner, a->minting);
		wait_again(t, a);
	}
}

/* What was learnt of the former service may no longer be true. */
void token_requests_review(struct token_requests *t, int64_t now)
{
	struct ask *a, *next;

	t->paused_until = now;
	recover(t, now);
	for (a = TAILQ_FIRST(&t->waiting); a; a = next) {
		next = TAILQ_NEXT(a, of_all);
		const char *why = access_forbids(t->access, a->peer, &a->request, now);
		if (why)
			router_refuse(t->router, a->pending, REPLY_FORBIDDEN, why, -1);
	}
	pump(t, now);
}
