#include "base/radix.h"

#include <stdio.h>

#include "../test.h"
#include "../random.h"

/* --- what is found --- */

/* A visitor that writes down the values, which are the strings themselves, as "a|ab|". */
static void write_down(void *owner, void *value)
{
	char *seen = owner;

	strcat(strcat(seen, value), "|");
}

static void assert_prefixes(const struct radix *r, const char *key, const char *want)
{
	struct span copy = copy_of(span_of(key));
	char seen[200] = "";

	radix_prefixes(r, copy, write_down, seen);
	free_copy(copy);
	assert_string_equal(seen, want);
}

static void add(struct radix *r, const char *text)
{
	struct span copy = copy_of(span_of(text));

	*radix_slot(r, copy) = (void *)(uintptr_t)text;
	free_copy(copy);
}

static void all_strings_that_a_key_begins_with_are_visited_the_shortest_first(void **state)
{
	struct radix r = {0};

	(void)state;
	assert_prefixes(&r, "app", "");
	add(&r, "app:user:");
	add(&r, "app:");
	add(&r, "app:users");
	add(&r, "b");
	assert_prefixes(&r, "app:user:7", "app:|app:user:|");
	assert_prefixes(&r, "app:user:", "app:|app:user:|");
	assert_prefixes(&r, "app:user", "app:|");
	assert_prefixes(&r, "app:users", "app:|app:users|");
	assert_prefixes(&r, "app", "");
	assert_prefixes(&r, "", "");
	assert_prefixes(&r, "c", "");
	*radix_slot(&r, (struct span){0}) = (void *)"-";
	assert_prefixes(&r, "app:user:7", "-|app:|app:user:|");
	assert_prefixes(&r, "c", "-|");
	assert_prefixes(&r, "", "-|");
	radix_remove(&r, SPAN("app:"));
	assert_prefixes(&r, "app:user:7", "-|app:user:|");
	radix_fini(&r);
	assert_prefixes(&r, "app:user:7", "");
}

static void a_string_has_one_place_however_often_it_is_added(void **state)
{
	struct radix r = {0};
	int value;

	(void)state;
	assert_null(*radix_slot(&r, SPAN("ab")));
	*radix_slot(&r, SPAN("ab")) = &value;
	assert_ptr_equal(*radix_slot(&r, SPAN("ab")), &value);
	assert_int_equal(r.n, 1);
	/* What the others need of it is no string. */
	assert_null(*radix_slot(&r, SPAN("ac")));
	assert_null(radix_find(&r, SPAN("a")));
	assert_int_equal(r.n, 2);
	assert_null(*radix_slot(&r, SPAN("a")));
	assert_int_equal(r.n, 3);
	assert_ptr_equal(radix_find(&r, SPAN("ab")), &value);
	radix_fini(&r);
	assert_int_equal(r.n, 0);
}

/* One that comes again after it went has no value left over. */
static void a_removed_string_leaves_no_value_behind(void **state)
{
	struct radix r = {0};

	(void)state;
	add(&r, "a");
	add(&r, "ab");
	add(&r, "ac");
	radix_remove(&r, SPAN("a"));
	assert_null(radix_find(&r, SPAN("a")));
	assert_null(*radix_slot(&r, SPAN("a")));
	radix_fini(&r);
}

static void a_node_may_have_a_child_for_each_byte(void **state)
{
	static char value[256];
	struct radix r = {0};

	(void)state;
	/* 101 and 256 have no common divisor: each comes once, in no order. */
	for (unsigned i = 0; i < 256; i++) {
		unsigned char text[] = {'x', (unsigned char)(i * 101), 'y'};
		*radix_slot(&r, (struct span){(char *)text, 3}) = &value[text[1]];
		assert_int_equal(r.nodes, i == 0 ? 1 : i + 2);
	}
	for (unsigned i = 0; i < 256; i++) {
		unsigned char text[] = {'x', (unsigned char)(i * 59), 'y'};
		assert_ptr_equal(radix_find(&r, (struct span){(char *)text, 3}), &value[text[1]]);
		radix_remove(&r, (struct span){(char *)text, 3});
		assert_null(radix_find(&r, (struct span){(char *)text, 3}));
		assert_int_equal(r.nodes, i == 255 ? 0 : i == 254 ? 1 : 256 - i);
	}
	assert_null(r.root);
}

/* --- against a model --- */

/* The strings of up to LONGEST letters, numbered as in a heap: the string with number i goes on
 * with letter k as 3 * i + 1 + k. */
enum { LETTERS = 3, LONGEST = 6, STRINGS = 1093, LONGEST_KEY = 9 };

static const char letters[LETTERS] = {'a', '\0', '\xff'};

struct model {
	bool has[STRINGS];
	int value[STRINGS]; /* whose addresses are the values */
	size_t n;
};

static struct span string_of(size_t number, char room[LONGEST])
{
	size_t n = 0, at = LONGEST;

	for (; number > 0; number = (number - 1) / LETTERS, n++)
		room[--at] = letters[(number - 1) % LETTERS];
	return (struct span){room + at, n};
}

/* As many nodes as a tree needs that holds these strings and has held no others. */
static size_t model_nodes(const struct model *m)
{
	bool below[STRINGS]; /* is there a string that begins with this one? */
	size_t nodes = 0;

	for (size_t i = STRINGS; i-- > 0;) {
		unsigned ways = 0;
		for (size_t child = LETTERS * i + 1; child <= LETTERS * i + LETTERS; child++)
			ways += child < STRINGS && below[child];
		below[i] = m->has[i] || ways > 0;
		nodes += m->has[i] || ways > 1;
	}
	return nodes;
}

struct visits {
	const struct model *model;
	size_t number[LONGEST + 2];
	size_t n;
};

static void visit(void *owner, void *value)
{
	struct visits *v = owner;

	assert_true(v->n <= LONGEST);
	v->number[v->n++] = (size_t)((int *)value - v->model->value);
}

/* The strings with which a random key begins. */
static void check_prefixes(const struct radix *r, const struct model *m, uint32_t random,
			   const char *where)
{
	struct visits v = {.model = m};
	char key[LONGEST_KEY];
	size_t n = random % (LONGEST_KEY + 1), number = 0, want = 0;

	for (size_t i = 0; i < n; i++) {
		key[i] = letters[random_below(&random, LETTERS)];
	}
	struct span copy = copy_of((struct span){key, n});
	radix_prefixes(r, copy, visit, &v);
	free_copy(copy);
	for (size_t i = 0; number < STRINGS; i++) {
		if (m->has[number] && (want >= v.n || v.number[want++] != number))
			fail_msg("%s: string %zu is not visited in its turn", where, number);
		if (i == n)
			break;
		number = LETTERS * number + 1;
		while (key[i] != letters[(number - 1) % LETTERS])
			number++;
	}
	if (v.n != want)
		fail_msg("%s: %zu strings were visited instead of %zu", where, v.n, want);
}

static void check_all(const struct radix *r, struct model *m, const char *where)
{
	for (size_t i = 0; i < STRINGS; i++) {
		char room[LONGEST];
		struct span text = string_of(i, room);
		if (radix_find(r, text) != (m->has[i] ? &m->value[i] : NULL))
			fail_msg("%s: string %zu is %s", where, i, m->has[i] ? "lost" : "there");
	}
	if (r->n != m->n)
		fail_msg("%s: %zu strings instead of %zu", where, r->n, m->n);
	if (r->nodes != model_nodes(m))
		fail_msg("%s: %zu nodes instead of %zu", where, r->nodes, model_nodes(m));
}

static void toggle(struct radix *r, struct model *m, size_t i)
{
	char room[LONGEST];
	struct span copy = copy_of(string_of(i, room));

	if (m->has[i])
		radix_remove(r, copy);
	else
		*radix_slot(r, copy) = &m->value[i];
	free_copy(copy);
	m->has[i] = !m->has[i];
	m->n += m->has[i] ? 1 : (size_t)-1;
}

/* Some strings at once at most, then none again. */
static void play(uint32_t seed, size_t most)
{
	struct model model = {.n = 0};
	struct radix r = {0};
	uint32_t random = seed;
	bool emptying = false;

	for (unsigned step = 0; step < 3000; step++) {
		char where[60];
		snprintf(where, sizeof(where), "seed %u, step %u", seed, step);
		random_next(&random);
		/* Short strings as often as long ones. */
		size_t i = (random >> 8) % (random >> 28 < 8 ? 40 : STRINGS);
		emptying = model.n == most || (emptying && model.n > 0);
		if (model.has[i] == emptying || random >> 29 == 0)
			toggle(&r, &model, i);
		check_prefixes(&r, &model, random, where);
		if (step % 8 == 0)
			check_all(&r, &model, where);
	}
	for (size_t i = 0; i < STRINGS; i++) {
		if (model.has[i] && seed % 2)
			toggle(&r, &model, i);
	}
	if (seed % 2)
		assert_null(r.root);
	radix_fini(&r);
	assert_int_equal(r.nodes, 0);
}

static void strings_come_and_go_as_the_model_says(void **state)
{
	static const size_t most[] = {1, 2, 3, 5, 10, 30, 100, 600};

	(void)state;
	for (uint32_t seed = 0; seed < 2 * COUNT(most); seed++)
		play(seed, most[seed / 2]);
}

/* --- what a peer may think of --- */

static void count(void *owner, void *value)
{
	size_t *n = owner;

	assert_int_equal(*(size_t *)value, ++*n);
}

/* As deep a tree as strings can make, grown from below and from above, and cut from both ends. */
static void each_beginning_of_a_long_string_may_be_one(void **state)
{
	enum { N = 2000 };
	static char text[N];
	static size_t value[N + 1];
	struct radix r = {0};
	size_t n = 0;

	(void)state;
	memset(text, 'x', sizeof(text));
	for (size_t i = 1; i <= N; i++) {
		size_t length = i <= N / 2 ? N / 2 + i : N + 1 - i;
		value[length] = length;
		*radix_slot(&r, (struct span){text, length}) = &value[length];
	}
	radix_prefixes(&r, (struct span){text, N}, count, &n);
	assert_int_equal(n, N);
	assert_int_equal(r.nodes, N);
	for (size_t length = N; length > N / 2; length--)
		radix_remove(&r, (struct span){text, length});
	for (size_t length = 1; length <= N / 4; length++)
		radix_remove(&r, (struct span){text, length});
	assert_int_equal(r.nodes, N / 4);
	for (size_t length = 1; length <= N; length++)
		assert_ptr_equal(radix_find(&r, (struct span){text, length}),
				 length > N / 4 && length <= N / 2 ? &value[length] : NULL);
	radix_fini(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_strings_that_a_key_begins_with_are_visited_the_shortest_first),
		cmocka_unit_test(a_string_has_one_place_however_often_it_is_added),
		cmocka_unit_test(a_removed_string_leaves_no_value_behind),
		cmocka_unit_test(a_node_may_have_a_child_for_each_byte),
		cmocka_unit_test(strings_come_and_go_as_the_model_says),
		cmocka_unit_test(each_beginning_of_a_long_string_may_be_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
