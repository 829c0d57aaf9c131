#include "base/map.h"

#include <stdbool.h>

#include "../test.h"
#include "../random.h"

struct item {
	int before; /* so that the node is not the first member */
	struct map_node node;
	bool in_map;
	unsigned seen;
};

static struct item *item_of(struct map_node *node)
{
	return map_entry(node, struct item, node);
}

static void an_empty_map_finds_nothing_and_owns_nothing(void **state)
{
	struct map map = {0};
	struct map_walk walk = {0};
	struct item item;

	(void)state;
	assert_null(map_first(&map, 0));
	assert_null(map_walk(&map, &walk));
	map_add(&map, &item.node, 7);
	assert_non_null(map.chain);
	assert_ptr_equal(item_of(map_first(&map, 7)), &item);
	map_remove(&map, &item.node);
	assert_null(map.chain);
	assert_null(map_first(&map, 7));
	map_add(&map, &item.node, 8);
	assert_ptr_equal(item_of(map_first(&map, 8)), &item);
	map_fini(&map);
	assert_null(map.chain);
	map_fini(&map);
}

/* Hashes that differ only above the bits that choose the chain. */
static void nodes_of_one_chain_are_told_apart_by_their_hash(void **state)
{
	enum { N = 50 };
	struct item item[N];
	struct map map = {0};

	(void)state;
	for (uint64_t i = 0; i < N; i++)
		map_add(&map, &item[i].node, i << 32 | 5);
	for (uint64_t i = 0; i < N; i++) {
		struct map_node *node = map_first(&map, i << 32 | 5);
		assert_ptr_equal(node, &item[i].node);
		assert_null(map_next(node));
	}
	assert_null(map_first(&map, 5 + 16));
	map_fini(&map);
}

static void the_table_has_a_chain_for_each_node_and_not_twice_as_many(void **state)
{
	enum { N = 1000 };
	static struct item item[N];
	struct map map = {0};

	(void)state;
	for (size_t n = 1; n <= N; n++) {
		map_add(&map, &item[n - 1].node, n);
		assert_int_equal(map.n, n);
		assert_true(n <= map.mask + 1);
		assert_true(map.mask + 1 < 2 * n || map.mask + 1 == 16);
	}
	map_fini(&map);
}

/* --- against a model --- */

enum { ITEMS = 200, HASHES = 64 };

static uint64_t hash_of(size_t i)
{
	return i % HASHES * UINT64_C(0x100000001);
}

/* Each item is found by its hash and by a walk, once, if it is in the map. */
static void check(const struct map *map, struct item item[ITEMS], uint32_t step)
{
	struct map_walk walk = {0};
	size_t n = 0;

	for (size_t i = 0; i < ITEMS; i++) {
		item[i].seen = 0;
		n += item[i].in_map;
	}
	for (uint64_t hash = 0; hash < HASHES; hash++) {
		struct map_node *node = map_first(map, hash_of(hash));
		for (; node; node = map_next(node)) {
			assert_int_equal(node->hash, hash_of(hash));
			item_of(node)->seen++;
		}
	}
	for (struct map_node *node; (node = map_walk(map, &walk));)
		item_of(node)->seen += 10;
	for (size_t i = 0; i < ITEMS; i++) {
		if (item[i].seen != (item[i].in_map ? 11 : 0))
			fail_msg("step %u: item %zu was found %u times and walked over %u times",
				 step, i, item[i].seen % 10, item[i].seen / 10);
	}
	assert_int_equal(map->n, n);
}

static void nodes_come_and_go_as_the_model_says(void **state)
{
	static struct item item[ITEMS];
	struct map map = {0};
	uint32_t random = 1;

	(void)state;
	for (uint32_t step = 0; step < 10000; step++) {
		random_next(&random);
		size_t i = (random >> 8) % ITEMS;
		/* There are times when most are in, and times when most are out. */
		bool filling = step / 1000 % 2 == 0;
		bool add = filling ? random >> 28 != 0 : random >> 28 == 0;
		if (item[i].in_map == add)
			continue;
		if (add)
			map_add(&map, &item[i].node, hash_of(i));
		else
			map_remove(&map, &item[i].node);
		item[i].in_map = add;
		check(&map, item, step);
	}
	map_fini(&map);
}

/* --- walks --- */

static void whoever_walks_may_free_what_was_returned(void **state)
{
	enum { N = 300 };

	(void)state;
	/* Of so many, every how many-th stays until a second walk. */
	for (size_t stays = 1; stays <= 5; stays++) {
		struct map map = {0};
		for (size_t i = 0; i < N; i++) {
			struct item *item = calloc(1, sizeof(*item));
			assert_non_null(item);
			map_add(&map, &item->node, hash_of(i));
		}
		for (size_t round = 0, left = N; round < 2; round++) {
			struct map_walk walk = {0};
			size_t walked = 0, before = left;
			for (struct map_node *node; (node = map_walk(&map, &walk)); walked++) {
				if (round == 0 && walked % stays == 0)
					continue;
				map_remove(&map, node);
				free(item_of(node));
				left--;
			}
			assert_int_equal(walked, before);
			assert_int_equal(map.n, left);
		}
		assert_null(map.chain);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_empty_map_finds_nothing_and_owns_nothing),
		cmocka_unit_test(nodes_of_one_chain_are_told_apart_by_their_hash),
		cmocka_unit_test(the_table_has_a_chain_for_each_node_and_not_twice_as_many),
		cmocka_unit_test(nodes_come_and_go_as_the_model_says),
		cmocka_unit_test(whoever_walks_may_free_what_was_returned),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
