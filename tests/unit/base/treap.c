/* Nodes in the order of their keys, whatever is added and removed. */
#include "../test.h"
#include "../random.h"

#include <stdio.h>

#include "base/treap.h"

enum { NODES = 300, STEPS = 20000 };

struct item {
	struct treap_node node;
	char key[8];
	bool in;
};

static struct item items[NODES];

static struct item *item_of(const struct treap_node *node)
{
	return (struct item *)(void *)((char *)(uintptr_t)node - offsetof(struct item, node));
}

static struct span key_of(const struct treap_node *node)
{
	return span_of(item_of(node)->key);
}

/* Many are the same. */
static uint64_t priority_of(const struct treap_node *node)
{
	return (uint64_t)(item_of(node) - items) * 7919 % 64;
}

static struct item *first_from(size_t i)
{
	while (i < NODES && !items[i].in)
		i++;
	return i < NODES ? &items[i] : NULL;
}

static void assert_item(const struct treap_node *node, const struct item *want)
{
	assert_ptr_equal(node ? item_of(node) : NULL, want);
}

static void finds_what_comes_next(void **state)
{
	struct treap t = {.key = key_of, .priority = priority_of};
	uint32_t lot = 1;

	(void)state;
	for (size_t i = 0; i < NODES; i++)
		snprintf(items[i].key, sizeof(items[i].key), "%04zu", i);
	for (int step = 0; step < STEPS; step++) {
		struct item *item = &items[random_below(&lot, NODES)];
		if (item->in)
			treap_remove(&t, &item->node);
		else
			treap_add(&t, &item->node);
		item->in = !item->in;
		size_t at = random_below(&lot, NODES);
		assert_item(treap_from(&t, span_of(items[at].key)), first_from(at));
		assert_item(treap_after(&t, span_of(items[at].key)), first_from(at + 1));
	}
	assert_item(treap_from(&t, SPAN("")), first_from(0));
	assert_item(treap_after(&t, SPAN("~")), NULL);
}

static void a_beginning_comes_before_what_goes_on(void **state)
{
	(void)state;
	assert_true(treap_compare(SPAN("a"), SPAN("ab")) < 0);
	assert_true(treap_compare(SPAN("ab"), SPAN("b")) < 0);
	assert_true(treap_compare(SPAN("a\0"), SPAN("a")) > 0);
	assert_true(treap_compare(SPAN("\xff"), SPAN("a")) > 0);
	assert_int_equal(treap_compare(SPAN(""), (struct span){0}), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(finds_what_comes_next),
		cmocka_unit_test(a_beginning_comes_before_what_goes_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
