#include "codec/wire.h"

#include "../test.h"

/* --- requests --- */

static void test_head(void **state)
{
	char out[WIRE_HEAD_MAX];

	(void)state;
	assert_span(((struct span){out, wire_head(out, 0)}), "{\"messageId\":0,");
	assert_span(((struct span){out, wire_head(out, 17)}), "{\"messageId\":17,");
	assert_span(((struct span){out, wire_head(out, WIRE_ID_MAX)}),
		    "{\"messageId\":9007199254740991,");
}

static const struct {
	const char *line, *body;
} bodies[] = {
	{"{\"op\":\"get\",\"key\":\"a\\u0000\xc3\xa4\"}", "\"op\":1,\"key\":\"a\\u0000\xc3\xa4\"}"},
	{"{\"messageId\":1,\"timeoutMs\":5,\"value\":1,\"key\" : \"a\",\"x\":[],\"op\":1e0}",
	 "\"op\":1,\"key\":\"a\"}"},
	{"{\"op\":\"set\",\"key\":\"a\",\"value\":\"b \\\" \\u0000\"}",
	 "\"op\":2,\"key\":\"a\",\"value\":\"b \\\" \\u0000\"}"},
	{"{\"op\":\"patch\",\"key\":\"a\",\"value\":\"\"}",
	 "\"op\":3,\"key\":\"a\",\"value\":\"\"}"},
	{"{\"op\":\"delete\",\"key\":\"\"}", "\"op\":4,\"key\":\"\"}"},
	{"{\"op\":\"range\",\"key\":\"a\",\"endKey\":\"b\"}",
	 "\"op\":5,\"key\":\"a\",\"endKey\":\"b\"}"},
	{"{\"op\":\"range\",\"limit\":1.0e1,\"endKey\":\"b\",\"key\":\"a\",\"value\":1}",
	 "\"op\":5,\"key\":\"a\",\"endKey\":\"b\",\"limit\":1.0e1}"},
	{"{\"op\":\"increment\",\"key\":\"a\"}", "\"op\":6,\"key\":\"a\",\"value\":1}"},
	{"{\"op\":\"increment\",\"key\":\"a\",\"value\":-2.50e1}",
	 "\"op\":6,\"key\":\"a\",\"value\":-2.50e1}"},
	/* values that are not strings go as strings of their own text */
	{"{\"op\":2,\"key\":\"a\",\"value\":1e400}", "\"op\":2,\"key\":\"a\",\"value\":\"1e400\"}"},
	{"{\"op\":2,\"key\":\"a\",\"value\":true}", "\"op\":2,\"key\":\"a\",\"value\":\"true\"}"},
	{"{\"op\":3,\"key\":\"a\",\"value\":{\"b\":1}}",
	 "\"op\":3,\"key\":\"a\",\"value\":\"{\\\"b\\\":1}\"}"},
	{"{\"op\":2,\"key\":\"a\",\"value\":[]}", "\"op\":2,\"key\":\"a\",\"value\":\"[]\"}"},
	{"{\"op\":2,\"key\":\"a\",\"value\": [ 1 ,\t\"a b\" ,\r{ \"c\" : null } ] }",
	 "\"op\":2,\"key\":\"a\",\"value\":\"[1,\\\"a b\\\",{\\\"c\\\":null}]\"}"},
	{"{\"op\":2,\"key\":\"a\",\"value\":[\"\\\" x\\\\\", \"\\u0022 \\n\"]}",
	 "\"op\":2,\"key\":\"a\",\"value\":\"[\\\"\\\\\\\" x\\\\\\\\\\\",\\\"\\\\u0022 "
	 "\\\\n\\\"]\"}"},
	{"{\"op\":2,\"key\":\"a\",\"value\":[\"\\\\\"]}",
	 "\"op\":2,\"key\":\"a\",\"value\":\"[\\\"\\\\\\\\\\\"]\"}"},
	{"{\"op\":2,\"key\":\"a\",\"value\":[\"\\\"\\\"\\\"\\\"\\\"\\\"\\\"\"]}",
	 "\"op\":2,\"key\":\"a\",\"value\":\"["
	 "\\\"\\\\\\\"\\\\\\\"\\\\\\\"\\\\\\\"\\\\\\\"\\\\\\\"\\\\\\\"\\\"]\"}"},
};

static void test_body(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(bodies); i++) {
		struct span line = copy_of(span_of(bodies[i].line));
		struct request r;
		struct request_fault fault;
		if (request_parse(line, &r, &fault) != 0)
			fail_msg("%s", fault.text);
		char *out = malloc(wire_body_max(&r));
		assert_non_null(out);
		size_t n = wire_body(&r, out);
		assert_true(n <= wire_body_max(&r));
		assert_span(((struct span){out, n}), bodies[i].body);
		free(out);
		free_copy(line);
	}
}

/* What the service decodes is the compact text: the string's meaning, byte for byte. */
static void test_body_means_the_value(void **state)
{
	static const char line[] =
		"{\"op\":2,\"key\":\"a\",\"value\":{ \"\\\\\\\"\\u00e4\" : [ 1.0 , \" \" ] }}";
	struct request r;
	struct request_fault fault;
	char frame[512], value[512];

	(void)state;
	assert_int_equal(request_parse(SPAN(line), &r, &fault), 0);
	size_t n = wire_head(frame, 5);
	n += wire_body(&r, frame + n);
	struct json_object_reader reader;
	struct json_member m;
	json_object_begin(&reader, (struct span){frame, n});
	for (int i = 0; i < 4; i++)
		assert_int_equal(json_object_next(&reader, &m), 1);
	assert_span(m.name.text, "\"value\"");
	assert_span(((struct span){value, json_string_decode(&m.value, value)}),
		    "{\"\\\\\\\"\\u00e4\":[1.0,\" \"]}");
	assert_int_equal(json_object_next(&reader, &m), 0);
}

/* --- frames --- */

static const struct {
	const char *text;
	uint64_t id;
	int code;
	const char *spliced, *without; /* with the id "x", without an id */
} answers[] = {
	{"{\"code\":200,\"messageId\":17}", 17, 200, "{\"code\":200,\"messageId\":\"x\"}\n",
	 "{\"code\":200}\n"},
	{"{\"messageId\":17,\"code\":200}", 17, 200, "{\"messageId\":\"x\",\"code\":200}\n",
	 "{\"code\":200}\n"},
	{"{\"code\":404,\"messageId\":0,\"error\":\"Record not found\"}", 0, 404,
	 "{\"code\":404,\"messageId\":\"x\",\"error\":\"Record not found\"}\n",
	 "{\"code\":404,\"error\":\"Record not found\"}\n"},
	{"{\"messageId\":9007199254740991,\"code\":2e2,\"v\":[1, 2]}", WIRE_ID_MAX, 200,
	 "{\"messageId\":\"x\",\"code\":2e2,\"v\":[1, 2]}\n", "{\"code\":2e2,\"v\":[1, 2]}\n"},
	{"{\"messageId\":1.0,\"code\":200}", 1, 200, "{\"messageId\":\"x\",\"code\":200}\n",
	 "{\"code\":200}\n"},
	{"{\"code\":200,\"m\\u0065ssageId\":3}", 3, 200,
	 "{\"code\":200,\"m\\u0065ssageId\":\"x\"}\n", "{\"code\":200}\n"},
	{" { \"code\" : 200 , \"messageId\" : 4 } ", 4, 200,
	 " { \"code\" : 200 , \"messageId\" : \"x\" } \n", " { \"code\" : 200  } \n"},
	{"{ \"messageId\" : 4 , \"code\" : 200 }", 4, 200,
	 "{ \"messageId\" : \"x\" , \"code\" : 200 }\n", "{  \"code\" : 200 }\n"},
	{"{\"a\":1 ,\t\"messageId\":4\t, \"code\":200}", 4, 200,
	 "{\"a\":1 ,\t\"messageId\":\"x\"\t, \"code\":200}\n", "{\"a\":1 ,\t \"code\":200}\n"},
	{"{\r\n\t\"code\":200,\n\t\"messageId\":5\n}\n", 5, 200,
	 "{  \t\"code\":200, \t\"messageId\":\"x\" } \n", "{  \t\"code\":200 } \n"},
	{"{\"key\":\",\\n}\",\"messageId\":6,\"code\":200,\"value\":\"\\\\\",\"type\":\"x\"}", 6,
	 200,
	 "{\"key\":\",\\n}\",\"messageId\":\"x\",\"code\":200,\"value\":\"\\\\\",\"type\":\"x\"}\n",
	 "{\"key\":\",\\n}\",\"code\":200,\"value\":\"\\\\\",\"type\":\"x\"}\n"},
	{"{\"code\":200,\"key\":1,\"key\":2,\"value\":1,\"value\":2,\"type\":1,\"messageId\":6}", 6,
	 200,
	 "{\"code\":200,\"key\":1,\"key\":2,\"value\":1,\"value\":2,\"type\":1,\"messageId\":\"x\"}"
	 "\n",
	 "{\"code\":200,\"key\":1,\"key\":2,\"value\":1,\"value\":2,\"type\":1}\n"},
	{"{\"records\":[{\"messageId\":9}],\"messageId\":6,\"code\":0}", 6, 0,
	 "{\"records\":[{\"messageId\":9}],\"messageId\":\"x\",\"code\":0}\n",
	 "{\"records\":[{\"messageId\":9}],\"code\":0}\n"},
};

static void check_splice(const struct wire_frame *frame, struct span id, const char *want)
{
	char *out = malloc(wire_splice_max(frame, id));

	assert_non_null(out);
	assert_span(((struct span){out, wire_splice(frame, id, out)}), want);
	free(out);
}

static void test_answers(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(answers); i++) {
		struct span text = copy_of(span_of(answers[i].text));
		struct wire_frame frame;
		wire_parse(text, &frame);
		if (frame.kind != WIRE_ANSWER)
			fail_msg("%s: %s", answers[i].text, frame.fault);
		assert_true(frame.has_id && frame.id == answers[i].id);
		assert_int_equal(frame.code, answers[i].code);
		assert_null(frame.fault);
		check_splice(&frame, SPAN("\"x\""), answers[i].spliced);
		check_splice(&frame, (struct span){0}, answers[i].without);
		free_copy(text);
	}
}

/* Ids longer and shorter than ours; and the service's other numbers stay as they were written. */
static void test_splice_of_other_lengths(void **state)
{
	struct span text = SPAN("{\"newValue\":1.0e99,\"messageId\":123,\"code\":200}");
	struct wire_frame frame;

	(void)state;
	wire_parse(text, &frame);
	check_splice(&frame, SPAN("1"), "{\"newValue\":1.0e99,\"messageId\":1,\"code\":200}\n");
	check_splice(&frame, SPAN("\"0123456789abcdef\""),
		     "{\"newValue\":1.0e99,\"messageId\":\"0123456789abcdef\",\"code\":200}\n");
}

/* An object of nothing but the id is no answer, but splicing must hold for it as well. */
static void test_splice_of_a_lone_id(void **state)
{
	struct span text = SPAN("{ \"messageId\":1 }");
	struct wire_frame frame;

	(void)state;
	wire_parse(text, &frame);
	assert_int_equal(frame.kind, WIRE_UNUSABLE);
	check_splice(&frame, (struct span){0}, "{  }\n");
	check_splice(&frame, SPAN("2"), "{ \"messageId\":2 }\n");
}

static const struct {
	const char *text, *key, *value, *timestamp; /* NULL: not given */
} notifications[] = {
	{"{\"type\":\"notification\",\"key\":\"a\",\"value\":\"b\",\"timestamp\":1}", "\"a\"",
	 "\"b\"", "1"},
	{"{\"type\":\"notification\",\"key\":\"a\",\"value\":null}", "\"a\"", "null", NULL},
	{"{\"type\":\"notification\",\"key\":\"\"}", "\"\"", NULL, NULL},
	{"{\"value\":[1, 2],\"x\":{},\"key\":\"\\u0061\",\"t\\u0079pe\":\"notificatio\\u006e\"}",
	 "\"\\u0061\"", "[1, 2]", NULL},
	{"{\"type\":\"notification\",\"key\":\"a\",\"messageId\":null,\"timestamp\":\"x\"}",
	 "\"a\"", NULL, "\"x\""},
};

static void assert_value(const struct json_value *v, const char *want)
{
	if (!want)
		assert_null(v->text.p);
	else
		assert_span(v->text, want);
}

static void test_notifications(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(notifications); i++) {
		struct span text = copy_of(span_of(notifications[i].text));
		struct wire_frame frame;
		wire_parse(text, &frame);
		if (frame.kind != WIRE_NOTIFICATION)
			fail_msg("%s: %s", notifications[i].text, frame.fault);
		assert_value(&frame.key, notifications[i].key);
		assert_value(&frame.value, notifications[i].value);
		assert_value(&frame.timestamp, notifications[i].timestamp);
		free_copy(text);
	}
}

/* Of an answer too, as it was written; what it has of a notification is not looked at. */
static void test_value_of_an_answer(void **state)
{
	static const struct {
		const char *text, *value;
	} rows[] = {
		{"{\"code\":200,\"value\":\"a\\u0000\",\"messageId\":1}", "\"a\\u0000\""},
		{"{\"messageId\":1,\"code\":200,\"key\":\"k\",\"timestamp\":5,\"value\":[1, 2]}",
		 "[1, 2]"},
		{"{\"code\":200,\"value\":null,\"messageId\":1}", "null"},
		{"{\"code\":200,\"values\":1,\"messageId\":1}", NULL},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct wire_frame frame;
		wire_parse(span_of(rows[i].text), &frame);
		assert_int_equal(frame.kind, WIRE_ANSWER);
		assert_value(&frame.value, rows[i].value);
		assert_value(&frame.key, strstr(rows[i].text, "\"key\"") ? "\"k\"" : NULL);
		assert_value(&frame.timestamp, NULL);
	}
}

static void test_flatten(void **state)
{
	char text[] = "\r\n{\t\"a\\n\"\n:\r1 }\n\nX\n";

	(void)state;
	wire_flatten(text, strlen(text) - 3); /* no further than it is told */
	assert_string_equal(text, "  {\t\"a\\n\" : 1 } \nX\n");
	wire_flatten(text, 0);
	assert_string_equal(text, "  {\t\"a\\n\" : 1 } \nX\n");
}

static const struct {
	struct span text;
	int id; /* -1: none */
	const char *fault;
} unusable[] = {
	{SPAN(""), -1, "no object"},
	{SPAN("x"), -1, "something that is not an object"},
	{SPAN("[{\"messageId\":1}]"), -1, "something that is not an object"},
	{SPAN("{\"messageId\":1,\"code\":200"), 1, "the end of the text behind a number"},
	{SPAN("{\"messageId\":1,\"code\":200,"), 1, "the end of the text within an object"},
	/* cut off within our id, perhaps: it is nobody's */
	{SPAN("{\"code\":200,\"messageId\":12"), -1, "the end of the text behind a number"},
	{SPAN("{\"messageId\":1,\"code\":200,\"value\":\"\xff\"}"), 1,
	 "bytes that are not UTF-8 in a string"},
	{SPAN("{\"messageId\":1,\"code\":200}x"), 1, "something after the object"},
	{SPAN("{\"messageId\":1,\"code\":200}\0"), 1, "something after the object"},
	{SPAN("{\"code\":,\"messageId\":1}"), -1, "an unexpected character in place of a value"},
	{SPAN("{}"), -1, "neither a notification nor a messageId"},
	{SPAN("{\"code\":400,\"error\":\"x\"}"), -1, "neither a notification nor a messageId"},
	{SPAN("{\"code\":400,\"messageId\":null}"), -1, "a messageId that is none of ours"},
	{SPAN("{\"code\":200,\"messageId\":\"1\"}"), -1, "a messageId that is none of ours"},
	{SPAN("{\"code\":200,\"messageId\":-1}"), -1, "a messageId that is none of ours"},
	{SPAN("{\"code\":200,\"messageId\":1.5}"), -1, "a messageId that is none of ours"},
	{SPAN("{\"code\":200,\"messageId\":9007199254740992}"), -1,
	 "a messageId that is none of ours"},
	{SPAN("{\"code\":200,\"messageId\":[1]}"), -1, "a messageId that is none of ours"},
	{SPAN("{\"code\":200,\"messageId\":1,\"messageId\":2}"), 1,
	 "a messageId that is given twice"},
	{SPAN("{\"messageId\":1}"), 1, "an answer without a code"},
	{SPAN("{\"messageId\":1,\"code\":200,\"code\":200}"), 1,
	 "an answer whose code is given twice"},
	{SPAN("{\"messageId\":1,\"code\":\"200\"}"), 1,
	 "an answer whose code is not a whole number"},
	{SPAN("{\"messageId\":1,\"code\":2.5}"), 1, "an answer whose code is not a whole number"},
	{SPAN("{\"messageId\":1,\"code\":-1}"), 1, "an answer whose code is not a whole number"},
	{SPAN("{\"messageId\":1,\"code\":4294967496}"), 1,
	 "an answer whose code is not a whole number"},
	{SPAN("{\"messageId\":1,\"code\":null}"), 1, "an answer whose code is not a whole number"},
	{SPAN("{\"type\":\"notification\"}"), -1, "a notification without a key"},
	{SPAN("{\"type\":\"notification\",\"key\":7}"), -1,
	 "a notification whose key is not a string"},
	{SPAN("{\"type\":\"notification\",\"key\":\"a\",\"key\":\"a\"}"), -1,
	 "a notification whose key or value is given twice"},
	{SPAN("{\"type\":\"notification\",\"key\":\"a\",\"value\":1,\"value\":1}"), -1,
	 "a notification whose key or value is given twice"},
	{SPAN("{\"type\":\"Notification\",\"key\":\"a\"}"), -1,
	 "neither a notification nor a messageId"},
	{SPAN("{\"type\":{},\"key\":\"a\"}"), -1, "neither a notification nor a messageId"},
};

static void test_unusable(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(unusable); i++) {
		struct span text = copy_of(unusable[i].text);
		struct wire_frame frame;
		wire_parse(text, &frame);
		if (frame.kind != WIRE_UNUSABLE)
			fail_msg("%s was used", unusable[i].text.p);
		assert_string_equal(frame.fault, unusable[i].fault);
		assert_int_equal(frame.has_id, unusable[i].id >= 0);
		if (frame.has_id)
			assert_int_equal(frame.id, unusable[i].id);
		free_copy(text);
	}
}

/* ... also of a frame that can't be used: a change of this key may be lost. */
static void frames_that_tell_of_a_key_are_known(void **state)
{
	static const struct {
		const char *text;
		bool notifies;
	} cases[] = {
		{"{\"type\":\"notification\",\"key\":\"a\",\"value\":1}", true},
		{"{\"type\":\"notification\",\"key\":\"a\",\"value\":1,\"value\":2}", true},
		{"{\"type\":\"notification\",\"key\":\"a\",\"value\":", true},
		{"{\"type\":\"notification\",\"key\":1}", false},
		{"{\"type\":\"notification\"}", false},
		{"{\"type\":\"another\",\"key\":\"a\"}", false},
		{"{\"code\":200,\"key\":\"a\",\"messageId\":1}", false},
		{"{}", false},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct wire_frame frame;
		wire_parse(span_of(cases[i].text), &frame);
		assert_int_equal(frame.notifies, cases[i].notifies);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_head),
		cmocka_unit_test(test_body),
		cmocka_unit_test(test_body_means_the_value),
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_splice_of_other_lengths),
		cmocka_unit_test(test_splice_of_a_lone_id),
		cmocka_unit_test(test_notifications),
		cmocka_unit_test(test_value_of_an_answer),
		cmocka_unit_test(test_flatten),
		cmocka_unit_test(test_unusable),
		cmocka_unit_test(frames_that_tell_of_a_key_are_known),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
