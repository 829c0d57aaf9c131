/* What strings that an enemy chooses cost, counted in instructions, which a busy machine does not
 * change. Skipped where the kernel does not count them for us. Bounds are generous: a quadratic
 * cost would exceed them a thousandfold. */
#include "../test.h"

#include <linux/perf_event.h>
#include <stdio.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/glob.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/radix.h"
#include "codec/json.h"

enum { LONG = 65536, STRINGS = 2000, TIMES = 10 };

static char text[LONG + STRINGS + 1];
static int counter = -1;

static int open_counter(void **state)
{
	struct perf_event_attr attr = {.type = PERF_TYPE_HARDWARE,
				       .size = sizeof(attr),
				       .config = PERF_COUNT_HW_INSTRUCTIONS,
				       .exclude_kernel = 1,
				       .exclude_hv = 1};

	(void)state;
	memset(text, 'p', sizeof(text));
	counter = (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0UL);
	return 0;
}

static uint64_t steps(void)
{
	struct timespec t;
	uint64_t n;

	if (counter >= 0 && read(counter, &n, sizeof(n)) == sizeof(n) && n)
		return n;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* The least of several times. */
static uint64_t cost_of(void (*act)(void *arg), void *arg)
{
	uint64_t least = UINT64_MAX;

	for (int i = 0; i < TIMES; i++) {
		uint64_t begin = steps();
		act(arg);
		uint64_t cost = steps() - begin;
		least = cost < least ? cost : least;
	}
	return least;
}

static void add_and_remove(void *arg)
{
	struct radix *r = arg;

	*radix_slot(r, (struct span){text, LONG}) = r;
	radix_remove(r, (struct span){text, LONG});
}

static void count(void *owner, void *value)
{
	(void)value;
	++*(size_t *)owner;
}

static size_t visited;

static void visit(void *arg)
{
	visited = 0;
	radix_prefixes(arg, (struct span){text, LONG}, count, &visited);
}

/* The strings are the beginnings of one long string: each is a node of the tree on one path. */
static void a_tree_of_beginnings_costs_their_length(void **state)
{
	struct radix r = {0};

	(void)state;
	for (size_t i = 0; i < STRINGS; i++)
		*radix_slot(&r, (struct span){text, LONG - STRINGS + i}) = &r;
	assert_in_range(cost_of(add_and_remove, &r), 1, 40 * LONG + 400 * STRINGS);
	assert_in_range(cost_of(visit, &r), 1, 40 * LONG + 400 * STRINGS);
	assert_int_equal(visited, STRINGS);
	radix_fini(&r);
}

/* The strings are the same but for the last byte: the tree has one fork with all of them. */
static void a_tree_of_long_strings_with_one_beginning_costs_their_length(void **state)
{
	struct radix r = {0};

	(void)state;
	for (unsigned i = 0; i < 256; i++) {
		text[LONG - 1] = (char)i;
		*radix_slot(&r, (struct span){text, LONG}) = &r;
	}
	text[LONG - 1] = 'p';
	assert_in_range(cost_of(visit, &r), 1, 40 * LONG);
	assert_int_equal(visited, 1);
	radix_fini(&r);
}

static void hash(void *arg)
{
	*(uint64_t *)arg = json_bytes_hash((struct span){text, LONG}, 0x9e3779b97f4a7c15);
}

/* The seed is not known to who chooses the keys, so none of them share a chain but by chance. */
static void long_keys_of_one_beginning_spread_over_the_chains(void **state)
{
	static struct map_node node[STRINGS];
	struct map m = {0};
	uint64_t value;

	(void)state;
	for (size_t i = 0; i < STRINGS; i++) {
		char number[8];
		snprintf(number, sizeof(number), "%07u", (unsigned)i);
		memcpy(text + LONG - 7, number, 7);
		hash(&value);
		map_add(&m, &node[i], value);
	}
	for (size_t i = 0; i <= m.mask; i++) {
		size_t n = 0;
		for (const struct map_node *at = m.chain[i]; at; at = at->next)
			n++;
		assert_true(n < 12);
	}
	assert_in_range(cost_of(hash, &value), 1, 40 * LONG);
	memset(text + LONG - 7, 'p', 7);
	map_fini(&m);
}

static void match(void *arg)
{
	assert_false(glob_matches(*(struct span *)arg, (struct span){text, LONG}));
}

static void a_glob_of_many_stars_costs_its_length_and_the_keys(void **state)
{
	static char stars[LONG / 4];
	struct span glob = {stars, sizeof(stars)};

	(void)state;
	for (size_t i = 0; i < sizeof(stars); i++)
		stars[i] = i % 2 ? 'p' : '*';
	stars[sizeof(stars) - 1] = 'x'; /* which the key has not */
	assert_in_range(cost_of(match, &glob), 1, 100 * (LONG + sizeof(stars)));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_tree_of_beginnings_costs_their_length),
		cmocka_unit_test(a_tree_of_long_strings_with_one_beginning_costs_their_length),
		cmocka_unit_test(long_keys_of_one_beginning_spread_over_the_chains),
		cmocka_unit_test(a_glob_of_many_stars_costs_its_length_and_the_keys),
	};

	return cmocka_run_group_tests(tests, open_counter, NULL);
}
