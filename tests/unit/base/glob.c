#include "base/glob.h"

#include <time.h>

#include "../test.h"

static bool matches(struct span glob, struct span key)
{
	struct span exact_glob = copy_of(glob), exact_key = copy_of(key);
	bool answer = glob_matches(exact_glob, exact_key);

	free_copy(exact_glob);
	free_copy(exact_key);
	return answer;
}

static void a_star_stands_for_any_run_of_bytes(void **state)
{
	static const struct {
		struct span glob, key;
		bool matches;
	} cases[] = {
		{SPAN(""), SPAN(""), true},
		{SPAN(""), SPAN("a"), false},
		{SPAN("*"), SPAN(""), true},
		{SPAN("*"), SPAN("a\0\n\xff"), true},
		{SPAN("app:1"), SPAN("app:1"), true},
		{SPAN("app:1"), SPAN("app:12"), false},
		{SPAN("app:*"), SPAN("app:"), true},
		{SPAN("app:*"), SPAN("app"), false},
		{SPAN("app:*"), SPAN("bapp:"), false},
		{SPAN("*:name"), SPAN("user:1:name"), true},
		{SPAN("*:name"), SPAN("user:1:names"), false},
		{SPAN("user:*:name"), SPAN("user:1:name"), true},
		{SPAN("user:*:name"), SPAN("user:name"), false},
		{SPAN("user:*:name"), SPAN("user::name"), true},
		{SPAN("*ab*ab*"), SPAN("xabxxaxab"), true},
		{SPAN("*ab*ab*"), SPAN("xabxxaxb"), false},
		{SPAN("*aab"), SPAN("aaab"), true},
		{SPAN("a*b*c"), SPAN("abcbc"), true},
		{SPAN("\0*\0"), SPAN("\0"), false},
		{SPAN("\0*\0"), SPAN("\0\0"), true},
		{SPAN("a?[b]\\*"), SPAN("a?[b]\\c"), true},
		{SPAN("a?"), SPAN("ab"), false},
		{SPAN("\xc3*"), SPAN("\xc3\xa4"), true},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		if (matches(cases[i].glob, cases[i].key) != cases[i].matches)
			fail_msg("case %zu: %s %s %s", i, cases[i].glob.p,
				 cases[i].matches ? "does not match" : "matches", cases[i].key.p);
	}
	assert_true(glob_matches((struct span){0}, (struct span){0}));
	assert_true(glob_matches(SPAN("**"), (struct span){0}));
	assert_false(glob_matches(SPAN("a*"), (struct span){0}));
	assert_false(glob_matches((struct span){0}, SPAN("a")));
}

/* --- against a model --- */

enum { LONGEST = 6 };

/* Row g of a table tells which beginnings of the key the first g bytes of the glob match. */
static bool model_matches(struct span glob, struct span key)
{
	bool row[LONGEST + 1] = {true};

	for (size_t g = 0; g < glob.n; g++) {
		bool above = row[0];
		row[0] = row[0] && glob.p[g] == '*';
		for (size_t k = 1; k <= key.n; k++) {
			bool match = glob.p[g] == '*' ? row[k - 1] || row[k]
						      : above && glob.p[g] == key.p[k - 1];
			above = row[k];
			row[k] = match;
		}
	}
	return row[key.n];
}

/* The text of this number among all those of some letters, the shorter ones first; false when it
 * would be longer than LONGEST. */
static bool text_of(size_t number, struct span letters, char text[LONGEST], size_t *n)
{
	for (*n = 0; number > 0; ++*n) {
		if (*n == LONGEST)
			return false;
		text[*n] = letters.p[(number - 1) % letters.n];
		number = (number - 1) / letters.n;
	}
	return true;
}

static void all_short_globs_match_what_the_model_says(void **state)
{
	static const struct span letters = SPAN("ab*");
	char glob[LONGEST], key[LONGEST];
	size_t glob_n, key_n, matched = 0;

	(void)state;
	for (size_t g = 0; text_of(g, letters, glob, &glob_n); g++) {
		for (size_t k = 0; text_of(k, letters, key, &key_n); k++) {
			bool want = model_matches((struct span){glob, glob_n},
						  (struct span){key, key_n});
			if (glob_matches((struct span){glob, glob_n}, (struct span){key, key_n}) !=
			    want)
				fail_msg("%.*s %s %.*s", (int)glob_n, glob,
					 want ? "does not match" : "matches", (int)key_n, key);
			matched += want;
		}
	}
	/* The model was asked about something. */
	assert_true(matched > 100000);
}

/* --- what a peer may think of --- */

/* Were the time the product of the lengths, the first of these would take minutes. */
static void no_glob_costs_more_than_its_length_and_the_key_s(void **state)
{
	enum { N = 1 << 19 };
	static char glob[N], key[N];
	static const struct {
		struct span repeated, end; /* of the glob */
	} hostile[] = {
		{SPAN("a"), SPAN("b*")},
		{SPAN("*a"), SPAN("b*")},
		{SPAN("*"), SPAN("b*")},
		{SPAN("*aaaaaaaaaaaaaaab"), SPAN("b*")},
	};

	(void)state;
	memset(key, 'a', sizeof(key));
	for (size_t i = 0; i < COUNT(hostile); i++) {
		struct span again = hostile[i].repeated, end = hostile[i].end;
		size_t n = 1;
		glob[0] = '*';
		for (; n < N / 2; n += again.n)
			memcpy(glob + n, again.p, again.n);
		memcpy(glob + n, end.p, end.n);
		clock_t begin = clock();
		assert_false(glob_matches((struct span){glob, n + end.n}, (struct span){key, N}));
		double seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
		if (seconds > 5)
			fail_msg("a glob of many %s took %.0f seconds", again.p, seconds);
	}
}

/* --- their beginnings --- */

static void the_literal_of_a_glob_is_what_its_matches_begin_with(void **state)
{
	static const struct {
		const char *glob, *literal;
		bool prefix;
	} cases[] = {
		{"", "", false},         {"*", "", true},     {"a", "a", false},
		{"app:*", "app:", true}, {"a**", "a", false}, {"**", "", false},
		{"a*b", "a", false},     {"*a", "", false},   {"a*b*", "a", false},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct span glob = copy_of(span_of(cases[i].glob));
		assert_span(glob_literal(glob), cases[i].literal);
		if (glob_is_prefix(glob) != cases[i].prefix)
			fail_msg("%s is taken for %s prefix", cases[i].glob,
				 cases[i].prefix ? "no" : "a");
		free_copy(glob);
	}
	assert_int_equal(glob_literal((struct span){0}).n, 0);
	assert_false(glob_is_prefix((struct span){0}));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_star_stands_for_any_run_of_bytes),
		cmocka_unit_test(all_short_globs_match_what_the_model_says),
		cmocka_unit_test(no_glob_costs_more_than_its_length_and_the_key_s),
		cmocka_unit_test(the_literal_of_a_glob_is_what_its_matches_begin_with),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
