/* HTTPS_PROXY and NO_PROXY, as people write them. */
#include "test.h"

#include "proxy.h"

static void addresses_of_proxies(void **state)
{
	static const struct {
		const char *text, *host; /* host NULL: refused */
		unsigned port;
	} rows[] = {
		{"http://proxy.example:3128", "proxy.example", 3128},
		{"http://proxy.example:3128/", "proxy.example", 3128},
		{"HTTP://proxy.example", "proxy.example", 1080},
		{"proxy.example:8080", "proxy.example", 8080},
		{"127.0.0.1:8080", "127.0.0.1", 8080},
		{"http://[::1]:8080", "::1", 8080},
		{"", NULL, 0},
		{"http://", NULL, 0},
		{"https://proxy.example:3128", NULL, 0},
		{"socks5://proxy.example:1080", NULL, 0},
		{"http://user:secret@proxy.example:3128", NULL, 0},
		{"http://proxy.example:0", NULL, 0},
		{"http://proxy.example:70000", NULL, 0},
		{"http://proxy.example:3128/path", NULL, 0},
		{"http://proxy example:3128", NULL, 0},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct proxy proxy = {0};
		const char *why = NULL;
		int err = proxy_parse(rows[i].text, &proxy, &why);

		assert_int_equal(err < 0, rows[i].host == NULL);
		if (err < 0) {
			assert_non_null(why);
			assert_null(strstr(why, "secret"));
			continue;
		}
		assert_string_equal(proxy.host, rows[i].host);
		assert_int_equal(proxy.port, rows[i].port);
		proxy_fini(&proxy);
	}
}

static void hosts_that_need_no_proxy(void **state)
{
	static const struct {
		const char *no_proxy, *host;
		bool bypassed;
	} rows[] = {
		{NULL, "api.hpkv.io", false},
		{"", "api.hpkv.io", false},
		{"*", "api.hpkv.io", true},
		{"hpkv.io", "api.hpkv.io", true},
		{".hpkv.io", "api.hpkv.io", true},
		{".hpkv.io", "hpkv.io", true},
		{"HPKV.io", "api.hpkv.IO", true},
		{"pkv.io", "api.hpkv.io", false},
		{"api.hpkv.io.example", "api.hpkv.io", false},
		{"a.example, hpkv.io ,b.example", "api.hpkv.io", true},
		{"a.example b.example", "b.example", true},
		{",,", "api.hpkv.io", false},
		{".", "api.hpkv.io", false},
		{NULL, "localhost", true},
		{NULL, "127.1.2.3", true},
		{NULL, "::1", true},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		assert_int_equal(proxy_is_bypassed(rows[i].no_proxy, rows[i].host),
				 rows[i].bypassed);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(addresses_of_proxies),
		cmocka_unit_test(hosts_that_need_no_proxy),
	};

	return cmocka_run_group_tests_name("proxy", tests, NULL, NULL);
}
