#include "clients/line.h"

#include "../test.h"

/* A receiver that writes down what it is told, as "line|line|!prefix's length|", and answers from a
 * script. */
struct receiver {
	struct line_receiver to;
	struct line_reader *reader;
	char seen[4096];
	size_t n, calls;
	size_t hold_every; /* every so many calls LINE_PAUSE; 0: never */
	size_t gone_at;    /* at this call free the reader; 0: never */
	size_t prefix;     /* length of the last line that was too long */
};

static void write_down(struct receiver *v, struct span text, bool too_long)
{
	if (too_long)
		v->seen[v->n++] = '!';
	else
		memcpy(v->seen + v->n, text.p, text.n);
	v->n += too_long ? 0 : text.n;
	v->seen[v->n++] = '|';
	v->seen[v->n] = '\0';
	assert_true(v->n < sizeof(v->seen) / 2);
}

static enum line_verdict verdict(struct receiver *v)
{
	v->calls++;
	if (v->calls == v->gone_at) {
		line_fini(v->reader);
		free(v->reader);
		return LINE_GONE;
	}
	return v->hold_every && v->calls % v->hold_every == 0 ? LINE_PAUSE : LINE_MORE;
}

static struct receiver *receiver_of(const struct line_reader *r)
{
	return (struct receiver *)(void *)((const char *)r->to - offsetof(struct receiver, to));
}

static enum line_verdict on_line(struct line_reader *r, struct span line)
{
	write_down(receiver_of(r), line, false);
	return verdict(receiver_of(r));
}

static enum line_verdict on_too_long(struct line_reader *r, struct span prefix)
{
	struct receiver *v = receiver_of(r);

	v->prefix = prefix.n;
	write_down(v, prefix, true);
	return verdict(v);
}

static void begin(struct line_reader *r, struct receiver *v, size_t limit)
{
	*v = (struct receiver){.to = {.line = on_line, .too_long = on_too_long, .limit = limit},
			       .reader = r};
	line_init(r, &v->to);
}

static enum line_verdict feed(struct line_reader *r, struct span bytes)
{
	struct span copy = copy_of(bytes);
	enum line_verdict answer = line_feed(r, copy);

	free_copy(copy);
	return answer;
}

/* Streams with a limit of 8, what is seen of them, and what is seen once the stream ends. */
static const struct {
	struct span stream;
	const char *seen, *finished;
} streams[] = {
	{SPAN(""), "", ""},
	{SPAN("a"), "", "a|"},
	{SPAN("a\n"), "a|", "a|"},
	{SPAN("a\nb"), "a|", "a|b|"},
	{SPAN("a\nb\n"), "a|b|", "a|b|"},
	{SPAN("\n"), "|", "|"},
	{SPAN("\n\n\r\n"), "|||", "|||"},
	{SPAN("a\r\nb\r\n"), "a|b|", "a|b|"},
	{SPAN("a\r"), "", "a|"},
	{SPAN("a\rb\n"), "a\rb|", "a\rb|"},
	{SPAN("a\r\r\n"), "a\r|", "a\r|"},
	{SPAN("12345678\n"), "12345678|", "12345678|"},
	{SPAN("12345678\r\n"), "12345678|", "12345678|"},
	{SPAN("12345678"), "", "12345678|"},
	{SPAN("12345678\r"), "", "12345678|"},
	{SPAN("123456789\n"), "!|", "!|"},
	{SPAN("123456789\r\n"), "!|", "!|"},
	{SPAN("123456789"), "!|", "!|"},
	{SPAN("12345678\rx"), "!|", "!|"},
	{SPAN("12345678\r\r\n"), "!|", "!|"},
	{SPAN("123456789012345678901234567890\nb\n"), "!|b|", "!|b|"},
	{SPAN("a\n123456789\n\n1234567890\r\nb"), "a|!||!|", "a|!||!|b|"},
	{SPAN("123456789\n123456789\n"), "!|!|", "!|!|"},
	{SPAN("123456789\n12345678\n"), "!|12345678|", "!|12345678|"},
};

/* What is seen does not depend on where the reads ended. */
static void test_streams_in_pieces(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(streams); i++) {
		struct span stream = streams[i].stream;
		for (size_t piece = 1; piece <= stream.n + 1; piece++) {
			struct line_reader r;
			struct receiver v;
			begin(&r, &v, 8);
			for (size_t at = 0; at < stream.n; at += piece) {
				size_t n = stream.n - at < piece ? stream.n - at : piece;
				assert_int_equal(feed(&r, (struct span){stream.p + at, n}),
						 LINE_MORE);
			}
			assert_string_equal(v.seen, streams[i].seen);
			assert_int_equal(line_finish(&r), LINE_MORE);
			assert_string_equal(v.seen, streams[i].finished);
			assert_int_equal(line_kept(&r), 0);
			line_fini(&r);
		}
	}
}

/* Nor on how often the receiver holds: each resume hands on until it holds again. */
static void test_streams_with_holds(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(streams); i++) {
		struct span stream = streams[i].stream;
		for (size_t piece = 1; piece <= stream.n + 1; piece++) {
			struct line_reader r;
			struct receiver v;
			begin(&r, &v, 8);
			v.hold_every = 1;
			for (size_t at = 0; at < stream.n; at += piece) {
				size_t n = stream.n - at < piece ? stream.n - at : piece;
				size_t calls = v.calls;
				enum line_verdict answer =
					feed(&r, (struct span){stream.p + at, n});
				assert_true(v.calls - calls <= 1);
				assert_int_equal(answer, v.calls > calls ? LINE_PAUSE : LINE_MORE);
				while (answer == LINE_PAUSE)
					answer = line_resume(&r);
			}
			assert_string_equal(v.seen, streams[i].seen);
			line_finish(&r);
			assert_string_equal(v.seen, streams[i].finished);
			line_fini(&r);
		}
	}
}

static void test_held_reader_only_keeps(void **state)
{
	struct line_reader r;
	struct receiver v;

	(void)state;
	begin(&r, &v, 8);
	v.hold_every = 1;
	assert_int_equal(feed(&r, SPAN("a\nb\nc")), LINE_PAUSE);
	assert_string_equal(v.seen, "a|");
	assert_int_equal(line_kept(&r), 3);
	assert_int_equal(feed(&r, SPAN("d\ne")), LINE_PAUSE);
	assert_int_equal(feed(&r, (struct span){0}), LINE_PAUSE);
	assert_int_equal(line_finish(&r), LINE_PAUSE);
	assert_string_equal(v.seen, "a|");
	assert_int_equal(line_resume(&r), LINE_PAUSE);
	assert_string_equal(v.seen, "a|b|");
	v.hold_every = 0;
	assert_int_equal(line_resume(&r), LINE_MORE);
	assert_string_equal(v.seen, "a|b|cd|");
	assert_int_equal(line_finish(&r), LINE_MORE);
	assert_string_equal(v.seen, "a|b|cd|e|");
	line_fini(&r);
}

/* Held at a line that was kept from an earlier read: the rest of this read is kept behind it. */
static void test_hold_at_a_completed_line(void **state)
{
	struct line_reader r;
	struct receiver v;

	(void)state;
	begin(&r, &v, 8);
	v.hold_every = 1;
	feed(&r, SPAN("a"));
	assert_int_equal(feed(&r, SPAN("b\ncd\ne")), LINE_PAUSE);
	assert_string_equal(v.seen, "ab|");
	assert_int_equal(line_kept(&r), 4);
	assert_int_equal(line_resume(&r), LINE_PAUSE);
	assert_int_equal(line_resume(&r), LINE_MORE);
	assert_int_equal(line_kept(&r), 1);
	assert_int_equal(feed(&r, SPAN("f\n")), LINE_PAUSE);
	assert_string_equal(v.seen, "ab|cd|ef|");
	line_fini(&r);
}

/* A hold at a line that is too long and has not ended: the rest of it is skipped all the same. */
static void test_hold_while_skipping(void **state)
{
	struct line_reader r;
	struct receiver v;

	(void)state;
	begin(&r, &v, 8);
	v.hold_every = 1;
	assert_int_equal(feed(&r, SPAN("123456789")), LINE_PAUSE);
	assert_int_equal(line_kept(&r), 0);
	assert_int_equal(feed(&r, SPAN("xyz\nb\n")), LINE_PAUSE);
	assert_string_equal(v.seen, "!|");
	assert_int_equal(line_resume(&r), LINE_PAUSE);
	assert_string_equal(v.seen, "!|b|");
	assert_int_equal(line_resume(&r), LINE_MORE);
	line_fini(&r);
}

/* The receiver frees the reader: from a line in place, from a kept one, from one too long, at the
 * end. The sanitizers and valgrind judge. */
static void test_gone(void **state)
{
	static const struct {
		struct span first, second;
	} cases[] = {
		{SPAN("a\nb\n"), SPAN("")},         {SPAN("a"), SPAN("b\nc\n")},
		{SPAN("123456789"), SPAN("")},      {SPAN("1234"), SPAN("56789")},
		{SPAN("1234"), SPAN("56789\nb\n")},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct line_reader *r = malloc(sizeof(*r));
		struct receiver v;
		assert_non_null(r);
		begin(r, &v, 8);
		v.gone_at = 1;
		enum line_verdict answer = feed(r, cases[i].first);
		if (answer == LINE_MORE)
			answer = feed(r, cases[i].second);
		assert_int_equal(answer, LINE_GONE);
		assert_int_equal(v.calls, 1);
	}
}

static void test_gone_from_resume_and_finish(void **state)
{
	struct receiver v;
	struct line_reader *r = malloc(sizeof(*r));

	(void)state;
	assert_non_null(r);
	begin(r, &v, 8);
	v.hold_every = 1;
	v.gone_at = 2;
	assert_int_equal(feed(r, SPAN("a\nb\nc\n")), LINE_PAUSE);
	assert_int_equal(line_resume(r), LINE_GONE);

	r = malloc(sizeof(*r));
	assert_non_null(r);
	begin(r, &v, 8);
	v.gone_at = 1;
	assert_int_equal(feed(r, SPAN("a")), LINE_MORE);
	assert_int_equal(line_finish(r), LINE_GONE);
	assert_string_equal(v.seen, "a|");
}

static void test_prefix_of_a_long_line(void **state)
{
	static const struct span pieces[] = {SPAN("123"), SPAN("456"), SPAN("789")};
	struct line_reader r;
	struct receiver v;

	(void)state;
	begin(&r, &v, 8);
	for (size_t i = 0; i < COUNT(pieces); i++) {
		assert_int_equal(v.calls, 0);
		feed(&r, pieces[i]);
	}
	/* Told as soon as it is known, once. */
	assert_int_equal(v.calls, 1);
	assert_int_equal(v.prefix, 9);
	feed(&r, SPAN("more\n"));
	assert_int_equal(v.calls, 1);
	line_fini(&r);
}

static void test_memory(void **state)
{
	enum { LIMIT = 65536, FEED = 4096 };
	static char bytes[FEED];
	struct line_reader r;
	struct receiver v;

	(void)state;
	memset(bytes, 'x', sizeof(bytes));
	begin(&r, &v, LIMIT);
	/* Whole lines in place cost nothing. */
	feed(&r, SPAN("a\nb\n"));
	assert_null(r.kept.memory);
	/* A line that never ends costs its limit and a feed at most, then nothing. */
	for (size_t i = 0; i < 4 * (LIMIT / FEED); i++) {
		line_feed(&r, (struct span){bytes, sizeof(bytes)});
		assert_true(line_kept(&r) <= LIMIT);
		assert_true(buf_size(&r.kept) <= 2 * (LIMIT + FEED));
	}
	assert_null(r.kept.memory);
	/* Nor does a line that was completed. */
	feed(&r, SPAN("\nab"));
	assert_non_null(r.kept.memory);
	feed(&r, SPAN("cd\n"));
	assert_null(r.kept.memory);
	assert_string_equal(v.seen, "a|b|!|abcd|");
	feed(&r, SPAN("e"));
	line_finish(&r);
	assert_null(r.kept.memory);
}

/* Bytes that were searched are not searched again, whether the line grows byte by byte or is
 * resumed again and again: what is known stays known. */
static void test_searched(void **state)
{
	struct line_reader r;
	struct receiver v;

	(void)state;
	begin(&r, &v, 1000);
	for (size_t i = 1; i <= 500; i++) {
		feed(&r, SPAN("x"));
		assert_int_equal(r.searched, i);
		assert_int_equal(line_resume(&r), LINE_MORE);
		assert_int_equal(r.searched, i);
	}
	v.hold_every = 1;
	assert_int_equal(feed(&r, SPAN("\n")), LINE_PAUSE);
	assert_int_equal(r.searched, 0);
	feed(&r, SPAN("a\nb"));
	assert_int_equal(r.searched, 0);
	assert_int_equal(line_resume(&r), LINE_PAUSE);
	assert_int_equal(line_resume(&r), LINE_MORE);
	assert_int_equal(r.searched, 1);
	line_fini(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_streams_in_pieces),
		cmocka_unit_test(test_streams_with_holds),
		cmocka_unit_test(test_held_reader_only_keeps),
		cmocka_unit_test(test_hold_at_a_completed_line),
		cmocka_unit_test(test_hold_while_skipping),
		cmocka_unit_test(test_gone),
		cmocka_unit_test(test_gone_from_resume_and_finish),
		cmocka_unit_test(test_prefix_of_a_long_line),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_searched),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
