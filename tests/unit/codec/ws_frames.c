/* WebSocket frames of a client: messages, however they are cut and wherever the bytes are; control
 * frames between their fragments; what is against the protocol; and the bound of a message. */
#include "../test.h"

#include <stdio.h>

#include "codec/ws_frames.h"

enum { MAX = 1000 };

static void add(struct buf *out, unsigned head, struct span payload)
{
	static const char KEY[4] = "\x01\x80\xff\x5a";
	char bytes[10] = {(char)head};
	size_t n = 2;

	if (payload.n < 126) {
		bytes[1] = (char)(0x80 | payload.n);
	} else {
		bytes[1] = (char)(0x80 | 126);
		bytes[2] = (char)(payload.n >> 8);
		bytes[3] = (char)payload.n;
		n = 4;
	}
	buf_add(out, bytes, n);
	buf_add(out, KEY, 4);
	for (size_t i = 0; i < payload.n; i++)
		buf_add(out, (char[]){(char)(payload.p[i] ^ KEY[i % 4])}, 1);
}

/* What a reader says of these bytes, given in pieces of this size. */
static void read_all(struct span bytes, size_t piece, struct buf *told)
{
	static const char *const NAMES[] = {"",     "text", "binary", "too long",
					    "ping", "pong", "close",  "fault"};
	struct ws_reader *r = ws_reader_new(MAX);
	struct span payload;
	enum ws_event event = WS_NEED_MORE;
	int code;

	for (size_t at = 0; at < bytes.n && event != WS_FAULT && event != WS_CLOSE; at += piece) {
		size_t n = bytes.n - at < piece ? bytes.n - at : piece;
		struct span copy = copy_of((struct span){bytes.p + at, n}), left = copy;
		do {
			code = 0;
			payload = (struct span){0};
			event = ws_next(r, &left, &payload, &code);
			if (event == WS_NEED_MORE)
				break;
			buf_addf(told, "%s", NAMES[event]);
			if (event == WS_CLOSE)
				buf_addf(told, " %d", code);
			if (event != WS_FAULT && event != WS_TOO_LONG)
				buf_addf(told, " [%.*s%s]", (int)(payload.n < 20 ? payload.n : 20),
					 payload.p ? payload.p : "", payload.n > 20 ? "..." : "");
			buf_addf(told, "; ");
		} while (event != WS_FAULT && event != WS_CLOSE);
		if (event == WS_NEED_MORE) {
			assert_int_equal(left.n, 0);
			ws_reader_rest(r); /* wherever the bytes were cut */
		}
		assert_true(ws_reader_kept(r) <= MAX);
		free_copy(copy);
	}
	ws_reader_free(r);
}

static void assert_told(struct span bytes, const char *want)
{
	for (size_t piece = 1; piece <= bytes.n; piece = piece < 20 ? piece + 1 : piece * 2) {
		struct buf told = {0};
		read_all(bytes, piece, &told);
		if (!span_equal(buf_span(&told), span_of(want)))
			fail_msg("in pieces of %zu: %.*s instead of %s", piece, (int)buf_len(&told),
				 buf_start(&told), want);
		buf_release(&told);
	}
}

static void messages_come_whole(void **state)
{
	struct buf b = {0};

	(void)state;
	add(&b, 0x81, SPAN("one"));
	add(&b, 0x81, SPAN(""));
	add(&b, 0x01, SPAN("t"));
	add(&b, 0x00, SPAN(""));
	add(&b, 0x89, SPAN("there?"));
	add(&b, 0x00, SPAN("w"));
	add(&b, 0x8a, SPAN(""));
	add(&b, 0x80, SPAN("o"));
	add(&b, 0x82, SPAN("bytes"));
	add(&b, 0x88,
	    SPAN("\x03\xe9"
		 "bye"));
	add(&b, 0x81, SPAN("behind the end"));
	assert_told(buf_span(&b), "text [one]; text []; ping [there?]; pong []; text [two]; "
				  "binary [bytes]; close 1001 [bye]; ");
	buf_release(&b);
}

static void close_frames(void **state)
{
	static const struct {
		struct span payload;
		const char *want;
	} CASES[] = {
		{{"", 0}, "close 1005 []; "},         {{"\x03\xe8", 2}, "close 1000 []; "},
		{{"\x0f\xa0", 2}, "close 4000 []; "}, {{"x", 1}, "fault; "},
		{{"\x03\xed", 2}, "fault; "},                                       /* 1005 */
		{{"\x03\xee", 2}, "fault; "},                                       /* 1006 */
		{{"\x03\xec", 2}, "fault; "},                                       /* 1004 */
		{{"\x00\x01", 2}, "fault; "},         {{"\x07\xd0", 2}, "fault; "}, /* 2000 */
		{{"\x03\xe8\xff", 3}, "fault; "},                                   /* no UTF-8 */
	};

	(void)state;
	for (size_t i = 0; i < COUNT(CASES); i++) {
		struct buf b = {0};
		add(&b, 0x88, CASES[i].payload);
		assert_told(buf_span(&b), CASES[i].want);
		buf_release(&b);
	}
}

static void what_is_against_the_protocol(void **state)
{
	static const struct span CASES[] = {
		{"\x81\x01x", 3},                    /* no mask */
		{"\xc1\x81\0\0\0\0x", 7},            /* compressed */
		{"\x83\x81\0\0\0\0x", 7},            /* a reserved opcode */
		{"\x8b\x81\0\0\0\0x", 7},            /* a reserved control frame */
		{"\x80\x81\0\0\0\0x", 7},            /* a fragment of nothing */
		{"\x09\x81\0\0\0\0x", 7},            /* a ping in fragments */
		{"\x89\xfe\0\x7e\0\0\0\0", 8},       /* a long ping */
		{"\x81\xfe\0\x05\0\0\0\0hello", 13}, /* a length in too many bytes */
		{"\x81\xff\0\0\0\0\0\0\0\x05\0\0\0\0hello", 19},
		{"\x81\xff\x80\0\0\0\0\0\0\0\0\0\0\0", 14}, /* of 2^63 */
		{"\x01\x81\0\0\0\0x\x81\x81\0\0\0\0y", 14}, /* a message within another */
	};

	(void)state;
	for (size_t i = 0; i < COUNT(CASES); i++)
		assert_told(CASES[i], "fault; ");
}

static void a_message_that_is_too_long_is_skipped(void **state)
{
	static char text[2 * MAX];
	struct buf b = {0};

	(void)state;
	memset(text, 'x', sizeof(text));
	add(&b, 0x81, (struct span){text, MAX});
	add(&b, 0x81, (struct span){text, MAX + 1});
	add(&b, 0x81, SPAN("next"));
	add(&b, 0x01, (struct span){text, MAX - 1});
	add(&b, 0x00, (struct span){text, 2});
	add(&b, 0x89, SPAN("p"));
	add(&b, 0x80, (struct span){text, sizeof(text)});
	add(&b, 0x81, SPAN("last"));
	assert_told(buf_span(&b),
		    "text [xxxxxxxxxxxxxxxxxxxx...]; too long; text [next]; too long; "
		    "ping [p]; text [last]; ");
	buf_release(&b);
}

static void heads_and_close_frames_are_written(void **state)
{
	char head[WS_HEAD_MAX];
	struct buf b = {0};

	(void)state;
	assert_int_equal(ws_head(head, WS_OPCODE_TEXT, 125), 2);
	assert_memory_equal(head, "\x81\x7d", 2);
	assert_int_equal(ws_head(head, WS_OPCODE_TEXT, 126), 4);
	assert_memory_equal(head, "\x81\x7e\x00\x7e", 4);
	assert_int_equal(ws_head(head, WS_OPCODE_TEXT, 65536), 10);
	assert_memory_equal(head, "\x81\x7f\0\0\0\0\0\1\0\0", 10);
	ws_add_close(&b, WS_POLICY, SPAN("why"));
	ws_add_close(&b, WS_NO_CODE, (struct span){0});
	ws_add_pong(&b, SPAN("p"));
	assert_int_equal(buf_len(&b), 12);
	assert_memory_equal(buf_span(&b).p, "\x88\x05\x03\xf0why\x88\x00\x8a\x01p", 12);
	buf_release(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(messages_come_whole),
		cmocka_unit_test(close_frames),
		cmocka_unit_test(what_is_against_the_protocol),
		cmocka_unit_test(a_message_that_is_too_long_is_skipped),
		cmocka_unit_test(heads_and_close_frames_are_written),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
