#include "note.h"

#include "test.h"

static void a_note_has_room_for_its_text_and_keeps_a_copy_of_its_key(void **state)
{
	struct span key = copy_of(SPAN("a\0key"));
	struct note *note = note_new(6, key);

	(void)state;
	free_copy(key);
	memcpy(note->text, "a text", 6);
	assert_span(note_line(note), "a text");
	assert_int_equal(note->key.n, 5);
	assert_memory_equal(note->key.p, "a\0key", 5);
	assert_int_equal(note->key_hash, 0);
	assert_int_equal(note->value_hash, 0);
	note_unref(note);
}

static void a_note_may_have_no_key_and_no_text(void **state)
{
	struct note *note = note_new(0, (struct span){0});

	(void)state;
	assert_int_equal(note->key.n, 0);
	assert_int_equal(note_line(note).n, 0);
	note_unref(note);
}

/* The sanitizers and valgrind judge whether it is freed by the last one, and not before. */
static void a_note_lives_as_long_as_somebody_refers_to_it(void **state)
{
	enum { CLIENTS = 1000 };
	struct note *note = note_new(3, SPAN("key")), *held[CLIENTS];

	(void)state;
	memcpy(note->text, "abc", 3);
	for (size_t i = 0; i < CLIENTS; i++)
		held[i] = note_ref(note);
	note_unref(note);
	for (size_t i = 0; i < CLIENTS; i++) {
		assert_int_equal(held[i]->refs, CLIENTS - i);
		assert_span(note_line(held[i]), "abc");
		assert_span(held[i]->key, "key");
		note_unref(held[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_note_has_room_for_its_text_and_keeps_a_copy_of_its_key),
		cmocka_unit_test(a_note_may_have_no_key_and_no_text),
		cmocka_unit_test(a_note_lives_as_long_as_somebody_refers_to_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
