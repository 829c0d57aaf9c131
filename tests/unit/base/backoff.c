#include "base/backoff.h"

#include "../test.h"

static void pauses_double_up_to_the_most(void **state)
{
	(void)state;
	assert_int_equal(backoff_doubled(250, 0, 30000), 250);
	assert_int_equal(backoff_doubled(250, 1, 30000), 500);
	assert_int_equal(backoff_doubled(250, 6, 30000), 16000);
	assert_int_equal(backoff_doubled(250, 7, 30000), 30000);
	assert_int_equal(backoff_doubled(250, UINT32_MAX, 30000), 30000);
	assert_int_equal(backoff_doubled(250, 0, 100), 100);
}

static void jitter_reaches_from_nothing_to_the_limit(void **state)
{
	(void)state;
	assert_int_equal(backoff_jitter(10, 0), 0);
	assert_int_equal(backoff_jitter(10, 10), 10);
	assert_int_equal(backoff_jitter(10, 11), 0);
	assert_in_range(backoff_jitter(10, UINT64_MAX), 0, 10);
	assert_int_equal(backoff_jitter(0, UINT64_MAX), 0);
}

static void a_pause_that_is_asked_for_is_obeyed_for_ten_minutes_or_the_longest_of_ours(void **state)
{
	(void)state;
	assert_true(backoff_asked_ms(-1, 30000) < 0);
	assert_int_equal(backoff_asked_ms(0, 30000), 0);
	assert_int_equal(backoff_asked_ms(599, 30000), 599000);
	assert_int_equal(backoff_asked_ms(86400, 30000), 600000);
	assert_int_equal(backoff_asked_ms(86400, 3600000), 3600000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pauses_double_up_to_the_most),
		cmocka_unit_test(jitter_reaches_from_nothing_to_the_limit),
		cmocka_unit_test(
			a_pause_that_is_asked_for_is_obeyed_for_ten_minutes_or_the_longest_of_ours),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
