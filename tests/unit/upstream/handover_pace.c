/* How far handovers are apart. */
#include "../test.h"

#include "upstream/handover_pace.h"

enum { BATCH = 10 };

/* How many begin in this time if one is always wanted. */
static int begun_in(struct handover_pace *p, int64_t batch, int64_t *now, int64_t ms)
{
	int64_t until = *now + ms;
	int n = 0;

	for (;; n++) {
		*now += handover_pace_wait_ms(p, batch, *now);
		if (*now > until)
			return n;
		handover_pace_began(p, *now);
	}
}

static void the_first_one_waits_for_its_batch_only(void **state)
{
	struct handover_pace p = {0};

	(void)state;
	assert_int_equal(handover_pace_wait_ms(&p, BATCH, 0), BATCH);
	assert_int_equal(handover_pace_wait_ms(&p, 0, 1000), 0);
	assert_int_equal(handover_pace_wait_ms(&p, 0, 1), 0); /* of a clock that has just begun */
	assert_int_equal(handover_pace_wait_ms(&p, 10000, 1000), 10000);
}

static void later_ones_are_farther_and_farther_apart(void **state)
{
	struct handover_pace p = {0};
	int64_t now = 5, before = 0;

	(void)state;
	for (int i = 0; i < 30; i++) {
		int64_t wait = handover_pace_wait_ms(&p, BATCH, now);
		assert_true(wait >= before);
		assert_true(wait <= 2000);
		before = wait;
		now += wait;
		handover_pace_began(&p, now);
	}
	assert_int_equal(before, 2000);
}

static void they_are_few(void **state)
{
	struct handover_pace p = {0};
	int64_t now = 5;

	(void)state;
	assert_in_range(begun_in(&p, BATCH, &now, 1000), 8, 11);
	p = (struct handover_pace){0};
	assert_in_range(begun_in(&p, BATCH, &now, 5000), 11, 15);
	p = (struct handover_pace){0};
	assert_in_range(begun_in(&p, 0, &now, 5000), 11, 16); /* however short the batch is */
	assert_in_range(begun_in(&p, 0, &now, 100000), 49, 52);
}

/* A distance is from one to the next: what is wanted after it does not wait. */
static void one_after_the_distance_does_not_wait(void **state)
{
	struct handover_pace p = {0};
	int64_t now = 5;

	(void)state;
	begun_in(&p, BATCH, &now, 60000);
	now = p.last_at + 1990;
	assert_int_equal(handover_pace_wait_ms(&p, BATCH, now), BATCH);
	now = p.last_at + 500;
	assert_in_range(handover_pace_wait_ms(&p, BATCH, now), 1300, 1500);
}

static void a_row_ends_by_itself(void **state)
{
	struct handover_pace p = {0};
	int64_t now = 5;

	(void)state;
	begun_in(&p, BATCH, &now, 60000);
	now = p.last_at + 10000; /* some steps are taken back */
	handover_pace_began(&p, now);
	assert_in_range(handover_pace_wait_ms(&p, BATCH, now), 300, 900);
	now += 60000; /* all of them */
	handover_pace_began(&p, now);
	assert_int_equal(handover_pace_wait_ms(&p, BATCH, now), 15);
}

/* Each half as much again as the one before, up to two seconds. */
static void the_distances_are_those_that_are_promised(void **state)
{
	static const int64_t want[] = {15,  22,  33,  49,   73,   109,  163, 244,
				       366, 549, 823, 1234, 1851, 2000, 2000};
	enum { NOW = 100000 };
	struct handover_pace p = {0};

	(void)state;
	for (size_t i = 0; i < COUNT(want); i++) {
		handover_pace_began(&p, NOW);
		assert_int_equal(p.last_at, NOW);
		assert_int_equal(handover_pace_wait_ms(&p, BATCH, NOW), want[i]);
		assert_int_equal(handover_pace_wait_ms(&p, 0, NOW), want[i]);
		assert_int_equal(handover_pace_wait_ms(&p, 0, NOW + 1), want[i] - 1);
		if (i == 0) /* a longer batch is where they begin */
			assert_int_equal(handover_pace_wait_ms(&p, 100, NOW), 150);
	}
	assert_int_equal(handover_pace_wait_ms(&p, 5000, NOW), 5000);
	assert_int_equal(handover_pace_wait_ms(&p, 1900, NOW), 2000);
}

/* Two seconds take back one step, and not a part of one. */
static void a_step_is_taken_back_after_its_time(void **state)
{
	enum { NOW = 100000 };
	struct handover_pace p = {0};

	(void)state;
	for (int i = 0; i < 20; i++)
		handover_pace_began(&p, NOW);
	handover_pace_began(&p, NOW + 22000); /* three steps are left, and one comes */
	assert_int_equal(handover_pace_wait_ms(&p, 0, NOW + 22000), 49);
	p = (struct handover_pace){0};
	for (int i = 0; i < 20; i++)
		handover_pace_began(&p, NOW);
	handover_pace_began(&p, NOW + 21999); /* none of four is whole yet */
	assert_int_equal(handover_pace_wait_ms(&p, 0, NOW + 21999), 73);
	p = (struct handover_pace){0};
	handover_pace_began(&p, NOW);
	assert_int_equal(handover_pace_wait_ms(&p, 0, NOW + 14), 1);
	assert_int_equal(handover_pace_wait_ms(&p, 0, NOW + 15), 0);
	assert_int_equal(handover_pace_wait_ms(&p, 3000, NOW + 1999), 3000);
	handover_pace_began(&p, NOW + 2000);
	assert_int_equal(handover_pace_wait_ms(&p, 0, NOW + 2000), 15);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_first_one_waits_for_its_batch_only),
		cmocka_unit_test(later_ones_are_farther_and_farther_apart),
		cmocka_unit_test(they_are_few),
		cmocka_unit_test(one_after_the_distance_does_not_wait),
		cmocka_unit_test(a_row_ends_by_itself),
		cmocka_unit_test(the_distances_are_those_that_are_promised),
		cmocka_unit_test(a_step_is_taken_back_after_its_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
