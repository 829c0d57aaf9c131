/* Bytes into HTTP requests: cut anywhere, what is refused, and what is left behind. */
#include "../test.h"

#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "gateway/http_message.h"

static struct {
	char told[4096];
	enum http_verdict on_head, on_request;
} w;

static void __attribute__((format(printf, 1, 2))) tell(const char *format, ...)
{
	size_t n = strlen(w.told);
	va_list args;

	va_start(args, format);
	vsnprintf(w.told + n, sizeof(w.told) - n, format, args);
	va_end(args);
}

static enum http_verdict on_head(void *owner, const struct http_request *r)
{
	(void)owner;
	tell("head%s;", r->expects_100 ? " expects" : "");
	return w.on_head;
}

static enum http_verdict on_request(void *owner, const struct http_request *r)
{
	size_t n;
	struct span x = http_request_header(r, "x", &n);

	(void)owner;
	tell("%d %.*s?%.*s %s%s x=%zu:%.*s %.*s;", (int)r->verb, (int)r->path.n, r->path.p,
	     (int)r->query.n, r->query.n ? r->query.p : "", r->keep_alive ? "stays" : "ends",
	     r->upgrade ? " upgrade" : "", n, (int)x.n, x.n ? x.p : "", (int)r->body.n,
	     r->body.n ? r->body.p : "");
	return w.on_request;
}

static void on_fault(void *owner, int status, const char *why)
{
	(void)owner;
	assert_true(strlen(why) > 0);
	tell("fault %d;", status);
}

static const struct http_message_ops ops = {
	.head = on_head, .request = on_request, .fault = on_fault};

static struct http_message *begin(void)
{
	w.told[0] = '\0';
	w.on_head = w.on_request = HTTP_GO_ON;
	return http_message_new(&ops, NULL, 100);
}

/* In pieces of this length. */
static void feed(struct http_message *m, const char *text, size_t piece)
{
	struct span rest = span_of(text);

	while (rest.n) {
		struct span one = {rest.p, rest.n < piece ? rest.n : piece};
		struct span copy = copy_of(one);
		http_message_feed(m, copy);
		free_copy(copy);
		rest = (struct span){rest.p + one.n, rest.n - one.n};
	}
}

static void same_however_cut(void **state)
{
	static const struct {
		const char *in, *told;
	} rows[] = {
		{"GET /a?b HTTP/1.1\r\nHost: h\r\nX:  y \r\n\r\n", "0 /a?b stays x=1:y ;"},
		{"GET / HTTP/1.0\r\n\r\n", "0 /? ends x=0: ;"},
		{"HEAD / HTTP/1.1\r\nHost:\r\nConnection: close\r\nx:\r\nx: z\r\n\r\n",
		 "1 /? ends x=2: ;"},
		{"POST /r HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n"
		 "Host: h\r\n\r\n",
		 "head;2 /r? stays x=0: abc;0 /? stays x=0: ;"},
		{"POST /r HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", "2 /r? stays x=0: ;"},
		{"POST /r HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: "
		 "chunked\r\n\r\n2\r\nab\r\n1;q\r\nc"
		 "\r\n0\r\nX: y\r\n\r\n",
		 "head;2 /r? stays x=0: abc;"},
		{"PUT http://h:1/p?q HTTP/1.1\r\nHost: h\r\n\r\n", "3 /p?q stays x=0: ;"},
		{"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		 "0 /ws? stays upgrade x=0: ;"},
		{"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 101\r\n\r\n", "fault 413;"},
		{"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n",
		 "head expects;"},
		{"GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n", "fault 400;"},
		{"GET / HTTP/1.1\r\nHost: h\r\n X: y\r\n\r\n", "fault 400;"},
		{"FLY / HTTP/1.1\r\nHost: h\r\n\r\n", "fault 501;"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		for (size_t piece = 1; piece < 200; piece = piece * 2 + 1) {
			struct http_message *m = begin();
			feed(m, rows[i].in, piece);
			if (strcmp(w.told, rows[i].told) != 0)
				fail_msg("%s in pieces of %zu: %s", rows[i].in, piece, w.told);
			http_message_free(m);
		}
	}
}

/* A body whose chunk has a line of this many bytes before it, and trailers of that many behind. */
static char *chunked(size_t line, size_t trailers)
{
	static const char head[] =
		"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
	size_t size = sizeof(head) + line + trailers + 32;
	char *text = malloc(size), *at = text;

	assert_non_null(text);
	at += sprintf(at, "%s1;", head);
	at = (char *)memset(at, 'x', line - 4) + line - 4;
	at += sprintf(at, "\r\na\r\n0\r\nX:");
	at = (char *)memset(at, 'y', trailers - 6) + trailers - 6;
	sprintf(at, "\r\n\r\n");
	return text;
}

static void bounds_of_lines_are_the_same_however_cut(void **state)
{
	static const struct {
		size_t line, trailers;
		const char *told;
	} rows[] = {
		{256, 100, "head;2 /? stays x=0: a;"},
		{257, 100, "head;fault 400;"},
		{5000, 100, "head;fault 400;"},
		{10, HTTP_HEAD_MAX, "head;2 /? stays x=0: a;"},
		{10, HTTP_HEAD_MAX + 1, "head;fault 431;"},
	};
	static const size_t pieces[] = {1, 7, 255, 256, 257, 20000};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		char *text = chunked(rows[i].line, rows[i].trailers);
		for (size_t j = 0; j < COUNT(pieces); j++) {
			struct http_message *m = begin();
			feed(m, text, pieces[j]);
			if (strcmp(w.told, rows[i].told) != 0)
				fail_msg("row %zu in pieces of %zu: %s", i, pieces[j], w.told);
			http_message_free(m);
		}
		free(text);
	}
}

static void held_it_keeps_what_comes(void **state)
{
	struct http_message *m = begin();
	const char *both = "GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n";

	(void)state;
	w.on_request = HTTP_HOLD;
	assert_int_equal(http_message_feed(m, span_of(both)), HTTP_HOLD);
	assert_string_equal(w.told, "0 /1? stays x=0: ;");
	assert_false(http_message_is_in_head(m));
	assert_int_equal(http_message_feed(m, span_of("GET /3")), HTTP_HOLD);
	assert_int_equal(http_message_resume(m), HTTP_HOLD);
	assert_string_equal(w.told, "0 /1? stays x=0: ;0 /2? stays x=0: ;");
	assert_int_equal(http_message_resume(m), HTTP_GO_ON);
	assert_true(http_message_is_in_head(m));
	http_message_free(m);
}

static void what_follows_an_upgrade_is_the_callers(void **state)
{
	struct http_message *m = begin();
	struct buf rest = {0};

	(void)state;
	w.on_request = HTTP_STOP;
	assert_int_equal(http_message_feed(m, span_of("GET / HTTP/1.1\r\nHost: h\r\n\r\nrest")),
			 HTTP_STOP);
	assert_int_equal(http_message_feed(m, span_of(" and more")), HTTP_STOP);
	http_message_rest(m, &rest);
	assert_span(buf_span(&rest), "rest and more");
	buf_release(&rest);
	http_message_free(m);
}

static void stopped_it_keeps_nothing(void **state)
{
	struct http_message *m = begin();

	(void)state;
	feed(m, "GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /", 1000);
	http_message_stop(m);
	assert_int_equal(http_message_feed(m, span_of("anything")), HTTP_STOP);
	assert_int_equal(http_message_kept(m), 0);
	http_message_free(m);

	m = begin();
	w.on_head = HTTP_STOP; /* a body that is not wanted */
	feed(m, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1", 1000);
	assert_string_equal(w.told, "head;");
	assert_int_equal(http_message_kept(m), 0);
	http_message_free(m);
}

static void between_requests_it_owns_nothing(void **state)
{
	struct http_message *m = begin();

	(void)state;
	for (int i = 0; i < 3; i++) {
		feed(m, "GET / HTTP/1.1\r\nHost: h\r\n\r\n", 7);
		assert_int_equal(http_message_kept(m), 0);
		assert_false(http_message_is_in_head(m));
	}
	feed(m, "G", 1);
	assert_true(http_message_is_in_head(m));
	http_message_free(m);
}

int main(void)
{
	const struct CMUnitTest cases[] = {
		cmocka_unit_test(same_however_cut),
		cmocka_unit_test(bounds_of_lines_are_the_same_however_cut),
		cmocka_unit_test(held_it_keeps_what_comes),
		cmocka_unit_test(what_follows_an_upgrade_is_the_callers),
		cmocka_unit_test(stopped_it_keeps_nothing),
		cmocka_unit_test(between_requests_it_owns_nothing),
	};

	return cmocka_run_group_tests(cases, NULL, NULL);
}
