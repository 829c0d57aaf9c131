#include "subscriptions/conflation.h"

#include <stdio.h>

#include "base/mem.h"
#include "../test.h"
#include "../random.h"

/* A change of the key; key_hash 0: a line about none. */
static struct shared_line *note_of(const char *key, uint64_t key_hash, const char *text)
{
	struct shared_line *shared = shared_line_new(strlen(text), span_of(key));

	memcpy(shared->text, text, shared->n);
	shared->key_hash = key_hash;
	return shared;
}

static bool put(struct conflation *conflation, const char *key, uint64_t key_hash, const char *text)
{
	struct shared_line *shared = note_of(key, key_hash, text);
	bool replaced = conflation_put(conflation, shared);

	shared_line_unref(shared);
	return replaced;
}

static void assert_next(struct conflation *conflation, const char *text, uint64_t skipped)
{
	struct shared_line *shared;
	uint64_t n;

	assert_int_equal(conflation_take(conflation, &shared, &n), 1);
	assert_span(shared_line_line(shared), text);
	assert_int_equal(n, skipped);
	assert_int_equal(shared->refs, 1);
	shared_line_unref(shared);
}

static void assert_no_more(struct conflation *conflation)
{
	struct shared_line *shared;
	uint64_t n;

	assert_int_equal(conflation_take(conflation, &shared, &n), 0);
	assert_int_equal(conflation->bytes, 0);
}

static void the_latest_change_takes_the_place_of_the_first(void **state)
{
	struct conflation *conflation = conflation_new();

	(void)state;
	assert_false(put(conflation, "a", 1, "a1"));
	assert_false(put(conflation, "b", 2, "b1"));
	assert_true(put(conflation, "a", 1, "a2 longer"));
	assert_true(put(conflation, "a", 1, "a3"));
	assert_int_equal(conflation->bytes, 4);
	assert_next(conflation, "a3", 2);
	assert_false(put(conflation, "a", 1, "a4")); /* the other is out */
	assert_next(conflation, "b1", 0);
	assert_next(conflation, "a4", 0);
	assert_no_more(conflation);
	conflation_free(conflation);
}

static void lines_about_no_key_stay_all_and_where_they_are(void **state)
{
	struct conflation *conflation = conflation_new();

	(void)state;
	put(conflation, "a", 1, "a1");
	assert_false(put(conflation, "", 0, "lost"));
	assert_false(put(conflation, "", 0, "back"));
	put(conflation, "b", 2, "b1");
	put(conflation, "a", 1, "a2");
	assert_next(conflation, "a2", 1);
	assert_next(conflation, "lost", 0);
	assert_next(conflation, "back", 0);
	assert_next(conflation, "b1", 0);
	assert_no_more(conflation);
	conflation_free(conflation);
}

/* What we say ourselves about the key, or about a pattern of that name. */
static void put_own(struct conflation *conflation, const char *key, uint64_t key_hash, bool pattern,
		    const char *text)
{
	struct shared_line *shared = note_of(key, key_hash, text);

	shared->own = true;
	shared->pattern = pattern;
	assert_false(conflation_put(conflation, shared));
	shared_line_unref(shared);
}

static void a_value_that_was_read_parts_the_changes_before_it_from_those_behind(void **state)
{
	struct conflation *conflation = conflation_new();

	(void)state;
	put(conflation, "a", 1, "a1");
	put(conflation, "a", 1, "a2");
	put_own(conflation, "a", 1, false, "value");
	put_own(conflation, "a", 1, false, "gap"); /* is no change that could be replaced */
	assert_false(put(conflation, "a", 1, "a3"));
	put(conflation, "b", 2, "b1");
	assert_true(put(conflation, "a", 1, "a4"));
	assert_next(conflation, "a2", 1);
	assert_next(conflation, "value", 0);
	assert_next(conflation, "gap", 0);
	assert_next(conflation, "a4", 1);
	assert_next(conflation, "b1", 0);
	assert_no_more(conflation);
	conflation_free(conflation);
}

static void the_gap_of_a_pattern_parts_no_changes(void **state)
{
	struct conflation *conflation = conflation_new();

	(void)state;
	put(conflation, "a", 1, "a1");
	put_own(conflation, "a", 1, true, "gap");
	assert_true(put(conflation, "a", 1, "a2"));
	assert_next(conflation, "a2", 1);
	assert_next(conflation, "gap", 0);
	conflation_free(conflation);
}

static void keys_of_one_hash_are_told_apart(void **state)
{
	struct conflation *conflation = conflation_new();

	(void)state;
	put(conflation, "a", 7, "a1");
	put(conflation, "b", 7, "b1");
	assert_true(put(conflation, "b", 7, "b2"));
	assert_next(conflation, "a1", 0);
	assert_next(conflation, "b2", 1);
	conflation_free(conflation);
}

static bool is_not_b(void *owner, const struct shared_line *shared)
{
	++*(int *)owner;
	return !span_equal(shared->key, SPAN("b"));
}

static void what_is_not_wanted_any_more_is_dropped(void **state)
{
	struct conflation *conflation = conflation_new();
	int asked = 0;

	(void)state;
	put(conflation, "b", 2, "b1");
	put(conflation, "a", 1, "a1");
	put(conflation, "b", 2, "b2");
	put(conflation, "", 0, "gap");
	put_own(conflation, "b", 2, false, "value");
	put(conflation, "b", 2, "b3");
	conflation_keep(conflation, is_not_b, &asked);
	assert_int_equal(asked, 4); /* about keys alone */
	assert_int_equal(conflation->bytes, 5);
	assert_false(put(conflation, "b", 2, "b4"));
	assert_next(conflation, "a1", 0);
	assert_next(conflation, "gap", 0);
	assert_next(conflation, "b4", 0);
	assert_no_more(conflation);
	conflation_free(conflation);
}

/* The sanitizers judge whether each is freed. */
static void a_lag_lets_go_of_what_waits_in_it(void **state)
{
	struct conflation *conflation = conflation_new();
	struct shared_line *shared = note_of("a", 1, "text");

	(void)state;
	conflation_put(conflation, shared);
	conflation_put(conflation, shared);
	assert_int_equal(shared->refs, 2);
	put(conflation, "b", 2, "text");
	put(conflation, "", 0, "text");
	conflation_free(conflation);
	assert_int_equal(shared->refs, 1);
	shared_line_unref(shared);
}

/* ---- against a model ---- */

enum { KEYS = 8, LINES = 400 };

struct line {
	int key;       /* KEYS: none */
	unsigned text; /* its number */
	uint64_t skipped;
};

struct model {
	struct conflation *conflation;
	struct line line[LINES];
	size_t n;
	uint32_t random;
};

static uint32_t pick(struct model *m, uint32_t n)
{
	return random_below(&m->random, n);
}

static void model_put(struct model *m, unsigned number)
{
	int key = (int)pick(m, KEYS + 1);
	char name[4], text[10];
	size_t i = 0;

	snprintf(name, sizeof(name), "%d", key);
	snprintf(text, sizeof(text), "%u", number);
	while (i < m->n && (key == KEYS || m->line[i].key != key))
		i++;
	bool replaces = i < m->n;
	uint64_t skipped = replaces ? m->line[i].skipped + 1 : 0;
	m->line[i] = (struct line){key, number, skipped};
	m->n += !replaces;
	bool replaced = put(m->conflation, name, key == KEYS ? 0 : (uint64_t)key % 3 + 1, text);
	assert_int_equal(replaced, replaces);
}

static void model_take(struct model *m)
{
	char text[10];

	if (!m->n) {
		assert_no_more(m->conflation);
		return;
	}
	snprintf(text, sizeof(text), "%u", m->line[0].text);
	assert_next(m->conflation, text, m->line[0].skipped);
	memmove(m->line, m->line + 1, --m->n * sizeof(m->line[0]));
}

static bool is_odd(void *owner, const struct shared_line *shared)
{
	(void)owner;
	return shared->key.p[0] % 2;
}

static void model_keep(struct model *m)
{
	size_t kept = 0;

	conflation_keep(m->conflation, is_odd, NULL);
	for (size_t i = 0; i < m->n; i++) {
		if (m->line[i].key == KEYS || m->line[i].key % 2)
			m->line[kept++] = m->line[i];
	}
	m->n = kept;
}

static void a_lag_is_a_list_in_which_keys_keep_their_first_place(void **state)
{
	(void)state;
	for (uint32_t seed = 1; seed <= 100; seed++) {
		struct model m = {.random = seed, .conflation = conflation_new()};
		for (unsigned step = 0; step < LINES; step++) {
			uint32_t move = pick(&m, 20);
			if (move == 0)
				model_keep(&m);
			else if (move < 13)
				model_put(&m, step);
			else
				model_take(&m);
		}
		while (m.n)
			model_take(&m);
		assert_no_more(m.conflation);
		conflation_free(m.conflation);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_latest_change_takes_the_place_of_the_first),
		cmocka_unit_test(lines_about_no_key_stay_all_and_where_they_are),
		cmocka_unit_test(
			a_value_that_was_read_parts_the_changes_before_it_from_those_behind),
		cmocka_unit_test(the_gap_of_a_pattern_parts_no_changes),
		cmocka_unit_test(keys_of_one_hash_are_told_apart),
		cmocka_unit_test(what_is_not_wanted_any_more_is_dropped),
		cmocka_unit_test(a_lag_lets_go_of_what_waits_in_it),
		cmocka_unit_test(a_lag_is_a_list_in_which_keys_keep_their_first_place),
	};

	return cmocka_run_group_tests_name("lag", tests, NULL, NULL);
}
