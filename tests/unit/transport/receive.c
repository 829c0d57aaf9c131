/* What a service sends, taken apart: the same items however its bytes are cut, and a refusal of all
 * that it must not send, at the header where that will do. */
#include "../test.h"

#include <errno.h>
#include <stdio.h>

#include "transport/receive.h"

enum { MAX = 1000 };

/* A frame as a server makes it. */
static void add_frame(struct buf *to, unsigned first, const char *payload, size_t n)
{
	unsigned char head[4] = {(unsigned char)first, (unsigned char)n};
	size_t size = 2;

	if (n > 125) {
		head[1] = 126;
		head[2] = (unsigned char)(n >> 8);
		head[3] = (unsigned char)n;
		size = 4;
	}
	buf_add(to, head, size);
	buf_add(to, payload, n);
}

static void add_text(struct buf *to, unsigned first, const char *payload)
{
	add_frame(to, first, payload, strlen(payload));
}

static void put(struct receive *r, struct span bytes)
{
	if (bytes.n) {
		memcpy(receive_room(r, bytes.n), bytes.p, bytes.n);
		receive_grew(r, bytes.n);
	}
}

/* What came out, as text: "m:hello " for a message, "M" if it was truncated, "b" if it is binary.
 */
static int drain(struct receive *r, struct buf *told)
{
	static const char letters[] = {'m', 'i', 'o', 'c'};
	struct receive_item item;
	int got;

	while ((got = receive_next(r, &item)) > 0) {
		char letter = letters[item.kind];
		if (item.kind == RECEIVE_MESSAGE)
			letter = item.truncated ? 'M' : item.binary ? 'b' : 'm';
		buf_addf(told, "%c:", letter);
		if (item.kind == RECEIVE_CLOSE)
			buf_addf(told, "%d:", item.code);
		buf_add(told, item.text.p, item.text.n);
		buf_addf(told, " ");
	}
	return got;
}

static void check(struct span bytes, size_t cut, const char *expected)
{
	struct receive r;
	struct buf told = {0};

	receive_init(&r, MAX);
	for (size_t at = 0; at < bytes.n; at += cut) {
		size_t n = bytes.n - at < cut ? bytes.n - at : cut;
		struct span piece = copy_of((struct span){bytes.p + at, n});
		put(&r, piece);
		free_copy(piece);
		assert_int_equal(drain(&r, &told), 0);
	}
	assert_span(buf_span(&told), expected);
	buf_release(&told);
	receive_release(&r);
}

static void the_same_however_it_is_cut(void **state)
{
	struct buf bytes = {0};
	char text[301] = "";

	(void)state;
	memset(text, 'x', 300);
	add_text(&bytes, 0x81, "one");
	add_text(&bytes, 0x82, "two");
	add_text(&bytes, 0x81, "");
	add_text(&bytes, 0x01, "a ");
	add_text(&bytes, 0x89, "ping");
	add_text(&bytes, 0x00, "");
	add_text(&bytes, 0x8a, "7");
	add_text(&bytes, 0x00, "mess");
	add_text(&bytes, 0x80, "age");
	add_text(&bytes, 0x01, "");
	add_text(&bytes, 0x80, "");
	add_frame(&bytes, 0x81, text, 300);
	add_text(&bytes, 0x8a, "");
	add_frame(&bytes, 0x89, text, 125);
	add_text(&bytes, 0x88,
		 "\x03\xf5"
		 "later");
	char expected[600];
	snprintf(expected, sizeof(expected),
		 "m:one b:two m: i:ping o:7 m:a message m: m:%s o: i:%.125s c:1013:later ", text,
		 text);
	for (size_t cut = 1; cut <= buf_len(&bytes); cut++)
		check(buf_span(&bytes), cut, expected);
	buf_release(&bytes);
}

/* Of one that is too long the beginning is kept, in one frame or in several, and what follows it is
 * not lost. */
static void too_long(void **state)
{
	struct buf bytes = {0};
	char text[2 * MAX + 1], expected[5 * MAX];

	(void)state;
	memset(text, 'y', sizeof(text) - 1);
	text[2 * MAX] = '\0';
	add_frame(&bytes, 0x81, text, MAX);
	add_frame(&bytes, 0x81, text, MAX + 1);
	add_frame(&bytes, 0x01, text, MAX - 1);
	add_text(&bytes, 0x89, "p");
	add_frame(&bytes, 0x80, text, 2 * MAX);
	add_text(&bytes, 0x81, "next");
	snprintf(expected, sizeof(expected), "m:%.*s M:%.*s i:p M:%.*s m:next ", MAX, text, MAX,
		 text, MAX, text);
	for (size_t cut = 1; cut < 20; cut++)
		check(buf_span(&bytes), cut, expected);
	check(buf_span(&bytes), 100000, expected);
	buf_release(&bytes);
}

struct broken {
	struct span bytes;
	int code;
	const char *fault;
};

#define BROKEN(text, code, fault)                                                                  \
	{                                                                                          \
		SPAN(text), code, fault                                                            \
	}

/* Each at its last byte, none of which is of a payload that the fault is not in. */
static void refused_at_the_header(void **state)
{
	static const struct broken cases[] = {
		BROKEN("\x81\x81", 1002, "it is masked"),
		BROKEN("\x88\x80", 1002, "it is masked"),
		BROKEN("\xc1\x01", 1002, "it has reserved bits"),
		BROKEN("\x99\x01", 1002, "it has reserved bits"),
		BROKEN("\x83\x05", 1002, "its opcode is 3"),
		BROKEN("\x87\x05", 1002, "its opcode is 7"),
		BROKEN("\x8b\x05", 1002, "its opcode is 11"),
		BROKEN("\x8f\x05", 1002, "its opcode is 15"),
		BROKEN("\x09\x01", 1002, "it is a part of a control frame"),
		BROKEN("\x08\x02", 1002, "it is a part of a control frame"),
		BROKEN("\x89\x7e\x00\x7e", 1002, "it is a control frame of 126 bytes"),
		BROKEN("\x88\x7f\x00\x00\x01\x00\x00\x00\x00\x00", 1002,
		       "it is a control frame of 1099511627776 bytes"),
		BROKEN("\x80\x01", 1002, "it continues no message"),
		BROKEN("\x00\x01", 1002, "it continues no message"),
		BROKEN("\x01\x01"
		       "a\x81\x01",
		       1002, "it begins a message within another"),
		BROKEN("\x01\x00\x02\x01", 1002, "it begins a message within another"),
		BROKEN("\x81\x7f\x80\x00\x00\x00\x00\x00\x00\x00", 1002,
		       "the highest bit of its length is set"),
		BROKEN("\x81\x7f\x00\x00\x01\x00\x00\x00\x00\x00", 1009,
		       "its message has 1099511627776 bytes or more"),
		BROKEN("\x02\x7f\x00\x00\x00\x00\x04\x00\x00\x01", 1009,
		       "its message has 67108865 bytes or more"),
		BROKEN("\x01\x02"
		       "aa\x80\x7f\x00\x00\x00\x00\x03\xff\xff\xff",
		       1009, "its message has 67108865 bytes or more"),
		BROKEN("\x01\x02"
		       "aa\x80\x7f\x7f\xff\xff\xff\xff\xff\xff\xff",
		       1009, "its message has 9223372036854775809 bytes or more"),
		BROKEN("\x88\x01\x03", 1002, "it is a close frame with half a code"),
		BROKEN("\x88\x02\x00\x00", 1002, "it is a close frame with the code 0"),
		BROKEN("\x88\x02\x03\xe7", 1002, "it is a close frame with the code 999"),
		BROKEN("\x88\x02\x03\xec", 1002, "it is a close frame with the code 1004"),
		BROKEN("\x88\x02\x03\xed", 1002, "it is a close frame with the code 1005"),
		BROKEN("\x88\x02\x03\xee", 1002, "it is a close frame with the code 1006"),
		BROKEN("\x88\x02\x03\xf7", 1002, "it is a close frame with the code 1015"),
		BROKEN("\x88\x02\x13\x88", 1002, "it is a close frame with the code 5000"),
		BROKEN("\x88\x02\xff\xff", 1002, "it is a close frame with the code 65535"),
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct receive r;
		struct buf told = {0};
		struct receive_item item;

		receive_init(&r, MAX);
		put(&r, (struct span){cases[i].bytes.p, cases[i].bytes.n - 1});
		assert_int_equal(drain(&r, &told), 0);
		put(&r, (struct span){cases[i].bytes.p + cases[i].bytes.n - 1, 1});
		assert_int_equal(drain(&r, &told), -EPROTO);
		assert_string_equal(r.fault, cases[i].fault);
		assert_int_equal(r.fault_code, cases[i].code);
		assert_int_equal(buf_len(&told), 0);
		put(&r, SPAN("\x81\x01x")); /* nothing behind it is believed */
		assert_int_equal(receive_next(&r, &item), -EPROTO);
		buf_release(&told);
		receive_release(&r);
	}
}

/* A message may be this many times as long as what is kept of it, or as this many bytes. */
static void how_long_a_message_may_be(void **state)
{
	static const struct {
		size_t max_message;
		struct span longest, longer;
	} cases[] = {
		{MAX, SPAN("\x81\x7f\x00\x00\x00\x00\x04\x00\x00\x00"),
		 SPAN("\x81\x7f\x00\x00\x00\x00\x04\x00\x00\x01")},
		{8 << 20, SPAN("\x81\x7f\x00\x00\x00\x00\x08\x00\x00\x00"),
		 SPAN("\x81\x7f\x00\x00\x00\x00\x08\x00\x00\x01")},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		for (int longer = 0; longer < 2; longer++) {
			struct receive r;
			struct receive_item item;
			receive_init(&r, cases[i].max_message);
			put(&r, longer ? cases[i].longer : cases[i].longest);
			assert_int_equal(receive_next(&r, &item), longer ? -EPROTO : 0);
			receive_release(&r);
		}
	}
}

static void close_codes_that_may_come(void **state)
{
	static const int codes[] = {1000, 1003, 1007, 1011, 1012, 1013, 1014, 1016, 3000, 4999};

	(void)state;
	for (size_t i = 0; i < COUNT(codes); i++) {
		struct buf bytes = {0};
		char code[3] = {(char)(codes[i] >> 8), (char)codes[i]}, expected[20];
		add_frame(&bytes, 0x88, code, 2);
		snprintf(expected, sizeof(expected), "c:%d: ", codes[i]);
		check(buf_span(&bytes), 1, expected);
		buf_release(&bytes);
	}
	check(SPAN("\x88\x00"), 1, "c:1005: ");
}

/* Lengths written longer than they need be are no harm. */
static void long_ways_to_say_a_length(void **state)
{
	(void)state;
	check(SPAN("\x81\x7e\x00\x01x\x81\x7f\x00\x00\x00\x00\x00\x00\x00\x02yz"), 1, "m:x m:yz ");
}

/* Neither a flood of small frames nor a large message leaves its memory behind. */
static void memory_goes_back(void **state)
{
	struct receive r;
	struct receive_item item;
	struct buf told = {0};
	char *text = calloc(1, 1 << 20);

	(void)state;
	receive_init(&r, 1 << 20);
	put(&r, SPAN("\x81\x7f\x00\x00\x00\x00\x00\x10\x00\x00"));
	put(&r, (struct span){text, 1 << 20});
	assert_int_equal(receive_next(&r, &item), 1);
	assert_int_equal(item.text.n, 1 << 20);
	receive_room(&r, 100);
	assert_true(buf_size(&r.bytes) < 1 << 18);
	put(&r, SPAN("\x01\x7f\x00\x00\x00\x00\x00\x08\x00\x00"));
	put(&r, (struct span){text, 1 << 19});
	put(&r, SPAN("\x80\x00"));
	assert_int_equal(drain(&r, &told), 0);
	receive_room(&r, 100);
	assert_true(buf_size(&r.message) < 1 << 18);
	free(text);
	buf_release(&told);
	receive_release(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_same_however_it_is_cut),
		cmocka_unit_test(too_long),
		cmocka_unit_test(refused_at_the_header),
		cmocka_unit_test(how_long_a_message_may_be),
		cmocka_unit_test(close_codes_that_may_come),
		cmocka_unit_test(long_ways_to_say_a_length),
		cmocka_unit_test(memory_goes_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
