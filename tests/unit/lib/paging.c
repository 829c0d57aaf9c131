#include <hpkv.h>

#include <string.h>

#include "../test.h"

/* Every text of at most SMALL_MAX bytes over an alphabet whose characters stand at the edges: of
 * lengths in UTF-8, of the surrogates, of the order. In the order of their bytes. */
enum { SMALL_MAX = 6, TEXTS_MAX = 40000 };

static const char *const edges[] = {"",         "\x01",   "a",          "\x7f",
				    "\xc2\x80", "\u07ff", "\u0800",     "\ud7ff",
				    "\ue000",   "\uffff", "\U00010000", "\U0010ffff"};
static struct hpkv_bytes texts[TEXTS_MAX];
static char room[TEXTS_MAX][SMALL_MAX + 1];
static size_t n_texts;

static size_t width(unsigned edge)
{
	return edge == 0 ? 1 : strlen(edges[edge]); /* the first is NUL */
}

static void add_texts(const char *beginning, size_t n, size_t most)
{
	assert_true(n_texts < TEXTS_MAX);
	memcpy(room[n_texts], beginning, n);
	texts[n_texts] = (struct hpkv_bytes){room[n_texts], n};
	const char *self = room[n_texts++];
	for (unsigned i = 0; i < COUNT(edges); i++) {
		char longer[SMALL_MAX + 4];
		if (n + width(i) > most)
			continue;
		memcpy(longer, self, n);
		memcpy(longer + n, edges[i], width(i));
		add_texts(longer, n + width(i), most);
	}
}

static int order(struct hpkv_bytes a, struct hpkv_bytes b)
{
	int difference = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);

	return difference ? difference : (a.n > b.n) - (a.n < b.n);
}

static size_t after(struct hpkv_bytes key, size_t most, char *out)
{
	struct span exact = copy_of((struct span){key.p, key.n});
	char *there = malloc(most);
	size_t n = hpkv_key_after((struct hpkv_bytes){exact.p, exact.n}, most, there);

	assert_true(n <= most);
	memcpy(out, there, n);
	free(there);
	free_copy(exact);
	return n;
}

static bool is_text(struct hpkv_bytes t)
{
	for (size_t i = 0; i < t.n;) {
		unsigned char c = (unsigned char)t.p[i];
		size_t n = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
		if ((c >= 0x80 && c < 0xc2) || c > 0xf4 || i + n > t.n)
			return false;
		for (size_t k = 1; k < n; k++) {
			if (((unsigned char)t.p[i + k] & 0xc0) != 0x80)
				return false;
		}
		if (c == 0xed && (unsigned char)t.p[i + 1] >= 0xa0) /* a surrogate */
			return false;
		i += n;
	}
	return true;
}

/* The texts are in order, and of the alphabet's characters some are neighbours: what follows one
 * text is at most the next one, and behind it. With that, nothing of the alphabet is ever skipped.
 */
static void nothing_lies_between_a_key_and_what_follows_it(void **state)
{
	char out[SMALL_MAX];

	(void)state;
	for (size_t most = 1; most <= 5; most++) {
		n_texts = 0;
		add_texts("", 0, most);
		for (size_t i = 0; i < n_texts; i++) {
			struct hpkv_bytes next = {out, after(texts[i], most, out)};
			if (i > 0)
				assert_true(order(texts[i - 1], texts[i]) < 0);
			if (next.n == 0) {
				assert_int_equal(n_texts - 1, i);
				continue;
			}
			assert_true(order(texts[i], next) < 0);
			assert_true(is_text(next));
			assert_true(i + 1 < n_texts && order(next, texts[i + 1]) <= 0);
		}
	}
}

static void what_follows_one_key(void **state)
{
	static const struct {
		struct span key;
		size_t most;
		struct span next;
	} cases[] = {
		{SPAN(""), 4, SPAN("\0")},
		{SPAN("ab"), 3, SPAN("ab\0")},
		{SPAN("abc"), 3, SPAN("abd")},
		{SPAN("ab\0"), 3, SPAN("ab\1")},
		{SPAN("ab\x7f"), 3, SPAN("ac")}, /* the next one takes two bytes */
		{SPAN("a\u07ff"), 3, SPAN("b")}, /* … three */
		{SPAN("\uffff"), 3, SPAN("")},   /* … four, and there is nothing before it */
		{SPAN("a\uffff"), 4, SPAN("b")},
		{SPAN("a\x7f"), 2, SPAN("b")},
		{SPAN("\x7f"
		      "a"),
		 2,
		 SPAN("\x7f"
		      "b")},
		{SPAN("\x7f\x7f"), 2, SPAN("\xc2\x80")}, /* room was made behind it */
		{SPAN("\xc2\x80"), 2, SPAN("\xc2\x81")},
		{SPAN("\u00bf"), 2, SPAN("\u00c0")},
		{SPAN("\ud7ff"), 3, SPAN("\ue000")},       /* no surrogates */
		{SPAN("\xed\xa0\x80"), 3, SPAN("\ue000")}, /* half a pair, which JSON can say */
		{SPAN("a\U0010ffff"), 5, SPAN("b")},
		{SPAN("\U0010ffff"), 4, SPAN("")},
		{SPAN("\U0010ffff\U0010ffff"), 8, SPAN("")},
		{SPAN("\U0010ffff\U0010ffff"), 9, SPAN("\U0010ffff\U0010ffff\0")},
		{SPAN("\U0010fffe\U0010ffff"), 8, SPAN("\U0010ffff")},
		{SPAN("abcd"), 3, SPAN("abd")}, /* a key that is too long itself */
	};
	char out[16];

	(void)state;
	for (unsigned i = 0; i < COUNT(cases); i++) {
		struct hpkv_bytes key = {cases[i].key.p, cases[i].key.n};
		size_t n = after(key, cases[i].most, out);
		assert_int_equal(cases[i].next.n, n);
		assert_memory_equal(cases[i].next.p, out, n);
	}
}

static void the_last_key_of_a_prefix_ends_them_all(void **state)
{
	(void)state;
	n_texts = 0;
	add_texts("", 0, 5);
	for (size_t i = 0; i < n_texts; i++) {
		char out[5];
		struct hpkv_bytes prefix = texts[i], last = {out, hpkv_key_last(prefix, 5, out)};
		assert_int_equal(5, last.n);
		assert_true(is_text(last));
		assert_memory_equal(prefix.p, last.p, prefix.n);
		/* Of all that begin in this way it is the greatest, and behind it come others. */
		for (size_t k = i; k < n_texts; k++) {
			bool begins = texts[k].n >= prefix.n &&
				      memcmp(texts[k].p, prefix.p, prefix.n) == 0;
			assert_true(begins == (order(texts[k], last) <= 0));
		}
	}
	char out[4];
	assert_int_equal(0, hpkv_key_last(hpkv_str("abcde"), 4, out));
	assert_int_equal(4, hpkv_key_last(hpkv_str("abcd"), 4, out));
	assert_memory_equal("abcd", out, 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_lies_between_a_key_and_what_follows_it),
		cmocka_unit_test(what_follows_one_key),
		cmocka_unit_test(the_last_key_of_a_prefix_ends_them_all),
	};

	return cmocka_run_group_tests_name("paging", tests, NULL, NULL);
}
