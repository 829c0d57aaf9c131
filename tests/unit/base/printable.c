/* Bytes of unknown origin as printable ASCII. */
#include "../test.h"

#include "base/printable.h"

static void assert_copy(struct span text, size_t size, const char *want, size_t want_taken)
{
	char out[64];
	size_t taken;

	memset(out, '#', sizeof(out));
	size_t n = printable_copy(text, out, size, &taken);
	assert_int_equal(n, strlen(want));
	assert_memory_equal(out, want, n);
	assert_int_equal(taken, want_taken);
	for (size_t i = size; i < sizeof(out); i++)
		assert_int_equal(out[i], '#');
}

static void all_but_printable_ascii_is_escaped(void **state)
{
	(void)state;
	assert_copy(SPAN("plain text ~"), 64, "plain text ~", 12);
	assert_copy(SPAN("\n\033[31m\x7f\xc3\xa9"), 64, "\\x0a\\x1b[31m\\x7f\\xc3\\xa9", 9);
	assert_copy(SPAN("a\0b"), 64, "a\\x00b", 3);
	assert_copy((struct span){NULL, 0}, 64, "", 0);
}

static void a_long_text_is_cut_at_a_whole_character_and_leaves_a_byte_free(void **state)
{
	(void)state;
	assert_copy(SPAN("0123456789"), 10, "012345", 6);
	assert_copy(SPAN("01234\n789"), 10, "01234\\x0a", 6);
	assert_copy(SPAN("\n\n\n"), 9, "\\x0a\\x0a", 2);
	assert_copy(SPAN("\n"), 4, "", 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_but_printable_ascii_is_escaped),
		cmocka_unit_test(a_long_text_is_cut_at_a_whole_character_and_leaves_a_byte_free),
	};

	return cmocka_run_group_tests_name("printable", tests, NULL, NULL);
}
