/* When the answer to a read is believed: not if anything has happened since it was sent that it may
 * not have seen. */
#include "../test.h"

#include "cache/truth.h"
#include "codec/notification.h"

enum { A = 11, B = 22 }; /* hashes of two values */

static struct entries es;
static struct truth t;
static struct entry *e;

static uint8_t of_keys(void *owner, struct span key)
{
	(void)owner;
	(void)key;
	return ORIGIN_KEYS;
}

static int set_up(void **state)
{
	(void)state;
	entries_init(&es, of_keys, NULL);
	truth_init(&t, 7);
	t.live = true;
	e = entries_make(&es, SPAN("k"), notification_bytes_hash(SPAN("k"), 7), ORIGIN_KEYS);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	entries_fini(&es);
	return 0;
}

/* As the owner does when an answer is believed. */
static void believe(void)
{
	entries_set(&es, e, ENTRY_FOUND, shape_ref(es.shapes.found), SPAN("\"v\""));
}

static bool tell(uint64_t seen, uint64_t hash)
{
	return truth_tell(&t, &es, e, seen, hash);
}

static void an_answer_is_believed_if_nothing_has_happened(void **state)
{
	(void)state;
	assert_true(tell(truth_now(&t), A));
}

static void without_a_live_connection_nothing_is(void **state)
{
	uint64_t seen = truth_now(&t);

	(void)state;
	t.live = false;
	assert_false(tell(seen, A));
}

static void what_was_sent_before_a_barrier_is_not(void **state)
{
	uint64_t seen = truth_now(&t);

	(void)state;
	truth_bar(&t);
	assert_false(tell(seen, A));
	assert_true(tell(truth_now(&t), A));
}

static void what_was_sent_before_a_change_is_not(void **state)
{
	uint64_t seen = truth_now(&t);

	(void)state;
	believe();
	truth_doubt(&t, &es, e);
	assert_int_equal(ENTRY_EMPTY, e->state);
	assert_false(tell(seen, A));
	assert_true(tell(truth_now(&t), A));
}

static void nothing_is_while_an_own_write_is_under_way(void **state)
{
	(void)state;
	e->fences = 1;
	assert_false(tell(truth_now(&t), A));
	assert_int_equal(TRUTH_PAGE_OLD, truth_page(&t, &es, e, truth_now(&t), A));
	e->fences = 0;
	assert_true(tell(truth_now(&t), A));
}

/* Two reads at once with different answers: which is older is not known. */
static void of_two_that_cross_none_is(void **state)
{
	uint64_t first = truth_now(&t), second = truth_now(&t);

	(void)state;
	assert_true(tell(second, A));
	believe();
	uint64_t third = truth_now(&t);
	assert_false(tell(first, B));
	assert_int_equal(ENTRY_EMPTY, e->state);
	assert_false(tell(third, B)); /* nor what was sent before that came */
	assert_true(tell(truth_now(&t), A));
	first = truth_now(&t), second = truth_now(&t);
	assert_true(tell(first, A));
	assert_false(tell(second, B)); /* nor the other way round */
}

static void the_read_behind_another_answer_is_newer(void **state)
{
	uint64_t before = truth_now(&t), again = truth_now(&t);

	(void)state;
	assert_true(tell(truth_now(&t), A));
	believe();
	uint64_t page = truth_now(&t), later = truth_now(&t), companion = truth_now(&t);
	assert_true(tell(later, B));
	assert_int_equal(TRUTH_PAGE_OLD, truth_page(&t, &es, e, page, B));
	assert_int_equal(ENTRY_EMPTY, e->state); /* the former value is gone */
	believe();
	assert_true(tell(companion, B)); /* sent behind it, and answered likewise */
	assert_false(tell(before, A));   /* one that was sent before is older than it */
	assert_false(tell(again, B));
}

static void the_newer_read_is_not_believed_over_a_fence(void **state)
{
	(void)state;
	assert_true(tell(truth_now(&t), A));
	e->fences = 1;
	uint64_t seen = truth_now(&t);
	assert_false(tell(seen, B));
	e->fences = 0;
	assert_false(tell(seen, B));
}

static void the_same_answer_of_reads_that_cross_is(void **state)
{
	uint64_t first = truth_now(&t), second = truth_now(&t);

	(void)state;
	assert_true(tell(second, A));
	assert_true(tell(first, A));
}

/* The low bits of ticks that are far apart: in doubt a read is not newer. */
static void ticks_wrap(void **state)
{
	(void)state;
	t.tick = UINT32_MAX - 1;
	assert_true(tell(truth_now(&t), A));
	assert_true(tell(truth_now(&t), B));
	assert_true(tell(truth_now(&t), A));
	t.tick += (uint64_t)1 << 31;
	assert_false(tell(truth_now(&t), B));
}

static void pages(void **state)
{
	uint64_t old = truth_now(&t);

	(void)state;
	truth_doubt(&t, &es, e);
	assert_int_equal(TRUTH_PAGE_OLD, truth_page(&t, &es, e, old, A));
	uint64_t seen = truth_now(&t);
	assert_int_equal(TRUTH_PAGE_BELIEVE, truth_page(&t, &es, e, seen, A));
	tell(truth_now(&t), A);
	assert_int_equal(TRUTH_PAGE_BELIEVE, truth_page(&t, &es, e, seen, A));
	assert_int_equal(TRUTH_PAGE_DOUBT, truth_page(&t, &es, e, seen, B)); /* another was told */
	assert_int_equal(TRUTH_PAGE_OLD, truth_page(&t, &es, e, seen, A));
	seen = truth_now(&t);
	tell(truth_now(&t), A);
	believe();
	assert_int_equal(TRUTH_PAGE_SAME, truth_page(&t, &es, e, seen, A));
	assert_int_equal(ENTRY_FOUND, e->state);
	assert_int_equal(TRUTH_PAGE_DOUBT, truth_page(&t, &es, e, seen, B));
	assert_int_equal(ENTRY_EMPTY, e->state);
	tell(truth_now(&t), A);
	truth_doubt(&t, &es, e); /* what was told before the change is told no more */
	assert_int_equal(TRUTH_PAGE_BELIEVE, truth_page(&t, &es, e, truth_now(&t), B));
	truth_bar(&t);
	assert_int_equal(TRUTH_PAGE_OLD, truth_page(&t, &es, e, seen, A));
}

/* What a page has confirmed may be served, so a read of before the page is not newer. */
static void a_page_counts_as_told(void **state)
{
	(void)state;
	tell(truth_now(&t), A);
	believe();
	uint64_t crossing = truth_now(&t);
	assert_int_equal(TRUTH_PAGE_SAME, truth_page(&t, &es, e, truth_now(&t), A));
	assert_false(tell(crossing, B));
}

static void an_answer_is_recent_for_so_long(void **state)
{
	(void)state;
	assert_false(truth_is_answered(e, 5, 100));
	truth_answered(e, INT64_C(0x1fffffffe));
	assert_true(truth_is_answered(e, INT64_C(0x1fffffffe) + 99, 100));
	assert_false(truth_is_answered(e, INT64_C(0x1fffffffe) + 100, 100));
	e->answered = false;
	assert_false(truth_is_answered(e, INT64_C(0x1fffffffe), 100));
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(an_answer_is_believed_if_nothing_has_happened),
		CASE(without_a_live_connection_nothing_is),
		CASE(what_was_sent_before_a_barrier_is_not),
		CASE(what_was_sent_before_a_change_is_not),
		CASE(nothing_is_while_an_own_write_is_under_way),
		CASE(of_two_that_cross_none_is),
		CASE(the_read_behind_another_answer_is_newer),
		CASE(the_newer_read_is_not_believed_over_a_fence),
		CASE(the_same_answer_of_reads_that_cross_is),
		CASE(ticks_wrap),
		CASE(pages),
		CASE(a_page_counts_as_told),
		CASE(an_answer_is_recent_for_so_long),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
