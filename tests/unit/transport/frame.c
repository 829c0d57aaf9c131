/* The frame writer: headers of every length, masks, and cutting a queue into batches of whole
 * frames. */
#include "../test.h"

#include "../randomness.h"
#include "transport/frame.h"

struct parsed {
	unsigned first;
	size_t length, header;
	const unsigned char *key, *payload;
};

/* Takes the frame at offset apart, as a server would. */
static struct parsed parse(const struct buf *queue, size_t offset)
{
	const unsigned char *p = (const unsigned char *)buf_span(queue).p + offset;
	size_t extra = (p[1] & 0x7f) < 126 ? 0 : (p[1] & 0x7f) == 126 ? 2 : 8;
	struct parsed f = {.first = p[0], .length = p[1] & 0x7f, .header = 2 + extra + 4};

	assert_true(p[1] & 0x80);
	if (extra)
		f.length = 0;
	for (size_t i = 0; i < extra; i++)
		f.length = f.length << 8 | p[2 + i];
	f.key = p + 2 + extra;
	f.payload = f.key + 4;
	return f;
}

static void fill(char *p, size_t n, unsigned seed)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (char)(i * 31 + seed);
}

/* Every length around the borders, cut into head and body at every odd place. */
static void lengths_and_masks(void **state)
{
	static const size_t lengths[] = {0,  1,  2,   3,   7,   8,     9,     15,
					 16, 17, 125, 126, 127, 65535, 65536, 70001};

	(void)state;
	for (size_t i = 0; i < COUNT(lengths); i++) {
		for (size_t cut = 0; cut <= lengths[i] && cut < 20; cut++) {
			struct buf queue = {0};
			char *text = malloc(lengths[i] + 1);
			fill(text, lengths[i], (unsigned)i);
			struct span head = copy_of((struct span){text, cut});
			struct span body = copy_of((struct span){text + cut, lengths[i] - cut});
			frame_append(&queue, FRAME_TEXT, head, body);
			struct parsed f = parse(&queue, 0);
			assert_int_equal(f.first, 0x81);
			assert_int_equal(f.length, lengths[i]);
			assert_int_equal(buf_len(&queue), f.header + f.length);
			for (size_t j = 0; j < f.length; j++)
				assert_int_equal(f.payload[j] ^ f.key[j % 4],
						 (unsigned char)text[j]);
			free_copy(head);
			free_copy(body);
			free(text);
			buf_release(&queue);
		}
	}
}

/* The shortest form of each length, as RFC 6455 demands. */
static void shortest_lengths(void **state)
{
	static const struct {
		size_t length, header;
	} cases[] = {{0, 6}, {125, 6}, {126, 8}, {65535, 8}, {65536, 14}};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct buf queue = {0};
		char *text = calloc(1, cases[i].length + 1);
		frame_append(&queue, FRAME_TEXT, (struct span){text, cases[i].length}, SPAN(""));
		assert_int_equal(parse(&queue, 0).header, cases[i].header);
		free(text);
		buf_release(&queue);
	}
}

static void ping(void **state)
{
	struct buf queue = {0};

	(void)state;
	frame_append(&queue, FRAME_PING, SPAN(""), SPAN(""));
	assert_int_equal(buf_len(&queue), 6);
	assert_int_equal(parse(&queue, 0).first, 0x89);
	buf_release(&queue);
}

/* More keys than one fill of the pool holds: no key comes back, and no byte of it stays the same.
 */
static void keys_differ(void **state)
{
	enum { KEYS = 3000 };
	static uint32_t keys[KEYS];
	struct buf queue = {0};
	size_t same = 0, offset = 0;

	(void)state;
	for (int i = 0; i < KEYS; i++) {
		frame_append(&queue, FRAME_PING, SPAN(""), SPAN(""));
		memcpy(&keys[i], parse(&queue, offset).key, sizeof(keys[i]));
		offset += 6;
		for (int j = 0; j < i; j++)
			same += keys[j] == keys[i];
	}
	assert_true(same <= 2); /* by chance: 1 in 1000 that there is one at all */
	buf_release(&queue);
}

static void make_many(void)
{
	static struct buf queue;

	buf_release(&queue);
	for (int i = 0; i < 3000; i++)
		frame_append(&queue, FRAME_PING, SPAN(""), SPAN(""));
}

static void without_randomness_there_are_no_keys(void **state)
{
	(void)state;
	assert_true(aborts_without_randomness(make_many));
	make_many();
}

static void batches(void **state)
{
	struct buf queue = {0};
	char text[300] = "";

	(void)state;
	assert_int_equal(frame_batch(&queue, 100), 0);
	frame_append(&queue, FRAME_TEXT, (struct span){text, 10}, SPAN(""));  /* 16 bytes */
	frame_append(&queue, FRAME_TEXT, (struct span){text, 200}, SPAN("")); /* 208 */
	frame_append(&queue, FRAME_TEXT, (struct span){text, 0}, SPAN(""));   /* 6 */
	assert_int_equal(frame_batch(&queue, 0), 16); /* at least one, however long */
	assert_int_equal(frame_batch(&queue, 16), 16);
	assert_int_equal(frame_batch(&queue, 223), 16);
	assert_int_equal(frame_batch(&queue, 224), 224);
	assert_int_equal(frame_batch(&queue, 229), 224);
	assert_int_equal(frame_batch(&queue, 230), 230);
	assert_int_equal(frame_batch(&queue, 100000), 230);
	buf_take(&queue, 16);
	assert_int_equal(frame_batch(&queue, 100), 208);
	buf_take(&queue, 208);
	assert_int_equal(frame_batch(&queue, 100), 6);
	buf_release(&queue);
}

/* A frame longer than 64 KiB goes alone, its length read back right. */
static void batch_of_one_long_frame(void **state)
{
	enum { LONG = 100000 };
	struct buf queue = {0};
	char *text = calloc(1, LONG);

	(void)state;
	frame_append(&queue, FRAME_TEXT, (struct span){text, LONG}, SPAN(""));
	frame_append(&queue, FRAME_TEXT, SPAN("next"), SPAN(""));
	assert_int_equal(frame_batch(&queue, 16384), LONG + 14);
	free(text);
	buf_release(&queue);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lengths_and_masks),
		cmocka_unit_test(shortest_lengths),
		cmocka_unit_test(ping),
		cmocka_unit_test(keys_differ),
		cmocka_unit_test(without_randomness_there_are_no_keys),
		cmocka_unit_test(batches),
		cmocka_unit_test(batch_of_one_long_frame),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
