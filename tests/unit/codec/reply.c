#include "codec/reply.h"

#include <stdio.h>

#include "codec/json.h"
#include "../test.h"

/* Takes a line off a buf and checks that it is one. */
static void check(struct buf *b, const char *want)
{
	assert_span(buf_span(b), want);
	buf_release(b);
}

static void test_table(void **state)
{
	static const struct {
		enum reply_error error;
		int code;
		const char *reason, *executed;
	} rows[] = {
		{REPLY_BAD_JSON, 400, "bad_json", "no"},
		{REPLY_BAD_REQUEST, 400, "bad_request", "no"},
		{REPLY_UNKNOWN_OP, 400, "unknown_op", "no"},
		{REPLY_FORBIDDEN, 403, "forbidden", "no"},
		{REPLY_TOO_LARGE, 413, "too_large", "no"},
		{REPLY_RATE_LIMITED, 429, "rate_limited", "no"},
		{REPLY_UPSTREAM_DOWN, 503, "upstream_down", "no"},
		{REPLY_QUEUE_FULL, 503, "queue_full", "no"},
		{REPLY_TOO_MANY_CLIENTS, 503, "too_many_clients", "no"},
		{REPLY_SLOW_CLIENT, 503, "slow_client", "no"},
		{REPLY_SHUTTING_DOWN, 503, "shutting_down", "no"},
		{REPLY_TIMEOUT, 504, "timeout", "unknown"},
		{REPLY_OUTCOME_UNKNOWN, 504, "outcome_unknown", "unknown"},
		{REPLY_BAD_UPSTREAM, 502, "bad_upstream", "unknown"},
	};

	(void)state;
	assert_int_equal(COUNT(rows), REPLY_N);
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct buf b = {0};
		char want[256];
		snprintf(want, sizeof(want),
			 "{\"code\":%d,\"error\":\"x\",\"reason\":\"%s\",\"executed\":\"%s\"}\n",
			 rows[i].code, rows[i].reason, rows[i].executed);
		reply_error(&b, rows[i].error, (struct span){0}, "x", -1);
		check(&b, want);
		assert_int_equal(reply_error_code(rows[i].error), rows[i].code);
		assert_string_equal(reply_error_reason(rows[i].error), rows[i].reason);
	}
}

/* Each error has a sentence of its own, and the line is JSON. */
static void test_default_sentences(void **state)
{
	(void)state;
	for (int error = 0; error < REPLY_N; error++) {
		struct buf b = {0};
		struct json_object_reader r;
		struct json_member m;
		reply_error(&b, (enum reply_error)error, (struct span){0}, NULL, -1);
		json_object_begin(&r, buf_span(&b));
		assert_int_equal(json_object_next(&r, &m), 1);
		assert_span(m.name.text, "\"code\"");
		assert_int_equal(json_object_next(&r, &m), 1);
		assert_span(m.name.text, "\"error\"");
		assert_true(m.value.text.n > 5);
		buf_release(&b);
	}
}

static void test_order_of_members(void **state)
{
	struct buf b = {0};

	(void)state;
	reply_error(&b, REPLY_RATE_LIMITED, SPAN("\"a\\\"b\""), "wait", 0);
	check(&b,
	      "{\"code\":429,\"error\":\"wait\",\"reason\":\"rate_limited\",\"executed\":\"no\","
	      "\"retryAfterMs\":0,\"messageId\":\"a\\\"b\"}\n");
	reply_error(&b, REPLY_TIMEOUT, SPAN("17"), "late", 1500);
	check(&b,
	      "{\"code\":504,\"error\":\"late\",\"reason\":\"timeout\",\"executed\":\"unknown\","
	      "\"retryAfterMs\":1500,\"messageId\":17}\n");
}

static void test_text_is_escaped(void **state)
{
	struct buf b = {0};

	(void)state;
	reply_error(&b, REPLY_BAD_JSON, (struct span){0}, "a \"b\"\n\x01\xff", -1);
	check(&b, "{\"code\":400,\"error\":\"a "
		  "\\\"b\\\"\\n\\u0001\xef\xbf\xbd\",\"reason\":\"bad_json\","
		  "\"executed\":\"no\"}\n");
	reply_error(&b, REPLY_BAD_JSON, (struct span){0}, "", -1);
	check(&b, "{\"code\":400,\"error\":\"\",\"reason\":\"bad_json\",\"executed\":\"no\"}\n");
}

static void test_pong_and_object(void **state)
{
	struct buf b = {0};

	(void)state;
	reply_pong(&b, (struct span){0});
	check(&b, "{\"code\":200,\"message\":\"pong\"}\n");
	reply_pong(&b, SPAN("1e0"));
	check(&b, "{\"code\":200,\"message\":\"pong\",\"messageId\":1e0}\n");
	reply_object(&b, SPAN("{\"code\":200,\"stats\":{}}"), SPAN("\"x\""));
	check(&b, "{\"code\":200,\"stats\":{},\"messageId\":\"x\"}\n");
	reply_object(&b, SPAN("{\"code\":200}"), (struct span){0});
	check(&b, "{\"code\":200}\n");
}

static void test_ok(void **state)
{
	struct buf b = {0};

	(void)state;
	reply_ok(&b, (struct span){0});
	check(&b, "{\"code\":200}\n");
	reply_ok(&b, SPAN("\"a\\u0000\""));
	reply_ok(&b, SPAN("1.0"));
	check(&b, "{\"code\":200,\"messageId\":\"a\\u0000\"}\n{\"code\":200,\"messageId\":1.0}\n");
}

/* Lines are appended; what is in the buf stays. */
static void test_appends(void **state)
{
	struct buf b = {0};

	(void)state;
	buf_add(&b, "before\n", 7);
	reply_pong(&b, SPAN("1"));
	reply_pong(&b, SPAN("2"));
	check(&b, "before\n{\"code\":200,\"message\":\"pong\",\"messageId\":1}\n"
		  "{\"code\":200,\"message\":\"pong\",\"messageId\":2}\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_default_sentences),
		cmocka_unit_test(test_order_of_members),
		cmocka_unit_test(test_text_is_escaped),
		cmocka_unit_test(test_pong_and_object),
		cmocka_unit_test(test_ok),
		cmocka_unit_test(test_appends),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
