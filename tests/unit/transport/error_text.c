/* What a peer says of the end, in words: none of it forges a line, shows a secret or has no end. */
#include "../test.h"

#include <errno.h>

#include "../locked.h"
#include "transport/error_text.h"

static const char *path; /* of the request */

static void check(struct span text, size_t size, const char *expected)
{
	struct span copy = copy_of(text);
	char *out = malloc(size);

	struct error_text_secret secret = {0};
	if (path)
		error_text_remember(&secret, path);
	error_text_quote(out, size, copy, &secret);
	assert_string_equal(out, expected);
	free(out);
	free_copy(copy);
}

static void quoted(void **state)
{
	(void)state;
	check(SPAN(""), 100, "");
	check(SPAN("slow down"), 100, "slow down");
	check(SPAN("  two\r\n\t lines \n"), 100, "two lines");
	check(SPAN("\x1b[2Ja\0b\x7f"), 100, "\\x1b[2Ja\\x00b\\x7f");
	check(SPAN("sp\xc3\xa4ter \xff"), 100, "sp\\xc3\\xa4ter \\xff");
	check(SPAN("\xe2\x80\xae"), 100, "\\xe2\\x80\\xae");
}

static void cut(void **state)
{
	(void)state;
	check(SPAN("a long text."), 13, "a long te...");
	check(SPAN("\x01\x02\x03"), 12, "\\x01\\x02...");
	check(SPAN("\x01\x02\x03"), 11, "\\x01...");
	check(SPAN("abc"), 4, "...");
}

/* The service may repeat what it was given. */
static void secrets(void **state)
{
	(void)state;
	check(SPAN("bad key 0123456789abcdefABCD."), 100, "bad key ....");
	check(SPAN("token eyJhbGciOiJIUzI1NiJ9-_.eyJzdWIiOiIxMjM0NTY3ODkwIn0.x expired"), 100,
	      "token ........x expired");
	check(SPAN("nineteen 0123456789abcdefABC"), 100, "nineteen 0123456789abcdefABC");
	check(SPAN("?apiKey=a%2Bb%2Bc%2Bd%2Be%2Bf"), 100, "?apiKey=...");
	check(SPAN("key abcdefghijklmnopqrstuvwxyz"), 100, "key ...");
	check(SPAN("key ABCDEFGHIJKLMNOPQRSTUVWXYZ!"), 100, "key ...!");
	/* Six characters differ, wherever they are. */
	check(SPAN("0bcdeaaaaaaaaaaaaaaa"), 100, "...");
	check(SPAN("the_service-restarts-0-or-more"), 100, "...");
	check(SPAN("the_service-restarts-9-or-more"), 100, "...");
}

/* What looks like none is shown. */
static void no_secrets(void **state)
{
	char text[124] = "";

	(void)state;
	memset(text, 'x', sizeof(text) - 1);
	check(SPAN(text), 200, text);
	check(SPAN("----------------------------------------"), 100,
	      "----------------------------------------");
	check(SPAN("ababcababcababcababcababc1"), 100, "ababcababcababcababcababc1");
	check(SPAN("the_service-restarts-for-maintenance"), 100,
	      "the_service-restarts-for-maintenance");
	check(SPAN("the_service_restarts_for_maintenance"), 100,
	      "the_service_restarts_for_maintenance");
	check(SPAN("the+service+restarts+for+maintenance"), 100,
	      "the+service+restarts+for+maintenance");
	check(SPAN("bcdeaaaaaaaaaaaaaaaaaaa"), 100, "bcdeaaaaaaaaaaaaaaaaaaa");
	check(SPAN("the_service-restarts-in-2-minutes"), 100, "...");
	check(SPAN("xxxxxxxxxxxxxxxxxxxxxxxxxxxxabcde1"), 100, "...");
}

/* Also a short one, and one that the query has in another spelling. */
static void what_was_asked_with(void **state)
{
	struct error_text_secret secret = {0};
	long before = locked_kb();
	char out[100];

	(void)state;
	error_text_remember(&secret, "/a=b/ws?token=wxyz"); /* the first = is no secret's */
	error_text_quote(out, sizeof(out), SPAN("no wxyz"), &secret);
	assert_string_equal(out, "no ...");
	error_text_remember(&secret, "/ws?token=abcd");
	error_text_remember(&secret, "/ws?token=abc");
	error_text_quote(out, sizeof(out), SPAN("abcd"), &secret); /* is forgotten */
	assert_string_equal(out, "abcd");
	path = "/ws?apiKey=p%2Fs%3d";
	check(SPAN("bad apiKey=p/s=!"), 100, "bad apiKey=...!");
	check(SPAN("bad /ws?apiKey=p%2Fs%3d"), 100, "bad /ws?apiKey=...");
	check(SPAN("p/s"), 100, "p/s");
	path = "/ws?token=abc&x=y";
	check(SPAN("abc"), 100, "abc");
	path = "/ws?token=abcd&x=y";
	check(SPAN("xabcdabcd"), 100, "x......");
	path = "/ws?token=a%2F";
	check(SPAN("a%2F a/"), 100, "... a/");
	path = "/ws?token=%2Fxabcd%2gef";
	check(SPAN("/xabcd%2gef!"), 100, "...!");
	path = "/ws?token=";
	check(SPAN("abcd"), 100, "abcd");
	path = "/ws";
	check(SPAN("abcd"), 100, "abcd");
	path = NULL;
	assert_int_equal(locked_kb(), before);
}

static void close_codes(void **state)
{
	(void)state;
	assert_string_equal(error_text_close_name(1000), "normal closure");
	assert_string_equal(error_text_close_name(1013), "try again later");
	assert_string_equal(error_text_close_name(1005), "no code given");
	assert_null(error_text_close_name(4000));
}

static void retry_after(void **state)
{
	(void)state;
	assert_int_equal(error_text_retry_after("7", 0), 7);
	assert_int_equal(error_text_retry_after("10", 0), 10);
	assert_int_equal(error_text_retry_after("Thu, 01 Jan 1970 00:01:00 GMT", 100), 0);
	assert_int_equal(error_text_retry_after("999999", 0), 86400);
	assert_int_equal(error_text_retry_after("Thu, 01 Jan 1970 00:01:00 GMT", 10), 50);
	assert_int_equal(error_text_retry_after("soon", 0), -1);
	assert_int_equal(error_text_retry_after("7 apples", 0), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(quoted),
		cmocka_unit_test(cut),
		cmocka_unit_test(secrets),
		cmocka_unit_test(no_secrets),
		cmocka_unit_test(what_was_asked_with),
		cmocka_unit_test(close_codes),
		cmocka_unit_test(retry_after),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
