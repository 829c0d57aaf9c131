#include "base/shared_line.h"

#include "../test.h"

static void a_shared_line_has_room_for_its_text_and_keeps_a_copy_of_its_key(void **state)
{
	struct span key = copy_of(SPAN("a\0key"));
	struct shared_line *shared = shared_line_new(6, key);

	(void)state;
	free_copy(key);
	memcpy(shared->text, "a text", 6);
	assert_span(shared_line_span(shared), "a text");
	assert_int_equal(shared->key.n, 5);
	assert_memory_equal(shared->key.p, "a\0key", 5);
	assert_int_equal(shared->key_hash, 0);
	assert_int_equal(shared->value_hash, 0);
	shared_line_unref(shared);
}

static void a_shared_line_may_have_no_key_and_no_text(void **state)
{
	struct shared_line *shared = shared_line_new(0, (struct span){0});

	(void)state;
	assert_int_equal(shared->key.n, 0);
	assert_int_equal(shared_line_span(shared).n, 0);
	shared_line_unref(shared);
}

/* The sanitizers and valgrind judge whether it is freed by the last one, and not before. */
static void a_shared_line_lives_as_long_as_somebody_refers_to_it(void **state)
{
	enum { CLIENTS = 1000 };
	struct shared_line *shared = shared_line_new(3, SPAN("key")), *held[CLIENTS];

	(void)state;
	memcpy(shared->text, "abc", 3);
	for (size_t i = 0; i < CLIENTS; i++)
		held[i] = shared_line_ref(shared);
	shared_line_unref(shared);
	for (size_t i = 0; i < CLIENTS; i++) {
		assert_int_equal(held[i]->refs, CLIENTS - i);
		assert_span(shared_line_span(held[i]), "abc");
		assert_span(held[i]->key, "key");
		shared_line_unref(held[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_shared_line_has_room_for_its_text_and_keeps_a_copy_of_its_key),
		cmocka_unit_test(a_shared_line_may_have_no_key_and_no_text),
		cmocka_unit_test(a_shared_line_lives_as_long_as_somebody_refers_to_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
