/* A line to whoever answers it: what is handed to which room, and what is answered here. The rooms
 * are this file's. */
#include "../test.h"

#include <stdio.h>

#include "access/access.h"
#include "clients/dispatch.h"
#include "subscriptions/subscriptions.h"
#include "access/token_requests.h"
#include "requests/router.h"

enum { NOW = 77, MAX_LINE = 200 };

static char told[1000];
static struct stats stats;
static struct peer peer;
static const char *forbidden; /* why everything is */
static struct dispatch dispatch;

static void __attribute__((format(printf, 1, 2))) tell(const char *format, ...)
{
	size_t n = strlen(told);
	va_list args;

	va_start(args, format);
	vsnprintf(told + n, sizeof(told) - n, format, args);
	va_end(args);
}

static void handed(const char *room, const struct peer *who, const struct request *r)
{
	struct span key = json_string_raw(&r->key);

	assert_ptr_equal(who, &peer);
	tell("%s: %s %.*s %.*s;", room, request_op_name(r->op), r->key.text.p ? (int)key.n : 0,
	     key.p, (int)r->id.n, r->id.p);
}

void router_request(struct router *r, struct peer *who, const struct request *request, int64_t now)
{
	assert_ptr_equal(r, dispatch.router);
	assert_int_equal(now, NOW);
	handed("router", who, request);
}

/* Serves one key. */
bool cache_answers(struct cache *c, struct peer *who, const struct request *request, int64_t now)
{
	assert_ptr_equal(c, dispatch.cache);
	assert_int_equal(now, NOW);
	if (!json_string_is(&request->key, SPAN("remembered")))
		return false;
	handed("cache", who, request);
	return true;
}

void router_say(struct router *r, struct peer *who, struct span line, bool with_id)
{
	assert_ptr_equal(r, dispatch.router);
	assert_ptr_equal(who, &peer);
	assert_true(line.n && line.p[line.n - 1] == '\n');
	tell("%s%.*s", with_id ? "" : "in turn: ", (int)line.n, line.p);
}

void subscriptions_subscribe(struct subscriptions *f, struct peer *who,
			     const struct request *request, int64_t now)
{
	assert_ptr_equal(f, dispatch.subscriptions);
	assert_int_equal(now, NOW);
	handed("subscriptions", who, request);
}

void subscriptions_unsubscribe(struct subscriptions *f, struct peer *who,
			       const struct request *request)
{
	assert_ptr_equal(f, dispatch.subscriptions);
	handed("subscriptions", who, request);
}

void token_requests_ask(struct token_requests *i, struct peer *who, const struct request *request,
			int64_t now)
{
	assert_ptr_equal(i, dispatch.token_requests);
	assert_int_equal(now, NOW);
	handed("tokens", who, request);
}

const char *access_judge(struct access *a, struct peer *who, const struct request *r, int64_t now)
{
	assert_ptr_equal(a, dispatch.access);
	assert_ptr_equal(who, &peer);
	assert_int_equal(now, NOW);
	tell("judged: %s;", request_op_name(r->op));
	return forbidden;
}

static void wants_status(void *owner, const struct peer *who, bool top, struct buf *out)
{
	static const char text[] = "{\"s\":1}";

	assert_ptr_equal(owner, told);
	assert_ptr_equal(who, &peer);
	assert_true(stats.ended[OP_STATUS][OUTCOME_OK] > 0); /* this one counts */
	tell("status%s;", top ? " with top" : "");
	buf_add(out, text, strlen(text));
}

static void wants_stats(void *owner, struct buf *out)
{
	static const char text[] = "{\"n\":2}";

	assert_ptr_equal(owner, told);
	assert_true(stats.ended[OP_STATS][OUTCOME_OK] > 0); /* this one counts */
	tell("stats;");
	buf_add(out, text, strlen(text));
}

static bool no_nexus;

static bool wants_nexus(void *owner, struct peer *who, const struct request *request, int64_t now)
{
	assert_ptr_equal(owner, told);
	assert_int_equal(now, NOW);
	if (!no_nexus)
		handed("nexus", who, request);
	return !no_nexus;
}

static const struct dispatch_ops ops = {
	.status = wants_status, .stats = wants_stats, .nexus = wants_nexus};

/* Addresses that nobody looks behind. */
static char cache, router, subscriptions, token_requests, access;

static int begin(void **state)
{
	(void)state;
	told[0] = '\0';
	stats = (struct stats){0};
	peer = (struct peer){0};
	forbidden = NULL;
	no_nexus = false;
	dispatch = (struct dispatch){
		.cache = (struct cache *)(void *)&cache,
		.router = (struct router *)(void *)&router,
		.subscriptions = (struct subscriptions *)(void *)&subscriptions,
		.token_requests = (struct token_requests *)(void *)&token_requests,
		.access = (struct access *)(void *)&access,
		.stats = &stats,
		.ops = &ops,
		.owner = told};
	return 0;
}

static int end(void **state)
{
	(void)state;
	dispatch_fini(&dispatch);
	return 0;
}

static void line(const char *text)
{
	struct span copy = copy_of(span_of(text));

	dispatch_line(&dispatch, &peer, copy, NOW);
	free_copy(copy);
}

static void expect(const char *what)
{
	assert_string_equal(told, what);
	told[0] = '\0';
}

/* An error of this reason, with this id. */
static void expect_error(int code, const char *reason, const char *id)
{
	char want[100];

	snprintf(want, sizeof(want), "{\"code\":%d,", code);
	if (strncmp(told, want, strlen(want)) != 0)
		fail_msg("not %d: %s", code, told);
	snprintf(want, sizeof(want), "\"reason\":\"%s\",\"executed\":\"no\"%s%s}\n", reason,
		 *id ? ",\"messageId\":" : "", id);
	if (!strstr(told, want))
		fail_msg("not %s: %s", want, told);
	told[0] = '\0';
}

/* ---- */

static void each_op_has_its_room(void **state)
{
	static const struct {
		const char *line, *told;
	} cases[] = {
		{"{\"op\":\"get\",\"key\":\"k\",\"messageId\":1}", "router: get k 1;"},
		{"{\"op\":\"get\",\"key\":\"remembered\",\"messageId\":1}",
		 "cache: get remembered 1;"},
		{"{\"op\":\"set\",\"key\":\"remembered\",\"value\":1}", "router: set remembered ;"},
		{"{\"op\":\"set\",\"key\":\"k\",\"value\":\"v\"}", "router: set k ;"},
		{"{\"op\":\"patch\",\"key\":\"k\",\"value\":\"v\"}", "router: patch k ;"},
		{"{\"op\":\"delete\",\"key\":\"k\"}", "router: delete k ;"},
		{"{\"op\":\"range\",\"key\":\"k\",\"endKey\":\"l\"}", "router: range k ;"},
		{"{\"op\":\"increment\",\"key\":\"k\",\"value\":1}", "router: increment k ;"},
		{"{\"op\":\"subscribe\",\"key\":\"k\",\"messageId\":\"a\"}",
		 "subscriptions: subscribe k \"a\";"},
		{"{\"op\":\"unsubscribe\",\"key\":\"k\"}", "subscriptions: unsubscribe k ;"},
		{"{\"op\":\"unsubscribe\"}", "subscriptions: unsubscribe  ;"},
		{"{\"op\":\"ping\",\"messageId\":1}",
		 "{\"code\":200,\"message\":\"pong\",\"messageId\":1}\n"},
		{"{\"op\":\"ping\"}", "in turn: {\"code\":200,\"message\":\"pong\"}\n"},
		{"{\"op\":\"status\",\"messageId\":1}", "status;{\"s\":1,\"messageId\":1}\n"},
		{"{\"op\":\"status\",\"top\":true}", "status with top;in turn: {\"s\":1}\n"},
		{"{\"op\":\"stats\",\"messageId\":1}", "stats;{\"n\":2,\"messageId\":1}\n"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		line(cases[i].line);
		expect(cases[i].told);
		assert_int_equal(stats.requests, i + 1);
	}
	assert_int_equal(stats.requests_refused, 0);
}

/* Neither are these, with rules or without. */
static void nexus_is_judged_always(void **state)
{
	(void)state;
	line("{\"op\":\"search\",\"body\":{},\"messageId\":1}");
	line("{\"op\":\"query\",\"body\":{}}");
	expect("judged: search;nexus: search  1;judged: query;nexus: query  ;");
	no_nexus = true;
	line("{\"op\":\"query\",\"body\":{},\"messageId\":1}");
	memmove(told, told + strlen("judged: query;"), strlen(told + strlen("judged: query;")) + 1);
	expect_error(400, "unknown_op", "1");
}

/* Without rules nobody asks but of tokens, which they have to allow. */
static void tokens_are_judged_always(void **state)
{
	(void)state;
	line("{\"op\":\"token\",\"subscribeKeys\":[\"k\"],\"messageId\":1}");
	expect("judged: token;tokens: token  1;");
	forbidden = "no rule says so";
	line("{\"op\":\"token\",\"subscribeKeys\":[\"k\"],\"messageId\":1}");
	assert_non_null(strstr(told, "no rule says so"));
	memmove(told, told + strlen("judged: token;"), strlen(told + strlen("judged: token;")) + 1);
	expect_error(403, "forbidden", "1");
	assert_int_equal(stats.requests_refused, 1);
}

static void with_rules_all_is_judged(void **state)
{
	static const char *const ops_of[] = {"get",  "subscribe", "unsubscribe",
					     "ping", "status",    "stats"};
	char text[100], want[100];

	(void)state;
	peer.access.view = (struct access_view *)(void *)&access;
	forbidden = "no";
	for (size_t i = 0; i < COUNT(ops_of); i++) {
		snprintf(text, sizeof(text), "{\"op\":\"%s\",\"key\":\"k\",\"messageId\":9}",
			 ops_of[i]);
		if (i > 2)
			snprintf(text, sizeof(text), "{\"op\":\"%s\",\"messageId\":9}", ops_of[i]);
		line(text);
		snprintf(want, sizeof(want), "judged: %s;{\"code\":403,", ops_of[i]);
		assert_memory_equal(told, want, strlen(want));
		told[0] = '\0';
	}
	assert_int_equal(stats.requests_refused, COUNT(ops_of));
	forbidden = NULL;
	line("{\"op\":\"get\",\"key\":\"k\",\"messageId\":9}");
	expect("judged: get;router: get k 9;");
}

static void what_is_no_request_is_answered_here(void **state)
{
	(void)state;
	line("{\"op\":\"get\"");
	memmove(told, told + strlen("in turn: "), strlen(told + strlen("in turn: ")) + 1);
	expect_error(400, "bad_json", "");
	line("{\"op\":\"fly\",\"messageId\":5}");
	expect_error(400, "unknown_op", "5");
	line("{\"op\":\"get\",\"messageId\":\"x\"}");
	expect_error(400, "bad_request", "\"x\"");
	assert_int_equal(stats.requests_refused, 3);
	assert_int_equal(stats.requests, 3);
}

static void an_empty_line_is_nothing(void **state)
{
	(void)state;
	line("");
	expect("");
	assert_int_equal(stats.requests, 0);
}

static void a_line_that_is_too_long(void **state)
{
	(void)state;
	dispatch_too_long(&dispatch, &peer,
			  span_of("{\"op\":\"set\",\"messageId\":3,\"key\":\"xxx"), MAX_LINE);
	assert_non_null(strstr(told, "(200 bytes)"));
	expect_error(413, "too_large", "3");
	dispatch_too_long(&dispatch, &peer, span_of("{\"op\":\"set\",\"key\":\"xxx"), MAX_LINE);
	memmove(told, told + strlen("in turn: "), strlen(told + strlen("in turn: ")) + 1);
	expect_error(413, "too_large", "");
	/* A whole request, and white space without end. */
	dispatch_too_long(&dispatch, &peer,
			  span_of("{\"op\":\"get\",\"key\":\"k\",\"messageId\":4}   "), MAX_LINE);
	expect_error(413, "too_large", "4");
	assert_int_equal(stats.requests, 3);
	assert_int_equal(stats.requests_refused, 3);
	assert_int_equal(stats.ended[0][(int)OUTCOME_ERROR + (int)REPLY_TOO_LARGE],
			 2); /* not known */
	assert_int_equal(stats.ended[OP_GET][(int)OUTCOME_ERROR + (int)REPLY_TOO_LARGE], 1);
}

static unsigned ended(void)
{
	unsigned n = 0;

	for (size_t op = 0; op < OP_N; op++) {
		for (size_t outcome = 0; outcome < OUTCOME_N; outcome++)
			n += (unsigned)stats.ended[op][outcome];
	}
	return n;
}

/* Once; what is handed to a room is counted there. */
static void what_is_answered_here_is_counted_with_its_outcome(void **state)
{
	static const struct {
		const char *line;
		enum request_op op;
		int outcome; /* -1: it has not ended */
	} rows[] = {
		{"{\"op\":\"ping\"}", OP_PING, OUTCOME_OK},
		{"{\"op\":\"status\"}", OP_STATUS, OUTCOME_OK},
		{"{\"op\":\"stats\"}", OP_STATS, OUTCOME_OK},
		{"{\"op\":\"unsubscribe\",\"key\":\"k\"}", OP_UNSUBSCRIBE, OUTCOME_OK},
		{"{\"op\":\"get\"}", OP_GET, (int)OUTCOME_ERROR + (int)REPLY_BAD_REQUEST},
		{"{\"op\":\"nonsense\"}", 0, (int)OUTCOME_ERROR + (int)REPLY_UNKNOWN_OP},
		{"nonsense", 0, (int)OUTCOME_ERROR + (int)REPLY_BAD_JSON},
		{"{\"op\":\"get\",\"key\":\"k\"}", OP_GET, -1},
		{"{\"op\":\"get\",\"key\":\"remembered\"}", OP_GET, -1},
		{"{\"op\":\"subscribe\",\"key\":\"k\"}", OP_SUBSCRIBE, -1},
		{"{\"op\":\"token\"}", OP_TOKEN, -1},
	};
	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		unsigned before = ended();
		line(rows[i].line);
		if (rows[i].outcome >= OUTCOME_ERROR)
			assert_null(strstr(told, "router: ")); /* which has not heard of it */
		told[0] = '\0';
		if (ended() != before + (rows[i].outcome >= 0))
			fail_msg("%u of %s", ended() - before, rows[i].line);
		if (rows[i].outcome >= 0 && !stats.ended[rows[i].op][rows[i].outcome])
			fail_msg("another outcome of %s", rows[i].line);
	}
	forbidden = "no";
	line("{\"op\":\"token\"}");
	assert_int_equal(stats.ended[OP_TOKEN][(int)OUTCOME_ERROR + (int)REPLY_FORBIDDEN], 1);
	assert_null(strstr(told, "tokens: "));
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		CASE(each_op_has_its_room),
		CASE(tokens_are_judged_always),
		CASE(nexus_is_judged_always),
		CASE(with_rules_all_is_judged),
		CASE(what_is_no_request_is_answered_here),
		CASE(an_empty_line_is_nothing),
		CASE(a_line_that_is_too_long),
		CASE(what_is_answered_here_is_counted_with_its_outcome),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
