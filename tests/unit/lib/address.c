#include "address.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "../test.h"

static void paths_and_abstract_names(void **state)
{
	static const struct {
		const char *text;
		struct span name; /* what the kernel is told; a path with its NUL */
	} cases[] = {
		{"/run/hpkvd/hpkvd.sock", SPAN("/run/hpkvd/hpkvd.sock\0")},
		{"hpkvd.sock", SPAN("hpkvd.sock\0")},
		{"@name", SPAN("\0name")},
		{"@/run/x", SPAN("\0/run/x")},
		{"@@", SPAN("\0@")},
		{"./@name", SPAN("./@name\0")},
		{"unix:/run/x", SPAN("/run/x\0")},
		{"unix:x", SPAN("x\0")},
		{"unix:@name", SPAN("\0name")},
		{"unix:///run/x", SPAN("///run/x\0")},
		{"./unix:x", SPAN("./unix:x\0")},
		{"unix", SPAN("unix\0")},
	};
	struct sockaddr_un address;
	socklen_t n;

	(void)state;
	for (unsigned i = 0; i < COUNT(cases); i++) {
		assert_int_equal(0, hpkv_address_read(cases[i].text, &address, &n));
		assert_int_equal(AF_UNIX, address.sun_family);
		assert_int_equal(offsetof(struct sockaddr_un, sun_path) + cases[i].name.n, n);
		assert_memory_equal(cases[i].name.p, address.sun_path, cases[i].name.n);
	}
}

static void what_is_none(void **state)
{
	char text[200];
	struct sockaddr_un address;
	socklen_t n;

	(void)state;
	assert_int_equal(-EINVAL, hpkv_address_read("", &address, &n));
	assert_int_equal(-EINVAL, hpkv_address_read("@", &address, &n));
	assert_int_equal(-EINVAL, hpkv_address_read("unix:", &address, &n));
	assert_int_equal(-EINVAL, hpkv_address_read("unix:@", &address, &n));
	for (size_t scheme = 0; scheme < 6; scheme += 5) {
		memcpy(text, "unix:", scheme);
		for (int abstract = 0; abstract < 2; abstract++) {
			memset(text + scheme, 'x', 150);
			text[scheme] = abstract ? '@' : '/';
			text[scheme + 107 + (size_t)abstract] = '\0';
			assert_int_equal(0, hpkv_address_read(text, &address, &n));
			text[scheme + 107 + (size_t)abstract] = 'x';
			text[scheme + 108 + (size_t)abstract] = '\0';
			assert_int_equal(-ENAMETOOLONG, hpkv_address_read(text, &address, &n));
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(paths_and_abstract_names),
		cmocka_unit_test(what_is_none),
	};

	return cmocka_run_group_tests_name("address", tests, NULL, NULL);
}
