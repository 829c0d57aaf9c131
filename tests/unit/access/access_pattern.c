/* Access patterns: what they match is what JavaScript's test() says, what JavaScript does not know
 * is refused, and no pattern costs more than its bounds. */
#include "../test.h"

#include <stdio.h>
#include <time.h>

#include "access/access_pattern.h"

static struct access_pattern *pattern_of(const char *text)
{
	char why[ACCESS_PATTERN_WHY_MAX];
	struct span copy = copy_of(span_of(text));
	struct access_pattern *p = access_pattern_new(copy, why);

	free_copy(copy);
	if (!p)
		fail_msg("%s is refused: %s", text, why);
	return p;
}

static enum access_match match(const char *text, struct span key)
{
	struct access_pattern *p = pattern_of(text);
	struct span copy = copy_of(key);
	enum access_match result = access_pattern_match(p, copy);

	free_copy(copy);
	access_pattern_free(p);
	return result;
}

static void patterns_match_as_in_javascript(void **state)
{
	static const struct {
		const char *pattern;
		struct span key;
		bool matches;
	} CASES[] = {
		{"user", SPAN("a user:1"), true},
		{"^user", SPAN("a user:1"), false},
		{"^user:\\d+$", SPAN("user:12"), true},
		{"^user:\\d+$", SPAN("user:12\n"), false},     /* $ is the very end */
		{"^user:\\d+$", SPAN("user:\xd9\xa1"), false}, /* \d is ASCII */
		{"^a.c$", SPAN("a\nc"), false},
		{"^a.c$", SPAN("a\rc"), false},
		{"^a[\\s\\S]c$", SPAN("a\nc"), true},
		{"^a.c$",
		 SPAN("a\xc3\xa4"
		      "c"),
		 true},
		{"^a[^]c$", SPAN("a\nc"), true},
		{"a[]c", SPAN("ac"), false},
		{"^(?:a|b:.*)$", SPAN("b:x"), true},
		{"^(a)?\\1b$", SPAN("b"), true}, /* a group that has not matched is empty */
		{"^(?<who>x)\\k<who>$", SPAN("xx"), true},
		{"^(?!secret)", SPAN("secret:1"), false},
		{"(?<=a)b", SPAN("ab"), true},
		{"^\\u0041\\x42$", SPAN("AB"), true},
		{"^a\\/b\\-c$", SPAN("a/b-c"), true},
		{"^a{1$", SPAN("a{1"), true},
		{"^a]$", SPAN("a]"), true},
		{"^[\\b]$", SPAN("\b"), true},
		{"^x*?$", SPAN("xx"), true},
		{"", SPAN("anything"), true},
		{"^$", SPAN(""), true},
		{"^a\\0b$", SPAN("a\0b"), true},
		{"^a$", SPAN("a\0b"), false},
		{".", SPAN("\xff"), false}, /* no character at all */
		{"^\xc3\xa4$", SPAN("\xc3\xa4"), true},
		{"[(*+]", SPAN("+"), true},
		{"^[:a]$", SPAN(":"), true},
		{"^[^a]$", SPAN("^"), true},
		{"\\d", SPAN("1"), true},
		{"^\\cA\\cz$", SPAN("\x01\x1a"), true},
		{"\\cA", SPAN("\x01"), true},
		{"a*", SPAN(""), true},
		{"a{1", SPAN("a{1"), true},
		{"^a{}$", SPAN("a{}"), true},
		{"^a{,}$", SPAN("a{,}"), true},
		{"^a{b}$", SPAN("a{b}"), true},
		{"^a{1,2,3}+$", SPAN("a{1,2,3}}"), true},
		{"^a{0}b{9}$", SPAN("bbbbbbbbb"), true},
		{"^a$", SPAN("A"), false},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(CASES); i++) {
		enum access_match result = match(CASES[i].pattern, CASES[i].key);
		if (result != (CASES[i].matches ? ACCESS_MATCH_YES : ACCESS_MATCH_NO))
			fail_msg("%s on %.*s: %d", CASES[i].pattern, (int)CASES[i].key.n,
				 CASES[i].key.p, (int)result);
	}
}

static void what_javascript_does_not_know_is_refused(void **state)
{
	static const char *const CASES[] = {
		"(",        "[",        "a)",          "*a",
		"a**",      "a++",      "a*+",         "a{2}+",
		"(?i)a",    "(?>a)",    "(?R)",        "(?#x)",
		"(?|a|b)",  "(*UTF)a",  "(*ACCEPT)",   "(*LIMIT_MATCH=9)",
		"\\Aa\\z",  "\\Qa\\E",  "\\ha",        "a\\K",
		"\\p{L}",   "\\Ga",     "[[:alpha:]]", "[[.a.]]",
		"\\",       "(?<=a+)b", "a{2,1}",      "[b-a]",
		"(?P<n>a)", "\\a",      "\\z",         "\\A",
		"\\Z",      "(\\A)",    "\\d(?i)a",    "[a](?i)b",
		"a{0}+",    "a{9,}+",   "a{1,2}+",     "a*?+",
		"a{,5}",    "a{1, 2}",  "a{\t1}",      "\\c1",
		"\\c",      "[\\c_]",   "\\c[",        "\\c@",
		"\\c{",
	};
	char why[ACCESS_PATTERN_WHY_MAX];

	(void)state;
	for (size_t i = 0; i < COUNT(CASES); i++) {
		struct span copy = copy_of(span_of(CASES[i]));
		why[0] = '\0';
		struct access_pattern *p = access_pattern_new(copy, why);
		free_copy(copy);
		if (p)
			fail_msg("%s is taken", CASES[i]);
		assert_true(why[0]);
	}
}

static void the_reason_is_told(void **state)
{
	static const char *const CASES[][2] = {
		{"\\", "a backslash ends it"},
		{"a{,5}", "braces like these are no quantifier to JavaScript"},
		{"(a", "missing closing parenthesis (at byte 2)"},
	};
	char why[ACCESS_PATTERN_WHY_MAX];

	(void)state;
	for (size_t i = 0; i < COUNT(CASES); i++) {
		assert_null(access_pattern_new(span_of(CASES[i][0]), why));
		assert_string_equal(CASES[i][1], why);
	}
}

static void an_empty_pattern_matches_all(void **state)
{
	char why[ACCESS_PATTERN_WHY_MAX];
	struct access_pattern *p = access_pattern_new((struct span){0}, why);

	(void)state;
	assert_non_null(p);
	assert_int_equal(access_pattern_match(p, SPAN("a")), ACCESS_MATCH_YES);
	assert_int_equal(access_pattern_match(p, (struct span){0}), ACCESS_MATCH_YES);
	access_pattern_free(p);
}

static void long_and_huge_patterns_are_refused(void **state)
{
	static char text[ACCESS_PATTERN_MAX + 2];
	char why[ACCESS_PATTERN_WHY_MAX];

	(void)state;
	memset(text, 'a', sizeof(text));
	assert_null(access_pattern_new((struct span){text, ACCESS_PATTERN_MAX + 1}, why));
	struct access_pattern *p = access_pattern_new((struct span){text, ACCESS_PATTERN_MAX}, why);
	assert_non_null(p);
	access_pattern_free(p);
	for (size_t depth = 100; depth <= 101; depth++) {
		memset(text, '(', depth);
		memset(text + depth, ')', depth);
		p = access_pattern_new((struct span){text, 2 * depth}, why);
		assert_int_equal(depth > 100, p == NULL);
		access_pattern_free(p);
	}
	assert_null(access_pattern_new(SPAN("(((a{1,1000}){1,1000}){1,1000}){1,1000}"), why));
}

/* Each would take years. */
static void a_pattern_that_runs_into_the_bounds_forbids(void **state)
{
	static const char *const CASES[] = {"^(a+)+$", "^(a|a)*$", "^(a|aa)+$", "(.*a){20}$",
					    "^(([a-z])+.)+[A-Z]([a-z])+$"};
	static char key[512];

	(void)state;
	memset(key, 'a', sizeof(key));
	key[sizeof(key) - 1] = '!';
	for (size_t i = 0; i < COUNT(CASES); i++) {
		struct access_pattern *p = pattern_of(CASES[i]);
		assert_false(access_pattern_tell(p));
		clock_t before = clock();
		assert_int_equal(access_pattern_match(p, (struct span){key, sizeof(key)}),
				 ACCESS_MATCH_BEYOND);
		assert_true(access_pattern_tell(p));
		assert_false(access_pattern_tell(p));
		/* From now on at no cost. */
		for (int j = 0; j < 100000; j++)
			assert_int_equal(access_pattern_match(p, SPAN("a")), ACCESS_MATCH_BEYOND);
		assert_false(access_pattern_tell(p));
		assert_true((clock() - before) / CLOCKS_PER_SEC < 20);
		access_pattern_free(p);
	}
}

/* A million steps, which PCRE2 would do of itself. */
static void the_bound_of_steps_is_ours(void **state)
{
	struct access_pattern *p = pattern_of("^(?:a?){20}a{20}$");

	(void)state;
	assert_int_equal(access_pattern_match(p, SPAN("aaaaaaaaaaaaaaaaaaa!")),
			 ACCESS_MATCH_BEYOND);
	access_pattern_free(p);
}

/* Few steps, but each one deeper: two for each character. */
static void the_bound_of_memory_is_ours(void **state)
{
	struct access_pattern *p = pattern_of("^(?:a|b)*$");
	static char key[ACCESS_PATTERN_DEPTH / 2 - 50];

	(void)state;
	memset(key, 'a', sizeof(key));
	assert_int_equal(access_pattern_match(p, (struct span){key, sizeof(key)}),
			 ACCESS_MATCH_BEYOND);
	access_pattern_free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(patterns_match_as_in_javascript),
		cmocka_unit_test(what_javascript_does_not_know_is_refused),
		cmocka_unit_test(the_reason_is_told),
		cmocka_unit_test(an_empty_pattern_matches_all),
		cmocka_unit_test(long_and_huge_patterns_are_refused),
		cmocka_unit_test(a_pattern_that_runs_into_the_bounds_forbids),
		cmocka_unit_test(the_bound_of_steps_is_ours),
		cmocka_unit_test(the_bound_of_memory_is_ours),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
