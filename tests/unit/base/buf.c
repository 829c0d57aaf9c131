#include "base/buf.h"

#include "../test.h"

static void test_add_and_take(void **state)
{
	struct buf b = {0};

	(void)state;
	assert_int_equal(buf_len(&b), 0);
	assert_int_equal(buf_span(&b).n, 0);
	buf_add(&b, "hello ", 6);
	buf_add(&b, "world", 5);
	assert_span(buf_span(&b), "hello world");
	buf_take(&b, 6);
	assert_span(buf_span(&b), "world");
	buf_take(&b, 5);
	assert_int_equal(buf_len(&b), 0);
	/* Emptied, it begins at its front again. */
	assert_int_equal(b.memory->tail, 0);
	buf_release(&b);
	assert_null(b.memory);
	buf_release(&b);
}

/* Nothing added to nothing is still nothing, and costs nothing. */
static void test_add_nothing(void **state)
{
	struct buf b = {0};

	(void)state;
	buf_add(&b, NULL, 0);
	buf_take(&b, 0);
	assert_null(b.memory);
	assert_non_null(buf_room(&b, 0));
	buf_grew(&b, 0);
	assert_int_equal(buf_len(&b), 0);
	buf_release(&b);
}

static void test_addf(void **state)
{
	struct buf b = {0};

	(void)state;
	buf_addf(&b, "%d-%s", 42, "x");
	buf_addf(&b, "%s", "");
	buf_addf(&b, "|%1000d|", 7);
	assert_int_equal(buf_len(&b), 4 + 1002);
	buf_take(&b, 1004);
	assert_span(buf_span(&b), "7|");
	buf_release(&b);
}

static void test_room_is_writable_to_its_end(void **state)
{
	static const size_t sizes[] = {1, 511, 512, 513, 4096, 100000};

	(void)state;
	for (size_t i = 0; i < COUNT(sizes); i++) {
		struct buf b = {0};
		buf_add(&b, "abc", 3);
		buf_take(&b, 1);
		memset(buf_room(&b, sizes[i]), 'x', sizes[i]);
		buf_grew(&b, sizes[i]);
		assert_int_equal(buf_len(&b), 2 + sizes[i]);
		assert_memory_equal(buf_span(&b).p, "bcx", 3);
		assert_true(buf_size(&b) <= 2 * (sizes[i] + 512));
		buf_release(&b);
	}
}

/* Bytes come out in the order in which they went in, whatever the sizes of the steps. */
static void test_order(void **state)
{
	struct buf b = {0};
	unsigned in = 0, out = 0, random = 1;

	(void)state;
	for (int step = 0; step < 20000; step++) {
		random = random * 1103515245 + 12345;
		size_t n = (random >> 16) % 97;
		if ((random >> 8 & 1) && buf_len(&b) < 5000) {
			char *room = buf_room(&b, n);
			for (size_t i = 0; i < n; i++)
				room[i] = (char)(in++ % 251);
			buf_grew(&b, n);
		} else {
			n = n < buf_len(&b) ? n : buf_len(&b);
			for (size_t i = 0; i < n; i++)
				assert_int_equal(buf_span(&b).p[i], (char)(out++ % 251));
			buf_take(&b, n);
		}
	}
	assert_int_equal(in - out, buf_len(&b));
	assert_true(buf_size(&b) <= 32768);
	buf_release(&b);
}

/* A long queue through which little flows is not moved for every few bytes: moves are counted as
 * changes of where the queue begins. */
static void test_moves_are_rare(void **state)
{
	enum { LONG = 131072 - 64, STEPS = 200000 };
	struct buf b = {0};
	size_t moved = 0;

	(void)state;
	memset(buf_room(&b, LONG), 'x', LONG);
	buf_grew(&b, LONG);
	for (int i = 0; i < STEPS; i++) {
		size_t head = b.memory->head;
		buf_add(&b, "y", 1);
		moved += b.memory->head < head ? buf_len(&b) : 0;
		buf_take(&b, 1);
	}
	assert_true(moved <= 4 * STEPS);
	assert_true(buf_size(&b) <= 4 * LONG + 1024);
	buf_release(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_add_and_take),
		cmocka_unit_test(test_add_nothing),
		cmocka_unit_test(test_addf),
		cmocka_unit_test(test_room_is_writable_to_its_end),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_moves_are_rare),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
