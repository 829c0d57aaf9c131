#include "base/outq.h"

#include "base/mem.h"
#include "../test.h"
#include "../random.h"

enum { TEXT_MAX = 4096, IOV_MAX_HERE = 64, ROOM = 40 };

static size_t room_size; /* for copies of short lines */

static struct shared_line *line_of(const char *text)
{
	struct shared_line *shared = shared_line_new(strlen(text), (struct span){0});

	memcpy(shared->text, text, shared->n);
	return shared;
}

/* The queue takes the only reference. */
static void push(struct outq *q, const char *text)
{
	struct shared_line *shared = line_of(text);

	outq_push(q, shared);
	shared_line_unref(shared);
}

/* What max iovecs show, as one text. */
static const char *shown(const struct outq *q, int max)
{
	static char text[TEXT_MAX];
	static char room[ROOM];
	struct iovec iov[IOV_MAX_HERE];
	size_t at = 0;
	int n = room_size ? outq_gather(q, iov, max, room, room_size) : outq_iov(q, iov, max);

	assert_in_range(n, 0, max);
	for (int i = 0; i < n; i++) {
		assert_true(iov[i].iov_len > 0);
		assert_true(at + iov[i].iov_len < sizeof(text));
		memcpy(text + at, iov[i].iov_base, iov[i].iov_len);
		at += iov[i].iov_len;
	}
	text[at] = '\0';
	return text;
}

static void own_and_shared_lines_come_out_in_the_order_of_their_coming(void **state)
{
	struct outq q = {.ring = NULL};

	(void)state;
	assert_int_equal(outq_len(&q), 0);
	assert_string_equal(shown(&q, 4), "");
	push(&q, "one;");
	buf_add(&q.own, "two;", 4);
	buf_add(&q.own, "three;", 6);
	push(&q, "four;");
	push(&q, "five;");
	buf_add(&q.own, "six;", 4);
	assert_int_equal(outq_len(&q), 28);
	assert_string_equal(shown(&q, IOV_MAX_HERE), "one;two;three;four;five;six;");
	outq_fini(&q);
}

static void no_more_iovecs_are_filled_than_there_are(void **state)
{
	static const char *const want[] = {"", "a", "abc", "abcD", "abcDE", "abcDEfg"};
	struct outq q = {.ring = NULL};

	(void)state;
	push(&q, "a");
	buf_add(&q.own, "bc", 2);
	push(&q, "D");
	push(&q, "E");
	buf_add(&q.own, "fg", 2);
	for (int max = 1; max < (int)COUNT(want); max++)
		assert_string_equal(shown(&q, max), want[max]);
	outq_take(&q, 2); /* within own bytes */
	assert_string_equal(shown(&q, 1), "c");
	assert_string_equal(shown(&q, 2), "cD");
	outq_fini(&q);
}

static void a_shared_line_is_freed_when_its_last_byte_is_out(void **state)
{
	struct shared_line *shared = line_of("abc");
	struct outq q = {.ring = NULL};

	(void)state;
	outq_push(&q, shared);
	outq_push(&q, shared);
	assert_int_equal(shared->refs, 3);
	outq_take(&q, 2);
	assert_int_equal(shared->refs, 3);
	assert_string_equal(shown(&q, 4), "cabc");
	outq_take(&q, 1);
	assert_int_equal(shared->refs, 2);
	outq_take(&q, 3);
	assert_int_equal(shared->refs, 1);
	assert_int_equal(outq_len(&q), 0);
	outq_push(&q, shared);
	outq_take(&q, 1);
	outq_fini(&q);
	assert_int_equal(shared->refs, 1);
	shared_line_unref(shared);
}

static void lines_that_are_gathered_share_an_iovec(void **state)
{
	static char long_text[600], room[ROOM];
	struct iovec iov[8];
	struct outq q = {.ring = NULL};

	(void)state;
	memset(long_text, 'L', sizeof(long_text) - 1);
	push(&q, "one;");
	assert_int_equal(outq_gather(&q, iov, 8, room, ROOM), 1);
	assert_true((char *)iov[0].iov_base != room); /* one line alone is not copied */
	buf_add(&q.own, "two;", 4);
	push(&q, "three;");
	push(&q, long_text);
	push(&q, "four;");
	q.ring->slot[3].shared->secret = true;
	push(&q, "five;");
	push(&q, "six;");
	assert_int_equal(outq_gather(&q, iov, 8, room, ROOM), 4);
	assert_memory_equal(room, "one;two;three;five;six;", 23);
	assert_int_equal(iov[0].iov_len, 14);
	assert_int_equal(iov[1].iov_len, sizeof(long_text) - 1);
	assert_memory_equal(iov[2].iov_base, "four;", 5);
	assert_true((char *)iov[2].iov_base < room || (char *)iov[2].iov_base >= room + ROOM);
	assert_int_equal(iov[3].iov_len, 9);
	/* A part that has room left in its iovec takes no other, and what finds no room is shown
	 * where it is. */
	assert_int_equal(outq_gather(&q, iov, 1, room, ROOM), 1);
	assert_int_equal(iov[0].iov_len, 14);
	assert_int_equal(outq_gather(&q, iov, 8, room, 9), 6);
	assert_int_equal(iov[0].iov_len, 8);
	outq_take(&q, 6); /* within the second */
	assert_int_equal(outq_gather(&q, iov, 1, room, ROOM), 1);
	assert_int_equal(iov[0].iov_len, 8);
	assert_memory_equal(iov[0].iov_base, "o;three;", 8);
	outq_fini(&q);
}

static void what_is_left_of_the_first_line_is_told(void **state)
{
	struct outq q = {.ring = NULL};

	(void)state;
	assert_int_equal(outq_first_line(&q, 100), 0);
	buf_add(&q.own, "own\nmore\n", 9);
	push(&q, "line\n");
	buf_add(&q.own, "last\n", 5);
	assert_int_equal(outq_first_line(&q, 100), 4);
	outq_take(&q, 2);
	assert_int_equal(outq_first_line(&q, 100), 2);
	assert_int_equal(outq_first_line(&q, 2), 2);
	assert_int_equal(outq_first_line(&q, 1), 1); /* so much or more */
	outq_take(&q, 2 + 5);
	assert_int_equal(outq_first_line(&q, 100), 5);
	outq_take(&q, 4);
	assert_int_equal(outq_first_line(&q, 100), 1);
	outq_take(&q, 1);
	assert_int_equal(outq_first_line(&q, 100), 5);
	outq_take(&q, 5);
	assert_int_equal(outq_first_line(&q, 100), 0);
	outq_fini(&q);
}

static void an_empty_queue_owns_no_memory_once_trimmed(void **state)
{
	struct outq q = {.ring = NULL};

	(void)state;
	push(&q, "line");
	buf_add(&q.own, "own", 3);
	outq_take(&q, 7);
	outq_trim(&q);
	assert_null(q.own.memory);
	assert_null(q.ring);
	buf_add(&q.own, "x", 1); /* and is used again */
	push(&q, "y");
	assert_string_equal(shown(&q, 4), "xy");
	outq_fini(&q);
	assert_null(q.ring);
}

/* ---- against a model: one text ---- */

struct model {
	struct outq q;
	char text[TEXT_MAX];
	size_t n;
	uint32_t random;
};

static uint32_t pick(struct model *m, uint32_t n)
{
	return random_below(&m->random, n);
}

/* One to nine of the letters in turn, so that one that is lost or doubled shows. */
static void add_something(struct model *m)
{
	char piece[10];
	size_t n = 1 + pick(m, 9);

	for (size_t i = 0; i < n; i++)
		piece[i] = (char)('a' + (m->n + i) % 26);
	piece[n] = '\0';
	memcpy(m->text + m->n, piece, n + 1);
	m->n += n;
	if (pick(m, 2))
		push(&m->q, piece);
	else
		buf_add(&m->q.own, piece, n);
}

static void take(struct model *m, size_t n)
{
	outq_take(&m->q, n);
	memmove(m->text, m->text + n, m->n - n + 1);
	m->n -= n;
}

static void check(struct model *m, uint32_t seed)
{
	room_size = pick(m, 2) ? pick(m, ROOM) : 0;
	int max = 1 + (int)pick(m, 6);

	if (outq_len(&m->q) != m->n || strcmp(shown(&m->q, IOV_MAX_HERE), m->text) != 0)
		fail_msg("seed %u: %s instead of %s", seed, shown(&m->q, IOV_MAX_HERE), m->text);
	const char *part = shown(&m->q, max);
	if (strncmp(part, m->text, strlen(part)) != 0 || (m->n && !*part))
		fail_msg("seed %u: %d iovecs show %s of %s", seed, max, part, m->text);
}

static void whatever_is_taken_the_rest_stays_in_order(void **state)
{
	(void)state;
	for (uint32_t seed = 1; seed <= 300; seed++) {
		struct model m = {.random = seed};
		for (int step = 0; step < 300; step++) {
			if (pick(&m, 2) && (!m.q.ring || m.q.ring->n < 20) && m.n < 200)
				add_something(&m);
			else
				take(&m, pick(&m, (uint32_t)m.n + 1));
			check(&m, seed);
		}
		outq_fini(&m.q);
	}
}

/* Every place at which a socket may be full, twice. */
static void a_queue_may_be_cut_anywhere(void **state)
{
	(void)state;
	for (size_t first = 0; first <= 16; first++) {
		for (size_t second = 0; first + second <= 16; second++) {
			struct model m = {.random = 1};
			static const char *const pieces[] = {"abc", "de",  "f",
							     "gh",  "ijk", "lmnop"};
			for (size_t i = 0; i < COUNT(pieces); i++) {
				if (i == 0 || i == 3)
					buf_add(&m.q.own, pieces[i], strlen(pieces[i]));
				else
					push(&m.q, pieces[i]);
				strcat(m.text, pieces[i]);
			}
			m.n = 16;
			take(&m, first);
			check(&m, 0);
			take(&m, second);
			check(&m, 0);
			outq_fini(&m.q);
		}
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(own_and_shared_lines_come_out_in_the_order_of_their_coming),
		cmocka_unit_test(no_more_iovecs_are_filled_than_there_are),
		cmocka_unit_test(a_shared_line_is_freed_when_its_last_byte_is_out),
		cmocka_unit_test(lines_that_are_gathered_share_an_iovec),
		cmocka_unit_test(what_is_left_of_the_first_line_is_told),
		cmocka_unit_test(an_empty_queue_owns_no_memory_once_trimmed),
		cmocka_unit_test(whatever_is_taken_the_rest_stays_in_order),
		cmocka_unit_test(a_queue_may_be_cut_anywhere),
	};

	return cmocka_run_group_tests_name("outq", tests, NULL, NULL);
}
