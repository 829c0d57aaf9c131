/* filename: names of files for keys. */
#include "cli/filename.h"

#include "../test.h"

static const char *name_of(const char *key, size_t n, bool folders)
{
	static char out[2000];

	size_t length = filename_of((struct span){key, n}, folders, out);
	assert_int_equal(length, strlen(out));
	return out;
}

#define NAME(key) name_of(key, sizeof(key) - 1, false)
#define FOLDERS(key) name_of(key, sizeof(key) - 1, true)

static void test_what_stands_for_itself(void **state)
{
	(void)state;
	assert_string_equal("app:a-b_c@1,2+3=~.x", NAME("app:a-b_c@1,2+3=~.x"));
	assert_string_equal("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80",
			    NAME("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"));
}

static void test_what_is_escaped(void **state)
{
	(void)state;
	assert_string_equal("%", NAME(""));
	assert_string_equal("%25", NAME("%"));
	assert_string_equal("%2E", NAME("."));
	assert_string_equal("%2E.", NAME(".."));
	assert_string_equal("%2Ehidden.x", NAME(".hidden.x"));
	assert_string_equal("a%2Fb%2F", NAME("a/b/"));
	assert_string_equal("a%00b%0A%20%7F%1B", NAME("a\0b\n \x7f\x1b"));
	assert_string_equal("%C2%9B", NAME("\xc2\x9b"));
	assert_string_equal("%ED%A0%80x", NAME("\xed\xa0\x80x"));
	assert_string_equal("%FF%C3", NAME("\xff\xc3"));
}

static void test_folders(void **state)
{
	(void)state;
	assert_string_equal("a/b", FOLDERS("a/b"));
	assert_string_equal("%/a/%/%2E./%", FOLDERS("/a//../"));
	assert_string_equal("%", FOLDERS(""));
	assert_string_equal("%25/a", FOLDERS("%/a"));
}

static void test_what_fits(void **state)
{
	char name[600];

	(void)state;
	memset(name, 'a', sizeof(name));
	name[255] = '\0';
	assert_true(filename_fits(name));
	name[255] = 'a';
	name[256] = '\0';
	assert_false(filename_fits(name));
	name[100] = '/';
	name[256] = 'a';
	name[356] = '\0';
	assert_true(filename_fits(name));
	name[356] = 'a';
	name[357] = '\0';
	assert_false(filename_fits(name));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_stands_for_itself),
		cmocka_unit_test(test_what_is_escaped),
		cmocka_unit_test(test_folders),
		cmocka_unit_test(test_what_fits),
	};

	return cmocka_run_group_tests_name("cli/filename", tests, NULL, NULL);
}
