/* HTTPS_PROXY and NO_PROXY, in the forms that users write. */
#include "../test.h"

#include "config/proxy.h"

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
		unsigned port;
		bool bypassed;
	} rows[] = {
		{NULL, "api.hpkv.io", 443, false},
		{"", "api.hpkv.io", 443, false},
		{"*", "api.hpkv.io", 443, true},
		{"hpkv.io", "api.hpkv.io", 443, true},
		{".hpkv.io", "api.hpkv.io", 443, true},
		{".hpkv.io", "hpkv.io", 443, true},
		{"HPKV.io", "api.hpkv.IO", 443, true},
		{"pkv.io", "api.hpkv.io", 443, false},
		{"api.hpkv.io.example", "api.hpkv.io", 443, false},
		{"a.example, hpkv.io ,b.example", "api.hpkv.io", 443, true},
		{"a.example b.example", "b.example", 443, true},
		{",,", "api.hpkv.io", 443, false},
		{".", "api.hpkv.io", 443, false},
		{"*.hpkv.io", "api.hpkv.io", 443, true},
		{"*.hpkv.io", "hpkv.io", 443, true},
		{"*hpkv.io", "api.hpkv.io", 443, false},
		{"hpkv.io.", "api.hpkv.io", 443, true},
		{"hpkv.io", "api.hpkv.io.", 443, true},
		{"a.example\tb.example\n", "b.example", 443, true},
		{"hpkv.io:443", "api.hpkv.io", 443, true},
		{"hpkv.io:443", "api.hpkv.io", 8443, false},
		{"hpkv.io:8443", "api.hpkv.io", 8443, true},
		{"*.hpkv.io:8443", "api.hpkv.io", 8443, true},
		{"hpkv.io:x", "api.hpkv.io", 443, false},
		{"hpkv.io:0", "api.hpkv.io", 443, false},
		{"hpkv.io:", "api.hpkv.io", 443, false},
		{":443", "api.hpkv.io", 443, false},
		{"10.1.2.3", "10.1.2.3", 443, true},
		{"10.1.2.3", "110.1.2.3", 443, false},
		{"1.2.3", "10.1.2.3", 443, false},
		{".2.3", "10.1.2.3", 443, false},
		{"10.1.2.3:443", "10.1.2.3", 443, true},
		{"10.1.2.3:444", "10.1.2.3", 443, false},
		{"10.0.0.0/8", "10.1.2.3", 443, true},
		{"10.0.0.0/8", "11.1.2.3", 443, false},
		{"10.1.2.3/32", "10.1.2.3", 443, true},
		{"10.1.2.2/32", "10.1.2.3", 443, false},
		{"10.1.2.2/31", "10.1.2.3", 443, true},
		{"10.1.3.0/23", "10.1.2.3", 443, true},
		{"10.1.4.0/23", "10.1.2.3", 443, false},
		{"0.0.0.0/0", "10.1.2.3", 443, true},
		{"10.0.0.0/33", "10.0.0.0", 443, false},
		{"10.0.0.0/", "10.0.0.0", 443, false},
		{"10.0.0.0/8", "10.hpkv.io", 443, false},
		{"0.0.0.0/0", "fd00::1", 443, false},
		{"fd00::1", "fd00::1", 443, true},
		{"fd00:0::1", "fd00::1", 443, true},
		{"[fd00::1]", "fd00::1", 443, true},
		{"[fd00::1]:443", "fd00::1", 443, true},
		{"[fd00::1]:444", "fd00::1", 443, false},
		{"fd00::/8", "fd12::1", 443, true},
		{"[fd00::]/8", "fd12::1", 443, true},
		{"fd00::/8", "fe12::1", 443, false},
		{"fd00::/129", "fd00::", 443, false},
		{NULL, "localhost", 443, true},
		{NULL, "127.1.2.3", 443, true},
		{NULL, "::1", 443, true},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		assert_int_equal(
			proxy_is_bypassed(rows[i].no_proxy, rows[i].host, (uint16_t)rows[i].port),
			rows[i].bypassed);
}

static void entries_that_mean_nothing(void **state)
{
	static const struct {
		const char *no_proxy, *useless;
	} rows[] = {
		{NULL, NULL},
		{"", NULL},
		{"*, .a.example,*.b.example:80 c 10.0.0.0/8 [::1]:80 ::1 fd00::/8", NULL},
		{"a.example,ex*mple,b", "ex*mple"},
		{"https://a.example", "https://a.example"},
		{"10.0.0.0/33", "10.0.0.0/33"},
		{"a.example/8", "a.example/8"},
		{"a:b:c", "a:b:c"},
		{"[::1", "[::1"},
		{"a:99999", "a:99999"},
		{"b\x1b\x80", "b??"},
		{"*xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
		 "*xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		char *useless = proxy_useless_entry(rows[i].no_proxy);

		if (rows[i].useless) {
			assert_non_null(useless);
			assert_string_equal(useless, rows[i].useless);
		} else {
			assert_null(useless);
		}
		free(useless);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(addresses_of_proxies),
		cmocka_unit_test(hosts_that_need_no_proxy),
		cmocka_unit_test(entries_that_mean_nothing),
	};

	return cmocka_run_group_tests_name("proxy", tests, NULL, NULL);
}
