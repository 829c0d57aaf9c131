/* Clients' requests for tokens: turns, bounds, pace and pauses, order of answers, and rules that
 * change meanwhile; with the real router, a fake minter and a clock of our own. */
#include "../test.h"
#include "../router_ops.h"

#include <errno.h>
#include <stdio.h>

#include "access/token_requests.h"
#include "base/log.h"
#include "base/mem.h"

enum { PEERS = 3, MINTS = 200, TIMEOUT = 10000, AT_ONCE = 2, EVERY = 50 };

struct token_minter {
	void *ask;
	char *wish; /* the three texts, with / between them; NULL: over or cancelled */
};

struct world {
	struct router *router;
	struct access *access;
	struct access_rules *rules;
	struct token_requests *token_requests;
	struct stats stats;
	struct peer peer[PEERS];
	struct token_minter mint[MINTS];
	size_t n, cancelled;
	int64_t now, wake;
	char told[8192], made[256];
	bool local_fails;
	const char *why; /* of what fails */
};

/* ---- what the router and the token requests ask for ---- */

static void no_send(void *owner, struct span head, struct span body)
{
	(void)owner, (void)head, (void)body;
	fail();
}

static bool no_room(void *owner)
{
	(void)owner;
	return false;
}

static long reconnect_ms(void *owner)
{
	(void)owner;
	return 70;
}

static const char *deferred_end(void *owner, struct pending *p)
{
	return token_requests_deferred_end(((struct world *)owner)->token_requests, p);
}

static const struct router_ops router_ops = {
	.send = no_send,
	.sendable = no_room,
	.reconnect_ms = reconnect_ms,
	.changed = ignore_changed,
	.wake_at = ignore_wake_at,
	.connection_idle = ignore_connection_idle,
	.deferred_turn = ignore_deferred_turn,
	.deferred_end = deferred_end,
};

static void *mint(void *owner, const struct token_requests_wish *wish, void *ask)
{
	struct world *w = owner;
	struct buf text = {0};

	buf_addf(&text, "%.*s/%.*s/%.*s", (int)wish->subscribe_keys.n,
		 wish->subscribe_keys.p ? wish->subscribe_keys.p : "",
		 (int)wish->subscribe_patterns.n,
		 wish->subscribe_patterns.p ? wish->subscribe_patterns.p : "",
		 (int)wish->access_pattern.n, wish->access_pattern.p ? wish->access_pattern.p : "");
	assert_true(w->n < MINTS);
	struct token_minter *m = &w->mint[w->n++];
	*m = (struct token_minter){ask, mem_strndup(buf_span(&text).p, buf_len(&text))};
	buf_release(&text);
	return m;
}

static void cancel(void *owner, void *minting)
{
	struct token_minter *m = minting;

	assert_non_null(m->wish);
	free(m->wish);
	m->wish = NULL;
	((struct world *)owner)->cancelled++;
}

static void wake_at(void *owner, int64_t at)
{
	((struct world *)owner)->wake = at;
}

/* What is remembered of the last token that was made. */
static void made(void *owner, struct peer *peer, const struct request *request,
		 struct span access_pattern, struct span token)
{
	struct world *w = owner;

	snprintf(w->made, sizeof(w->made), "%llu: %.*s/%.*s/%.*s: %.*s",
		 (unsigned long long)peer->number, (int)request->subscribe_keys.text.n,
		 request->subscribe_keys.text.p ? request->subscribe_keys.text.p : "",
		 (int)request->subscribe_patterns.text.n,
		 request->subscribe_patterns.text.p ? request->subscribe_patterns.text.p : "",
		 (int)access_pattern.n, access_pattern.p ? access_pattern.p : "", (int)token.n,
		 token.p);
}

static int make_local(void *owner, struct peer *peer, const struct request *request,
		      struct buf *token, char why[ACCESS_PATTERN_WHY_MAX])
{
	struct world *w = owner;

	assert_true(request->local);
	snprintf(why, ACCESS_PATTERN_WHY_MAX, "there is something wrong");
	if (w->local_fails)
		return -EINVAL;
	buf_addf(token, "local %llu", (unsigned long long)peer->number);
	return 0;
}

static const struct token_requests_ops token_requests_ops = {
	.make_local = make_local, .made = made, .mint = mint, .cancel = cancel, .wake_at = wake_at};

/* ---- */

static const struct peer_identity me = {.known = true, .uid = 7, .gid = 7};

static void set_rules(struct world *w, enum access_token token, const char *read, const char *write)
{
	struct access_rules *before = w->rules;

	w->rules = access_rules_new();
	struct access_section *s = access_rules_add(w->rules, "test");
	access_section_user(s, me.uid);
	access_section_token(s, token);
	access_section_glob(s, ACCESS_READ, span_of(read));
	access_section_glob(s, ACCESS_WRITE, span_of(write));
	access_set(w->access, w->rules);
	for (int i = 0; i < PEERS; i++)
		access_admit(w->access, &w->peer[i], &me);
	access_rules_free(before);
}

/* The first two clients may have one token a second together, the third one two. */
static void set_rates(struct world *w)
{
	static const struct peer_identity other = {.known = true, .uid = 8, .gid = 8};
	struct access_rules *before = w->rules;

	w->rules = access_rules_new();
	for (unsigned i = 1; i <= 2; i++) {
		struct access_section *s = access_rules_add(w->rules, i == 1 ? "one" : "two");
		access_section_user(s, i == 1 ? me.uid : other.uid);
		access_section_token(s, ACCESS_TOKEN_ANY);
		access_section_glob(s, ACCESS_READ, SPAN("*"));
		access_section_limits(s, &(struct budget_limits){.rate = i});
	}
	access_set(w->access, w->rules);
	for (int i = 0; i < PEERS; i++)
		access_admit(w->access, &w->peer[i], i < 2 ? &me : &other);
	access_rules_free(before);
}

static const struct token_requests_settings usual = {.at_once = AT_ONCE,
						     .every_ms = EVERY,
						     .max_asks = 20,
						     .max_peer_asks = 12,
						     .max_bytes = 1 << 16};

static struct world *world_new(void)
{
	static const struct router_settings router = {.max_in_flight = 1,
						      .max_pipeline = 1000,
						      .request_timeout_ms = TIMEOUT,
						      .max_waiting_bytes = 1 << 20,
						      .max_peer_waiting_bytes = 1 << 20};
	struct world *w = mem_zalloc(sizeof(*w));

	log_set_level(LOG_LEVEL_ERROR);
	w->wake = -1;
	w->now = 1000;
	w->why = "no luck";
	w->router = router_new(&router, &router_ops, w, &w->stats, 1);
	w->access = access_new(&w->stats);
	w->token_requests =
		token_requests_new(&usual, &token_requests_ops, w, w->router, w->access, &w->stats);
	for (int i = 0; i < PEERS; i++) {
		w->peer[i].number = (uint64_t)i + 1;
		w->peer[i].token_requests.n = 99; /* of somebody before */
		router_join(w->router, &w->peer[i]);
		token_requests_join(&w->peer[i]);
	}
	set_rules(w, ACCESS_TOKEN_ANY, "*", "*");
	return w;
}

static void world_free(struct world *w)
{
	for (int i = 0; i < PEERS; i++) {
		router_leave(w->router, &w->peer[i], w->now);
		access_leave(&w->peer[i]);
		outq_fini(&w->peer[i].out);
	}
	for (size_t i = 0; i < w->n; i++)
		assert_null(w->mint[i].wish);
	router_free(w->router);
	token_requests_free(w->token_requests);
	access_free(w->access);
	access_rules_free(w->rules);
	free(w);
}

static void ask(struct world *w, size_t peer, const char *line)
{
	struct request request;
	struct request_fault fault;
	struct span copy = copy_of(span_of(line));

	assert_int_equal(request_parse(copy, &request, &fault), 0);
	token_requests_ask(w->token_requests, &w->peer[peer], &request, w->now);
	mem_wipe((char *)(uintptr_t)copy.p, copy.n); /* the request was copied */
	free_copy(copy);
}

/* A request for the token of one key, with an id. */
static void ask_for(struct world *w, size_t peer, int number)
{
	char line[100];

	snprintf(line, sizeof(line),
		 "{\"op\":\"token\",\"subscribeKeys\":[\"%d\"],\"messageId\":%d}", number, number);
	ask(w, peer, line);
}

/* What the client was told since the last time. */
static const char *told(struct world *w, size_t peer)
{
	struct iovec iov[1];
	size_t at = 0;

	while (outq_iov(&w->peer[peer].out, iov, 1)) {
		assert_true(at + iov[0].iov_len < sizeof(w->told));
		memcpy(w->told + at, iov[0].iov_base, iov[0].iov_len);
		at += iov[0].iov_len;
		outq_take(&w->peer[peer].out, iov[0].iov_len);
	}
	w->told[at] = '\0';
	return w->told;
}

static void later(struct world *w, int64_t ms)
{
	w->now += ms;
	router_expire(w->router, w->now);
	token_requests_wake(w->token_requests, w->now);
}

static void answer(struct world *w, size_t i, const char *token, int status, int retry_after_s)
{
	struct token_requests_answer a = {token, status, retry_after_s, token ? NULL : w->why};

	assert_true(i < w->n && w->mint[i].wish);
	free(w->mint[i].wish);
	w->mint[i].wish = NULL;
	token_requests_minted(w->token_requests, w->mint[i].ask, &a, w->now);
}

static void assert_told(struct world *w, size_t peer, const char *want)
{
	const char *seen = told(w, peer);

	if (strcmp(seen, want) != 0)
		fail_msg("%s instead of %s", seen, want);
}

static void assert_tells(struct world *w, size_t peer, const char *part)
{
	const char *seen = told(w, peer);

	if (!strstr(seen, part))
		fail_msg("%s without %s", seen, part);
}

/* ---- the way of a request ---- */

static void a_token_is_asked_for_and_handed_on(void **state)
{
	struct world *w = world_new();

	(void)state;
	ask(w, 0,
	    "{\"op\":\"token\",\"subscribeKeys\":[\"a\"],\"subscribePatterns\":[\"b*\"],"
	    "\"accessPattern\":\"^c\",\"messageId\":\"x\"}");
	assert_int_equal(w->n, 1);
	assert_string_equal(w->mint[0].wish, "[\"a\"]/[\"b*\"]/\"^c\"");
	assert_told(w, 0, "");
	answer(w, 0, "t\"0\\", 200, -1);
	assert_told(w, 0, "{\"code\":200,\"token\":\"t\\\"0\\\\\",\"messageId\":\"x\"}\n");
	assert_int_equal(w->stats.tokens_for_clients, 1);
	assert_string_equal(w->made, "1: [\"a\"]/[\"b*\"]/\"^c\": t\"0\\");
	assert_int_equal(w->wake, -1); /* there is nothing to wait for */
	world_free(w);
}

static void who_may_have_none_gets_a_local_one(void **state)
{
	struct world *w = world_new();

	(void)state;
	set_rules(w, ACCESS_TOKEN_NO, "*", "");
	ask(w, 0, "{\"op\":\"token\",\"local\":true,\"messageId\":7}");
	assert_told(w, 0, "{\"code\":200,\"token\":\"local 1\",\"messageId\":7}\n");
	w->local_fails = true;
	ask(w, 0, "{\"op\":\"token\",\"local\":true}");
	assert_told(w, 0,
		    "{\"code\":400,\"error\":\"there is something wrong\",\"reason\":"
		    "\"bad_request\",\"executed\":\"no\"}\n");
	assert_int_equal(w->n, 0);
	assert_string_equal(w->made, "");
	/* Of the service, if the rules grant one. */
	set_rules(w, ACCESS_TOKEN_OWN, "*", "");
	ask(w, 0, "{\"op\":\"token\",\"local\":true}");
	assert_int_equal(w->n, 1);
	answer(w, 0, "t", 200, -1);
	assert_string_equal(w->made, "1: //\"^(?:)$\": t");
	world_free(w);
}

static void what_is_not_given_is_not_sent(void **state)
{
	struct world *w = world_new();

	(void)state;
	ask(w, 0, "{\"op\":\"token\"}");
	assert_string_equal(w->mint[0].wish, "//");
	answer(w, 0, "t", 200, -1);
	assert_told(w, 0, "{\"code\":200,\"token\":\"t\"}\n");
	set_rules(w, ACCESS_TOKEN_OWN, "w*", "w\xc3\xa9.*");
	later(w, EVERY);
	ask(w, 0, "{\"op\":\"token\",\"subscribePatterns\":[\"w\"]}");
	assert_string_equal(w->mint[1].wish, "/[\"w\"]/\"^(?:w\xc3\xa9\\\\.[\\\\s\\\\S]*)$\"");
	world_free(w);
}

static void answers_without_an_id_keep_their_order(void **state)
{
	struct world *w = world_new();

	(void)state;
	ask(w, 0, "{\"op\":\"token\",\"accessPattern\":\"1\"}");
	later(w, EVERY);
	ask(w, 0, "{\"op\":\"token\",\"accessPattern\":\"2\"}");
	answer(w, 1, "second", 200, -1);
	assert_told(w, 0, "");
	router_say(w->router, &w->peer[0], SPAN("third\n"), false);
	answer(w, 0, "first", 200, -1);
	assert_told(w, 0,
		    "{\"code\":200,\"token\":\"first\"}\n{\"code\":200,\"token\":\"second\"}\n"
		    "third\n");
	world_free(w);
}

static void so_many_at_once_and_no_faster(void **state)
{
	struct world *w = world_new();

	(void)state;
	for (int i = 0; i < 4; i++)
		ask_for(w, 0, i);
	assert_int_equal(w->n, 1);
	assert_int_equal(w->wake, w->now + EVERY);
	later(w, EVERY - 1);
	assert_int_equal(w->n, 1);
	later(w, 1);
	assert_int_equal(w->n, 2);
	later(w, 1000);
	assert_int_equal(w->n, 2); /* AT_ONCE */
	answer(w, 1, "t", 200, -1);
	assert_int_equal(w->n, 3);
	answer(w, 0, "t", 200, -1);
	assert_int_equal(w->n, 3);
	later(w, EVERY);
	assert_int_equal(w->n, 4);
	world_free(w);
}

static void clients_take_turns(void **state)
{
	static const char *const want[] = {"[\"0\"]//",  "[\"1\"]//", "[\"2\"]//", "[\"10\"]//",
					   "[\"20\"]//", "[\"3\"]//", "[\"11\"]//"};
	struct world *w = world_new();

	(void)state;
	for (int i = 0; i < 5; i++)
		ask_for(w, 0, i);
	later(w, EVERY);
	ask_for(w, 1, 10);
	ask_for(w, 1, 11);
	ask_for(w, 2, 20);
	for (size_t i = 0; i < COUNT(want); i++) {
		assert_string_equal(w->mint[i].wish, want[i]);
		answer(w, i, "t", 200, -1);
		later(w, EVERY);
	}
	world_free(w);
}

/* Nor is an interrupted one put behind others of its round. */
static void an_interruption_does_not_change_the_order(void **state)
{
	static const char *const want[] = {"[\"0\"]//", "[\"1\"]//", "[\"10\"]//"};
	struct world *w = world_new();

	(void)state;
	ask_for(w, 0, 0);
	ask_for(w, 0, 1);
	ask_for(w, 1, 10);
	later(w, EVERY);
	token_requests_interrupt(w->token_requests);
	token_requests_review(w->token_requests, w->now);
	for (size_t i = 0; i < COUNT(want); i++) {
		later(w, EVERY);
		assert_string_equal(w->mint[2 + i].wish, want[i]);
		answer(w, 2 + i, "t", 200, -1);
	}
	world_free(w);
}

static void one_after_the_other_there_is_room_for_any_number(void **state)
{
	struct world *w = world_new();

	(void)state;
	for (int i = 0; i < 30; i++) {
		ask_for(w, 0, i);
		later(w, EVERY);
		answer(w, (size_t)i, "t", 200, -1);
		assert_tells(w, 0, "\"token\":\"t\"");
	}
	world_free(w);
}

static void there_is_no_room_for_any_number(void **state)
{
	struct world *w = world_new();

	(void)state;
	for (int i = 0; i < 12; i++)
		ask_for(w, 0, i);
	assert_told(w, 0, "");
	ask_for(w, 0, 12);
	assert_tells(w, 0, "\"reason\":\"queue_full\",\"executed\":\"no\",\"messageId\":12}");
	for (int i = 0; i < 8; i++)
		ask_for(w, 1, i);
	assert_told(w, 1, "");
	ask_for(w, 2, 0); /* max_asks */
	assert_tells(w, 2, "queue_full");
	assert_int_equal(w->stats.requests_queue_full, 2);
	router_leave(w->router, &w->peer[0], w->now);
	router_join(w->router, &w->peer[0]);
	token_requests_join(&w->peer[0]);
	ask_for(w, 2, 1);
	assert_told(w, 2, "");
	world_free(w);
}

static void the_memory_of_all_is_bounded(void **state)
{
	struct world *w = world_new();
	char *line = mem_zalloc(70000);
	size_t n = (size_t)sprintf(line, "{\"op\":\"token\",\"accessPattern\":\"");

	(void)state;
	memset(line + n, 'x', 65000);
	strcpy(line + n + 65000, "\"}");
	ask(w, 0, line);
	ask(w, 1, line);
	assert_told(w, 1, "");
	ask_for(w, 2, 0);
	assert_tells(w, 2, "queue_full");
	answer(w, 0, "t", 200, -1);
	ask_for(w, 2, 1);
	assert_told(w, 2, "");
	free(line);
	world_free(w);
}

static void a_client_that_leaves_makes_room_for_the_next(void **state)
{
	struct world *w = world_new();

	(void)state;
	for (int i = 0; i < 3; i++)
		ask_for(w, 0, i);
	later(w, EVERY);
	ask_for(w, 1, 7);
	assert_int_equal(w->n, 2);
	w->wake = -1;
	router_leave(w->router, &w->peer[0], w->now);
	router_join(w->router, &w->peer[0]);
	token_requests_join(&w->peer[0]);
	assert_int_equal(w->cancelled, 2);
	assert_int_equal(w->n, 2); /* not from within */
	assert_true(w->wake >= 0 && w->wake <= w->now + EVERY);
	later(w, EVERY);
	assert_string_equal(w->mint[2].wish, "[\"7\"]//");
	w->wake = -1;
	router_leave(w->router, &w->peer[1], w->now);
	router_join(w->router, &w->peer[1]);
	assert_int_equal(w->wake, -1); /* nobody waits */
	token_requests_interrupt(w->token_requests);
	assert_int_equal(w->cancelled, 3);
	world_free(w);
}

/* ---- the rates of access sections ---- */

static void the_rate_of_a_section_holds(void **state)
{
	struct world *w = world_new();

	(void)state;
	set_rates(w);
	ask_for(w, 0, 0);
	assert_int_equal(w->n, 1);
	later(w, EVERY);
	ask_for(w, 0, 1);
	assert_int_equal(w->n, 1);
	assert_int_equal(w->wake, 2001);
	ask(w, 1, "{\"op\":\"token\",\"timeoutMs\":950}");
	assert_told(
		w, 1,
		"{\"code\":429,\"error\":\"the rate of its access section does not allow a token "
		"within its time\",\"reason\":\"rate_limited\",\"executed\":\"no\","
		"\"retryAfterMs\":951}\n");
	ask(w, 1, "{\"op\":\"token\",\"timeoutMs\":951}");
	assert_told(w, 1, "");
	ask_for(w, 2, 0); /* others do not wait for it */
	assert_int_equal(w->n, 2);
	answer(w, 1, "t", 200, -1);
	later(w, 949);
	assert_int_equal(w->n, 2);
	later(w, 2);
	assert_string_equal(w->mint[2].wish, "[\"1\"]//");
	world_free(w);
}

static void late_because_of_the_rate_is_told_so(void **state)
{
	struct world *w = world_new();

	(void)state;
	set_rates(w);
	ask_for(w, 0, 0);
	later(w, EVERY);
	ask(w, 0, "{\"op\":\"token\",\"timeoutMs\":960,\"messageId\":1}");
	later(w, 1000); /* the machine stood still */
	assert_tells(w, 0,
		     "the rate limit left no room for it\",\"reason\":\"rate_limited\","
		     "\"executed\":\"no\",\"messageId\":1}");
	world_free(w);
}

static void the_first_rate_that_has_room_is_waited_for(void **state)
{
	struct world *w = world_new();

	(void)state;
	set_rates(w);
	ask_for(w, 0, 0);
	for (int i = 0; i < 2; i++) {
		later(w, EVERY);
		ask_for(w, 2, i);
		answer(w, (size_t)i, "t", 200, -1);
	}
	later(w, EVERY);
	assert_int_equal(w->n, 3);
	ask_for(w, 0, 2);
	assert_int_equal(w->wake, 2001);
	ask_for(w, 2, 2);
	ask_for(w, 1, 2);
	assert_int_equal(w->wake, 1550); /* it had .1 at 1100 */
	later(w, 400);
	assert_string_equal(w->mint[3].wish, "[\"2\"]//");
	world_free(w);
}

static void a_token_is_paid_for_once(void **state)
{
	struct world *w = world_new();

	(void)state;
	set_rates(w);
	ask_for(w, 0, 0);
	answer(w, 0, NULL, 503, -1);
	later(w, 250);
	assert_int_equal(w->n, 2);
	world_free(w);
}

/* ---- trouble ---- */

static void what_is_late_is_told_why(void **state)
{
	struct world *w = world_new();

	(void)state;
	for (int i = 0; i < 3; i++)
		ask_for(w, 0, i);
	later(w, EVERY);
	later(w, TIMEOUT);
	assert_int_equal(w->cancelled, 2);
	const char *lines = told(w, 0);
	assert_non_null(
		strstr(lines, "\"reason\":\"timeout\",\"executed\":\"unknown\",\"messageId\":0}"));
	assert_non_null(
		strstr(lines, "\"reason\":\"timeout\",\"executed\":\"unknown\",\"messageId\":1}"));
	assert_non_null(strstr(lines,
			       "were before it\",\"reason\":\"queue_full\",\"executed\":\"no\","
			       "\"messageId\":2}"));
	assert_int_equal(w->stats.requests_timeout, 2);
	assert_int_equal(w->stats.requests_unsent, 1);
	world_free(w);
}

static void what_fails_is_tried_again_after_growing_pauses(void **state)
{
	static const int64_t pauses[] = {250, 500, 1000, 2000, 4000};
	struct world *w = world_new();

	(void)state;
	ask_for(w, 0, 0);
	ask_for(w, 0, 1);
	later(w, EVERY);
	answer(w, 1, NULL, 0, -1);
	answer(w, 0, NULL, 503, -1); /* was begun before the pause: this makes it longer */
	assert_int_equal(w->wake, w->now + 500);
	later(w, 499);
	assert_int_equal(w->n, 2);
	for (size_t i = 2; i < COUNT(pauses); i++) {
		later(w, pauses[i - 1]);
		assert_int_equal(w->n, i + 1); /* one at a time */
		later(w, EVERY);
		assert_int_equal(w->n, i + 1);
		assert_string_equal(w->mint[i].wish,
				    "[\"0\"]//"); /* the first is the first again */
		answer(w, i, NULL, 500, -1);
		assert_int_equal(w->wake, w->now + pauses[i]);
	}
	later(w, TIMEOUT);
	const char *lines = told(w, 0);
	assert_non_null(strstr(lines,
			       "{\"code\":503,\"error\":\"no luck\",\"reason\":\"upstream_down\","
			       "\"executed\":\"no\",\"retryAfterMs\":70,\"messageId\":1}"));
	world_free(w);
}

static void a_success_of_before_does_not_end_a_pause(void **state)
{
	struct world *w = world_new();

	(void)state;
	for (int i = 0; i < 4; i++)
		ask_for(w, 0, i);
	later(w, EVERY);
	answer(w, 0, NULL, 503, -1);
	answer(w, 1, "t", 200, -1);
	later(w, 249);
	assert_int_equal(w->n, 2);
	later(w, 1);
	assert_int_equal(w->n, 3);
	later(w, EVERY);
	assert_int_equal(w->n, 3); /* one at a time */
	world_free(w);
}

/* The service is there again. */
static void a_refusal_ends_the_trouble_as_well(void **state)
{
	struct world *w = world_new();

	(void)state;
	for (int i = 0; i < 3; i++)
		ask_for(w, 0, i);
	answer(w, 0, NULL, 503, -1);
	later(w, 250);
	answer(w, 1, NULL, 400, -1);
	later(w, EVERY);
	later(w, EVERY);
	assert_int_equal(w->n, 4); /* AT_ONCE */
	assert_int_equal(w->stats.token_failures, 2);
	world_free(w);
}

/* Only the service's own word on a pause makes requests hopeless. */
static void a_short_request_hopes_in_a_pause_of_ours(void **state)
{
	struct world *w = world_new();

	(void)state;
	ask_for(w, 0, 0);
	answer(w, 0, NULL, 503, -1);
	ask(w, 1, "{\"op\":\"token\",\"timeoutMs\":100}");
	assert_told(w, 1, "");
	later(w, 250);
	answer(w, 1, NULL, 429, -1); /* which is one, without a time */
	ask(w, 2, "{\"op\":\"token\",\"timeoutMs\":100}");
	assert_tells(w, 2, "rate_limited");
	world_free(w);
}

static void a_pause_of_no_time_is_kept_too(void **state)
{
	struct world *w = world_new();

	(void)state;
	ask_for(w, 0, 0);
	later(w, EVERY);
	answer(w, 0, NULL, 503, 0);
	assert_int_equal(w->n, 2);
	world_free(w);
}

static void what_was_being_minted_is_late_without_a_reason(void **state)
{
	struct world *w = world_new();

	(void)state;
	ask_for(w, 0, 0);
	ask(w, 0, "{\"op\":\"token\",\"timeoutMs\":500,\"messageId\":1}");
	later(w, EVERY);
	answer(w, 0, NULL, 503, -1);
	later(w, 500);
	assert_tells(w, 0, "sent, but no answer came in time");
	world_free(w);
}

/* A 429 tells of the rate of all requests, unless somebody else has given it. */
static void a_429_lowers_the_rate_of_all(void **state)
{
	(void)state;
	for (int by_endpoint = 0; by_endpoint < 2; by_endpoint++) {
		struct world *w = world_new();
		struct token_requests_settings s = usual;
		double rate, goal;
		s.by_endpoint = by_endpoint;
		token_requests_set(w->token_requests, &s);
		ask_for(w, 0, 0);
		ask_for(w, 0, 1);
		answer(w, 0, NULL, 429, 0);
		assert_int_equal(router_learned_pace(w->router, w->now, &rate, &goal),
				 !by_endpoint);
		later(w, EVERY);
		if (!by_endpoint) { /* it is 1/s now, and grows */
			assert_true(w->wake > w->now && w->wake <= w->now + 1000);
			later(w, w->wake - w->now - 1);
			assert_int_equal(w->n, 1);
			later(w, 1);
		}
		assert_int_equal(w->n, 2);
		answer(w, 1, NULL, 403, -1);
		assert_tells(w, 0, by_endpoint ? "\"reason\":\"forbidden\"" : "upstream_down");
		world_free(w);
	}
}

static void a_long_reason_is_told_whole(void **state)
{
	static char why[251];
	struct world *w = world_new();

	(void)state;
	memset(why, 'x', sizeof(why) - 1);
	w->why = why;
	ask_for(w, 0, 0);
	answer(w, 0, NULL, 400, -1);
	assert_tells(w, 0, why);
	world_free(w);
}

static void a_success_ends_the_trouble(void **state)
{
	struct world *w = world_new();

	(void)state;
	ask_for(w, 0, 0);
	answer(w, 0, NULL, 500, -1);
	later(w, 250);
	answer(w, 1, "t", 200, -1);
	assert_tells(w, 0, "\"token\":\"t\"");
	for (int i = 1; i < 4; i++)
		ask_for(w, 0, i);
	later(w, EVERY);
	later(w, EVERY);
	assert_int_equal(w->n, 4); /* AT_ONCE again */
	later(w, TIMEOUT);
	assert_tells(w, 0, "were before it");
	world_free(w);
}

static void a_pause_that_is_asked_for_is_kept(void **state)
{
	struct world *w = world_new();

	(void)state;
	ask_for(w, 0, 0);
	ask(w, 1, "{\"op\":\"token\",\"timeoutMs\":60000,\"messageId\":1}");
	later(w, EVERY);
	answer(w, 0, NULL, 429, 30);
	assert_tells(w, 0,
		     "\"reason\":\"rate_limited\",\"executed\":\"no\",\"retryAfterMs\":30000,"
		     "\"messageId\":0}");
	answer(w, 1, NULL, 429, 30);
	assert_told(w, 1, "");
	ask(w, 2, "{\"op\":\"token\",\"timeoutMs\":30000}");
	assert_tells(w, 2, "rate_limited");
	ask_for(w, 0, 2); /* whoever comes now can't be served in time either */
	assert_tells(w, 0, "\"retryAfterMs\":30000,\"messageId\":2}");
	later(w, 29999);
	assert_int_equal(w->n, 2);
	later(w, 1);
	assert_int_equal(w->n, 3);
	answer(w, 2, "t", 200, -1);
	assert_tells(w, 1, "\"token\":\"t\"");
	world_free(w);
}

static void nobody_has_to_wait_for_ever(void **state)
{
	struct world *w = world_new();

	(void)state;
	ask_for(w, 0, 0);
	answer(w, 0, NULL, 503, 86400);
	assert_tells(w, 0,
		     "\"reason\":\"upstream_down\",\"executed\":\"no\",\"retryAfterMs\":600000,");
	world_free(w);
}

static void what_does_not_pass_is_told_at_once(void **state)
{
	static const struct {
		int status;
		const char *told;
	} rows[] = {
		{400,
		 "{\"code\":400,\"error\":\"the service refuses to mint such a token: no luck\","
		 "\"reason\":\"bad_request\",\"executed\":\"no\",\"messageId\":0}\n"},
		{404, "{\"code\":502,\"error\":\"no luck\",\"reason\":\"bad_upstream\","
		      "\"executed\":\"unknown\",\"messageId\":0}\n"},
		{200, "{\"code\":502,\"error\":\"no luck\",\"reason\":\"bad_upstream\","
		      "\"executed\":\"unknown\",\"messageId\":0}\n"},
		{401, "{\"code\":503,\"error\":\"no luck\",\"reason\":\"upstream_down\","
		      "\"executed\":\"no\",\"messageId\":0}\n"},
	};
	struct world *w = world_new();

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		ask_for(w, 0, 0);
		later(w, EVERY);
		answer(w, i, NULL, rows[i].status, -1);
		assert_told(w, 0, rows[i].told);
	}
	ask_for(w, 0, 1); /* a key that is refused is not shown every moment */
	later(w, 999);
	assert_int_equal(w->n, 4);
	later(w, 1);
	assert_int_equal(w->n, 5);
	world_free(w);
}

/* ---- changes from outside ---- */

static void other_rules_judge_again(void **state)
{
	struct world *w = world_new();

	(void)state;
	set_rules(w, ACCESS_TOKEN_OWN, "*", "old*");
	for (int i = 0; i < 4; i++)
		ask_for(w, (size_t)i % 2, i);
	later(w, EVERY);
	assert_string_equal(w->mint[1].wish, "[\"1\"]//\"^(?:old[\\\\s\\\\S]*)$\"");
	token_requests_interrupt(w->token_requests);
	assert_int_equal(w->cancelled, 2);
	set_rules(w, ACCESS_TOKEN_OWN, "2*", "2new*");
	token_requests_review(w->token_requests, w->now);
	assert_tells(w, 1, "\"reason\":\"forbidden\",\"executed\":\"no\",\"messageId\":1}");
	assert_tells(w, 0, "no access rule lets this client read");
	later(w, EVERY);
	assert_int_equal(w->n, 3);
	assert_string_equal(w->mint[2].wish, "[\"2\"]//\"^(?:2new[\\\\s\\\\S]*)$\"");
	answer(w, 2, "t", 200, -1);
	assert_told(w, 0, "{\"code\":200,\"token\":\"t\",\"messageId\":2}\n");
	world_free(w);
}

static void a_review_forgets_what_was_learnt(void **state)
{
	struct world *w = world_new();

	(void)state;
	ask(w, 0, "{\"op\":\"token\",\"timeoutMs\":600000}");
	answer(w, 0, NULL, 429, 300);
	token_requests_interrupt(w->token_requests);
	later(w, 2000); /* the refusal has lowered the rate of all requests to 1/s */
	token_requests_review(w->token_requests, w->now);
	assert_int_equal(w->n, 2);
	ask_for(w, 0, 1);
	later(w, 1000);
	assert_int_equal(w->n, 3); /* AT_ONCE again */
	world_free(w);
}

static void one_that_was_interrupted_waits_as_others_do(void **state)
{
	struct world *w = world_new();

	(void)state;
	ask_for(w, 0, 0);
	ask_for(w, 0, 1);
	later(w, EVERY);
	token_requests_interrupt(w->token_requests);
	router_expire(w->router, w->now + TIMEOUT);
	assert_tells(w, 0, "\"reason\":\"queue_full\",\"executed\":\"no\",\"messageId\":1}");
	world_free(w);
}

static void stopping_refuses_all(void **state)
{
	struct world *w = world_new();

	(void)state;
	for (int i = 0; i < 3; i++)
		ask_for(w, 0, i);
	router_stop(w->router);
	const char *lines = told(w, 0);
	for (int i = 0; i < 3; i++) {
		lines = strstr(lines, "shutting_down");
		assert_non_null(lines++);
	}
	assert_int_equal(w->cancelled, 1);
	ask_for(w, 0, 3);
	assert_tells(w, 0, "shutting_down");
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_token_is_asked_for_and_handed_on),
		cmocka_unit_test(who_may_have_none_gets_a_local_one),
		cmocka_unit_test(what_is_not_given_is_not_sent),
		cmocka_unit_test(answers_without_an_id_keep_their_order),
		cmocka_unit_test(so_many_at_once_and_no_faster),
		cmocka_unit_test(clients_take_turns),
		cmocka_unit_test(an_interruption_does_not_change_the_order),
		cmocka_unit_test(one_after_the_other_there_is_room_for_any_number),
		cmocka_unit_test(there_is_no_room_for_any_number),
		cmocka_unit_test(the_memory_of_all_is_bounded),
		cmocka_unit_test(a_client_that_leaves_makes_room_for_the_next),
		cmocka_unit_test(the_rate_of_a_section_holds),
		cmocka_unit_test(late_because_of_the_rate_is_told_so),
		cmocka_unit_test(the_first_rate_that_has_room_is_waited_for),
		cmocka_unit_test(a_token_is_paid_for_once),
		cmocka_unit_test(what_is_late_is_told_why),
		cmocka_unit_test(what_fails_is_tried_again_after_growing_pauses),
		cmocka_unit_test(a_success_of_before_does_not_end_a_pause),
		cmocka_unit_test(a_refusal_ends_the_trouble_as_well),
		cmocka_unit_test(a_short_request_hopes_in_a_pause_of_ours),
		cmocka_unit_test(a_pause_of_no_time_is_kept_too),
		cmocka_unit_test(what_was_being_minted_is_late_without_a_reason),
		cmocka_unit_test(a_429_lowers_the_rate_of_all),
		cmocka_unit_test(a_long_reason_is_told_whole),
		cmocka_unit_test(a_success_ends_the_trouble),
		cmocka_unit_test(a_pause_that_is_asked_for_is_kept),
		cmocka_unit_test(nobody_has_to_wait_for_ever),
		cmocka_unit_test(what_does_not_pass_is_told_at_once),
		cmocka_unit_test(other_rules_judge_again),
		cmocka_unit_test(a_review_forgets_what_was_learnt),
		cmocka_unit_test(one_that_was_interrupted_waits_as_others_do),
		cmocka_unit_test(stopping_refuses_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
