/* What is remembered, how it is counted, what gives way, and forgetting in one step. */
#include "../test.h"

#include <stdio.h>

#include "cache/entry.h"
#include "codec/notification.h"

static struct entries es;
static bool others; /* all keys are the first mirror's */

/* Keys that begin with m or n are two mirrors'. */
static uint8_t origin_of(void *owner, struct span key)
{
	(void)owner;
	if (others)
		return ORIGIN_MIRROR;
	return key.p[0] == 'm' ? ORIGIN_MIRROR : key.p[0] == 'n' ? ORIGIN_MIRROR + 1 : ORIGIN_KEYS;
}

static int set_up(void **state)
{
	(void)state;
	entries_init(&es, origin_of, NULL);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	entries_fini(&es);
	return 0;
}

static struct entry *find(const char *key)
{
	return entries_find(&es, span_of(key), notification_bytes_hash(span_of(key), 1));
}

static struct entry *make(const char *key)
{
	return entries_make(&es, span_of(key), notification_bytes_hash(span_of(key), 1),
			    origin_of(NULL, span_of(key)));
}

static void believe(struct entry *e, const char *value)
{
	entries_set(&es, e, ENTRY_FOUND, shape_ref(es.shapes.found), span_of(value));
}

static struct entry *add(const char *key, const char *value)
{
	struct entry *e = make(key);

	believe(e, value);
	return e;
}

static size_t size_of(const char *key, const char *value)
{
	return strlen(key) + strlen(value) + ENTRY_COUNTED;
}

static void all_is_counted(void **state)
{
	struct entry *e = add("k1", "\"one\"");

	(void)state;
	make("k2");
	entries_set(&es, add("m", "\"x\""), ENTRY_MISSING, shape_ref(es.shapes.missing),
		    (struct span){0});
	assert_int_equal(size_of("k1", "\"one\"") + size_of("k2", "") + size_of("m", ""), es.bytes);
	assert_int_equal(2, es.n);
	assert_int_equal(1, es.n_of[ORIGIN_MIRROR]);
	assert_int_equal(0, es.found_of[ORIGIN_MIRROR]);
	assert_int_equal(1, es.found_of[ORIGIN_KEYS]);
	believe(e, "\"longer\"");
	entries_clear(&es, find("m"));
	assert_int_equal(1, es.n);
	assert_int_equal(size_of("k1", "\"longer\"") + size_of("k2", "") + size_of("m", ""),
			 es.bytes);
	entries_drop(&es, e);
	entries_drop(&es, find("k2"));
	entries_drop(&es, find("m"));
	assert_int_equal(0, es.bytes);
	assert_int_equal(0, es.n);
	assert_null(find("k1"));
}

static void keys_are_in_the_order_of_their_bytes(void **state)
{
	static const char *const keys[] = {
		"k", "k\x7f", "k\xc3\xa9", "k\xef\xbf\xbd", "k\xf0\x90\x80\x80", "ka"};
	static const char *const order[] = {
		"k", "ka", "k\x7f", "k\xc3\xa9", "k\xef\xbf\xbd", "k\xf0\x90\x80\x80"};
	struct entry *e;

	(void)state;
	for (size_t i = 0; i < COUNT(keys); i++)
		make(keys[i]);
	e = entries_from(&es, SPAN("j"));
	for (size_t i = 0; i < COUNT(order); i++, e = entries_next(&es, e))
		assert_true(span_equal(entry_key(e), span_of(order[i])));
	assert_null(e);
	assert_ptr_equal(find("ka"), entries_from(&es, SPAN("ka")));
	assert_ptr_equal(find("k\x7f"), entries_behind(&es, SPAN("ka")));
	assert_null(entries_from(&es, SPAN("l")));
}

static void keys_of_one_hash_are_two(void **state)
{
	struct entry *a = entries_make(&es, SPAN("ka"), 5, ORIGIN_KEYS);
	struct entry *b = entries_make(&es, SPAN("kb"), 5, ORIGIN_KEYS);

	(void)state;
	assert_ptr_equal(a, entries_find(&es, SPAN("ka"), 5));
	assert_ptr_equal(b, entries_find(&es, SPAN("kb"), 5));
	assert_null(entries_find(&es, SPAN("kc"), 5));
}

static void what_was_not_used_for_longest_gives_way(void **state)
{
	size_t one = size_of("k1", "\"v\"");

	(void)state;
	add("k1", "\"v\"");
	add("k2", "\"v\"");
	add("k3", "\"v\"");
	add("m1", "\"v\"");
	entries_touch(&es, find("k1"));
	assert_true(entries_shrink(&es, 4 * one));
	assert_int_equal(4, es.n);
	assert_true(entries_shrink(&es, 4 * one - 1));
	assert_null(find("k2"));
	assert_true(entries_shrink(&es, 2 * one));
	assert_null(find("k3"));
	assert_non_null(find("k1"));
	add("k4", "\"v\"");
	believe(find("k1"), "\"w\""); /* a new value is a use */
	assert_true(entries_shrink(&es, 2 * one));
	assert_null(find("k4"));
	assert_false(entries_shrink(&es, 0)); /* a mirror gives way as a whole, or not */
	assert_null(find("k1"));
	assert_non_null(find("m1"));
}

static void one_that_is_busy_stays_without_its_value(void **state)
{
	struct entry *e = add("k1", "\"v\"");

	(void)state;
	e->readers = 1;
	e->changed = 5;
	e->told = 6;
	assert_false(entries_shrink(&es, 0));
	assert_ptr_equal(e, find("k1"));
	assert_int_equal(ENTRY_EMPTY, e->state);
	assert_int_equal(5, e->changed);
	assert_int_equal(6, e->told);
	e->readers = 0;
}

static void all_is_forgotten_in_one_step(void **state)
{
	struct entry *busy;

	(void)state;
	add("k1", "\"v\"");
	add("m1", "\"v\"");
	busy = add("m2", "\"v\"");
	busy->fences = 1;
	busy->changed = 9;
	busy->told = 8;
	entries_forget(&es);
	assert_int_equal(0, es.n);
	assert_int_equal(0, es.n_of[ORIGIN_MIRROR]);
	assert_int_equal(0, es.found_of[ORIGIN_KEYS]);
	assert_int_equal(0, es.found_of[ORIGIN_MIRROR]);
	assert_null(find("k1"));
	assert_ptr_equal(busy, entries_from(&es, SPAN("a"))); /* m1 is passed over */
	assert_int_equal(ENTRY_EMPTY, busy->state);
	assert_int_equal(9, busy->changed);
	assert_int_equal(0, busy->told);
	believe(busy, "\"w\"");
	assert_int_equal(1, es.n);
	assert_false(entries_sweep(&es, 10));
	assert_int_equal(size_of("m2", "\"w\""), es.bytes);
}

static void it_is_freed_bit_by_bit(void **state)
{
	char key[16];

	(void)state;
	for (int i = 0; i < 10; i++) {
		snprintf(key, sizeof(key), "m%d", i);
		add(key, "\"v\"");
	}
	entries_forget(&es);
	add("m31", "\"new\""); /* between two of before */
	assert_true(entries_sweep(&es, 4));
	assert_true(es.bytes > size_of("m31", "\"new\""));
	assert_true(entries_sweep(&es, 4));
	assert_false(entries_sweep(&es, 4));
	assert_int_equal(size_of("m31", "\"new\""), es.bytes);
	assert_false(entries_sweep(&es, 4));
}

/* Entries that stay do not keep it from coming to the end. */
static void it_ends_behind_what_stays(void **state)
{
	char key[16];

	(void)state;
	add("k", "\"v\"");
	add("m", "\"v\"");
	assert_false(entries_sweep(&es, 1)); /* nothing was forgotten yet */
	entries_forget(&es);
	for (int i = 0; i < 10; i++) {
		snprintf(key, sizeof(key), "l%d", i);
		add(key, "\"v\"");
	}
	for (int i = 0; i < 5; i++)
		assert_true(entries_sweep(&es, 2));
	assert_false(entries_sweep(&es, 2));
	assert_int_equal(10 * size_of("l0", "\"v\""), es.bytes);
	assert_false(entries_sweep(&es, 2)); /* and does not begin again */
}

static void what_is_forgotten_meanwhile_is_freed_too(void **state)
{
	(void)state;
	add("m1", "\"v\"");
	add("m2", "\"v\"");
	entries_forget(&es);
	assert_true(entries_sweep(&es, 1));
	add("m1", "\"v\"");
	entries_forget(&es);
	assert_false(entries_sweep(&es, 2));
	assert_int_equal(0, es.bytes);
}

static void one_mirror_is_forgotten(void **state)
{
	(void)state;
	add("k1", "\"v\"");
	add("m1", "\"v\"");
	add("n1", "\"v\"");
	entries_forget_origin(&es, ORIGIN_MIRROR);
	assert_int_equal(2, es.n);
	assert_int_equal(0, es.n_of[ORIGIN_MIRROR]);
	assert_int_equal(0, es.found_of[ORIGIN_MIRROR]);
	assert_ptr_equal(find("n1"), entries_behind(&es, SPAN("k1"))); /* m1 is passed over */
	assert_null(find("m1"));
	assert_non_null(find("n1"));
	assert_non_null(find("k1"));
	entries_forget(&es); /* it may come again */
	add("m1", "\"v\"");
	assert_non_null(find("m1"));
}

/* What is forgotten takes no room from what is not. */
static void what_is_forgotten_gives_way_first(void **state)
{
	size_t one = size_of("k1", "\"v\"");

	(void)state;
	add("m1", "\"v\"");
	add("m2", "\"v\"");
	add("k1", "\"v\"");
	add("n1", "\"v\"");
	entries_forget_origin(&es, ORIGIN_MIRROR);
	assert_true(entries_shrink(&es, 4 * one)); /* there is room */
	assert_int_equal(4 * one, es.bytes);
	assert_true(entries_shrink(&es, 2 * one));
	assert_non_null(find("k1"));
	assert_non_null(find("n1"));
	assert_int_equal(2 * one, es.bytes);
}

/* A busy one is whose its key is by now. */
static void the_owner_of_a_key_may_change(void **state)
{
	struct entry *e = add("k1", "\"v\"");

	(void)state;
	e->readers = 1;
	entries_renew(&es, e); /* nothing was forgotten yet */
	assert_int_equal(ENTRY_FOUND, e->state);
	others = true;
	entries_forget(&es);
	entries_renew(&es, e);
	assert_int_equal(ENTRY_EMPTY, e->state);
	assert_int_equal(ORIGIN_MIRROR, e->origin);
	assert_null(TAILQ_FIRST(&es.recent));
	others = false;
	entries_forget(&es);
	assert_int_equal(ORIGIN_KEYS, find("k1")->origin);
	assert_ptr_equal(e, TAILQ_FIRST(&es.recent));
	believe(e, "\"w\"");
	e->readers = 0;
	assert_true(entries_shrink(&es, 0));
}

static void generations_wrap(void **state)
{
	struct entry *busy = add("k1", "\"v\"");

	(void)state;
	busy->readers = 1;
	entries_forget(&es);
	add("k2", "\"v\"");
	for (int i = 0; i < 2; i++)
		entries_forget(&es);
	assert_null(find("k2"));
	add("k2", "\"v\"");
	for (int i = 0; i < UINT16_MAX; i++)
		entries_forget(&es);
	assert_null(find("k2")); /* a generation has the same number as its own */
	es.generation = UINT16_MAX;
	add("k2", "\"v\"");
	entries_forget(&es);
	assert_null(find("k2"));
	assert_int_equal(ENTRY_EMPTY, find("k1")->state);
	assert_int_equal(0, es.n);
	entries_sweep(&es, 10);
	assert_int_equal(size_of("k1", ""), es.bytes);
	busy->readers = 0;
}

/* A shape that nobody shares is memory of its entry. */
static void an_own_shape_is_counted(void **state)
{
	struct wire_frame frame;
	struct span value;
	char text[100];
	struct entry *e = make("k");

	(void)state;
	for (int i = 0; i < SHAPES_MAX + 1; i++) {
		snprintf(text, sizeof(text),
			 "{\"code\":200,\"n\":%d,\"key\":\"k\",\"value\":\"1\",\"messageId\":1}",
			 i);
		wire_parse(span_of(text), &frame);
		struct shape *shape = shape_of(&es.shapes, &frame, SPAN("k"), &value);
		if (i < SHAPES_MAX - 2) { /* found and missing are there */
			snprintf(text, sizeof(text), "k%d", i);
			entries_set(&es, make(text), ENTRY_FOUND, shape, SPAN("1"));
			continue;
		}
		assert_true(shape_own_size(shape) > 0);
		size_t before = es.bytes - (e->shape ? shape_own_size(e->shape) + e->value_n : 0);
		size_t own = shape_own_size(shape);
		entries_set(&es, e, ENTRY_FOUND, shape, SPAN("1"));
		assert_int_equal(before + own + 1, es.bytes);
	}
	entries_clear(&es, e);
	assert_int_equal(ENTRY_COUNTED + 1, es.bytes - (SHAPES_MAX - 2) * (ENTRY_COUNTED + 3) - 4);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(all_is_counted),
		CASE(keys_are_in_the_order_of_their_bytes),
		CASE(keys_of_one_hash_are_two),
		CASE(what_was_not_used_for_longest_gives_way),
		CASE(one_that_is_busy_stays_without_its_value),
		CASE(all_is_forgotten_in_one_step),
		CASE(it_is_freed_bit_by_bit),
		CASE(it_ends_behind_what_stays),
		CASE(what_is_forgotten_meanwhile_is_freed_too),
		CASE(one_mirror_is_forgotten),
		CASE(what_is_forgotten_gives_way_first),
		CASE(the_owner_of_a_key_may_change),
		CASE(generations_wrap),
		CASE(an_own_shape_is_counted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
