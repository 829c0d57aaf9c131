#include "codec/request.h"

#include <errno.h>
#include <stdio.h>

#include "../test.h"

/* --- lines that are accepted --- */

static const struct {
	const char *line;
	enum request_op op;
	const char *id;
	uint32_t timeout_ms;
	const char *key, *end_key, *value, *limit; /* NULL: not given */
} accepted[] = {
	{"{\"op\":\"get\",\"key\":\"a\"}", OP_GET, "", 0, "\"a\"", NULL, NULL, NULL},
	{"{\"op\":1,\"key\":\"a\"}", OP_GET, "", 0, "\"a\"", NULL, NULL, NULL},
	{"{\"op\":1.0,\"key\":\"a\"}", OP_GET, "", 0, "\"a\"", NULL, NULL, NULL},
	{"{\"op\":10e-1,\"key\":\"a\"}", OP_GET, "", 0, "\"a\"", NULL, NULL, NULL},
	{"{\"op\":\"\\u0067et\",\"key\":\"a\"}", OP_GET, "", 0, "\"a\"", NULL, NULL, NULL},
	{"{\"\\u006fp\":1,\"k\\u0065y\":\"\\u0061\\u0000\"}", OP_GET, "", 0, "\"\\u0061\\u0000\"",
	 NULL, NULL, NULL},
	{"{\"op\":\"get\",\"key\":\"\"}", OP_GET, "", 0, "\"\"", NULL, NULL, NULL},
	{" {\"key\" : \"a\" ,\t\"op\" : 1 } \r", OP_GET, "", 0, "\"a\"", NULL, NULL, NULL},
	{"{\"op\":2,\"key\":\"a\",\"value\":\"b\"}", OP_SET, "", 0, "\"a\"", NULL, "\"b\"", NULL},
	{"{\"op\":\"set\",\"key\":\"a\",\"value\":[1, 2]}", OP_SET, "", 0, "\"a\"", NULL, "[1, 2]",
	 NULL},
	{"{\"op\":\"set\",\"key\":\"a\",\"value\":false}", OP_SET, "", 0, "\"a\"", NULL, "false",
	 NULL},
	{"{\"op\":3,\"key\":\"a\",\"value\":{}}", OP_PATCH, "", 0, "\"a\"", NULL, "{}", NULL},
	{"{\"op\":\"patch\",\"key\":\"a\",\"value\":\"\"}", OP_PATCH, "", 0, "\"a\"", NULL, "\"\"",
	 NULL},
	{"{\"op\":4,\"key\":\"a\"}", OP_DELETE, "", 0, "\"a\"", NULL, NULL, NULL},
	{"{\"op\":\"delete\",\"key\":\"a\"}", OP_DELETE, "", 0, "\"a\"", NULL, NULL, NULL},
	{"{\"op\":5,\"key\":\"a\",\"endKey\":\"b\"}", OP_RANGE, "", 0, "\"a\"", "\"b\"", NULL,
	 NULL},
	{"{\"op\":\"range\",\"key\":\"a\",\"endKey\":\"b\",\"limit\":1e1}", OP_RANGE, "", 0,
	 "\"a\"", "\"b\"", NULL, "1e1"},
	{"{\"op\":6,\"key\":\"a\"}", OP_INCREMENT, "", 0, "\"a\"", NULL, NULL, NULL},
	{"{\"op\":\"increment\",\"key\":\"a\",\"value\":-1.5}", OP_INCREMENT, "", 0, "\"a\"", NULL,
	 "-1.5", NULL},
	{"{\"op\":\"ping\"}", OP_PING, "", 0, NULL, NULL, NULL, NULL},
	{"{\"op\":\"status\"}", OP_STATUS, "", 0, NULL, NULL, NULL, NULL},
	{"{\"op\":\"stats\"}", OP_STATS, "", 0, NULL, NULL, NULL, NULL},
	{"{\"op\":\"token\"}", OP_TOKEN, "", 0, NULL, NULL, NULL, NULL},
	/* messageId, as written */
	{"{\"op\":\"ping\",\"messageId\":1}", OP_PING, "1", 0, NULL, NULL, NULL, NULL},
	{"{\"op\":\"ping\",\"messageId\":-1.50e400}", OP_PING, "-1.50e400", 0, NULL, NULL, NULL,
	 NULL},
	{"{\"op\":\"ping\",\"messageId\":\"\"}", OP_PING, "\"\"", 0, NULL, NULL, NULL, NULL},
	{"{\"op\":\"ping\",\"messageId\":\"\\u0061\\\"\"}", OP_PING, "\"\\u0061\\\"\"", 0, NULL,
	 NULL, NULL, NULL},
	{"{\"op\":\"ping\",\"messageId\":null}", OP_PING, "", 0, NULL, NULL, NULL, NULL},
	{"{\"op\":\"ping\",\"m\\u0065ssageId\":9}", OP_PING, "9", 0, NULL, NULL, NULL, NULL},
	/* timeoutMs */
	{"{\"op\":\"ping\",\"timeoutMs\":1}", OP_PING, "", 1, NULL, NULL, NULL, NULL},
	{"{\"op\":\"ping\",\"timeoutMs\":6e5}", OP_PING, "", 600000, NULL, NULL, NULL, NULL},
	{"{\"op\":\"ping\",\"timeoutMs\":5.0}", OP_PING, "", 5, NULL, NULL, NULL, NULL},
	/* what an operation does not read is ignored, however odd and however often */
	{"{\"op\":\"get\",\"key\":\"a\",\"value\":null,\"value\":1,\"endKey\":[],\"limit\":\"x\"}",
	 OP_GET, "", 0, "\"a\"", NULL, NULL, NULL},
	{"{\"op\":\"ping\",\"key\":7,\"accessPattern\":{},\"x\":1,\"x\":2,\"Op\":0,\"opp\":0}",
	 OP_PING, "", 0, NULL, NULL, NULL, NULL},
	{"{\"op\":\"set\",\"key\":\"a\",\"value\":1,\"limit\":null,\"subscribeKeys\":1}", OP_SET,
	 "", 0, "\"a\"", NULL, "1", NULL},
};

static void assert_value(const struct json_value *v, const char *want)
{
	if (!want)
		assert_null(v->text.p);
	else
		assert_span(v->text, want);
}

static void test_accepted(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(accepted); i++) {
		struct span line = copy_of(span_of(accepted[i].line));
		struct request r;
		struct request_fault fault;
		if (request_parse(line, &r, &fault) != 0)
			fail_msg("%s: %s", accepted[i].line, fault.text);
		assert_int_equal(r.op, accepted[i].op);
		assert_span(r.id, accepted[i].id);
		assert_int_equal(r.timeout_ms, accepted[i].timeout_ms);
		assert_value(&r.key, accepted[i].key);
		assert_value(&r.end_key, accepted[i].end_key);
		assert_value(&r.value, accepted[i].value);
		assert_value(&r.limit, accepted[i].limit);
		free_copy(line);
	}
}

static void test_fresh(void **state)
{
	static const struct {
		const char *line;
		bool fresh;
	} rows[] = {
		{"{\"op\":\"get\",\"key\":\"a\"}", false},
		{"{\"op\":\"get\",\"key\":\"a\",\"fresh\":true}", true},
		{"{\"op\":\"get\",\"key\":\"a\",\"fresh\":false}", false},
		{"{\"op\":\"range\",\"key\":\"a\",\"endKey\":\"b\",\"fresh\":true}", true},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct request r;
		struct request_fault fault;
		assert_int_equal(request_parse(span_of(rows[i].line), &r, &fault), 0);
		assert_int_equal(r.fresh, rows[i].fresh);
	}
}

/* Its length is told only of what could be one. */
static void test_long_ids(void **state)
{
	char line[400], id[200];
	struct request r;
	struct request_fault fault;

	(void)state;
	memset(id, '1', sizeof(id) - 1);
	id[sizeof(id) - 1] = '\0';
	snprintf(line, sizeof(line), "{\"op\":\"ping\",\"messageId\":%.128s}", id);
	assert_int_equal(request_parse(span_of(line), &r, &fault), 0);
	snprintf(line, sizeof(line), "{\"op\":\"ping\",\"messageId\":%.129s}", id);
	assert_int_equal(request_parse(span_of(line), &r, &fault), -EBADMSG);
	assert_non_null(strstr(fault.text, "longer than 128 bytes"));
	snprintf(line, sizeof(line), "{\"op\":\"ping\",\"messageId\":[%.150s]}", id);
	assert_int_equal(request_parse(span_of(line), &r, &fault), -EBADMSG);
	assert_non_null(strstr(fault.text, "must be a string or a number"));
	assert_int_equal(request_parse(SPAN("{\"op\":\"ping\",\"messageId\":true}"), &r, &fault),
			 -EBADMSG);
	assert_non_null(strstr(fault.text, "must be a string or a number"));
}

static void test_token(void **state)
{
	static const char line[] = "{\"op\":\"token\",\"subscribeKeys\":[\"a\" , \"b:*\"],"
				   "\"subscribePatterns\":[\"\"],\"accessPattern\":\"^a\\\\.\"}";
	struct request r;
	struct request_fault fault;

	(void)state;
	assert_int_equal(request_parse(SPAN(line), &r, &fault), 0);
	assert_int_equal(r.op, OP_TOKEN);
	assert_value(&r.subscribe_keys, "[\"a\" , \"b:*\"]");
	assert_value(&r.subscribe_patterns, "[\"\"]");
	assert_value(&r.access_pattern, "\"^a\\\\.\"");
	assert_false(r.local);
	assert_int_equal(request_parse(SPAN("{\"op\":\"token\",\"local\":true}"), &r, &fault), 0);
	assert_true(r.local);
	assert_int_equal(request_parse(SPAN("{\"op\":\"token\",\"local\":1}"), &r, &fault),
			 -EBADMSG);
}

static const struct {
	const char *line;
	enum request_op op;
	const char *key, *keys, *pattern, *patterns; /* NULL: not given */
	bool initial;
} names[] = {
	{"{\"op\":\"subscribe\",\"key\":\"a\"}", OP_SUBSCRIBE, "\"a\"", NULL, NULL, NULL, false},
	{"{\"op\":\"subscribe\",\"keys\":[\"a\" , \"\\u0000\"]}", OP_SUBSCRIBE, NULL,
	 "[\"a\" , \"\\u0000\"]", NULL, NULL, false},
	{"{\"op\":\"subscribe\",\"pattern\":\"*\",\"initial\":true}", OP_SUBSCRIBE, NULL, NULL,
	 "\"*\"", NULL, true},
	{"{\"op\":\"subscribe\",\"patterns\":[],\"initial\":false}", OP_SUBSCRIBE, NULL, NULL, NULL,
	 "[]", false},
	{"{\"initial\":true,\"patterns\":[\"d\"],\"pattern\":\"c\",\"keys\":[\"b\"],\"key\":\"a\","
	 "\"op\":\"subscribe\"}",
	 OP_SUBSCRIBE, "\"a\"", "[\"b\"]", "\"c\"", "[\"d\"]", true},
	{"{\"op\":\"unsubscribe\"}", OP_UNSUBSCRIBE, NULL, NULL, NULL, NULL, false},
	{"{\"op\":\"unsubscribe\",\"patterns\":[\"d\"],\"pattern\":\"c\",\"keys\":[\"b\"],"
	 "\"key\":\"a\"}",
	 OP_UNSUBSCRIBE, "\"a\"", "[\"b\"]", "\"c\"", "[\"d\"]", false},
	/* what it does not read is ignored */
	{"{\"op\":\"unsubscribe\",\"initial\":5,\"initial\":6,\"subscribeKeys\":0}", OP_UNSUBSCRIBE,
	 NULL, NULL, NULL, NULL, false},
	{"{\"op\":\"get\",\"key\":\"a\",\"keys\":1,\"pattern\":2,\"patterns\":3,\"initial\":true}",
	 OP_GET, "\"a\"", NULL, NULL, NULL, false},
};

static void test_names(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(names); i++) {
		struct span line = copy_of(span_of(names[i].line));
		struct request r;
		struct request_fault fault;
		if (request_parse(line, &r, &fault) != 0)
			fail_msg("%s: %s", names[i].line, fault.text);
		assert_int_equal(r.op, names[i].op);
		assert_value(&r.key, names[i].key);
		assert_value(&r.keys, names[i].keys);
		assert_value(&r.pattern, names[i].pattern);
		assert_value(&r.patterns, names[i].patterns);
		assert_int_equal(r.initial, names[i].initial);
		free_copy(line);
	}
}

/* --- lines that are refused --- */

#define TIMEOUT_TEXT "timeoutMs must be a whole number from 1 to 600000"
#define NO_NAMES "key is missing (or keys, pattern, patterns)"
#define NAME_TEXT "must be a string that is not empty"
#define NAMES_TEXT "must be an array of strings that are not empty"
#define NOT_OBJECT "the line is not a JSON object: "

static const struct {
	struct span line;
	enum reply_error error;
	const char *id, *text;
} refused[] = {
	/* not JSON, and whose it was if that came first */
	{SPAN(""), REPLY_BAD_JSON, "", NOT_OBJECT "no object at byte 0"},
	{SPAN("x"), REPLY_BAD_JSON, "", NOT_OBJECT "something that is not an object at byte 0"},
	{SPAN("[]"), REPLY_BAD_JSON, "", NOT_OBJECT "something that is not an object at byte 0"},
	{SPAN("\xef\xbb\xbf{\"op\":\"ping\"}"), REPLY_BAD_JSON, "",
	 NOT_OBJECT "a byte order mark at byte 0"},
	{SPAN("{\"op\":\"ping\"}\0"), REPLY_BAD_JSON, "",
	 NOT_OBJECT "something after the object at byte 13"},
	{SPAN("{\"op\":\"a\tb\"}"), REPLY_BAD_JSON, "",
	 NOT_OBJECT "a control character in a string at byte 8"},
	{SPAN("{\"messageId\":7,\"op\":\"\xff\"}"), REPLY_BAD_JSON, "7",
	 NOT_OBJECT "bytes that are not UTF-8 in a string at byte 21"},
	{SPAN("{\"messageId\":\"x\",\"op\":1"), REPLY_BAD_JSON, "\"x\"",
	 NOT_OBJECT "the end of the text behind a number at byte 23"},
	/* an id that may have been longer is not echoed */
	{SPAN("{\"op\":1,\"messageId\":12"), REPLY_BAD_JSON, "",
	 NOT_OBJECT "the end of the text behind a number at byte 22"},
	{SPAN("{\"op\":,\"messageId\":7}"), REPLY_BAD_JSON, "",
	 NOT_OBJECT "an unexpected character in place of a value at byte 6"},
	{SPAN("{\"messageId\":{},\"op\":}"), REPLY_BAD_JSON, "",
	 NOT_OBJECT "an unexpected character in place of a value at byte 21"},
	/* messageId */
	{SPAN("{\"op\":\"ping\",\"messageId\":{}}"), REPLY_BAD_REQUEST, "",
	 "messageId must be a string or a number"},
	{SPAN("{\"op\":\"ping\",\"messageId\":[1]}"), REPLY_BAD_REQUEST, "",
	 "messageId must be a string or a number"},
	{SPAN("{\"op\":\"ping\",\"messageId\":true}"), REPLY_BAD_REQUEST, "",
	 "messageId must be a string or a number"},
	{SPAN("{\"op\":\"ping\",\"messageId\":1,\"messageId\":2}"), REPLY_BAD_REQUEST, "1",
	 "messageId is given twice"},
	{SPAN("{\"op\":\"ping\",\"messageId\":null,\"messageId\":2}"), REPLY_BAD_REQUEST, "",
	 "messageId is given twice"},
	{SPAN("{\"messageId\":false,\"op\":\"nonsense\"}"), REPLY_BAD_REQUEST, "",
	 "messageId must be a string or a number"},
	/* op */
	{SPAN("{}"), REPLY_BAD_REQUEST, "", "op is missing"},
	{SPAN("{\"Op\":1,\"key\":\"a\"}"), REPLY_BAD_REQUEST, "", "op is missing"},
	{SPAN("{\"messageId\":1}"), REPLY_BAD_REQUEST, "1", "op is missing"},
	{SPAN("{\"op\":null}"), REPLY_BAD_REQUEST, "", "op must be a name or a number from 1 to 6"},
	{SPAN("{\"op\":[1]}"), REPLY_BAD_REQUEST, "", "op must be a name or a number from 1 to 6"},
	{SPAN("{\"op\":true,\"messageId\":3}"), REPLY_BAD_REQUEST, "3",
	 "op must be a name or a number from 1 to 6"},
	{SPAN("{\"op\":1,\"op\":1,\"key\":\"a\"}"), REPLY_BAD_REQUEST, "", "op is given twice"},
	{SPAN("{\"op\":\"fetch\",\"messageId\":3}"), REPLY_UNKNOWN_OP, "3", "unknown op \"fetch\""},
	{SPAN("{\"op\":\"GET\"}"), REPLY_UNKNOWN_OP, "", "unknown op \"GET\""},
	{SPAN("{\"op\":\"\"}"), REPLY_UNKNOWN_OP, "", "unknown op \"\""},
	{SPAN("{\"op\":\"get\\u0000\"}"), REPLY_UNKNOWN_OP, "", "unknown op \"get\\u0000\""},
	{SPAN("{\"op\":\"Subscribe\",\"key\":\"a\"}"), REPLY_UNKNOWN_OP, "",
	 "unknown op \"Subscribe\""},
	{SPAN("{\"op\":0}"), REPLY_UNKNOWN_OP, "", "unknown op 0"},
	{SPAN("{\"op\":7}"), REPLY_UNKNOWN_OP, "", "unknown op 7"},
	{SPAN("{\"op\":1.5}"), REPLY_UNKNOWN_OP, "", "unknown op 1.5"},
	{SPAN("{\"op\":-1}"), REPLY_UNKNOWN_OP, "", "unknown op -1"},
	{SPAN("{\"op\":\"1\"}"), REPLY_UNKNOWN_OP, "", "unknown op \"1\""},
	{SPAN("{\"op\":\"\xc3\xa4\x7f\"}"), REPLY_UNKNOWN_OP, "", "unknown op \"\\xc3\\xa4\\x7f\""},
	{SPAN("{\"op\":"
	      "\"0123456789012345678901234567890123456789012345678901234567890123456789\"}"),
	 REPLY_UNKNOWN_OP, "",
	 "unknown op \"01234567890123456789012345678901234567890123456789012345..."},
	/* timeoutMs */
	{SPAN("{\"op\":\"ping\",\"timeoutMs\":0}"), REPLY_BAD_REQUEST, "", TIMEOUT_TEXT},
	{SPAN("{\"op\":\"ping\",\"timeoutMs\":600001}"), REPLY_BAD_REQUEST, "", TIMEOUT_TEXT},
	{SPAN("{\"op\":\"ping\",\"timeoutMs\":-5}"), REPLY_BAD_REQUEST, "", TIMEOUT_TEXT},
	{SPAN("{\"op\":\"ping\",\"timeoutMs\":1.5}"), REPLY_BAD_REQUEST, "", TIMEOUT_TEXT},
	{SPAN("{\"op\":\"ping\",\"timeoutMs\":1e400}"), REPLY_BAD_REQUEST, "", TIMEOUT_TEXT},
	{SPAN("{\"op\":\"ping\",\"timeoutMs\":\"5\"}"), REPLY_BAD_REQUEST, "", TIMEOUT_TEXT},
	{SPAN("{\"op\":\"ping\",\"timeoutMs\":null}"), REPLY_BAD_REQUEST, "", TIMEOUT_TEXT},
	{SPAN("{\"op\":\"ping\",\"timeoutMs\":1,\"timeoutMs\":1}"), REPLY_BAD_REQUEST, "",
	 "timeoutMs is given twice"},
	/* the members of each operation */
	{SPAN("{\"op\":\"get\",\"messageId\":\"m\"}"), REPLY_BAD_REQUEST, "\"m\"",
	 "key is missing"},
	{SPAN("{\"op\":\"get\",\"key\":7,\"messageId\":\"m\"}"), REPLY_BAD_REQUEST, "\"m\"",
	 "key must be a string"},
	{SPAN("{\"op\":\"get\",\"key\":null}"), REPLY_BAD_REQUEST, "", "key must be a string"},
	{SPAN("{\"op\":\"get\",\"key\":\"a\",\"k\\u0065y\":\"a\"}"), REPLY_BAD_REQUEST, "",
	 "key is given twice"},
	{SPAN("{\"op\":\"set\",\"key\":\"a\"}"), REPLY_BAD_REQUEST, "", "value is missing"},
	{SPAN("{\"op\":\"set\",\"value\":\"a\"}"), REPLY_BAD_REQUEST, "", "key is missing"},
	{SPAN("{\"op\":\"set\",\"key\":\"a\",\"value\":null}"), REPLY_BAD_REQUEST, "",
	 "value must not be null"},
	{SPAN("{\"op\":\"set\",\"key\":\"a\",\"value\":1,\"value\":1}"), REPLY_BAD_REQUEST, "",
	 "value is given twice"},
	{SPAN("{\"op\":\"patch\",\"key\":\"a\",\"value\":null}"), REPLY_BAD_REQUEST, "",
	 "value must not be null"},
	{SPAN("{\"op\":\"delete\"}"), REPLY_BAD_REQUEST, "", "key is missing"},
	{SPAN("{\"op\":\"range\",\"key\":\"a\"}"), REPLY_BAD_REQUEST, "", "endKey is missing"},
	{SPAN("{\"op\":\"range\",\"key\":\"a\",\"endKey\":1}"), REPLY_BAD_REQUEST, "",
	 "endKey must be a string"},
	{SPAN("{\"op\":\"range\",\"key\":\"a\",\"endKey\":\"b\",\"limit\":\"5\"}"),
	 REPLY_BAD_REQUEST, "", "limit must be a number"},
	{SPAN("{\"op\":\"range\",\"key\":\"a\",\"endKey\":\"b\",\"limit\":null}"),
	 REPLY_BAD_REQUEST, "", "limit must be a number"},
	{SPAN("{\"op\":\"increment\",\"key\":\"a\",\"value\":\"1\"}"), REPLY_BAD_REQUEST, "",
	 "value must be a number"},
	{SPAN("{\"op\":\"increment\",\"key\":\"a\",\"value\":null}"), REPLY_BAD_REQUEST, "",
	 "value must be a number"},
	{SPAN("{\"op\":\"token\",\"subscribeKeys\":\"a\"}"), REPLY_BAD_REQUEST, "",
	 "subscribeKeys must be an array of strings"},
	{SPAN("{\"op\":\"token\",\"subscribeKeys\":[\"a\",1]}"), REPLY_BAD_REQUEST, "",
	 "subscribeKeys must be an array of strings"},
	{SPAN("{\"op\":\"token\",\"subscribePatterns\":[[]]}"), REPLY_BAD_REQUEST, "",
	 "subscribePatterns must be an array of strings"},
	{SPAN("{\"op\":\"token\",\"accessPattern\":1}"), REPLY_BAD_REQUEST, "",
	 "accessPattern must be a string"},
	{SPAN("{\"op\":\"token\",\"accessPattern\":\"a\",\"accessPattern\":\"a\"}"),
	 REPLY_BAD_REQUEST, "", "accessPattern is given twice"},
	{SPAN("{\"op\":\"subscribe\",\"messageId\":5}"), REPLY_BAD_REQUEST, "5", NO_NAMES},
	{SPAN("{\"op\":\"subscribe\",\"initial\":true}"), REPLY_BAD_REQUEST, "", NO_NAMES},
	{SPAN("{\"op\":\"subscribe\",\"subscribeKeys\":[\"a\"]}"), REPLY_BAD_REQUEST, "", NO_NAMES},
	{SPAN("{\"op\":\"subscribe\",\"key\":\"\"}"), REPLY_BAD_REQUEST, "", "key " NAME_TEXT},
	{SPAN("{\"op\":\"subscribe\",\"key\":[\"a\"]}"), REPLY_BAD_REQUEST, "", "key " NAME_TEXT},
	{SPAN("{\"op\":\"subscribe\",\"key\":null}"), REPLY_BAD_REQUEST, "", "key " NAME_TEXT},
	{SPAN("{\"op\":\"subscribe\",\"keys\":\"a\"}"), REPLY_BAD_REQUEST, "", "keys " NAMES_TEXT},
	{SPAN("{\"op\":\"subscribe\",\"keys\":null}"), REPLY_BAD_REQUEST, "", "keys " NAMES_TEXT},
	{SPAN("{\"op\":\"subscribe\",\"keys\":[\"a\",1]}"), REPLY_BAD_REQUEST, "",
	 "keys " NAMES_TEXT},
	{SPAN("{\"op\":\"subscribe\",\"keys\":[\"a\",\"\"]}"), REPLY_BAD_REQUEST, "",
	 "keys " NAMES_TEXT},
	{SPAN("{\"op\":\"subscribe\",\"keys\":[null]}"), REPLY_BAD_REQUEST, "", "keys " NAMES_TEXT},
	{SPAN("{\"op\":\"subscribe\",\"keys\":{\"a\":\"b\"}}"), REPLY_BAD_REQUEST, "",
	 "keys " NAMES_TEXT},
	{SPAN("{\"op\":\"subscribe\",\"key\":\"a\",\"pattern\":\"\"}"), REPLY_BAD_REQUEST, "",
	 "pattern " NAME_TEXT},
	{SPAN("{\"op\":\"subscribe\",\"pattern\":5}"), REPLY_BAD_REQUEST, "", "pattern " NAME_TEXT},
	{SPAN("{\"op\":\"subscribe\",\"patterns\":[[\"a\"]]}"), REPLY_BAD_REQUEST, "",
	 "patterns " NAMES_TEXT},
	{SPAN("{\"op\":\"subscribe\",\"patterns\":[\"\"]}"), REPLY_BAD_REQUEST, "",
	 "patterns " NAMES_TEXT},
	{SPAN("{\"op\":\"subscribe\",\"key\":\"a\",\"initial\":1}"), REPLY_BAD_REQUEST, "",
	 "initial must be true or false"},
	{SPAN("{\"op\":\"subscribe\",\"key\":\"a\",\"initial\":\"true\"}"), REPLY_BAD_REQUEST, "",
	 "initial must be true or false"},
	{SPAN("{\"op\":\"subscribe\",\"key\":\"a\",\"initial\":null}"), REPLY_BAD_REQUEST, "",
	 "initial must be true or false"},
	{SPAN("{\"op\":\"subscribe\",\"key\":\"a\",\"initial\":true,\"initial\":true}"),
	 REPLY_BAD_REQUEST, "", "initial is given twice"},
	{SPAN("{\"op\":\"subscribe\",\"keys\":[],\"keys\":[]}"), REPLY_BAD_REQUEST, "",
	 "keys is given twice"},
	{SPAN("{\"op\":\"subscribe\",\"pattern\":\"a\",\"pattern\":\"a\"}"), REPLY_BAD_REQUEST, "",
	 "pattern is given twice"},
	{SPAN("{\"op\":\"unsubscribe\",\"key\":\"\"}"), REPLY_BAD_REQUEST, "", "key " NAME_TEXT},
	{SPAN("{\"op\":\"unsubscribe\",\"keys\":[1]}"), REPLY_BAD_REQUEST, "", "keys " NAMES_TEXT},
	{SPAN("{\"op\":\"unsubscribe\",\"pattern\":null}"), REPLY_BAD_REQUEST, "",
	 "pattern " NAME_TEXT},
	{SPAN("{\"op\":\"unsubscribe\",\"patterns\":\"a\"}"), REPLY_BAD_REQUEST, "",
	 "patterns " NAMES_TEXT},
	{SPAN("{\"op\":\"unsubscribe\",\"key\":\"a\",\"key\":\"a\"}"), REPLY_BAD_REQUEST, "",
	 "key is given twice"},
};

static void test_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(refused); i++) {
		struct span line = copy_of(refused[i].line);
		struct request r;
		struct request_fault fault;
		if (request_parse(line, &r, &fault) != -EBADMSG)
			fail_msg("%s was accepted", refused[i].line.p);
		if (fault.error != refused[i].error)
			fail_msg("%s: %s", refused[i].line.p, fault.text);
		assert_string_equal(fault.text, refused[i].text);
		assert_span(fault.id, refused[i].id);
		free_copy(line);
	}
}

/* 128 bytes of messageId are echoed, 129 are not. */
static void test_length_of_id(void **state)
{
	(void)state;
	for (size_t n = REQUEST_ID_MAX - 1; n <= REQUEST_ID_MAX + 1; n++) {
		for (int quoted = 0; quoted <= 1; quoted++) {
			char line[300], id[200];
			struct request r;
			struct request_fault fault;
			memset(id, '1', n);
			if (quoted)
				id[0] = id[n - 1] = '"';
			int len = snprintf(line, sizeof(line),
					   "{\"op\":\"ping\",\"messageId\":%.*s}", (int)n, id);
			int error = request_parse((struct span){line, (size_t)len}, &r, &fault);
			assert_int_equal(error, n > REQUEST_ID_MAX ? -EBADMSG : 0);
			if (error) {
				assert_string_equal(fault.text,
						    "messageId is longer than 128 bytes");
				assert_int_equal(fault.id.n, 0);
			} else {
				assert_true(span_equal(r.id, (struct span){id, n}));
			}
		}
	}
}

/* A sentence stays whole and printable whatever the op is made of, at each length around its cut.
 */
static void test_quoted_op_fits(void **state)
{
	(void)state;
	for (size_t n = 0; n < 200; n++) {
		for (int wide = 0; wide <= 1; wide++) {
			char line[300] = "{\"op\":\"";
			size_t at = strlen(line);
			for (size_t i = 0; i < n; i++)
				line[at++] = wide ? "\xc3\xa4"[i % 2] : 'x';
			if (wide && n % 2)
				line[at++] = '\xa4';
			line[at++] = '"';
			line[at++] = '}';
			struct request r;
			struct request_fault fault;
			assert_int_equal(request_parse((struct span){line, at}, &r, &fault),
					 -EBADMSG);
			assert_int_equal(fault.error, REPLY_UNKNOWN_OP);
			assert_true(strlen(fault.text) < 100);
			for (const char *c = fault.text; *c; c++)
				assert_true(*c >= 0x20 && *c < 0x7f);
		}
	}
}

static void test_ops(void **state)
{
	static const struct {
		enum request_op op;
		const char *name;
		bool remote, has_key, read;
	} rows[] = {
		{OP_GET, "get", true, true, true},
		{OP_SET, "set", true, true, false},
		{OP_PATCH, "patch", true, true, false},
		{OP_DELETE, "delete", true, true, false},
		{OP_RANGE, "range", true, false, true},
		{OP_INCREMENT, "increment", true, true, false},
		{OP_SUBSCRIBE, "subscribe", false, false, false},
		{OP_UNSUBSCRIBE, "unsubscribe", false, false, false},
		{OP_TOKEN, "token", false, false, false},
		{OP_PING, "ping", false, false, false},
		{OP_STATUS, "status", false, false, false},
		{OP_STATS, "stats", false, false, false},
		{OP_SEARCH, "search", false, false, false},
		{OP_QUERY, "query", false, false, false},
	};

	(void)state;
	assert_int_equal(COUNT(rows), OP_N - 1);
	for (size_t i = 0; i < COUNT(rows); i++) {
		assert_string_equal(request_op_name(rows[i].op), rows[i].name);
		assert_int_equal(request_op_is_remote(rows[i].op), rows[i].remote);
		assert_int_equal(request_op_has_key(rows[i].op), rows[i].has_key);
		assert_int_equal(request_op_is_read(rows[i].op), rows[i].read);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_accepted),     cmocka_unit_test(test_token),
		cmocka_unit_test(test_fresh),        cmocka_unit_test(test_long_ids),
		cmocka_unit_test(test_names),        cmocka_unit_test(test_refused),
		cmocka_unit_test(test_length_of_id), cmocka_unit_test(test_quoted_op_fits),
		cmocka_unit_test(test_ops),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
