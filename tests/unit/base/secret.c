/* Secrets: what is kept, where it lies, and that nothing of it is left. */
#include "base/secret.h"

#include <stdio.h>
#include <string.h>

#include "../test.h"

static void texts(void **state)
{
	static char longest[20000];
	char *secrets[] = {secret_dup("the key"), secret_dup(""), secret_dupn("cut off", 3),
			   secret_dupn(NULL, 0), NULL};

	(void)state;
	assert_string_equal(secrets[0], "the key");
	assert_string_equal(secrets[1], "");
	assert_string_equal(secrets[2], "cut");
	assert_string_equal(secrets[3], "");
	memset(longest, 'k', sizeof(longest) - 1);
	char *s = secret_dup(longest);
	assert_string_equal(s, longest);
	secret_free(&s);
	assert_null(s);
	for (size_t i = 0; i < 5; i++) {
		secret_free(&secrets[i]);
		assert_null(secrets[i]);
	}
}

static void room_is_zeroed(void **state)
{
	(void)state;
	for (int i = 0; i < 3; i++) { /* also where another one was */
		char *s = secret_alloc(5000);
		for (size_t n = 0; n < 5000; n++)
			assert_int_equal(s[n], 0);
		memset(s, 'x', 5000);
		secret_free(&s);
	}
}

/* The flags that the kernel names for the mapping of an address; "" if it is none's. */
static void flags_at(const void *address, char *flags, int size)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	unsigned long long at = (uintptr_t)address, start, end;
	char line[512];
	bool here = false;

	if (!f) /* the kernel does not tell, or there is no /proc */
		skip();
	flags[0] = '\0';
	while (!flags[0] && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%llx-%llx ", &start, &end) == 2)
			here = start <= at && at < end;
		else if (here && strncmp(line, "VmFlags:", 8) == 0)
			snprintf(flags, (size_t)size, "%s", line + 8);
	}
	fclose(f);
}

static void pages_are_locked_and_not_dumped(void **state)
{
	char flags[512], *s = secret_alloc(10000);

	(void)state;
	if (secret_check() < 0) /* such a machine says so, and goes on */
		skip();
	for (size_t i = 0; i < 10000; i += 9999) {
		flags_at(s + i, flags, sizeof(flags));
		assert_non_null(strstr(flags, " dd"));
#ifndef __SANITIZE_ADDRESS__ /* which makes mlock() do nothing */
		assert_non_null(strstr(flags, " lo"));
#endif
	}
	void *was = s;
	secret_free(&s);
	flags_at(was, flags, sizeof(flags));
	assert_null(strstr(flags, " lo"));
}

/* What one holder has stays until the last one has freed it. */
static void is_shared(void **state)
{
	char *first = secret_dup("the key"), *second = secret_share(first),
	     *third = secret_share(second), *was = first, flags[512];

	(void)state;
	assert_ptr_equal(second, first);
	assert_ptr_equal(third, first);
	secret_free(&second);
	assert_null(second);
	secret_free(&first);
	assert_string_equal(third, "the key");
	secret_free(&third);
	flags_at(was, flags, sizeof(flags));
	assert_null(strstr(flags, " dd"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(texts),
		cmocka_unit_test(room_is_zeroed),
		cmocka_unit_test(pages_are_locked_and_not_dumped),
		cmocka_unit_test(is_shared),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
