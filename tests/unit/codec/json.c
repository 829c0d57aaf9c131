#include "codec/json.h"

#include <errno.h>
#include <stdio.h>

#include "../test.h"
#include "../random.h"

/* Walks a whole text: 0, or -EBADMSG with the reader left to look at. */
static int walk(struct span text, struct json_object_reader *r, int *members)
{
	struct json_member m;
	int more;

	*members = 0;
	json_object_begin(r, text);
	while ((more = json_object_next(r, &m)) > 0)
		++*members;
	/* Both ends are final. */
	assert_int_equal(json_object_next(r, &m), more);
	return more;
}

/* --- whole texts --- */

static const struct {
	struct span text;
	int members; /* before the end or the fault */
	const char *fault;
	size_t offset;
} texts[] = {
	{SPAN("{}"), 0, NULL, 0},
	{SPAN(" \t\r\n{ \t\r\n} \t\r\n"), 0, NULL, 0},
	{SPAN("{\"a\":1}"), 1, NULL, 0},
	{SPAN("{\"a\":1,\"a\":2}"), 2, NULL, 0},
	{SPAN("{\"\":0}"), 1, NULL, 0},
	{SPAN("{ \"a\" : [ ] , \"b\" : { } }"), 2, NULL, 0},
	{SPAN("{\"a\":{\"b\":[{\"c\":[[],{}]},1]},\"d\":null}"), 2, NULL, 0},
	{SPAN(""), 0, "no object", 0},
	{SPAN("  "), 0, "no object", 2},
	{SPAN("\xef\xbb\xbf{}"), 0, "a byte order mark", 0},
	{SPAN("\xef\xbb"), 0, "something that is not an object", 0},
	{SPAN("\xff\xfe{\0}\0"), 0, "something that is not an object", 0},
	{SPAN("\0"), 0, "something that is not an object", 0},
	{SPAN("[]"), 0, "something that is not an object", 0},
	{SPAN("\"a\""), 0, "something that is not an object", 0},
	{SPAN("12"), 0, "something that is not an object", 0},
	{SPAN("null"), 0, "something that is not an object", 0},
	{SPAN("}"), 0, "something that is not an object", 0},
	{SPAN("/**/{}"), 0, "something that is not an object", 0},
	{SPAN("\x0b{}"), 0, "something that is not an object", 0},
	{SPAN("\xc2\xa0{}"), 0, "something that is not an object", 0},
	{SPAN("{"), 0, "the end of the text within an object", 1},
	{SPAN("{ "), 0, "the end of the text within an object", 2},
	{SPAN("{,}"), 0, "no name in quotes where a member begins", 1},
	{SPAN("{a:1}"), 0, "no name in quotes where a member begins", 1},
	{SPAN("{'a':1}"), 0, "no name in quotes where a member begins", 1},
	{SPAN("{1:1}"), 0, "no name in quotes where a member begins", 1},
	{SPAN("{null:1}"), 0, "no name in quotes where a member begins", 1},
	{SPAN("{\"a\":1,}"), 1, "no name in quotes where a member begins", 7},
	{SPAN("{\"a\":1,,\"b\":2}"), 1, "no name in quotes where a member begins", 7},
	{SPAN("{\"a\":1,"), 1, "the end of the text within an object", 7},
	{SPAN("{\"a\""), 0, "no colon after the name of a member", 4},
	{SPAN("{\"a\" 1}"), 0, "no colon after the name of a member", 5},
	{SPAN("{\"a\",1}"), 0, "no colon after the name of a member", 4},
	{SPAN("{\"a\"::1}"), 0, "an unexpected character in place of a value", 5},
	{SPAN("{\"a\":"), 0, "the end of the text in place of a value", 5},
	{SPAN("{\"a\":}"), 0, "an unexpected character in place of a value", 5},
	/* a number at the very end may be the beginning of a longer one */
	{SPAN("{\"a\":1"), 0, "the end of the text behind a number", 6},
	{SPAN("{\"a\":1 "), 1, "the end of the text within an object", 7},
	{SPAN("{\"a\":true"), 1, "the end of the text within an object", 9},
	{SPAN("{\"a\":1 \"b\":2}"), 1, "neither a comma nor } after a member", 7},
	{SPAN("{\"a\":1]"), 1, "neither a comma nor } after a member", 6},
	{SPAN("{\"a\":1;\"b\":2}"), 1, "neither a comma nor } after a member", 6},
	{SPAN("{}{}"), 0, "something after the object", 2},
	{SPAN("{}\0"), 0, "something after the object", 2},
	{SPAN("{} x"), 0, "something after the object", 3},
	{SPAN("{}}"), 0, "something after the object", 2},
	{SPAN("{}#"), 0, "something after the object", 2},
	{SPAN("{\"a\":1/*x*/}"), 1, "neither a comma nor } after a member", 6},
	{SPAN("{\"a\":1}\xe2\x81\xa0"), 1, "something after the object", 7},
	{SPAN("{\"id\":7,\"x\":\"a\x01\"}"), 1, "a control character in a string", 14},
	{SPAN("{\"k\":\"\\q\"}"), 0, "an unknown escape in a string", 7},
	{SPAN("{\"k\":\"\\u0G00\"}"), 0, "a \\u without four hexadecimal digits", 9},
	{SPAN("{\"k\":\"\\u00"), 0, "the end of the text within a string", 10},
	{SPAN("{\"k\":\"\\u"), 0, "the end of the text within a string", 8},
	{SPAN("{\"k\":\"\\"), 0, "the end of the text within a string", 7},
	{SPAN("{\"k\":\"\\q"), 0, "an unknown escape in a string", 7},
	{SPAN("{\"k\":\"a"), 0, "the end of the text within a string", 7},
	{SPAN("{\"k\":-}"), 0, "a number that lacks a digit", 6},
	{SPAN("{\"k\":01}"), 0, "a number with a leading zero", 5},
	{SPAN("{\"k\":\"\\uFAFf\"}"), 1, NULL, 0},
	{SPAN("\xef\xbb\xbf"), 0, "a byte order mark", 0},
	{SPAN("{\0}"), 0, "no name in quotes where a member begins", 1},
	{SPAN("{\"a\":1\0}"), 1, "neither a comma nor } after a member", 6},
	{SPAN("{\"a\":[1\0]}"), 0, "neither a comma nor ] after an element", 7},
	{SPAN("{\"a\":[1 "), 0, "the end of the text within an array", 8},
	{SPAN("{\"a\":{\"b\":1 "), 0, "the end of the text within an object", 12},
};

static void test_texts(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(texts); i++) {
		struct span text = copy_of(texts[i].text);
		struct json_object_reader r;
		int members;
		int error = walk(text, &r, &members);
		if (error != (texts[i].fault ? -EBADMSG : 0) || members != texts[i].members)
			fail_msg("%s: %d members, %s", texts[i].text.p, members,
				 r.fault ? r.fault : "accepted");
		if (texts[i].fault) {
			assert_string_equal(r.fault, texts[i].fault);
			assert_int_equal(r.fault_offset, texts[i].offset);
		}
		free_copy(text);
	}
}

/* --- values: each as the only member of an object --- */

static const struct {
	struct span text;
	enum json_type type;
} valid[] = {
	{SPAN("null"), JSON_NULL},
	{SPAN("true"), JSON_TRUE},
	{SPAN("false"), JSON_FALSE},
	{SPAN("0"), JSON_NUMBER},
	{SPAN("-0"), JSON_NUMBER},
	{SPAN("-0.0e-0"), JSON_NUMBER},
	{SPAN("10"), JSON_NUMBER},
	{SPAN("1.5"), JSON_NUMBER},
	{SPAN("1e5"), JSON_NUMBER},
	{SPAN("1E+05"), JSON_NUMBER},
	{SPAN("0e99999999999999999999"), JSON_NUMBER},
	{SPAN("123456789012345678901234567890.123456789e-400"), JSON_NUMBER},
	{SPAN("\"\""), JSON_STRING},
	{SPAN("\"a\""), JSON_STRING},
	{SPAN("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\""), JSON_STRING},
	{SPAN("\"\\u0000\\u00e4\\uABCD\\uabcd\""), JSON_STRING},
	{SPAN("\"\\ud83d\\ude00\""), JSON_STRING},
	{SPAN("\"\\ud800\""), JSON_STRING},
	{SPAN("\"\\udc00\\ud800\""), JSON_STRING},
	{SPAN("\"\\ud800x\""), JSON_STRING},
	{SPAN("\"\x7f\""), JSON_STRING},
	{SPAN("\"/ ' # // /* */\""), JSON_STRING},
	{SPAN("\"\xc2\x80\xdf\xbf\""), JSON_STRING},
	{SPAN("\"\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf\""), JSON_STRING},
	{SPAN("\"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf\""), JSON_STRING},
	{SPAN("\"\xef\xbb\xbf\""), JSON_STRING},
	{SPAN("\"\xe2\x80\xa8\xe2\x80\xa9\""), JSON_STRING},
	{SPAN("\"a rather long string, to get eight bytes at a time\""), JSON_STRING},
	{SPAN("[]"), JSON_ARRAY},
	{SPAN("[ ]"), JSON_ARRAY},
	{SPAN("[1,\"]\",[2,[3]],{\"a\":[]},null,true,false]"), JSON_ARRAY},
	{SPAN("{}"), JSON_OBJECT},
	{SPAN("{\"a\":{\"b\":{}},\"}\":\"}\"}"), JSON_OBJECT},
};

/* {"a":TEXT} on the heap. */
static struct span as_member(struct span text)
{
	struct span head = SPAN("{\"a\":");
	char *p = malloc(head.n + text.n + 1);

	assert_non_null(p);
	memcpy(p, head.p, head.n);
	memcpy(p + head.n, text.p, text.n);
	p[head.n + text.n] = '}';
	return (struct span){p, head.n + text.n + 1};
}

static void test_valid_values(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(valid); i++) {
		struct span text = as_member(valid[i].text);
		struct json_object_reader r;
		struct json_member m;
		json_object_begin(&r, text);
		if (json_object_next(&r, &m) != 1 || json_object_next(&r, &m) != 0)
			fail_msg("%s: %s", valid[i].text.p, r.fault);
		assert_int_equal(m.value.type, valid[i].type);
		assert_true(span_equal(m.value.text, valid[i].text));
		assert_true(m.whole.p == text.p + 1 && m.whole.n == text.n - 2);
		assert_span(m.name.text, "\"a\"");
		free_copy(text);
	}
}

static const struct {
	struct span text;
	const char *fault;
} invalid[] = {
	/* words */
	{SPAN("nul"), "a word that is not true, false or null"},
	{SPAN("True"), "an unexpected character in place of a value"},
	{SPAN("truth"), "a word that is not true, false or null"},
	{SPAN("fals"), "a word that is not true, false or null"},
	{SPAN("nullx"), "neither a comma nor } after a member"},
	{SPAN("NaN"), "an unexpected character in place of a value"},
	{SPAN("nan"), "a word that is not true, false or null"},
	{SPAN("Infinity"), "an unexpected character in place of a value"},
	{SPAN("undefined"), "an unexpected character in place of a value"},
	{SPAN("\0"), "an unexpected character in place of a value"},
	{SPAN("\xc3\xa4"), "an unexpected character in place of a value"},
	/* numbers */
	{SPAN("01"), "a number with a leading zero"},
	{SPAN("-01"), "a number with a leading zero"},
	{SPAN("00"), "a number with a leading zero"},
	{SPAN("-"), "a number that lacks a digit"},
	{SPAN("--1"), "a number that lacks a digit"},
	{SPAN("-a"), "a number that lacks a digit"},
	{SPAN("+1"), "an unexpected character in place of a value"},
	{SPAN(".5"), "an unexpected character in place of a value"},
	{SPAN("1."), "a number that lacks a digit"},
	{SPAN("1.e1"), "a number that lacks a digit"},
	{SPAN("1e"), "a number that lacks a digit"},
	{SPAN("1e+"), "a number that lacks a digit"},
	{SPAN("1e1.5"), "neither a comma nor } after a member"},
	{SPAN("1.2.3"), "neither a comma nor } after a member"},
	{SPAN("0x10"), "neither a comma nor } after a member"},
	{SPAN("1_000"), "neither a comma nor } after a member"},
	{SPAN("1 000"), "neither a comma nor } after a member"},
	{SPAN("-Infinity"), "a number that lacks a digit"},
	{SPAN("\xef\xbc\x91"), "an unexpected character in place of a value"},
	/* strings */
	{SPAN("'a'"), "an unexpected character in place of a value"},
	{SPAN("\"a\nb\""), "a control character in a string"},
	{SPAN("\"a\tb\""), "a control character in a string"},
	{SPAN("\"\0\""), "a control character in a string"},
	{SPAN("\"\x1f\""), "a control character in a string"},
	{SPAN("\"seven b\x1f, eight\""), "a control character in a string"},
	{SPAN("\"\\x41\""), "an unknown escape in a string"},
	{SPAN("\"\\'\""), "an unknown escape in a string"},
	{SPAN("\"\\a\""), "an unknown escape in a string"},
	{SPAN("\"\\U0041\""), "an unknown escape in a string"},
	{SPAN("\"\\\0\""), "an unknown escape in a string"},
	{SPAN("\"\\\xc3\xa4\""), "an unknown escape in a string"},
	{SPAN("\"\\u\""), "a \\u without four hexadecimal digits"},
	{SPAN("\"\\u12\""), "a \\u without four hexadecimal digits"},
	{SPAN("\"\\u00g0\""), "a \\u without four hexadecimal digits"},
	{SPAN("\"\\u-123\""), "a \\u without four hexadecimal digits"},
	/* UTF-8: stray, cut, overlong, surrogates, too great */
	{SPAN("\"\x80\""), "bytes that are not UTF-8 in a string"},
	{SPAN("\"\xbf\""), "bytes that are not UTF-8 in a string"},
	{SPAN("\"\xc3\""), "bytes that are not UTF-8 in a string"},
	{SPAN("\"\xc3(\""), "bytes that are not UTF-8 in a string"},
	{SPAN("\"\xe2\x82\""), "bytes that are not UTF-8 in a string"},
	{SPAN("\"\xe2(\xa1\""), "bytes that are not UTF-8 in a string"},
	{SPAN("\"\xf0\x9f\x98\""), "bytes that are not UTF-8 in a string"},
	{SPAN("\"\xf0\x9f(\x80\""), "bytes that are not UTF-8 in a string"},
	{SPAN("\"\xc0\x80\""), "bytes that are not UTF-8 in a string"},
	{SPAN("\"\xc1\xbf\""), "bytes that are not UTF-8 in a string"},
	{SPAN("\"\xe0\x9f\xbf\""), "bytes that are not UTF-8 in a string"},
	{SPAN("\"\xf0\x8f\xbf\xbf\""), "bytes that are not UTF-8 in a string"},
	{SPAN("\"\xed\xa0\x80\""), "bytes that are not UTF-8 in a string"},
	{SPAN("\"\xed\xbf\xbf\""), "bytes that are not UTF-8 in a string"},
	{SPAN("\"\xf4\x90\x80\x80\""), "bytes that are not UTF-8 in a string"},
	{SPAN("\"\xf5\x80\x80\x80\""), "bytes that are not UTF-8 in a string"},
	{SPAN("\"\xf8\x88\x80\x80\x80\""), "bytes that are not UTF-8 in a string"},
	{SPAN("\"\xfe\""), "bytes that are not UTF-8 in a string"},
	{SPAN("\"\xff\""), "bytes that are not UTF-8 in a string"},
	/* arrays and objects */
	{SPAN("[,]"), "an unexpected character in place of a value"},
	{SPAN("[1,]"), "an unexpected character in place of a value"},
	{SPAN("[,1]"), "an unexpected character in place of a value"},
	{SPAN("[1,,2]"), "an unexpected character in place of a value"},
	{SPAN("[1 2]"), "neither a comma nor ] after an element"},
	{SPAN("[1;2]"), "neither a comma nor ] after an element"},
	{SPAN("[1:2]"), "neither a comma nor ] after an element"},
	{SPAN("[\"a\":1]"), "neither a comma nor ] after an element"},
	{SPAN("[1"), "neither a comma nor ] after an element"},
	{SPAN("[{]"), "no name in quotes where a member begins"},
	{SPAN("{\"a\":[}"), "an unexpected character in place of a value"},
	{SPAN("{\"a\":1,}"), "no name in quotes where a member begins"},
	{SPAN("{\"a\"}"), "no colon after the name of a member"},
	{SPAN("{1:2}"), "no name in quotes where a member begins"},
	{SPAN("{\"\xff\":2}"), "bytes that are not UTF-8 in a string"},
	{SPAN("]"), "an unexpected character in place of a value"},
	{SPAN("[]]"), "neither a comma nor } after a member"},
	{SPAN("[\x0c]"), "an unexpected character in place of a value"},
	{SPAN("[1\xc2\xa0]"), "neither a comma nor ] after an element"},
};

static void test_invalid_values(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(invalid); i++) {
		struct span text = as_member(invalid[i].text);
		struct json_object_reader r;
		int members;
		if (walk(text, &r, &members) != -EBADMSG)
			fail_msg("%s was accepted", invalid[i].text.p);
		assert_string_equal(r.fault, invalid[i].fault);
		/* A faulty value is not told; one with something behind it is. */
		if (members != !strcmp(r.fault, "neither a comma nor } after a member"))
			fail_msg("%s: %d members", invalid[i].text.p, members);
		assert_true(r.fault_offset <= text.n);
		free_copy(text);
	}
}

/* Every beginning of a valid text is invalid, and none is overread. */
static void test_cut_texts(void **state)
{
	static const struct span whole = SPAN("{\"a\\u00e4\\ud83d\\ude00\\n\":[-1.5e+3,{\"b\":true}"
					      ",false,null],\"\xc3\xa4\xe2\x82\xac"
					      "\xf0\x9f\x98\x80\":{}}");

	(void)state;
	for (size_t n = 0; n < whole.n; n++) {
		struct span text = copy_of((struct span){whole.p, n});
		struct json_object_reader r;
		int members;
		assert_int_equal(walk(text, &r, &members), -EBADMSG);
		free_copy(text);
	}
}

/* A special byte is seen wherever it stands among the eight that are looked at together. */
static void test_special_bytes_anywhere(void **state)
{
	(void)state;
	for (size_t at = 0; at < 40; at++) {
		for (int c = 0; c < 256; c++) {
			char inside[40];
			memset(inside, 'x', sizeof(inside));
			inside[at] = (char)c;
			char quoted[sizeof(inside) + 2] = {'"'};
			memcpy(quoted + 1, inside, sizeof(inside));
			quoted[sizeof(quoted) - 1] = '"';
			struct span text = as_member((struct span){quoted, sizeof(quoted)});
			struct json_object_reader r;
			int members;
			bool ok = c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
			assert_int_equal(walk(text, &r, &members), ok ? 0 : -EBADMSG);
			free_copy(text);
		}
	}
}

/* {"a":[[[…]]]} or {"a":{"a":…}} with so many levels in all. */
static struct span nested(size_t levels, struct span open, char close)
{
	struct span first = SPAN("{\"a\":");
	char *p = malloc(first.n + (levels - 1) * (open.n + 1) + 2), *to = p;

	assert_non_null(p);
	memcpy(to, first.p, first.n);
	to += first.n;
	for (size_t i = 1; i < levels; i++, to += open.n)
		memcpy(to, open.p, open.n);
	if (open.n > 1)
		*to++ = '1';
	for (size_t i = 1; i < levels; i++)
		*to++ = close;
	*to++ = '}';
	return (struct span){p, (size_t)(to - p)};
}

static void test_depth(void **state)
{
	static const struct {
		struct span open;
		char close;
	} kinds[] = {{SPAN("["), ']'}, {SPAN("{\"a\":"), '}'}};

	(void)state;
	for (size_t i = 0; i < COUNT(kinds); i++) {
		for (size_t levels = JSON_DEPTH_MAX - 1; levels <= JSON_DEPTH_MAX + 1; levels++) {
			struct span text = nested(levels, kinds[i].open, kinds[i].close);
			struct json_object_reader r;
			int members;
			int error = walk(text, &r, &members);
			assert_int_equal(error, levels > JSON_DEPTH_MAX ? -EBADMSG : 0);
			if (error)
				assert_string_equal(r.fault,
						    "too deep a nesting of arrays and objects");
			free_copy(text);
		}
	}
}

static void test_flags(void **state)
{
	static const struct {
		const char *text;
		bool escaped, newline;
	} cases[] = {
		{"{\"a\":\"b\"}", false, false},
		{"{\"a\":\"b\\n\"}", true, false},
		{"{\"a\": \"b c\" }", false, false},
		{"{\"a\":[1,2]}", false, false},
		{"{\"a\":[\"b c\",{\"d e\":1}]}", false, false},
		{"{ \"a\" : [1,2] }", false, false},
		{"{\"a\":[1, 2]}", false, false},
		{"{\"a\":[ ]}", false, false},
		{"{\"a\":{\"b\" :1}}", false, false},
		{"{\"a\":[[[\t]]]}", false, false},
		{"{\"a\":[1,\n2]}", false, true},
		{"{\"a\":1\r}", false, true},
		{"\n{\"a\":1}", false, true},
		{"{\"a\":1}\n", false, true},
		{"{\"a\":\"\\n\"}", true, false},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct json_object_reader r;
		struct json_member m;
		json_object_begin(&r, span_of(cases[i].text));
		assert_int_equal(json_object_next(&r, &m), 1);
		struct json_member end;
		assert_int_equal(json_object_next(&r, &end), 0);
		assert_int_equal(m.value.escaped, cases[i].escaped);
		assert_int_equal(r.newline, cases[i].newline);
	}
}

static void test_empty_span(void **state)
{
	struct json_object_reader r;
	int members;

	(void)state;
	assert_int_equal(walk((struct span){0}, &r, &members), -EBADMSG);
}

/* --- arrays --- */

static void test_array(void **state)
{
	static const char text[] = "{\"a\":[ 1 ,\"x,]\" ,[2,[ ]],{\"a\":[3]},null , true,false ]}";
	static const char *const elements[] = {"1",    "\"x,]\"", "[2,[ ]]", "{\"a\":[3]}",
					       "null", "true",    "false"};
	static const enum json_type types[] = {JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT,
					       JSON_NULL,   JSON_TRUE,   JSON_FALSE};
	struct json_object_reader r;
	struct json_array_reader a;
	struct json_member m;
	struct json_value v;

	(void)state;
	json_object_begin(&r, SPAN(text));
	assert_int_equal(json_object_next(&r, &m), 1);
	json_array_begin(&a, &m.value);
	for (size_t i = 0; i < COUNT(elements); i++) {
		assert_int_equal(json_array_next(&a, &v), 1);
		assert_span(v.text, elements[i]);
		assert_int_equal(v.type, types[i]);
	}
	assert_int_equal(json_array_next(&a, &v), 0);
	assert_int_equal(json_array_next(&a, &v), 0);
}

static void test_empty_arrays(void **state)
{
	static const char *const arrays[] = {"[]", "[ ]", "[\t\n]"};

	(void)state;
	for (size_t i = 0; i < COUNT(arrays); i++) {
		struct json_value array = {.text = span_of(arrays[i]), .type = JSON_ARRAY};
		struct json_array_reader a;
		struct json_value v;
		json_array_begin(&a, &array);
		assert_int_equal(json_array_next(&a, &v), 0);
	}
}

/* --- strings --- */

/* A valid string as the reader would hand it out. */
static struct json_value string(struct span text)
{
	return (struct json_value){
		.text = text,
		.type = JSON_STRING,
		.escaped = text.n && memchr(text.p, '\\', text.n) != NULL,
	};
}

static const struct {
	struct span text, plain;
} decodings[] = {
	{SPAN("\"\""), SPAN("")},
	{SPAN("\"abc\""), SPAN("abc")},
	{SPAN("\"\xc3\xa4\""), SPAN("\xc3\xa4")},
	{SPAN("\"\\u00e4\""), SPAN("\xc3\xa4")},
	{SPAN("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\""), SPAN("\"\\/\b\f\n\r\t")},
	{SPAN("\"a\\u0000b\""), SPAN("a\0b")},
	{SPAN("\"\\u007f\\u0080\\u07ff\\u0800\\uffff\""),
	 SPAN("\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf")},
	{SPAN("\"\\ud83d\\ude00\""), SPAN("\xf0\x9f\x98\x80")},
	{SPAN("\"\\uD800\\uDC00\\uDBFF\\uDFFF\""), SPAN("\xf0\x90\x80\x80\xf4\x8f\xbf\xbf")},
	{SPAN("\"\\ud800\""), SPAN("\xed\xa0\x80")},
	{SPAN("\"\\ud800x\""), SPAN("\xed\xa0\x80x")},
	{SPAN("\"\\ud800\\n\""), SPAN("\xed\xa0\x80\n")},
	{SPAN("\"\\ud800\\u0041\""), SPAN("\xed\xa0\x80"
					  "A")},
	{SPAN("\"\\udc00\\ud800\""), SPAN("\xed\xb0\x80\xed\xa0\x80")},
	{SPAN("\"\\udc00\\udc00\""), SPAN("\xed\xb0\x80\xed\xb0\x80")},
	{SPAN("\"\\ud800\\ud800\\udc00\""), SPAN("\xed\xa0\x80\xf0\x90\x80\x80")},
	{SPAN("\"m\\u0065ssageId\""), SPAN("messageId")},
};

static void test_decode(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(decodings); i++) {
		struct span copy = copy_of(decodings[i].text);
		struct json_value v = string(copy);
		char *out = malloc(copy.n);
		assert_non_null(out);
		size_t n = json_string_decode(&v, out);
		assert_true(span_equal((struct span){out, n}, decodings[i].plain));
		assert_true(json_string_is(&v, decodings[i].plain));
		free(out);
		free_copy(copy);
	}
}

static void test_same_and_hash(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(decodings); i++) {
		for (size_t k = 0; k < COUNT(decodings); k++) {
			struct json_value a = string(decodings[i].text),
					  b = string(decodings[k].text);
			bool same = span_equal(decodings[i].plain, decodings[k].plain);
			assert_int_equal(json_string_same(&a, &b), same);
			assert_int_equal(json_string_is(&a, decodings[k].plain), same);
			assert_int_equal(json_string_hash(&a, 7) == json_string_hash(&b, 7), same);
		}
	}
}

/* Escaped or not, the hash is the same at each length around the words it is made of, and the seed
 * counts. */
static void test_hash(void **state)
{
	(void)state;
	for (size_t n = 0; n < 40; n++) {
		char plain[64] = "\"", escaped[300] = "\"";
		size_t at = 1;
		for (size_t i = 0; i < n; i++) {
			plain[1 + i] = (char)('a' + i % 26);
			at += (size_t)snprintf(escaped + at, sizeof(escaped) - at, "\\u%04x",
					       (unsigned)('a' + i % 26));
		}
		plain[n + 1] = escaped[at] = '"';
		struct json_value a = string((struct span){plain, n + 2});
		struct json_value b = string((struct span){escaped, at + 1});
		assert_true(json_string_hash(&a, 1) == json_string_hash(&b, 1));
		assert_true(json_string_hash(&a, 1) != json_string_hash(&a, 2));
	}
}

static void test_raw(void **state)
{
	struct json_value v = string(SPAN("\"a\\n\""));

	(void)state;
	assert_span(json_string_raw(&v), "a\\n");
}

static void test_escape(void **state)
{
	static const struct {
		struct span plain;
		const char *escaped;
	} cases[] = {
		{SPAN(""), ""},
		{SPAN("abc"), "abc"},
		{SPAN("a\"b\\c/"), "a\\\"b\\\\c/"},
		{SPAN("\b\f\n\r\t"), "\\b\\f\\n\\r\\t"},
		{SPAN("\0\x01\x1f\x7f"), "\\u0000\\u0001\\u001f\x7f"},
		{SPAN("\xc3\xa4\xf0\x9f\x98\x80"), "\xc3\xa4\xf0\x9f\x98\x80"},
		{SPAN("a\xff"
		      "b"),
		 "a\xef\xbf\xbd"
		 "b"},
		{SPAN("\xc3"), "\xef\xbf\xbd"},
		{SPAN("\xed\x9f\xbf\xee\x80\x80"), "\xed\x9f\xbf\xee\x80\x80"},
		{SPAN("\xed\xa0\x80"), "\\ud800"},
		{SPAN("\xed\xbf\xbfx"), "\\udfffx"},
		{SPAN("\xed\xb0\x80\xed\xab\x8d"), "\\udc00\\udacd"},
		{SPAN("\xed\xa0\xbd\xed\xb8\x80"), "\\ud83d\\ude00"},
		{SPAN("\xed\xa0"), "\xef\xbf\xbd\xef\xbf\xbd"},
		{SPAN("\xff\xa0\x80"), "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
		{SPAN("\xed\xc0\x80"), "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
		{SPAN("\xed\xa0\xc0"), "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
		{SPAN("\xed\xa0\x7f"), "\xef\xbf\xbd\xef\xbf\xbd\x7f"},
		{SPAN("a longer text with a \n in it"), "a longer text with a \\n in it"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct span copy = copy_of(cases[i].plain);
		char *out = malloc(6 * copy.n + 1);
		assert_non_null(out);
		assert_span(((struct span){out, json_escape(copy, out)}), cases[i].escaped);
		/* What had to be replaced is what it says it can't carry. */
		const char *replaced = strstr(cases[i].escaped, "\xef\xbf\xbd");
		size_t good = json_escapable(copy);
		assert_int_equal(good == copy.n, replaced == NULL);
		if (replaced)
			assert_int_equal(json_escape((struct span){copy.p, good}, out),
					 replaced - cases[i].escaped);
		free(out);
		free_copy(copy);
	}
	assert_int_equal(json_escape((struct span){0}, NULL), 0);
	assert_int_equal(json_escapable((struct span){0}), 0);
}

static void utf8_is_that_of_rfc_3629(void **state)
{
	static const struct {
		const char *text;
		bool good;
	} cases[] = {
		{"", true},
		{"a\"\\\n\x7f", true},
		{"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", true},
		{"\xed\x9f\xbf\xee\x80\x80", true},
		{"\xed\xa0\x80", false}, /* a lone surrogate, and the last one */
		{"\xed\xbf\xbf", false},
		{"\xc0\x80", false},
		{"\xe0\x9f\xbf", false},
		{"\xf4\x90\x80\x80", false},
		{"a\xff", false},
		{"\xc3", false},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct span copy = copy_of((struct span){cases[i].text, strlen(cases[i].text)});
		assert_int_equal(json_is_utf8(copy), cases[i].good);
		free_copy(copy);
	}
	assert_true(json_is_utf8((struct span){0}));
}

/* Decodes a string, escapes what came out, and decodes that: both mean the same. */
static void assert_round_trip(struct span text)
{
	struct json_value v = string(text);
	char *plain = malloc(text.n), *again = malloc(6 * text.n + 2);

	assert_non_null(plain);
	assert_non_null(again);
	size_t n = json_string_decode(&v, plain);
	size_t again_n = json_escape((struct span){plain, n}, again + 1) + 2;
	again[0] = again[again_n - 1] = '"';
	struct json_value other = string((struct span){again, again_n});
	if (!json_string_same(&v, &other))
		fail_msg("%.*s became %.*s", (int)text.n, text.p, (int)again_n, again);
	free(plain);
	free(again);
}

static void every_escape_of_a_character_comes_back_as_the_same_one(void **state)
{
	(void)state;
	for (unsigned unit = 0; unit <= 0xffff; unit++) {
		char text[12];
		int n = snprintf(text, sizeof(text), "\"\\u%04x\"", unit);
		assert_round_trip((struct span){text, (size_t)n});
	}
}

static void what_a_string_means_survives_decoding_and_escaping(void **state)
{
	static const char *const parts[] = {
		"a",
		"\\n",
		"\\\"",
		"\\\\",
		"\\/",
		"\\u0000",
		"\xc3\xa4",
		"\xed\x9f\xbf",
		"\xf0\x9f\x98\x80",
		"\\u00e4",
		"\\ud800",
		"\\uDBFF",
		"\\udc00",
		"\\udfff",
		"\\ud83d\\ude00",
		"\\uffff",
		"u",
		"d800",
		"plain text",
	};
	uint32_t random = 1;

	(void)state;
	for (unsigned round = 0; round < 20000; round++) {
		char text[256] = "\"";
		for (unsigned left = random >> 29; left > 0; left--) {
			strcat(text, parts[random_below(&random, COUNT(parts))]);
		}
		random_next(&random);
		assert_round_trip(span_of(strcat(text, "\"")));
	}
}

/* Whatever the bytes, what is made of them is inside of the room and a string to the reader. */
static void any_bytes_become_a_valid_string(void **state)
{
	static const char likely[] = "\"\\\0\x1f\x7f\x80\xbf\xc2\xe0\xed\xa0\xef\xf0\xf4\xff";
	uint32_t random = 1;

	(void)state;
	for (unsigned round = 0; round < 20000; round++) {
		char bytes[16];
		struct json_object_reader r;
		int members;
		size_t n = random >> 28;
		for (size_t i = 0; i < n; i++) {
			bytes[i] = likely[random_below(&random, COUNT(likely))];
		}
		random_next(&random);
		char *out = malloc(6 * n + 1);
		assert_non_null(out);
		struct span copy = copy_of((struct span){bytes, n});
		size_t out_n = json_escape(copy, out);
		assert_true(out_n <= 6 * n);
		char object[256];
		int object_n = snprintf(object, sizeof(object), "{\"\":\"%.*s\"}", (int)out_n, out);
		assert_int_equal(object_n, out_n + 7);
		if (walk((struct span){object, (size_t)object_n}, &r, &members) != 0)
			fail_msg("round %u: %s in %s", round, r.fault, object);
		free_copy(copy);
		free(out);
	}
}

/* --- numbers --- */

static void test_integer(void **state)
{
	static const struct {
		const char *text;
		bool whole;
		int64_t value;
	} cases[] = {
		{"0", true, 0},
		{"-0", true, 0},
		{"0.0", true, 0},
		{"0e5", true, 0},
		{"0e99999999999999999999", true, 0},
		{"0e-99999999999999999999", true, 0},
		{"1", true, 1},
		{"1.0", true, 1},
		{"1e0", true, 1},
		{"10e-1", true, 1},
		{"0.1e1", true, 1},
		{"1e3", true, 1000},
		{"1E+3", true, 1000},
		{"1.5e1", true, 15},
		{"1.50e1", true, 15},
		{"100.00", true, 100},
		{"-17", true, -17},
		{"0.001e0000003", true, 1},
		{"9223372036854775807", true, INT64_MAX},
		{"-9223372036854775808", true, INT64_MIN},
		{"9223372036854775807.000", true, INT64_MAX},
		{"9223372036854775808", false, 0},
		{"-9223372036854775809", false, 0},
		{"18446744073709551616", false, 0},
		{"99999999999999999999999999", false, 0},
		{"1e18", true, INT64_C(1000000000000000000)},
		{"1e19", false, 0},
		{"1e400", false, 0},
		{"1e99999999999999999999999", false, 0},
		{"1e-99999999999999999999999", false, 0},
		{"1.5", false, 0},
		{"1e-1", false, 0},
		{"0.999", false, 0},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct span copy = copy_of(span_of(cases[i].text));
		struct json_value v = {.text = copy, .type = JSON_NUMBER};
		int64_t value = 0;
		if (json_number_integer(&v, INT64_MIN, INT64_MAX, &value) != cases[i].whole)
			fail_msg("%s", cases[i].text);
		assert_true(value == cases[i].value);
		free_copy(copy);
	}
}

/* Four hundred digits: 1 followed by zeros is brought down by its exponent, 1 followed by ones is
 * not. */
static void test_integer_of_400_digits(void **state)
{
	char zeros[410], ones[410];
	int64_t value;

	(void)state;
	memset(zeros, '0', 400);
	zeros[0] = '1';
	memcpy(zeros + 400, "e-399", 5);
	memset(ones, '1', 400);
	memcpy(ones + 400, "e-399", 5);
	struct json_value v = {.text = {zeros, 405}, .type = JSON_NUMBER};
	assert_true(json_number_integer(&v, 0, 10, &value));
	assert_int_equal(value, 1);
	v.text.p = ones;
	assert_false(json_number_integer(&v, 0, 10, &value));
	v.text.n = 400;
	assert_false(json_number_integer(&v, INT64_MIN, INT64_MAX, &value));
}

static void test_integer_range(void **state)
{
	struct json_value v = {.text = SPAN("5"), .type = JSON_NUMBER};
	int64_t value = 42;

	(void)state;
	assert_true(json_number_integer(&v, 5, 5, &value));
	assert_int_equal(value, 5);
	assert_false(json_number_integer(&v, 6, 9, &value));
	assert_false(json_number_integer(&v, 1, 4, &value));
	assert_int_equal(value, 5);
}

/* The kinds of brackets are kept in words of 64. */
static void brackets_beyond_the_64th_are_what_they_are(void **state)
{
	enum { N = 100 };
	struct buf text = {0};
	struct json_object_reader r;
	int members;

	(void)state;
	for (int kind = 0; kind < 2; kind++) {
		buf_addf(&text, "{\"a\":");
		for (int i = 0; i < N; i++)
			buf_addf(&text, (i < 64) == kind ? "[" : "{\"b\":");
		buf_addf(&text, "1");
		for (int i = N; i-- > 0;)
			buf_addf(&text, (i < 64) == kind ? "]" : "}");
		buf_addf(&text, "}");
		if (walk(buf_span(&text), &r, &members) != 0)
			fail_msg("%s at %zu", r.fault, r.fault_offset);
		assert_int_equal(members, 1);
		buf_take(&text, buf_len(&text));
	}
	buf_release(&text);
}

/* Made by another implementation, which agrees with the vector of the authors for SipHash-2-4. */
static void the_hash_is_siphash_1_3(void **state)
{
	static const struct {
		uint64_t seed;
		const char *text;
		uint64_t hash;
	} cases[] = {
		{0, "", UINT64_C(0x6b3c89e238a4996e)},
		{42, "a", UINT64_C(0x35216eedc48d584d)},
		{UINT64_C(0x0123456789abcdef), "12345678", UINT64_C(0x900545cb3914b856)},
		{UINT64_MAX, "123456789abcdefg", UINT64_C(0xa308b757144a2939)},
		{7, "abcdefghijklmnopqrstuvw", UINT64_C(0xc81048168c9ad291)},
	};
	char escaped[200];

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		assert_true(json_bytes_hash(span_of(cases[i].text), cases[i].seed) ==
			    cases[i].hash);
		int n = snprintf(escaped, sizeof(escaped), "\"");
		for (const char *c = cases[i].text; *c; c++)
			n += snprintf(escaped + n, sizeof(escaped) - (size_t)n, "\\u%04x",
				      (unsigned)*c);
		n += snprintf(escaped + n, sizeof(escaped) - (size_t)n, "\"");
		struct json_value v = string((struct span){escaped, (size_t)n});
		assert_true(json_string_hash(&v, cases[i].seed) == cases[i].hash);
	}
}

static void pairs_of_surrogates_are_one_character(void **state)
{
	static const struct {
		const char *text, *want;
	} cases[] = {
		{"\"\\ud800\\udc00\"", "\xf0\x90\x80\x80"},
		{"\"\\ud83d\\ude00\"", "\xf0\x9f\x98\x80"},
		{"\"\\udbff\\udfff\"", "\xf4\x8f\xbf\xbf"},
		{"\"\\ud800\\ue000\"", "\xed\xa0\x80\xee\x80\x80"}, /* none */
		{"\"\\udc00\\udc00\"", "\xed\xb0\x80\xed\xb0\x80"},
		{"\"\\ud7ff\\udc00\"", "\xed\x9f\xbf\xed\xb0\x80"},
	};
	char out[40];

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct json_value v = string(span_of(cases[i].text));
		size_t n = json_string_decode(&v, out);
		assert_span(((struct span){out, n}), cases[i].want);
	}
}

static void strings_with_nul_characters_differ_behind_them(void **state)
{
	struct json_value a = string(SPAN("\"a\\u0000b\"")), b = string(SPAN("\"a\\u0000c\"")),
			  c = string(SPAN("\"a\\u0000\""));

	(void)state;
	assert_true(json_string_same(&a, &a));
	assert_false(json_string_same(&a, &b));
	assert_false(json_string_same(&a, &c));
	assert_false(json_string_same(&c, &a));
	assert_false(json_string_is(&a, SPAN("a\0c")));
	assert_true(json_string_is(&a, SPAN("a\0b")));
	static const struct span names[] = {SPAN("x"), SPAN("ab"), SPAN("abc")};
	struct json_value name = string(SPAN("\"\\u0061b\""));
	assert_int_equal(json_string_find(&name, names, 3), 1);
	assert_int_equal(json_string_find(&name, names, 1), 1); /* none of these */
	assert_int_equal(json_string_find(&a, names, 3), 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_texts),
		cmocka_unit_test(test_valid_values),
		cmocka_unit_test(test_invalid_values),
		cmocka_unit_test(test_cut_texts),
		cmocka_unit_test(test_special_bytes_anywhere),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_flags),
		cmocka_unit_test(test_empty_span),
		cmocka_unit_test(test_array),
		cmocka_unit_test(test_empty_arrays),
		cmocka_unit_test(test_decode),
		cmocka_unit_test(test_same_and_hash),
		cmocka_unit_test(test_hash),
		cmocka_unit_test(test_raw),
		cmocka_unit_test(test_escape),
		cmocka_unit_test(every_escape_of_a_character_comes_back_as_the_same_one),
		cmocka_unit_test(what_a_string_means_survives_decoding_and_escaping),
		cmocka_unit_test(any_bytes_become_a_valid_string),
		cmocka_unit_test(test_integer),
		cmocka_unit_test(test_integer_of_400_digits),
		cmocka_unit_test(test_integer_range),
		cmocka_unit_test(utf8_is_that_of_rfc_3629),
		cmocka_unit_test(brackets_beyond_the_64th_are_what_they_are),
		cmocka_unit_test(the_hash_is_siphash_1_3),
		cmocka_unit_test(pairs_of_surrogates_are_one_character),
		cmocka_unit_test(strings_with_nul_characters_differ_behind_them),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
