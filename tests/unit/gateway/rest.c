/* REST requests into lines, and answers into bodies; percent-encoding; whose a Host and an Origin
 * are. */
#include "../test.h"

#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "gateway/origin.h"
#include "gateway/rest.h"
#include "codec/uri.h"

static void requests_become_lines(void **state)
{
	static const struct {
		enum http_verb verb;
		const char *path, *query, *body, *line; /* or the error's beginning */
	} rows[] = {
		{HTTP_VERB_GET, "/record/a", "", "", "{\"op\":\"get\",\"key\":\"a\"}"},
		{HTTP_VERB_HEAD, "/record/a%2Fb//+%00", "timeoutMs=5", "",
		 "{\"op\":\"get\",\"timeoutMs\":5,\"key\":\"a/b//+\\u0000\"}"},
		{HTTP_VERB_DELETE, "/record/", "", "", "{\"op\":\"delete\",\"key\":\"\"}"},
		{HTTP_VERB_POST, "/record", "", "{\"value\":[1, 2],\"x\":1,\"key\":\"a\"}",
		 "{\"op\":\"set\",\"value\":[1, 2],\"key\":\"a\"}"},
		{HTTP_VERB_POST, "/record", "", "{\"partialUpdate\":true,\"key\":\"a\"}",
		 "{\"op\":\"patch\",\"key\":\"a\"}"},
		{HTTP_VERB_POST, "/record/atomic", "", "{\"key\":\"a\",\"increment\":-1.5}",
		 "{\"op\":\"increment\",\"key\":\"a\",\"value\":-1.5}"},
		{HTTP_VERB_GET, "/records", "startKey=a%252Fb&endKey=c%252520&limit=7&no=%zz", "",
		 "{\"op\":\"range\",\"key\":\"a/b\",\"endKey\":\"c%20\",\"limit\":7}"},
		{HTTP_VERB_GET, "/hpkvd/watch", "pattern=b*&key=a&key=c&apiKey=secret", "",
		 "{\"op\":\"subscribe\",\"keys\":[\"a\",\"c\"],\"patterns\":[\"b*\"]}"},
		{HTTP_VERB_GET, "/hpkvd/status", "top=true", "",
		 "{\"op\":\"status\",\"top\":true}"},
		{HTTP_VERB_POST, "/query", "", "{\"q\":1}",
		 "{\"op\":\"query\",\"body\":{\"q\":1}}"},
		{HTTP_VERB_GET, "/record/%", "", "", "the key in the path is not percent"},
		{HTTP_VERB_GET, "/record/%ff", "", "", "the key in the path is not UTF-8"},
		{HTTP_VERB_GET, "/records", "startKey=a", "", "endKey is missing"},
		{HTTP_VERB_GET, "/records", "startKey=a&startKey=a", "", "startKey is given twice"},
		{HTTP_VERB_POST, "/record", "", "{", "the body is not a JSON object"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct buf line = {0}, allow = {0};
		struct rest_fault fault = {.text = ""};
		enum rest_kind kind;
		struct http_request r = {.verb = rows[i].verb,
					 .path = copy_of(span_of(rows[i].path)),
					 .query = copy_of(span_of(rows[i].query)),
					 .body = copy_of(span_of(rows[i].body))};
		assert_int_equal(rest_find(r.verb, r.path, &kind, &allow), 0);
		if (rest_line(kind, &r, &line, &fault))
			assert_span(buf_span(&line), rows[i].line);
		else if (strncmp(fault.text, rows[i].line, strlen(rows[i].line)) != 0)
			fail_msg("%s?%s: %s", rows[i].path, rows[i].query, fault.text);
		buf_release(&line);
		free_copy(r.path);
		free_copy(r.query);
		free_copy(r.body);
	}
}

static void answers_become_bodies(void **state)
{
	static const struct {
		enum rest_kind kind;
		const char *line, *body;
		int status;
		long retry;
	} rows[] = {
		{REST_GET, "{\"code\":200,\"key\":\"a\",\"value\":\"\\u0000\"}\n",
		 "{\"key\":\"a\",\"value\":\"\\u0000\"}", 200, -1},
		{REST_INCREMENT, "{\"newValue\":1e400,\"code\":200}\n",
		 "{\"newValue\":1e400,\"result\":1e400}", 200, -1},
		{REST_INCREMENT, "{\"code\":400,\"error\":\"x\"}\n", "{\"error\":\"x\"}", 400, -1},
		{REST_GET, "{\"code\":200}\n", "{}", 200, -1},
		{REST_GET, "{\"code\":204}\n", "{}", 200, -1},
		{REST_GET, "{\"code\":101,\"error\":\"x\"}\n", "{\"error\":\"x\"}", 502, -1},
		{REST_GET, "{\"code\":99999999999,\"error\":\"x\"}\n", "{\"error\":\"x\"}", 502,
		 -1},
		{REST_GET,
		 "{\"code\":503,\"error\":\"x\",\"reason\":\"upstream_down\",\"executed\":\"no\","
		 "\"retryAfterMs\":70}\n",
		 "{\"code\":503,\"error\":\"x\",\"reason\":\"upstream_down\",\"executed\":\"no\","
		 "\"retryAfterMs\":70}",
		 503, 70},
		{REST_STATUS, "{\"code\":200,\"pid\":1}\n", "{\"code\":200,\"pid\":1}", 200, -1},
		{REST_GET, "{\"type\":\"connection\"}\n", "", 0, -1},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct buf body = {0};
		struct rest_answer a = rest_answer(rows[i].kind, span_of(rows[i].line), &body);
		assert_int_equal(a.status, rows[i].status);
		assert_int_equal(a.retry_after_ms, rows[i].retry);
		assert_span(buf_span(&body), rows[i].body);
		buf_release(&body);
	}
}

static void what_is_encoded_again(void **state)
{
	static const struct {
		const char *text;
		bool again;
	} rows[] = {{"a%20b", true},  {"a", false},     {"", false},      {"%2", false},
		    {"a%20 ", false}, {"a/%20", false}, {"a%20+", false}, {"%41-_.!~*'()", true}};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct span copy = copy_of(span_of(rows[i].text));
		if (uri_is_encoded_again(copy) != rows[i].again)
			fail_msg("%s", rows[i].text);
		free_copy(copy);
	}
}

static void origins_are_listed(void **state)
{
	static const char *const wrong[] = {
		"*",    "null",        "a",          "https://",    "https://a/",
		"://a", "https://a:x", "https://a:", "https://u@a", "1 2"};
	const char *why;
	struct span bad;
	struct origins *o = origins_new(" https://a.b\thttp://[::1]:3000 ", &why, &bad);

	(void)state;
	assert_true(origins_allow(o, SPAN("https://A.b")));
	assert_true(origins_allow(o, SPAN("http://[::1]:3000")));
	assert_false(origins_allow(o, SPAN("https://a.b:443")));
	assert_false(origins_allow(o, SPAN("https://a")));
	assert_false(origins_allow(o, SPAN("")));
	assert_false(origins_allow(NULL, SPAN("https://a.b")));
	origins_free(o);
	for (size_t i = 0; i < COUNT(wrong); i++) {
		if (origins_new(wrong[i], &why, &bad))
			fail_msg("%s", wrong[i]);
		assert_true(bad.n > 0 && strlen(why) > 0);
	}
}

static void hosts_are_this_machines_own(void **state)
{
	static const struct {
		const char *host;
		bool local;
	} rows[] = {{"localhost", true},
		    {"LOCALHOST:1", true},
		    {"127.0.0.1", true},
		    {"127.9.9.9:7480", true},
		    {"[::1]:1", true},
		    {"localhost.", true},
		    {"", false},
		    {":1", false},
		    {"a", false},
		    {"128.0.0.1", false},
		    {"::1", false},
		    {"[::1", false},
		    {"[::2]", false},
		    {"localhost:1a", false},
		    {"localhost.a", false},
		    {"127.0.0.1.a", false},
		    {"[]", false},
		    {"[", false}};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct span copy = copy_of(span_of(rows[i].host));
		if (origin_is_local(copy) != rows[i].local)
			fail_msg("%s", rows[i].host);
		free_copy(copy);
	}
}

int main(void)
{
	const struct CMUnitTest cases[] = {
		cmocka_unit_test(requests_become_lines),
		cmocka_unit_test(answers_become_bodies),
		cmocka_unit_test(what_is_encoded_again),
		cmocka_unit_test(origins_are_listed),
		cmocka_unit_test(hosts_are_this_machines_own),
	};

	return cmocka_run_group_tests(cases, NULL, NULL);
}
