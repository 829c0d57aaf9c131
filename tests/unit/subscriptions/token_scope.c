#include "subscriptions/token_scope.h"

#include <regex.h>
#include <stdio.h>

#include "../test.h"
#include "../random.h"

#include "base/glob.h"
#include "codec/json.h"

enum { ITEMS_MAX = 16, STRINGS_MAX = 64, TEXT_MAX = 256 };

/* --- a list and what it was made for --- */

struct made {
	struct token_scope_item item[ITEMS_MAX]; /* sequence: its place */
	size_t n;
	struct token_scope token_scope;
	struct buf list;
	size_t strings;
};

static void add(struct made *m, bool pattern, struct span text)
{
	assert_true(m->n < ITEMS_MAX);
	m->item[m->n] = (struct token_scope_item){.text = copy_of(text),
						  .pattern = pattern,
						  .sequence = m->n,
						  .how = TOKEN_SCOPE_HOW_N};
	m->n++;
}

static void make(struct made *m, size_t budget)
{
	m->strings = token_scope_make(m->item, m->n, budget, &m->token_scope, &m->list);
}

static void unmake(struct made *m)
{
	token_scope_fini(&m->token_scope);
	buf_release(&m->list);
}

static void drop(struct made *m)
{
	for (size_t i = 0; i < m->n; i++)
		free_copy(m->item[i].text);
	unmake(m);
	*m = (struct made){0};
}

/* Wanted texts as a test writes them: "k:" and a key, or "g:" and a glob; NULL ends them. */
static struct made wanted(const char *const *texts)
{
	struct made m = {0};

	for (; *texts; texts++)
		add(&m, **texts == 'g', span_of(*texts + 2));
	return m;
}

#define WANTED(...) wanted((const char *const[]){__VA_ARGS__, NULL})

/* Makes the list anew and compares it; how, if not NULL, has a letter for each item: listed by
 * itself, by a glob, or out. */
static void check_list(struct made *m, size_t budget, const char *list, const char *how)
{
	char seen[ITEMS_MAX + 1] = "";

	unmake(m);
	make(m, budget);
	assert_span(buf_span(&m->list), list);
	for (size_t i = 0; i < m->n; i++)
		seen[i] = m->item[i].how < TOKEN_SCOPE_HOW_N ? "ogl"[m->item[i].how] : '?';
	if (how)
		assert_string_equal(seen, how);
}

/* The prefixes of the scope, joined. */
static void check_cover(const struct made *m, const char *prefixes)
{
	struct buf joined = {0};

	for (size_t i = 0; i < m->token_scope.n; i++)
		buf_addf(&joined, "%.*s|", (int)m->token_scope.prefix[i].n,
			 m->token_scope.prefix[i].p);
	assert_span(buf_span(&joined), prefixes);
	buf_release(&joined);
}

/* --- the list as the service reads it --- */

struct service {
	char memory[STRINGS_MAX][TEXT_MAX];
	struct span string[STRINGS_MAX];
	regex_t regex[STRINGS_MAX]; /* of those that begin with ^ */
	size_t n;
};

static bool is_regex(struct span text)
{
	return text.n && text.p[0] == '^';
}

static void service_read(struct service *s, struct span list)
{
	struct buf text = {0};
	struct json_object_reader r;
	struct json_array_reader a;
	struct json_member m, none;
	struct json_value v;

	buf_addf(&text, "{\"list\":%.*s}", (int)list.n, list.p);
	json_object_begin(&r, buf_span(&text));
	assert_int_equal(json_object_next(&r, &m), 1);
	assert_int_equal(m.value.type, JSON_ARRAY);
	s->n = 0;
	for (json_array_begin(&a, &m.value); json_array_next(&a, &v); s->n++) {
		assert_int_equal(v.type, JSON_STRING);
		assert_true(s->n < STRINGS_MAX && v.text.n < TEXT_MAX);
		char *p = s->memory[s->n];
		s->string[s->n] = (struct span){p, json_string_decode(&v, p)};
		p[s->string[s->n].n] = '\0';
		if (*p == '^' && regcomp(&s->regex[s->n], p, REG_EXTENDED | REG_NOSUB))
			fail_msg("%s is no regular expression", p);
	}
	assert_int_equal(json_object_next(&r, &none), 0);
	buf_release(&text);
}

static void service_forget(struct service *s)
{
	for (size_t i = 0; i < s->n; i++)
		if (is_regex(s->string[i]))
			regfree(&s->regex[i]);
}

static bool string_matches(const struct service *s, size_t i, struct span key)
{
	char text[TEXT_MAX];

	if (!is_regex(s->string[i]))
		return glob_matches(s->string[i], key);
	assert_true(key.n < sizeof(text));
	memcpy(text, key.p, key.n);
	text[key.n] = '\0';
	return regexec(&s->regex[i], text, 0, NULL, 0) == 0;
}

static bool service_tells(const struct service *s, struct span key)
{
	for (size_t i = 0; i < s->n; i++)
		if (string_matches(s, i, key))
			return true;
	return false;
}

static bool service_has(const struct service *s, struct span string)
{
	for (size_t i = 0; i < s->n; i++)
		if (span_equal(s->string[i], string))
			return true;
	return false;
}

/* --- what fits --- */

static void nothing_wanted_is_an_empty_list_whatever_the_budget(void **state)
{
	struct made m = {0};

	(void)state;
	for (size_t budget = 0; budget < 4; budget++) {
		check_list(&m, budget, "[]", "");
		assert_int_equal(m.strings, 0);
		assert_int_equal(m.token_scope.n, 0);
		assert_false(token_scope_has(&m.token_scope, SPAN("")));
	}
	drop(&m);
}

static void what_fits_is_listed_as_it_is_in_the_order_of_its_bytes(void **state)
{
	struct made m = WANTED("k:user:2", "g:app*cpu", "k:user:1", "k:", "g:*:x");

	(void)state;
	check_list(&m, strlen("[\"\",\"*:x\",\"app*cpu\",\"user:1\",\"user:2\"]"),
		   "[\"\",\"*:x\",\"app*cpu\",\"user:1\",\"user:2\"]", "lllll");
	assert_int_equal(m.strings, 5);
	check_cover(&m, "");
	drop(&m);
}

static void the_list_is_appended(void **state)
{
	struct made m = WANTED("k:a");

	(void)state;
	buf_add(&m.list, "before", 6);
	make(&m, 5);
	assert_span(buf_span(&m.list), "before[\"a\"]");
	drop(&m);
}

static void what_a_wanted_prefix_covers_is_not_listed(void **state)
{
	struct made m = WANTED("k:app:x", "g:app:*:y", "g:app:*", "g:app:user:*", "k:app", "k:apq",
			       "g:app*z", "k:app:");

	(void)state;
	check_list(&m, 100, "[\"app\",\"app*z\",\"app:*\",\"apq\"]", "gglglllg");
	check_cover(&m, "app:|");
	drop(&m);
}

static void the_glob_of_everything_covers_all_that_is_wanted(void **state)
{
	struct made m = WANTED("k:a", "g:*:cpu", "g:b*", "g:*", "k:", "k:^");

	(void)state;
	check_list(&m, 5, "[\"*\"]", "ggglgg");
	check_cover(&m, "|");
	assert_true(token_scope_has(&m.token_scope, SPAN("")));
	assert_true(token_scope_has(&m.token_scope, SPAN("whatever")));
	drop(&m);
}

static void the_same_string_is_listed_once(void **state)
{
	struct made m = WANTED("k:a", "g:b*", "g:a", "k:a", "g:b*", "g:c*d", "g:c*d");

	(void)state;
	check_list(&m, 100, "[\"a\",\"b*\",\"c*d\"]", "lllllll");
	drop(&m);
}

/* To the service it is one. */
static void a_key_with_a_star_in_it_is_a_glob(void **state)
{
	struct made m = WANTED("k:a*b", "g:a*b", "k:c*", "k:cd", "k:*e");

	(void)state;
	check_list(&m, 100, "[\"*e\",\"a*b\",\"c*\"]", "lllgl");
	check_cover(&m, "c|");
	drop(&m);
}

/* --- merging --- */

/* Each line is the longest list for all budgets from its length to that of the line above. */
static void check_steps(struct made *m, const char *const *lists)
{
	size_t budget = strlen(lists[0]) + 10;

	for (; *lists; lists++) {
		for (; budget >= strlen(*lists) && budget > 0; budget--)
			check_list(m, budget, *lists, NULL);
	}
}

#define check_steps(m, ...) check_steps(m, (const char *const[]){__VA_ARGS__, NULL})

static void neighbours_with_most_in_common_are_merged_first_and_no_more_than_needed(void **state)
{
	struct made m = WANTED("k:app:user:1", "k:app:user:2", "k:app:x", "k:b1", "k:b2", "k:bcde",
			       "k:bcdf", "g:zz*z");

	(void)state;
	check_steps(&m,
		    "[\"app:user:1\",\"app:user:2\",\"app:x\",\"b1\",\"b2\",\"bcde\",\"bcdf\",\"zz*"
		    "z\"]",
		    "[\"app:user:*\",\"app:x\",\"b1\",\"b2\",\"bcde\",\"bcdf\",\"zz*z\"]",
		    "[\"app:*\",\"b1\",\"b2\",\"bcde\",\"bcdf\",\"zz*z\"]",
		    "[\"app:*\",\"b1\",\"b2\",\"bcd*\",\"zz*z\"]", "[\"app:*\",\"b*\",\"zz*z\"]",
		    "[\"app:*\",\"b*\"]", "[\"app:*\"]", "[\"b*\"]", "[]");
	check_list(&m, 45, "[\"app:*\",\"b1\",\"b2\",\"bcde\",\"bcdf\",\"zz*z\"]", "ggglllll");
	check_cover(&m, "app:|");
	drop(&m);
}

static void of_two_beginnings_as_long_the_first_is_merged_first(void **state)
{
	struct made m = WANTED("k:c1", "k:c2", "k:b1", "k:b2", "k:b3");

	(void)state;
	check_steps(&m, "[\"b1\",\"b2\",\"b3\",\"c1\",\"c2\"]", "[\"b*\",\"c1\",\"c2\"]",
		    "[\"b*\",\"c*\"]", "[\"c*\"]", "[]");
	drop(&m);
}

static void a_key_that_is_the_beginning_of_its_neighbour_is_merged_with_it(void **state)
{
	struct made m = WANTED("k:a", "k:ab", "g:a*c");

	(void)state;
	check_list(&m, 15, "[\"a*\"]", "ggg");
	assert_int_equal(m.strings, 1);
	check_cover(&m, "a|");
	drop(&m);
}

static void wanted_prefixes_are_merged_like_others(void **state)
{
	struct made m = WANTED("g:app:*", "k:app:x", "g:apq*", "g:b*");

	(void)state;
	check_list(&m, 21, "[\"app:*\",\"apq*\",\"b*\"]", "lgll");
	check_cover(&m, "app:|apq|b|");
	check_list(&m, 20, "[\"ap*\",\"b*\"]", "gggl");
	check_cover(&m, "ap|b|");
	drop(&m);
}

static void a_merged_beginning_ends_between_characters(void **state)
{
	static const struct {
		const char *a, *b, *prefix;
	} row[] = {
		{"k:x\xc3\xa9", "k:x\xc3\xa8", "x|"},
		{"k:x\xe2\x82\xac", "k:x\xe2\x82\xad", "x|"},
		{"k:x\xf0\x9f\x98\x80", "k:x\xf0\x9f\x98\x81", "x|"},
		{"k:x\xc3\xa9-", "k:x\xc3\xa9+", "x\xc3\xa9|"},
		{"k:x\xed\xa0\xbd", "k:x\xed\xa0\xbe", "x|"}, /* lone surrogates */
		{"k:x\xed\xa0\xbd-", "k:x\xed\xa0\xbd", "x\xed\xa0\xbd|"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(row); i++) {
		struct made m = WANTED(row[i].a, row[i].b);
		make(&m, 12);
		check_cover(&m, row[i].prefix);
		drop(&m);
	}
	/* Two characters that begin with the same byte have nothing in common. */
	struct made m = WANTED("k:\xc3\xa9", "k:\xc3\xa8");
	check_list(&m, 10, "[\"\xc3\xa9\"]", "lo");
	drop(&m);
}

static void what_begins_with_a_star_is_never_merged(void **state)
{
	struct made m = WANTED("g:*:cpu", "g:*:mem", "k:aa", "k:ab", "k:");

	(void)state;
	check_list(&m, 25, "[\"\",\"*:cpu\",\"*:mem\",\"a*\"]", "llggl");
	check_list(&m, 24, "[\"*:cpu\",\"*:mem\",\"a*\"]", "llggo");
	drop(&m);
}

static void escapes_count(void **state)
{
	struct made m = WANTED("k:\"\n\x01", "k:\"\n\x02");

	(void)state;
	check_steps(&m, "[\"\\\"\\n\\u0001\",\"\\\"\\n\\u0002\"]", "[\"\\\"\\n*\"]", "[]");
	drop(&m);
}

/* Its JSON text with quotes and comma has a byte more than a power of two, as which a buf grows. */
static void there_is_room_for_as_many_escapes_as_there_are_bytes(void **state)
{
	enum { N = 341 };
	char text[N];
	struct made m = {0};

	(void)state;
	memset(text, 1, sizeof(text));
	add(&m, false, (struct span){text, N});
	make(&m, 6 * N + 4);
	assert_int_equal(m.item[0].how, TOKEN_SCOPE_LISTED);
	assert_int_equal(buf_len(&m.list), 6 * N + 4);
	drop(&m);
}

/* --- leaving out --- */

static void the_latest_are_left_out_first_and_no_more_than_needed(void **state)
{
	struct made m = WANTED("k:dd", "k:aa", "k:cc", "k:bb");

	(void)state;
	check_list(&m, 21, "[\"aa\",\"bb\",\"cc\",\"dd\"]", "llll");
	check_list(&m, 20, "[\"aa\",\"cc\",\"dd\"]", "lllo");
	check_list(&m, 15, "[\"aa\",\"dd\"]", "lloo");
	check_list(&m, 10, "[\"dd\"]", "looo");
	check_list(&m, 5, "[]", "oooo");
	check_list(&m, 0, "[]", "oooo");
	assert_int_equal(m.strings, 0);
	drop(&m);
}

static void the_sequence_says_what_is_later_not_the_place(void **state)
{
	struct made m = WANTED("k:a", "k:b", "k:c");

	(void)state;
	m.item[0].sequence = UINT64_MAX;
	m.item[1].sequence = 7;
	m.item[2].sequence = 6;
	check_list(&m, 9, "[\"b\",\"c\"]", "oll");
	check_list(&m, 8, "[\"c\"]", "ool");
	drop(&m);
}

static void of_the_equally_late_the_last_in_the_order_of_bytes_is_left_out_first(void **state)
{
	struct made m = WANTED("k:b", "k:c", "k:a");

	(void)state;
	for (size_t i = 0; i < m.n; i++)
		m.item[i].sequence = 5;
	check_list(&m, 9, "[\"a\",\"b\"]", "lol");
	check_list(&m, 5, "[\"a\"]", "ool");
	drop(&m);
}

static void what_is_too_long_by_itself_costs_no_other_its_place(void **state)
{
	struct made m = WANTED("k:x23456789", "k:a", "k:b", "k:c");

	(void)state;
	check_list(&m, 12, "[\"a\",\"b\"]", "ollo");
	/* Neighbours that begin alike make it fit. */
	add(&m, false, SPAN("xy"));
	check_list(&m, 12, "[\"a\",\"x*\"]", "gloog");
	drop(&m);
}

static void a_run_counts_as_its_earliest_item(void **state)
{
	struct made m = WANTED("k:b1", "k:a", "k:b2", "g:c*", "k:c");

	(void)state;
	check_list(&m, 15, "[\"a\",\"b*\",\"c*\"]", "glglg");
	check_list(&m, 14, "[\"a\",\"b*\"]", "glgoo");
	check_list(&m, 9, "[\"b*\"]", "gogoo");
	drop(&m);
}

static void what_stays_is_merged_no_more_than_needed(void **state)
{
	struct made m = WANTED("k:a1", "k:a2", "k:b234567");

	(void)state;
	check_list(&m, 15, "[\"a1\",\"a2\"]", "llo");
	check_list(&m, 11, "[\"a1\",\"a2\"]", "llo");
	check_list(&m, 10, "[\"a*\"]", "ggo");
	drop(&m);
}

/* --- regular expressions --- */

static void what_begins_with_a_caret_is_an_expression_that_means_the_same(void **state)
{
	static const struct {
		const char *wanted, *list, *yes[4], *no[5];
	} row[] = {
		{"k:^", "[\"^\\\\^$\"]", {"^"}, {"", "^^", "^\n"}},
		{"k:^a*b", "[\"^\\\\^a\\\\*b$\"]", {"^a*b"}, {"^ab", "^a*bc", "x^a*b", "^aab"}},
		{"k:^\\$.+?()[]{}|/-",
		 "[\"^\\\\^\\\\\\\\\\\\$\\\\.\\\\+\\\\?\\\\(\\\\)\\\\[\\\\]\\\\{\\\\}\\\\|/-$\"]",
		 {"^\\$.+?()[]{}|/-"},
		 {"^\\$x+?()[]{}|/-", "^\\$.+?()[]{}", "^"}},
		{"g:^a", "[\"^\\\\^a$\"]", {"^a"}, {"^ab", "a"}},
		{"g:^a*", "[\"^\\\\^a\"]", {"^a", "^ab", "^a\n^"}, {"^", "a", "x^a"}},
		{"g:^a*b.*c",
		 "[\"^\\\\^a([^a]|a)*b\\\\.([^a]|a)*c$\"]",
		 {"^ab.c", "^a\nb.\na\nc", "^ab.cc"},
		 {"^ab.cd", "^abc", "^axbxc", "^ab.c\n"}},
		{"g:^a**b", "[\"^\\\\^a([^a]|a)*b$\"]", {"^ab", "^a*b"}, {"^a", "^abc"}},
		{"g:^a*b**", "[\"^\\\\^a([^a]|a)*b\"]", {"^ab", "^axbx"}, {"^a", "b"}},
		{"g:^*", "[\"^\\\\^\"]", {"^", "^^"}, {"", "x^"}},
	};
	struct service s;

	(void)state;
	for (size_t i = 0; i < COUNT(row); i++) {
		struct made m = WANTED(row[i].wanted);
		check_list(&m, 100, row[i].list, "l");
		service_read(&s, buf_span(&m.list));
		for (size_t j = 0; j < COUNT(row[i].yes) && row[i].yes[j]; j++)
			if (!service_tells(&s, span_of(row[i].yes[j])))
				fail_msg("%s does not match %s", row[i].list, row[i].yes[j]);
		for (size_t j = 0; j < COUNT(row[i].no) && row[i].no[j]; j++)
			if (service_tells(&s, span_of(row[i].no[j])))
				fail_msg("%s matches %s", row[i].list, row[i].no[j]);
		service_forget(&s);
		drop(&m);
	}
}

static void a_nul_in_an_expression_is_a_byte_like_others(void **state)
{
	struct made m = {0};

	(void)state;
	add(&m, false, SPAN("^\0"));
	check_list(&m, 100, "[\"^\\\\^\\u0000$\"]", "l");
	drop(&m);
}

static void an_expression_that_ends_open_counts_as_a_prefix(void **state)
{
	struct made m = WANTED("k:^a*1", "g:^a*2*", "k:^a*2", "g:^b*", "k:^bc");

	(void)state;
	check_list(&m, 100,
		   "[\"^\\\\^a([^a]|a)*2\",\"^\\\\^a\\\\*1$\",\"^\\\\^a\\\\*2$\",\"^\\\\^b\"]",
		   "llllg");
	check_cover(&m, "^b|");
	/* The * of a key is nothing else in the beginning that it has in common. */
	check_list(&m, 48, "[\"^\\\\^a([^a]|a)*2\",\"^\\\\^a\\\\*\",\"^\\\\^b\"]", "glglg");
	check_cover(&m, "^a*|^b|");
	check_list(&m, 12, "[\"^\\\\^\"]", "ggggg");
	check_cover(&m, "^|");
	drop(&m);
}

/* --- the scope --- */

static void the_cover_has_what_begins_with_one_of_its_prefixes(void **state)
{
	struct made m = WANTED("g:app:*", "g:b*", "k:c", "g:d*d", "g:apq*");

	(void)state;
	make(&m, 100);
	assert_true(token_scope_has(&m.token_scope, SPAN("app:")));
	assert_true(token_scope_has(&m.token_scope, SPAN("app:x")));
	assert_true(token_scope_has(&m.token_scope, SPAN("apq")));
	assert_true(token_scope_has(&m.token_scope, SPAN("b")));
	assert_true(token_scope_has(&m.token_scope, SPAN("b\xff")));
	assert_false(token_scope_has(&m.token_scope, SPAN("")));
	assert_false(token_scope_has(&m.token_scope, SPAN("a")));
	assert_false(token_scope_has(&m.token_scope, SPAN("app")));
	assert_false(token_scope_has(&m.token_scope, SPAN("app;")));
	assert_false(token_scope_has(&m.token_scope, SPAN("c")));
	assert_false(token_scope_has(&m.token_scope, SPAN("dd")));
	assert_false(token_scope_has(&m.token_scope, SPAN("\xff")));
	drop(&m);
}

static void the_cover_outlives_the_items(void **state)
{
	struct made m = WANTED("k:a1", "k:a2");

	(void)state;
	make(&m, 10);
	struct token_scope token_scope = m.token_scope;
	m.token_scope = (struct token_scope){0};
	drop(&m);
	assert_true(token_scope_has(&token_scope, SPAN("a3")));
	token_scope_fini(&token_scope);
	assert_false(token_scope_has(&token_scope, SPAN("a3")));
}

/* --- random wants --- */

struct random {
	uint32_t seed;
};

static uint32_t below(struct random *r, uint32_t n)
{
	return random_below(&r->seed, n);
}

/* Up to so many of the pieces, one behind the other. */
static struct span random_text(struct random *r, const char *const *piece, uint32_t pieces,
			       uint32_t most, char *out)
{
	size_t n = 0;

	for (uint32_t left = below(r, most + 1); left; left--) {
		const char *next = piece[below(r, pieces)];
		memcpy(out + n, next, strlen(next));
		n += strlen(next);
	}
	return (struct span){out, n};
}

static void show(const struct made *m)
{
	for (size_t i = 0; i < m->n; i++)
		print_error("%s %.*s\n", m->item[i].pattern ? "glob" : "key",
			    (int)m->item[i].text.n, m->item[i].text.p);
}

/* Few enough pieces that neighbours are frequent; the last one only where * may be. */
static const char *const pieces[] = {
	"a", "a",  "b", "^", "\xc3\xa9", "\xc3\xa8", "\n", "\xed\xa0\xbd", "\xed\xa1\xbd",
	".", "\"", "*"};

/* A key that the item is to bring: each * of a glob is some text. */
static struct span random_key(struct random *r, const struct token_scope_item *item, char *out)
{
	size_t n = 0;

	for (size_t i = 0; i < item->text.n; i++) {
		if (item->pattern && item->text.p[i] == '*')
			n += random_text(r, pieces, COUNT(pieces) - 1, 2, out + n).n;
		else
			out[n++] = item->text.p[i];
	}
	return (struct span){out, n};
}

/* What holds for each item. */
static bool is_told(struct random *r, const struct made *m, const struct service *s,
		    const struct token_scope_item *item)
{
	char text[TEXT_MAX];
	struct span literal = item->pattern ? glob_literal(item->text) : item->text;

	if (item->how == TOKEN_SCOPE_LEFT_OUT)
		return !token_scope_has(&m->token_scope, literal);
	if (item->how == TOKEN_SCOPE_BY_GLOB && !token_scope_has(&m->token_scope, literal))
		return false;
	if (item->how == TOKEN_SCOPE_LISTED && !is_regex(item->text) && !service_has(s, item->text))
		return false;
	for (int i = 0; i < 4; i++)
		if (!service_tells(s, random_key(r, item, text)))
			return false;
	return true;
}

/* Whatever the scope has is told, whatever follows it. */
static bool cover_is_told(struct random *r, const struct made *m, const struct service *s)
{
	char text[TEXT_MAX];

	for (int i = 0; i < 8; i++) {
		struct span literal = random_text(r, pieces, COUNT(pieces), 3, text);
		if (!token_scope_has(&m->token_scope, literal))
			continue;
		char *end = text + literal.n;
		literal.n += random_text(r, pieces, COUNT(pieces), 3, end).n;
		if (!service_tells(s, literal))
			return false;
	}
	return true;
}

static bool cover_is_sorted(const struct token_scope *c)
{
	for (size_t i = 1; i < c->n; i++) {
		struct span a = c->prefix[i - 1], b = c->prefix[i];
		size_t n = a.n < b.n ? a.n : b.n;
		if (memcmp(a.p, b.p, n) >= 0)
			return false;
	}
	return true;
}

static void whatever_is_wanted_is_told_within_the_budget(void **state)
{
	enum { ROUNDS = 20000 };
	static struct service s;
	char text[TEXT_MAX];

	(void)state;
	for (uint32_t round = 0; round < ROUNDS; round++) {
		struct random r = {round};
		struct made m = {0};
		for (uint32_t n = below(&r, ITEMS_MAX + 1); n; n--) {
			bool pattern = below(&r, 2);
			uint32_t of = (uint32_t)COUNT(pieces) - (below(&r, 4) != 0 && !pattern);
			add(&m, pattern, random_text(&r, pieces, of, 5, text));
		}
		size_t budget = below(&r, below(&r, 2) ? 40 : 200);
		make(&m, budget);
		service_read(&s, buf_span(&m.list));
		bool good = s.n == m.strings && cover_is_sorted(&m.token_scope) &&
			    (buf_len(&m.list) <= budget || buf_len(&m.list) == 2) &&
			    cover_is_told(&r, &m, &s);
		for (size_t i = 0; i < m.n; i++)
			good = good && is_told(&r, &m, &s, &m.item[i]);
		if (!good) {
			show(&m);
			fail_msg("round %u, budget %zu: %.*s", round, budget, (int)buf_len(&m.list),
				 buf_span(&m.list).p);
		}
		service_forget(&s);
		drop(&m);
	}
}

/* --- a model: the same rules, step by step over all pairs --- */

struct line {
	char text[TEXT_MAX];
	unsigned items; /* a bit for each that it stands for; the lowest is the earliest */
};

struct model {
	struct line line[ITEMS_MAX];
	size_t n;
};

static struct span literal_of(const struct line *line)
{
	return glob_literal(span_of(line->text));
}

static bool stands_for(const struct line *line, const struct line *other)
{
	struct span a = literal_of(line), b = literal_of(other);

	return strcmp(line->text, other->text) == 0 ||
	       (glob_is_prefix(span_of(line->text)) && b.n >= a.n && memcmp(a.p, b.p, a.n) == 0);
}

static void model_put(struct model *x, struct line line)
{
	for (size_t i = 0; i < x->n; i++) {
		if (stands_for(&x->line[i], &line)) {
			x->line[i].items |= line.items;
			return;
		}
	}
	for (size_t i = 0; i < x->n;) {
		if (stands_for(&line, &x->line[i])) {
			line.items |= x->line[i].items;
			x->line[i] = x->line[--x->n];
		} else {
			i++;
		}
	}
	x->line[x->n++] = line;
}

static size_t model_size(const struct model *x)
{
	size_t size = 2 + (x->n ? x->n - 1 : 0);

	for (size_t i = 0; i < x->n; i++)
		size += strlen(x->line[i].text) + 2;
	return size;
}

static int line_order(const void *a, const void *b)
{
	const struct line *l = a, *m = b;
	char x[TEXT_MAX], y[TEXT_MAX];
	struct span literal = literal_of(l), other = literal_of(m);

	snprintf(x, sizeof(x), "%.*s", (int)literal.n, literal.p);
	snprintf(y, sizeof(y), "%.*s", (int)other.n, other.p);
	int order = strcmp(x, y);
	return order ? order : strcmp(l->text, m->text);
}

/* The longest beginning that two lines share in whole characters, which have one or two bytes here;
 * of several, as the lines are in order, the first. */
static struct span model_longest(const struct model *x)
{
	struct span best = {NULL, 0};

	for (size_t i = 1; i < x->n; i++) {
		struct span a = literal_of(&x->line[i - 1]), b = literal_of(&x->line[i]);
		size_t whole = 0;
		for (size_t n = 0; n < a.n && n < b.n && a.p[n] == b.p[n]; n++)
			if ((unsigned char)a.p[n] < 0xc0)
				whole = n + 1;
		if (whole > best.n)
			best = (struct span){a.p, whole};
	}
	return best;
}

/* Of the items that are in the set. */
static void model_make(struct model *x, const struct made *m, unsigned items, size_t budget)
{
	x->n = 0;
	for (size_t i = 0; i < m->n; i++) {
		struct line line = {.items = items & 1u << i};
		snprintf(line.text, sizeof(line.text), "%.*s", (int)m->item[i].text.n,
			 m->item[i].text.p);
		if (line.items)
			model_put(x, line);
	}
	for (;;) {
		qsort(x->line, x->n, sizeof(*x->line), line_order);
		struct span longest = model_longest(x);
		if (model_size(x) <= budget || !longest.n)
			return;
		struct line line = {.items = 0};
		snprintf(line.text, sizeof(line.text), "%.*s*", (int)longest.n, longest.p);
		model_put(x, line);
	}
}

/* Those of a list without a budget for which there is room. */
static unsigned model_keep(const struct model *x, size_t budget)
{
	unsigned kept = 0;
	size_t size = 1;

	for (unsigned item = 1; item < 1u << ITEMS_MAX; item <<= 1) {
		for (size_t i = 0; i < x->n; i++) {
			unsigned items = x->line[i].items, earliest = items & -items;
			size_t more = strlen(x->line[i].text) + 3;
			if (earliest == item && size + more <= budget) {
				size += more;
				kept |= items;
			}
		}
	}
	return kept;
}

static void model_list(const struct model *x, struct buf *list)
{
	buf_add(list, "[", 1);
	for (size_t i = 0; i < x->n; i++)
		buf_addf(list, "%s\"%s\"", i ? "," : "", x->line[i].text);
	buf_add(list, "]", 1);
}

static enum token_scope_how model_how(const struct model *x, const struct made *m, size_t item)
{
	for (size_t i = 0; i < x->n; i++) {
		if (x->line[i].items & 1u << item)
			return span_equal(m->item[item].text, span_of(x->line[i].text))
				       ? TOKEN_SCOPE_LISTED
				       : TOKEN_SCOPE_BY_GLOB;
	}
	return TOKEN_SCOPE_LEFT_OUT;
}

static void lists_are_those_of_the_model(void **state)
{
	enum { ROUNDS = 20000, ALL = (1u << ITEMS_MAX) - 1 };
	static const char *const plain[] = {"a", "a", "a", "b", "c", "\xc3\xa9", "\xc3\xa8", "*"};
	static struct model x;
	char text[TEXT_MAX];

	(void)state;
	for (uint32_t round = 0; round < ROUNDS; round++) {
		struct random r = {round};
		struct made m = {0};
		struct buf want = {0};
		for (uint32_t n = below(&r, ITEMS_MAX + 1); n; n--)
			add(&m, below(&r, 2), random_text(&r, plain, COUNT(plain), 6, text));
		size_t budget = 5 + below(&r, below(&r, 2) ? 20 : 100);
		make(&m, budget);
		model_make(&x, &m, ALL, budget);
		if (model_size(&x) > budget)
			model_make(&x, &m, model_keep(&x, budget), budget);
		model_list(&x, &want);
		bool good = span_equal(buf_span(&want), buf_span(&m.list)) && x.n == m.strings;
		for (size_t i = 0; i < m.n; i++)
			good = good && m.item[i].how == model_how(&x, &m, i);
		if (!good) {
			show(&m);
			fail_msg("round %u, budget %zu: %.*s instead of %.*s", round, budget,
				 (int)buf_len(&m.list), buf_span(&m.list).p, (int)buf_len(&want),
				 buf_span(&want).p);
		}
		buf_release(&want);
		drop(&m);
	}
}

/* --- many --- */

/* With time that grew by the square of their number, nobody would wait for this. */
static void a_hundred_thousand_keys_are_no_burden(void **state)
{
	enum { N = 100000, BUDGET = 10000, SIZE = 32 };
	struct token_scope_item *item = calloc(N, sizeof(*item));
	char *text = malloc((size_t)N * SIZE);
	struct token_scope token_scope;
	struct buf list = {0};

	(void)state;
	assert_true(item && text);
	for (uint32_t i = 0; i < N; i++) {
		char *p = text + i * SIZE;
		int n = snprintf(p, SIZE, "user:%u:profile", i * 2654435761u % 1000003);
		item[i] = (struct token_scope_item){.text = {p, (size_t)n}, .sequence = i};
	}
	size_t strings = token_scope_make(item, N, BUDGET, &token_scope, &list);
	assert_true(buf_len(&list) <= BUDGET);
	/* The deepest forks alone were replaced, so most of the room is used. */
	assert_true(buf_len(&list) > BUDGET - 200);
	assert_true(strings > 600);
	for (size_t i = 0; i < N; i++) {
		assert_int_not_equal(item[i].how, TOKEN_SCOPE_LEFT_OUT);
		assert_int_equal(token_scope_has(&token_scope, item[i].text),
				 item[i].how == TOKEN_SCOPE_BY_GLOB);
	}
	token_scope_fini(&token_scope);
	buf_release(&list);
	free(item);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_wanted_is_an_empty_list_whatever_the_budget),
		cmocka_unit_test(what_fits_is_listed_as_it_is_in_the_order_of_its_bytes),
		cmocka_unit_test(the_list_is_appended),
		cmocka_unit_test(what_a_wanted_prefix_covers_is_not_listed),
		cmocka_unit_test(the_glob_of_everything_covers_all_that_is_wanted),
		cmocka_unit_test(the_same_string_is_listed_once),
		cmocka_unit_test(a_key_with_a_star_in_it_is_a_glob),
		cmocka_unit_test(
			neighbours_with_most_in_common_are_merged_first_and_no_more_than_needed),
		cmocka_unit_test(of_two_beginnings_as_long_the_first_is_merged_first),
		cmocka_unit_test(a_key_that_is_the_beginning_of_its_neighbour_is_merged_with_it),
		cmocka_unit_test(wanted_prefixes_are_merged_like_others),
		cmocka_unit_test(a_merged_beginning_ends_between_characters),
		cmocka_unit_test(what_begins_with_a_star_is_never_merged),
		cmocka_unit_test(escapes_count),
		cmocka_unit_test(there_is_room_for_as_many_escapes_as_there_are_bytes),
		cmocka_unit_test(the_latest_are_left_out_first_and_no_more_than_needed),
		cmocka_unit_test(the_sequence_says_what_is_later_not_the_place),
		cmocka_unit_test(
			of_the_equally_late_the_last_in_the_order_of_bytes_is_left_out_first),
		cmocka_unit_test(what_is_too_long_by_itself_costs_no_other_its_place),
		cmocka_unit_test(a_run_counts_as_its_earliest_item),
		cmocka_unit_test(what_stays_is_merged_no_more_than_needed),
		cmocka_unit_test(what_begins_with_a_caret_is_an_expression_that_means_the_same),
		cmocka_unit_test(a_nul_in_an_expression_is_a_byte_like_others),
		cmocka_unit_test(an_expression_that_ends_open_counts_as_a_prefix),
		cmocka_unit_test(the_cover_has_what_begins_with_one_of_its_prefixes),
		cmocka_unit_test(the_cover_outlives_the_items),
		cmocka_unit_test(whatever_is_wanted_is_told_within_the_budget),
		cmocka_unit_test(lists_are_those_of_the_model),
		cmocka_unit_test(a_hundred_thousand_keys_are_no_burden),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
