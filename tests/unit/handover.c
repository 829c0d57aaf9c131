#include "handover.h"

#include "test.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

/* Changes are written as their key, a letter, their value, a letter, and their timestamp, a number:
 * "ax1". What is delivered is written down one after the other: "ax1 ay2 ". */
struct table {
	struct handover *h;
	struct handover_learned learned;
	char told[4096];
	size_t n;
	int error; /* of the last that was brought */
};

static void write_down(void *owner, const struct change *change)
{
	struct table *t = owner;

	assert_true(t->n + change->text.n + 2 <= sizeof(t->told));
	memcpy(t->told + t->n, change->text.p, change->text.n);
	t->n += change->text.n;
	memcpy(t->told + t->n++, " ", 2);
}

static const struct handover_ops ops = {.deliver = write_down};

static const struct handover_limits plenty = {.remembered = 1000, .held_bytes = 1000};

static void begin_within(struct table *t, const struct handover_limits *limits)
{
	*t = (struct table){.learned.stamps = HANDOVER_STAMPS_ALIKE};
	t->h = handover_new(limits, &t->learned, &ops, t);
}

static void begin(struct table *t)
{
	begin_within(t, &plenty);
}

static void begin_knowing(struct table *t, enum handover_stamps stamps)
{
	begin(t);
	t->learned.stamps = stamps;
}

/* Another handover, with what the last one has learned. */
static void begin_again(struct table *t)
{
	handover_free(t->h);
	t->h = handover_new(&plenty, &t->learned, &ops, t);
}

static void end(struct table *t)
{
	handover_free(t->h);
}

/* One word of play(): the text of a change is gone once it was brought. */
static void play_word(struct table *t, struct span word)
{
	struct span text = copy_of((struct span){word.p + 2, word.n - 2});
	struct change change = {
		.key_hash = (unsigned char)text.p[0],
		.value_hash = (unsigned char)text.p[1],
		.timestamp = strtoll(word.p + 4, NULL, 10),
		.text = text,
	};

	if (word.p[0] == 'o')
		t->error = handover_old_brings(t->h, &change);
	else if (word.p[0] == 'e')
		t->error = handover_old_will_bring(t->h, &change);
	else
		t->error = handover_new_brings(t->h, &change, word.p[0] == 'n');
	free_copy(text);
}

/* "o:ax1": the old connection brings it; "e:ax1": it will; "n:ax1": the new one does; "u:ax1": the
 * new one does, and the old one is not told of the key; "move": the move, after waiting for the old
 * one; "die": at once, since the old one is gone; "stays" and "gone": the old one, after the move.
 */
static void play(struct table *t, const char *script)
{
	while (*script) {
		size_t n = strcspn(script, " ");
		if (script[0] == 'm')
			handover_move(t->h, true);
		else if (script[0] == 'd')
			handover_move(t->h, false);
		else if (script[0] == 's')
			handover_old_stays(t->h);
		else if (script[0] == 'g')
			handover_old_gone(t->h);
		else
			play_word(t, (struct span){script, n});
		script += n + strspn(script + n, " ");
	}
}

/* What was delivered since the last time, and how many doubles were dropped since the beginning. */
#define expect(t, text, doubles)                                                                   \
	do {                                                                                       \
		assert_string_equal((t)->told, text);                                              \
		assert_int_equal(handover_dropped((t)->h), doubles);                               \
		(t)->n = 0;                                                                        \
		(t)->told[0] = '\0';                                                               \
	} while (0)

#define expect_stamps(t, what) assert_int_equal((t)->learned.stamps, HANDOVER_STAMPS_##what)
#define expect_aligned(t) assert_true(handover_aligned((t)->h))
#define expect_unaligned(t) assert_false(handover_aligned((t)->h))

/* ---- while the old connection is believed ---- */

static void the_old_one_is_believed_at_once(void **state)
{
	struct table t;

	(void)state;
	begin(&t);
	expect_aligned(&t);
	play(&t, "o:ax1 o:by2 o:ax3");
	expect(&t, "ax1 by2 ax3 ", 0);
	expect_aligned(&t);
	end(&t);
}

static void what_both_bring_is_delivered_once_whoever_is_first(void **state)
{
	struct table t;

	(void)state;
	begin(&t);
	play(&t, "o:ax1 n:ax1");
	expect(&t, "ax1 ", 1);
	play(&t, "n:by2");
	expect(&t, "", 1);
	play(&t, "o:by2");
	expect(&t, "by2 ", 2);
	play(&t, "move o:ax1 o:by2");
	expect(&t, "", 4);
	end(&t);
}

static void what_only_the_new_one_brings_is_held(void **state)
{
	struct table t;

	(void)state;
	begin(&t);
	play(&t, "n:ax1 n:ay2 n:ax3");
	expect(&t, "", 0);
	end(&t);
}

/* Of the three that the old one brought, the new one begins with the second: the first is older,
 * and no double is expected of it; the third is. */
static void the_first_change_of_the_new_one_is_found_in_what_the_old_one_brought(void **state)
{
	struct table t;

	(void)state;
	begin(&t);
	play(&t, "o:ax1 o:ay2 o:az3 n:ay2");
	expect(&t, "ax1 ay2 az3 ", 1);
	expect_aligned(&t);
	play(&t, "n:az3");
	expect(&t, "", 2);
	play(&t, "n:ax1 move");
	expect(&t, "ax1 ", 2);
	end(&t);
}

static void a_key_waits_for_the_old_one_to_bring_what_the_new_one_began_with(void **state)
{
	struct table t;

	(void)state;
	begin(&t);
	play(&t, "o:ax1 n:az3");
	expect_unaligned(&t);
	play(&t, "n:ax4 o:ay2");
	expect_unaligned(&t);
	play(&t, "o:az3");
	expect_aligned(&t);
	expect(&t, "ax1 ay2 az3 ", 1);
	play(&t, "o:ax4");
	expect(&t, "ax4 ", 2);
	end(&t);
}

static void all_keys_must_be_aligned(void **state)
{
	struct table t;

	(void)state;
	begin(&t);
	play(&t, "n:ax1 n:bx2 n:cx3");
	play(&t, "o:bx2 o:ax1");
	expect_unaligned(&t);
	play(&t, "o:cx3");
	expect_aligned(&t);
	end(&t);
}

/* Else the change of the new one would meet a filter that it cannot pass, and be waited for. */
static void what_was_brought_before_a_key_was_aligned_is_forgotten(void **state)
{
	struct table t;

	(void)state;
	begin(&t);
	play(&t, "o:ax1 n:ay2 o:ay2");
	expect_aligned(&t);
	play(&t, "n:az3");
	expect_aligned(&t);
	play(&t, "n:ax1 move");
	expect(&t, "ax1 ay2 az3 ax1 ", 1);
	end(&t);
}

/* Before a key is aligned the old one brings what is older, or the first that is held. */
static void an_unaligned_key_is_aligned_by_the_first_held_change_only(void **state)
{
	struct table t;

	(void)state;
	begin(&t);
	play(&t, "n:ax1 n:ay2 o:ay2");
	expect(&t, "ay2 ", 0);
	expect_unaligned(&t);
	play(&t, "o:ax1");
	expect(&t, "ax1 ", 1);
	expect_aligned(&t);
	end(&t);
}

static void a_key_that_the_old_one_is_not_told_of_is_held_and_not_waited_for(void **state)
{
	struct table t;

	(void)state;
	begin(&t);
	play(&t, "u:ax1 u:ay2");
	expect_aligned(&t);
	expect(&t, "", 0);
	play(&t, "move");
	expect(&t, "ax1 ay2 ", 0);
	end(&t);
}

static void a_key_that_the_old_one_should_not_be_told_of_has_no_doubles_either(void **state)
{
	struct table t;

	(void)state;
	begin(&t);
	play(&t, "o:ax1 u:ax1 u:ay2 o:ay2 u:bx1 o:bx1");
	expect(&t, "ax1 ay2 bx1 ", 3);
	play(&t, "u:bx2 o:by3");
	expect_aligned(&t);
	end(&t);
}

/* The changes of a key one after the other: some values come again and again, no stamp does. */
static void bring_number(struct table *t, char who, int i)
{
	char word[32];

	snprintf(word, sizeof(word), "%c:a%c%d", who, 'x' + i % 3, i);
	play(t, word);
	assert_int_equal(t->error, 0);
}

static void expect_numbers(const struct table *t, int n)
{
	char want[4096];
	size_t at = 0;

	for (int i = 0; i < n; i++)
		at += (size_t)snprintf(want + at, sizeof(want) - at, "a%c%d ", 'x' + i % 3, i);
	assert_string_equal(t->told, want);
}

enum {
	NUMBERS = 100,
	JOIN = 5,  /* the first that the new one is told */
	MOVE = 60, /* when so many have been brought by the faster one */
	BEHIND_MAX = 40,
};

static void the_new_one_may_be_behind_by_any_number(void **state)
{
	(void)state;
	for (int behind = 0; behind <= BEHIND_MAX; behind++) {
		struct table t;
		begin(&t);
		for (int i = 0; i < NUMBERS + behind; i++) {
			if (i < NUMBERS)
				bring_number(&t, 'o', i);
			if (i - behind >= JOIN)
				bring_number(&t, 'n', i - behind);
			expect_aligned(&t);
			if (i == MOVE)
				handover_move(t.h, true);
		}
		expect_numbers(&t, NUMBERS);
		assert_int_equal(handover_dropped(t.h), NUMBERS - JOIN);
		end(&t);
	}
}

static void the_old_one_may_be_behind_by_any_number(void **state)
{
	(void)state;
	for (int behind = 0; behind <= BEHIND_MAX; behind++) {
		struct table t;
		begin(&t);
		for (int i = 0; i < NUMBERS + behind; i++) {
			if (i >= JOIN && i < NUMBERS)
				bring_number(&t, 'n', i);
			if (i >= behind)
				bring_number(&t, 'o', i - behind);
			assert_int_equal(handover_aligned(t.h), i < JOIN || i - behind >= JOIN);
			if (i == MOVE)
				handover_move(t.h, true);
		}
		expect_numbers(&t, NUMBERS);
		assert_int_equal(handover_dropped(t.h), NUMBERS - JOIN);
		end(&t);
	}
}

static void what_the_old_one_skips_is_delivered_before_what_follows(void **state)
{
	struct table t;

	(void)state;
	begin(&t);
	play(&t, "n:ax1 o:ax1 n:ay2 n:az3 n:ax4 n:ay5 o:ax4");
	expect(&t, "ax1 ay2 az3 ax4 ", 2);
	expect_aligned(&t);
	play(&t, "o:ay5");
	expect(&t, "ay5 ", 3);
	end(&t);
}

static void what_the_new_one_skips_is_not_expected_of_it_any_more(void **state)
{
	struct table t;

	(void)state;
	begin(&t);
	play(&t, "o:ax1 n:ax1 o:ay2 o:az3 o:ax4 n:az3");
	expect(&t, "ax1 ay2 az3 ax4 ", 2);
	expect_aligned(&t);
	play(&t, "n:ax4");
	expect(&t, "", 3);
	play(&t, "n:ay2 move");
	expect(&t, "ay2 ", 3);
	end(&t);
}

static void a_key_is_unaligned_again_when_the_old_one_brings_what_is_not_held(void **state)
{
	struct table t;

	(void)state;
	begin(&t);
	play(&t, "n:ax1 o:ax1 n:ay2 o:az3");
	expect(&t, "ax1 az3 ", 1);
	expect_unaligned(&t);
	play(&t, "n:az3 o:ay2");
	expect(&t, "ay2 ", 2);
	expect_aligned(&t);
	play(&t, "move");
	expect(&t, "az3 ", 2);
	end(&t);
}

static void a_key_is_unaligned_again_when_the_new_one_brings_what_is_not_known(void **state)
{
	struct table t;

	(void)state;
	begin(&t);
	play(&t, "n:ax1 o:ax1 o:ay2 n:az3");
	expect(&t, "ax1 ay2 ", 1);
	expect_unaligned(&t);
	play(&t, "o:az3");
	expect(&t, "az3 ", 2);
	expect_aligned(&t);
	end(&t);
}

/* ---- the move ---- */

static const enum handover_stamps trusting[] = {HANDOVER_STAMPS_UNKNOWN, HANDOVER_STAMPS_ALIKE};

static void the_move_delivers_what_is_held_in_order_of_arrival(void **state)
{
	struct table t;

	(void)state;
	begin(&t);
	play(&t, "u:bx1 n:ax2 u:by3 n:ay4 o:ax2 u:cx5 n:az6");
	expect(&t, "ax2 ", 1);
	play(&t, "move");
	expect(&t, "bx1 by3 ay4 cx5 az6 ", 1);
	play(&t, "move");
	expect(&t, "", 1);
	end(&t);
}

static void after_the_move_the_new_one_is_believed_at_once(void **state)
{
	struct table t;

	(void)state;
	begin(&t);
	play(&t, "move n:ax1 n:ay2 u:bx3");
	expect(&t, "ax1 ay2 bx3 ", 0);
	assert_int_equal(t.error, 0);
	expect_aligned(&t);
	end(&t);
}

static void after_the_move_what_the_old_one_brought_before_it_is_dropped(void **state)
{
	struct table t;

	(void)state;
	begin(&t);
	play(&t, "n:ax1 o:ax1 o:ay2 o:az3 o:bx4 o:by5 move");
	expect(&t, "ax1 ay2 az3 bx4 by5 ", 1);
	play(&t, "n:ay2 n:az3 n:ax6 n:by5 n:bz7");
	expect(&t, "ax6 bz7 ", 4);
	end(&t);
}

static void after_the_move_what_the_new_one_has_passed_is_forgotten(void **state)
{
	struct table t;

	(void)state;
	begin(&t);
	play(&t, "o:ax1 o:ay2 o:bx1 o:by2 o:bz3 move n:az3 n:ay2 n:by2 n:bx1 n:bz3");
	expect(&t, "ax1 ay2 bx1 by2 bz3 az3 ay2 bx1 bz3 ", 1);
	end(&t);
}

/* All that the old one had brought is older than what is held, so it is no double of what comes. */
static void a_move_before_a_key_is_aligned_forgets_what_is_older(void **state)
{
	struct table t;

	(void)state;
	begin(&t);
	play(&t, "o:ax1 n:ay2");
	expect_unaligned(&t);
	play(&t, "move");
	expect_aligned(&t);
	play(&t, "n:ax1");
	expect(&t, "ax1 ay2 ax1 ", 0);
	end(&t);
}

static void the_move_finds_doubles_by_their_values_if_the_old_one_is_ahead(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(trusting); i++) {
		struct table t;
		begin_knowing(&t, trusting[i]);
		play(&t, "o:ax10 o:ay20 o:az30 o:av40 o:aw50 n:ay21 n:az29");
		play(&t, "move");
		expect(&t, "ax10 ay20 az30 av40 aw50 ", 2);
		expect_stamps(&t, UNLIKE);
		play(&t, "n:av41 n:aw49 n:ax61");
		expect(&t, "ax61 ", 4);
		end(&t);
	}
}

static void the_move_finds_doubles_by_their_values_if_the_new_one_is_ahead(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(trusting); i++) {
		struct table t;
		begin_knowing(&t, trusting[i]);
		play(&t, "o:ax10 o:ay20 o:az30 n:ay21 n:az29 n:av41 n:aw49");
		play(&t, "move");
		expect(&t, "ax10 ay20 az30 av41 aw49 ", 2);
		expect_stamps(&t, UNLIKE);
		play(&t, "n:ax61 n:av71");
		expect(&t, "ax61 av71 ", 2);
		end(&t);
	}
}

static void values_agree_as_far_as_both_connections_reach_or_not_at_all(void **state)
{
	struct table t;

	(void)state;
	begin_knowing(&t, HANDOVER_STAMPS_UNKNOWN);
	play(&t, "o:ax10 o:ay20 o:az30 n:ay21 n:ax31");
	play(&t, "o:bx10 o:by20 n:bx11 n:bx21 n:by31 move");
	expect(&t, "ax10 ay20 az30 bx10 by20 ay21 ax31 bx11 bx21 by31 ", 0);
	expect_stamps(&t, UNKNOWN);
	play(&t, "n:az30 n:by20");
	expect(&t, "az30 by20 ", 0);
	end(&t);
}

static void the_earliest_run_of_values_that_agrees_counts(void **state)
{
	struct table t;

	(void)state;
	begin_knowing(&t, HANDOVER_STAMPS_UNKNOWN);
	play(&t, "o:az10 o:ax20 o:ax30 o:ay40 o:ax50 o:ay60 n:ax31 n:ay41 move");
	expect(&t, "az10 ax20 ax30 ay40 ax50 ay60 ", 2);
	play(&t, "n:ax51 n:ay61 n:ax71");
	expect(&t, "ax71 ", 4);
	end(&t);
}

static void values_with_stamps_far_apart_do_not_agree_at_the_move(void **state)
{
	struct table t;

	(void)state;
	begin(&t);
	play(&t, "o:ax1 n:ax5002 n:bx1 o:bx5002 o:cx1 n:cx5001 n:dx1 o:dx5001 move");
	expect(&t, "ax1 bx5002 cx1 dx5001 ax5002 bx1 ", 2);
	end(&t);
}

static void at_the_move_each_key_is_aligned_on_its_own_and_order_is_kept(void **state)
{
	struct table t;

	(void)state;
	begin_knowing(&t, HANDOVER_STAMPS_UNKNOWN);
	play(&t, "n:ax10 u:bx1 n:cx10 n:ay20 n:by2 n:dv10 n:cy20 n:az30 n:cz30 u:cw40");
	play(&t, "o:ax11 o:dw9 o:cx11 o:cy19 o:ex50 move");
	expect(&t, "ax11 dw9 cx11 cy19 ex50 bx1 ay20 by2 dv10 az30 cz30 cw40 ", 3);
	/* Known by what the other keys have shown. */
	play(&t, "n:ex51");
	expect(&t, "", 4);
	end(&t);
}

static void at_the_move_doubles_are_found_of_a_key_that_was_not_waited_for(void **state)
{
	struct table t;

	(void)state;
	begin_knowing(&t, HANDOVER_STAMPS_UNKNOWN);
	play(&t, "o:ax10 u:ax11");
	expect_aligned(&t);
	play(&t, "move");
	expect(&t, "ax10 ", 1);
	end(&t);
}

static void after_the_move_doubles_with_other_stamps_come_twice_if_none_were_found(void **state)
{
	struct table t;

	(void)state;
	begin_knowing(&t, HANDOVER_STAMPS_UNKNOWN);
	play(&t, "o:ax10 move n:ax11");
	expect(&t, "ax10 ax11 ", 0);
	expect_stamps(&t, UNKNOWN);
	end(&t);
}

static void after_the_move_the_old_one_is_dropped_where_the_new_one_has_spoken(void **state)
{
	struct table t;

	(void)state;
	begin(&t);
	play(&t, "n:ax1 o:ax1 u:bx2 move n:cx3");
	expect(&t, "ax1 bx2 cx3 ", 1);
	play(&t, "o:ay4 o:bx2 o:cx3");
	expect(&t, "", 4);
	end(&t);
}

static void after_the_move_the_old_one_is_believed_where_the_new_one_is_silent(void **state)
{
	struct table t;

	(void)state;
	begin(&t);
	play(&t, "o:ax1 move o:ay2 o:bx3 o:by4");
	expect(&t, "ax1 ay2 bx3 by4 ", 0);
	play(&t, "n:ay2 n:bx3 n:by4 n:bz5");
	expect(&t, "bz5 ", 3);
	play(&t, "o:bz5 o:ay6");
	expect(&t, "", 5);
	end(&t);
}

static void what_was_told_in_place_of_the_old_one_is_dropped_when_it_brings_it(void **state)
{
	struct table t;

	(void)state;
	begin(&t);
	play(&t, "e:ax1 e:ay2 move o:ax1 o:ay2 o:az3");
	expect(&t, "ax1 ay2 az3 ", 2);
	play(&t, "n:ax1 n:ay2 n:az3 n:aw4");
	expect(&t, "aw4 ", 5);
	end(&t);
	/* Also while what the new one says waits for it. */
	begin(&t);
	play(&t, "e:ax1 e:ay2 move stays n:az3 o:ax1 o:ay2");
	expect(&t, "ax1 ay2 ", 2);
	play(&t, "o:az3");
	expect(&t, "az3 ", 3);
	end(&t);
}

/* However much that is, it leaves enough of the allowance to find what the new one brings. */
static void a_long_late_stream_of_the_old_one_comes_once(void **state)
{
	enum { BEFORE = 400, AFTER = 400, OLDER = 200 };
	struct table t;
	char word[40];

	(void)state;
	begin(&t);
	for (int i = 0; i < BEFORE + AFTER; i++) {
		if (i == BEFORE)
			play(&t, "move stays");
		snprintf(word, sizeof(word), "%c:a%c%d", i % 5 || i >= BEFORE ? 'o' : 'e',
			 'a' + i % 26, i + 1);
		play(&t, word);
		t.n = 0;
	}
	for (int i = OLDER; i < BEFORE + AFTER; i++) {
		snprintf(word, sizeof(word), "n:a%c%d", 'a' + i % 26, i + 1);
		play(&t, word);
		t.n = 0;
	}
	assert_int_equal(handover_dropped(t.h), BEFORE + AFTER - OLDER);
	end(&t);
}

static void what_is_told_in_place_of_the_old_one_aligns_as_well(void **state)
{
	struct table t;

	(void)state;
	begin(&t);
	play(&t, "n:ay2 e:ax1");
	expect_unaligned(&t);
	play(&t, "e:ay2 n:bx1 n:by2");
	expect(&t, "ax1 ay2 ", 1);
	play(&t, "e:bx1 move o:bx1 o:by2");
	expect(&t, "bx1 by2 ", 4);
	end(&t);
}

/* ---- which changes are the same ---- */

static void values_and_stamps_tell_changes_apart(void **state)
{
	struct table t;

	(void)state;
	begin(&t);
	play(&t, "o:ax1 n:ay1");
	expect_unaligned(&t);
	play(&t, "o:bx1 n:bx2");
	play(&t, "o:ay1");
	expect_unaligned(&t);
	play(&t, "o:bx2");
	expect_aligned(&t);
	expect(&t, "ax1 bx1 ay1 bx2 ", 2);
	end(&t);
}

static void keys_have_nothing_to_do_with_each_other(void **state)
{
	struct table t;

	(void)state;
	begin(&t);
	play(&t, "o:ax1 n:bx1");
	expect(&t, "ax1 ", 0);
	expect_unaligned(&t);
	end(&t);
}

static void stamps_must_be_equal_unless_they_are_known_to_differ(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(trusting); i++) {
		struct table t;
		begin_knowing(&t, trusting[i]);
		play(&t, "o:ax10 n:ax11");
		expect_unaligned(&t);
		play(&t, "o:ax12 o:ax11 n:ay20 o:ay21");
		expect(&t, "ax10 ax12 ax11 ay21 ", 1);
		expect_unaligned(&t);
		end(&t);
	}
}

/* What the new one begins with is ahead of the old one, which has brought equal values before. */
static void a_key_that_toggles_waits_for_the_same_stamp(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(trusting); i++) {
		struct table t;
		begin_knowing(&t, trusting[i]);
		play(&t, "o:ax100 o:ay200 o:ax300 o:ay400 n:ax700 n:ay800 n:ax900");
		expect_unaligned(&t);
		play(&t, "o:ax500 o:ay600");
		expect_unaligned(&t);
		play(&t,
		     "o:ax700 o:ay800 o:ax900 o:ay1000 n:ay1000 o:ax1100 move n:ax1100 n:ay1200");
		expect(&t,
		       "ax100 ay200 ax300 ay400 ax500 ay600 ax700 ay800 ax900 ay1000 ax1100 "
		       "ay1200 ",
		       5);
		expect_stamps(&t, ALIKE);
		end(&t);
	}
}

/* The old one has brought all that is older than the new one, and dies before it brings more. */
static void nothing_is_lost_of_a_key_that_toggles_when_the_old_one_dies(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(trusting); i++) {
		struct table t;
		begin_knowing(&t, trusting[i]);
		play(&t, "o:ax100 o:ay200 o:ax300 o:ay400 n:ax500 n:ay600 die n:ax700");
		expect(&t, "ax100 ay200 ax300 ay400 ax500 ay600 ax700 ", 0);
		assert_int_equal(t.learned.stamps, trusting[i]);
		end(&t);
	}
}

static void stamps_that_are_known_to_differ_may_do_so_a_little(void **state)
{
	struct table t;

	(void)state;
	begin_knowing(&t, HANDOVER_STAMPS_UNLIKE);
	play(&t, "o:ax10000 n:ax15000 n:ay20000 o:ay15000 n:bx1 o:bx5002");
	expect(&t, "ax10000 ay15000 bx5002 ", 2);
	expect_unaligned(&t);
	play(&t, "n:bz7000 o:bx5001 o:bz7001");
	expect(&t, "bx5001 bz7001 ", 4);
	expect_aligned(&t);
	expect_stamps(&t, UNLIKE);
	end(&t);
}

static void equal_stamps_are_noticed_whoever_is_first(void **state)
{
	static const char *const scripts[] = {"n:ax1 o:ax1", "o:ax1 n:ax1"};

	(void)state;
	for (size_t i = 0; i < COUNT(scripts); i++) {
		struct table t;
		begin_knowing(&t, HANDOVER_STAMPS_UNKNOWN);
		play(&t, scripts[i]);
		expect_stamps(&t, ALIKE);
		end(&t);
	}
}

static void different_stamps_are_no_news_unless_they_are_of_doubles(void **state)
{
	struct table t;

	(void)state;
	begin_knowing(&t, HANDOVER_STAMPS_UNKNOWN);
	play(&t, "o:ax1 n:ax2 n:by1 o:by2 u:cz1 o:cz1");
	expect_stamps(&t, ALIKE);
	play(&t, "n:cz2 n:dx3 o:dx4");
	expect_stamps(&t, ALIKE);
	end(&t);
}

static void bring_equal_stamps(struct table *t, int n)
{
	for (int i = 0; i < n; i++)
		play(t, i % 2 ? "o:kx1 n:kx1" : "n:ky2 o:ky2");
	t->n = 0;
}

static void what_the_old_one_is_late_with_comes_before_what_the_new_one_says_first(void **state)
{
	struct table t;

	(void)state;
	begin(&t);
	play(&t, "o:ax1 move stays n:ax3 n:ay4 o:ay2");
	expect(&t, "ax1 ay2 ", 0);
	play(&t, "o:ax3");
	expect(&t, "ax3 ay4 ", 1);
	play(&t, "o:ay4 n:az5 o:az5");
	expect(&t, "az5 ", 3);
	/* Of a key that the old one is not told of nothing is waited for, nor if it is ahead. */
	play(&t, "u:bx1 o:cx1 n:cx1 n:cy2");
	expect(&t, "bx1 cx1 cy2 ", 4);
	end(&t);
}

static void what_is_held_after_the_move_is_told_when_the_old_one_has_gone(void **state)
{
	struct table t;

	(void)state;
	begin(&t);
	play(&t, "move stays n:ax1 n:bx2 n:ax3 o:bw1");
	expect(&t, "bw1 ", 0);
	play(&t, "gone n:by4 n:cx5");
	expect(&t, "ax1 bx2 ax3 by4 cx5 ", 0);
	end(&t);
}

static void too_much_held_after_the_move_is_told_at_once(void **state)
{
	static const struct handover_limits little = {.remembered = 1000, .held_bytes = 6};
	struct table t;

	(void)state;
	begin_within(&t, &little);
	play(&t, "move stays n:ax1 n:ax2");
	expect(&t, "", 0);
	play(&t, "n:ax3");
	assert_int_equal(t.error, -ENOBUFS);
	expect(&t, "ax1 ax2 ax3 ", 0);
	end(&t);
}

/* Not to wait longer for the old one is no reason to mistrust stamps that were alike so often. */
static void many_equal_stamps_in_a_row_outweigh_values_once(void **state)
{
	struct table t;

	(void)state;
	begin_knowing(&t, HANDOVER_STAMPS_UNKNOWN);
	bring_equal_stamps(&t, ALIKE_AFTER);
	t.told[0] = '\0';
	play(&t, "o:ax100 o:ay200 n:ax300 n:ay400 move");
	expect(&t, "ax100 ay200 ax300 ay400 ", ALIKE_AFTER);
	begin_again(&t);
	play(&t, "o:ax100 o:ay200 n:ax300 n:ay400 move");
	expect(&t, "ax100 ay200 ", 2);
	expect_stamps(&t, UNLIKE);
	end(&t);
}

static void many_equal_stamps_in_a_row_show_that_they_do_not_differ(void **state)
{
	struct table t;

	(void)state;
	begin_knowing(&t, HANDOVER_STAMPS_UNLIKE);
	bring_equal_stamps(&t, ALIKE_AFTER - 1);
	play(&t, "o:ax1 n:ax2"); /* not in a row */
	bring_equal_stamps(&t, ALIKE_AFTER - 1);
	expect_stamps(&t, UNLIKE);
	begin_again(&t);
	play(&t, "n:ax1 o:ax2");
	bring_equal_stamps(&t, ALIKE_AFTER / 2);
	begin_again(&t);
	bring_equal_stamps(&t, ALIKE_AFTER / 2 - 1);
	play(&t, "o:ax0 n:ax0"); /* shows nothing */
	expect_stamps(&t, UNLIKE);
	bring_equal_stamps(&t, 1);
	expect_stamps(&t, ALIKE);
	play(&t, "o:bx1 n:bx2");
	expect_unaligned(&t);
	end(&t);
}

/* Equal stamps may be chance; that must not keep keys from being aligned for ever. */
static void equal_stamps_do_not_settle_that_they_are_alike(void **state)
{
	struct table t;

	(void)state;
	begin_knowing(&t, HANDOVER_STAMPS_UNKNOWN);
	play(&t, "o:ax1 n:ax1 o:ay10 n:ay12");
	expect_stamps(&t, ALIKE);
	expect_unaligned(&t);
	play(&t, "o:az20 n:az20 move");
	expect(&t, "ax1 ay10 az20 ", 3);
	expect_stamps(&t, UNLIKE);
	begin_again(&t);
	play(&t, "o:ax31 o:ay42 n:ay43 n:az55 o:az53");
	expect_aligned(&t);
	expect(&t, "ax31 ay42 az53 ", 2);
	end(&t);
}

static void what_was_counted_before_stamps_differed_is_void(void **state)
{
	struct table t;

	(void)state;
	begin_knowing(&t, HANDOVER_STAMPS_UNLIKE);
	bring_equal_stamps(&t, ALIKE_AFTER);
	expect_stamps(&t, ALIKE);
	play(&t, "o:ax1 n:ax2 move"); /* stamps outweigh values once */
	expect_stamps(&t, ALIKE);
	begin_again(&t);
	play(&t, "o:ax1 n:ax2 move");
	expect_stamps(&t, UNLIKE);
	bring_equal_stamps(&t, ALIKE_AFTER - 1);
	expect_stamps(&t, UNLIKE);
	end(&t);
}

static void what_is_known_of_stamps_is_kept_for_the_next_handover(void **state)
{
	struct table t;

	(void)state;
	begin_knowing(&t, HANDOVER_STAMPS_UNKNOWN);
	play(&t, "o:ax1 n:ax2 move");
	begin_again(&t);
	play(&t, "o:ax1 n:ax2");
	expect_aligned(&t);
	end(&t);
}

static void changes_without_stamps_are_the_same_and_prove_nothing(void **state)
{
	struct table t;

	(void)state;
	begin_knowing(&t, HANDOVER_STAMPS_UNKNOWN);
	play(&t, "o:ax0 n:ax0 n:ay0 o:ay0");
	expect(&t, "ax0 ay0 ", 2);
	expect_stamps(&t, UNKNOWN);
	play(&t, "o:bx0 n:bx1 o:cx1 n:cx0 move");
	expect(&t, "bx0 cx1 ", 4);
	expect_stamps(&t, UNKNOWN);
	end(&t);
}

static void stamps_at_both_ends_of_time_are_far_apart(void **state)
{
	struct table t;

	(void)state;
	begin_knowing(&t, HANDOVER_STAMPS_UNLIKE);
	play(&t, "o:ax-9223372036854775808 n:ax9223372036854775807");
	expect_unaligned(&t);
	play(&t, "n:bx-9223372036854775808 o:bx9223372036854775807 o:bx-1");
	expect(&t, "ax-9223372036854775808 bx9223372036854775807 bx-1 ", 0);
	end(&t);
}

/* A value that was there before is not mistaken for the one with the same stamp. */
static void the_new_one_begins_at_the_same_stamp_rather_than_at_the_same_value(void **state)
{
	struct table t;

	(void)state;
	begin_knowing(&t, HANDOVER_STAMPS_UNLIKE);
	play(&t, "o:ax1 o:ay2 o:ax3 o:az4 n:ax3 n:az4 n:ay2");
	expect(&t, "ax1 ay2 ax3 az4 ", 2);
	expect_aligned(&t);
	/* The same after the move. */
	play(&t, "o:bx1 o:by2 o:bx3 move n:bx3 n:by2");
	expect(&t, "bx1 by2 bx3 ay2 by2 ", 3);
	end(&t);
}

static void the_new_one_begins_at_the_earliest_of_equal_values(void **state)
{
	struct table t;

	(void)state;
	begin_knowing(&t, HANDOVER_STAMPS_UNLIKE);
	play(&t, "o:ax1 o:ay3 o:ax5 n:ax2 n:ay4 n:ax6");
	expect(&t, "ax1 ay3 ax5 ", 3);
	play(&t, "n:ax8 move");
	expect(&t, "ax8 ", 3);
	end(&t);
}

/* Once they are aligned the one that is expected is taken. */
static void the_expected_change_is_enough_at_the_same_value(void **state)
{
	struct table t;

	(void)state;
	begin_knowing(&t, HANDOVER_STAMPS_UNLIKE);
	play(&t, "o:ay1 n:ay2 o:ax3 o:ax5 n:ax5");
	expect_stamps(&t, UNLIKE);
	play(&t, "n:ax7");
	expect(&t, "ay1 ax3 ax5 ", 3);
	expect_aligned(&t);
	end(&t);
}

/* ---- limits ---- */

static void keys_and_changes_of_both_connections_count_towards_the_limit(void **state)
{
	static const struct {
		const char *fill, *more;
	} cases[] = {
		{"o:ax1 o:bx2", "o:ay3"}, /* two keys and two changes */
		{"o:ax1 o:ay2 o:az3", "o:bx4"},
		{"o:ax1 o:ay2 o:az3", "o:ax4"},
		{"o:ax1 n:bx2", "n:by3"},
		{"o:ax1 n:bx2", "n:cx3"},
		{"n:ax1 n:ay2 n:az3", "n:ax4"},
		{"o:ax1 o:ay2 o:az3", "n:az4"},
		{"move o:ax1 o:bx2", "o:bx3"},
		{"move o:ax1 o:bx2", "o:cx3"},
		{"move n:ax1 n:bx2 n:cx3 n:dx4", "n:ex5"},
		{"move n:ax1 n:bx2 n:cx3", "o:ex5"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct table t;
		begin_within(&t, &(struct handover_limits){.remembered = 4, .held_bytes = 100});
		play(&t, cases[i].fill);
		if (t.error)
			fail_msg("\"%s\" does not fit", cases[i].fill);
		play(&t, cases[i].more);
		if (t.error != -ENOBUFS)
			fail_msg("\"%s\" fits behind \"%s\"", cases[i].more, cases[i].fill);
		end(&t);
	}
}

static void at_the_limit_a_believed_change_is_delivered_all_the_same(void **state)
{
	static const struct handover_limits none = {0};
	struct table t;

	(void)state;
	begin_within(&t, &none);
	play(&t, "o:ax1");
	assert_int_equal(t.error, -ENOBUFS);
	expect(&t, "ax1 ", 0);
	play(&t, "n:ay2");
	assert_int_equal(t.error, -ENOBUFS);
	expect_aligned(&t);
	play(&t, "move");
	expect(&t, "", 0);
	play(&t, "o:ax3");
	assert_int_equal(t.error, -ENOBUFS);
	play(&t, "n:ay4");
	assert_int_equal(t.error, -ENOBUFS);
	expect(&t, "ax3 ay4 ", 0);
	end(&t);
}

static void held_text_is_limited(void **state)
{
	struct table t;

	(void)state;
	begin_within(&t, &(struct handover_limits){.remembered = 100, .held_bytes = 7});
	play(&t, "n:ax1 n:bx22");
	assert_int_equal(t.error, 0);
	play(&t, "n:by3");
	assert_int_equal(t.error, -ENOBUFS);
	play(&t, "o:ax1 n:by3");
	assert_int_equal(t.error, 0);
	play(&t, "move");
	expect(&t, "ax1 bx22 by3 ", 1);
	end(&t);
}

/* Whatever is dropped, delivered or forgotten makes room again. */
static void a_limit_is_no_limit_of_the_total(void **state)
{
	static const char *const rounds[] = {
		"o:ax1 n:ax1",
		"n:ax1 o:ax1",
		"o:ax1 o:ay2 o:az3 n:az3",
		"n:ax1 n:ay2 n:az3 o:az3",
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rounds); i++) {
		struct table t;
		begin_within(&t, &(struct handover_limits){.remembered = 4, .held_bytes = 9});
		play(&t, "n:ax9 o:ax9");
		for (int n = 0; n < 100; n++) {
			play(&t, rounds[i]);
			if (t.error)
				fail_msg("\"%s\" fits %d times", rounds[i], n);
		}
		end(&t);
	}
}

static void the_move_makes_room(void **state)
{
	static const char *const scripts[] = {
		"o:ax1 n:ay2 n:ay3 move n:bx1 n:cx1 n:dx1",
		"o:ax1 n:ax2 n:ay3 move n:bx1 n:cx1 n:dx1", /* a double is found */
	};

	(void)state;
	for (size_t i = 0; i < COUNT(scripts); i++) {
		struct table t;
		begin_within(&t, &(struct handover_limits){.remembered = 4, .held_bytes = 9});
		play(&t, scripts[i]);
		if (t.error)
			fail_msg("\"%s\" does not fit", scripts[i]);
		play(&t, "n:ex1");
		assert_int_equal(t.error, -ENOBUFS);
		end(&t);
	}
}

static void nothing_is_left_when_it_is_freed(void **state)
{
	static const char *const scripts[] = {
		"",
		"o:ax1 o:ay2 o:bx1",
		"n:ax1 n:ay2 u:bx1 u:by2",
		"o:ax1 n:ay2 n:az3 o:bx1 n:bx1 o:by2",
		"o:ax1 n:ay2 o:bx1 u:cx1 move",
		"move o:ax1 o:ay2 n:bx1",
		"o:ax1 o:ay2 n:ax2 o:bx1 n:bx2 n:by3 move",
	};

	(void)state;
	for (size_t i = 0; i < COUNT(scripts); i++) {
		struct table t;
		begin(&t);
		play(&t, scripts[i]);
		end(&t); /* the sanitizers judge */
	}
}

/* ---- time ---- */

static void count(void *owner, const struct change *change)
{
	(void)change;
	++*(size_t *)owner;
}

static const struct handover_ops counting = {.deliver = count};

enum { MANY = 100000 };

static const struct handover_limits wide = {.remembered = 4 * MANY, .held_bytes = 4 * MANY};

static struct change numbered(uint64_t value)
{
	return (struct change){
		.key_hash = 1, .value_hash = value, .timestamp = 7, .text = SPAN("x")};
}

static void new_one_brings_what_was_never_known(struct handover *h)
{
	for (uint64_t i = 0; i < 2 * MANY; i++) {
		struct change change = numbered(i + 1);
		if (i < MANY)
			handover_old_brings(h, &change);
		else
			handover_new_brings(h, &change, true);
	}
}

static void new_one_brings_it_after_the_move(struct handover *h)
{
	handover_move(h, true);
	new_one_brings_what_was_never_known(h);
}

/* Each second one unaligns the key, and the next aligns it again. */
static void old_one_brings_what_is_held_and_what_is_not(struct handover *h)
{
	const struct change stranger = numbered(MANY + 1);

	for (uint64_t i = 0; i < MANY; i++) {
		struct change change = numbered(i + 1);
		handover_new_brings(h, &change, true);
	}
	for (uint64_t i = 0; i < MANY; i++) {
		struct change change = numbered(i + 1);
		handover_old_brings(h, &change);
		handover_old_brings(h, &stranger);
	}
}

/* Equal values, but the last one that is held: each run of them agrees almost to its end. */
static void both_bring_runs_that_almost_agree(struct handover *h)
{
	for (uint64_t i = 0; i < 2 * MANY; i++) {
		struct change change = numbered(1);
		handover_old_brings(h, &change);
	}
	for (uint64_t i = 0; i < MANY; i++) {
		struct change change = numbered(i < MANY - 1 ? 1 : 2);
		change.timestamp++;
		handover_new_brings(h, &change, true);
	}
	handover_move(h, true);
}

/* Streams that take some milliseconds, or a minute if each change looks at all of its key. */
static void no_stream_takes_quadratic_time(void **state)
{
	static void (*const streams[])(struct handover * h) = {
		new_one_brings_what_was_never_known,
		new_one_brings_it_after_the_move,
		old_one_brings_what_is_held_and_what_is_not,
		both_bring_runs_that_almost_agree,
	};

	(void)state;
	for (size_t i = 0; i < COUNT(streams); i++) {
		size_t delivered = 0;
		struct handover_learned learned = {.stamps = HANDOVER_STAMPS_ALIKE};
		struct handover *h = handover_new(&wide, &learned, &counting, &delivered);
		clock_t start = clock();
		streams[i](h);
		double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
		if (seconds > 5)
			fail_msg("stream %zu has taken %.1f s", i, seconds);
		assert_true(delivered >= MANY);
		handover_free(h);
	}
}

/* ---- random streams against what the service has said ---- */

enum {
	KEYS = 4,
	CHANGES = 60, /* of all keys, at most */
};

enum world {
	DISTINCT,     /* no two changes of a key have the same value and stamp */
	LEARNING,     /* the same, and that both stamp alike is not known yet */
	OTHER_STAMPS, /* the connections stamp differently, and no two values are equal */
	UNPROVEN,     /* the same, it is not known yet, and the move does not wait */
	OVERTAKEN,  /* as DISTINCT; the move comes before the old one has caught up, and it stays */
	ONE_TWIN,   /* of each key one change equals an earlier one */
	MANY_TWINS, /* few values, few stamps */
	WORLDS
};

static const char *const world_names[WORLDS] = {"distinct",  "learning", "other stamps", "unproven",
						"overtaken", "one twin", "many twins"};

enum told { BOTH, OLD_ALONE, NEW_ALONE };

/* The service's sequence, and what each connection is told of it and has brought. */
struct service {
	unsigned seed;
	uint32_t random;
	enum world world;
	int n, join;               /* changes; the new connection is told those from here on */
	int key[CHANGES];          /* of each change */
	uint64_t value[CHANGES];   /* likewise */
	int64_t stamp[2][CHANGES]; /* as the two connections tell it */
	enum told told[KEYS];
	bool key_by_key;   /* a connection keeps to the order of a key only */
	int next[2][KEYS]; /* for each connection: the next change of the key; n: none */
	int said[KEYS][2 * CHANGES], n_said[KEYS]; /* what was delivered */
	bool may_double[KEYS];                     /* see note_doubts() */
	int brought;
	uint32_t equal; /* of four changes so many are stamped alike by both */
	struct handover *h;
	struct handover_learned learned;
};

static uint32_t below(struct service *s, uint32_t n)
{
	s->random = s->random * 1664525 + 1013904223;
	return (uint32_t)((uint64_t)s->random * n >> 32);
}

/* The text of a change is its number. */
static void say(void *owner, const struct change *change)
{
	struct service *s = owner;
	int i = *(const unsigned char *)change->text.p;

	assert_int_equal(change->text.n, 1);
	assert_int_equal(change->key_hash, s->key[i] + 1);
	assert_int_equal(change->value_hash, s->value[i]);
	assert_true(s->n_said[s->key[i]] < 2 * CHANGES);
	s->said[s->key[i]][s->n_said[s->key[i]]++] = i;
}

static const struct handover_ops saying = {.deliver = say};

static bool is_told(const struct service *s, int connection, int i)
{
	if (connection == 0)
		return s->told[s->key[i]] != NEW_ALONE;
	return s->told[s->key[i]] != OLD_ALONE && i >= s->join;
}

/* The next change of this key from i on that the connection is told. */
static int next_of(const struct service *s, int connection, int key, int i)
{
	while (i < s->n && (s->key[i] != key || !is_told(s, connection, i)))
		i++;
	return i;
}

static bool same(const struct service *s, int i, int j)
{
	return s->key[i] == s->key[j] && s->value[i] == s->value[j] &&
	       s->stamp[0][i] == s->stamp[0][j];
}

/* Makes some later change of each key the twin of an earlier one. */
static void make_one_twin(struct service *s)
{
	for (int key = 0; key < KEYS; key++) {
		int of_key[CHANGES], n = 0;
		for (int i = 0; i < s->n; i++)
			if (s->key[i] == key)
				of_key[n++] = i;
		if (n < 2)
			continue;
		int late = 1 + (int)below(s, (uint32_t)n - 1),
		    early = (int)below(s, (uint32_t)late);
		s->value[of_key[late]] = s->value[of_key[early]];
		s->stamp[0][of_key[late]] = s->stamp[1][of_key[late]] = s->stamp[0][of_key[early]];
	}
}

static bool are_unlike(enum world world)
{
	return world == OTHER_STAMPS || world == UNPROVEN;
}

static void make_change(struct service *s, int i)
{
	static const uint32_t values[WORLDS] = {3, 3, 0, 0, 3, 3, 2};

	s->key[i] = (int)below(s, KEYS);
	s->value[i] = are_unlike(s->world) ? (uint64_t)i + 1 : 1 + below(s, values[s->world]);
	int64_t stamp = s->world == MANY_TWINS ? 1 + i / 8 : 10 * (i + 1);
	s->stamp[0][i] = s->stamp[1][i] = stamp;
	if (are_unlike(s->world) && below(s, 4) >= s->equal) {
		s->stamp[0][i] += 2 * below(s, SAME_WITHIN_MS / 2);
		s->stamp[1][i] += 2 * below(s, SAME_WITHIN_MS / 2) + 1;
	}
}

static enum handover_stamps known_in(struct service *s)
{
	switch (s->world) {
	case LEARNING:
		return HANDOVER_STAMPS_UNKNOWN;
	case OTHER_STAMPS:
		return HANDOVER_STAMPS_UNLIKE;
	case UNPROVEN: /* or two were equal by chance */
		return below(s, 2) ? HANDOVER_STAMPS_UNKNOWN : HANDOVER_STAMPS_ALIKE;
	default:
		return HANDOVER_STAMPS_ALIKE;
	}
}

static void make_service(struct service *s, enum world world, unsigned seed)
{
	*s = (struct service){.seed = seed, .random = seed * 2654435761U + 1, .world = world};
	below(s, 1);
	s->n = (int)below(s, CHANGES + 1);
	s->join = (int)below(s, (uint32_t)s->n + 1);
	s->key_by_key = below(s, 2);
	s->learned.stamps = known_in(s);
	if (world == UNPROVEN)
		s->equal = (uint32_t[]){0, 1, 4}[below(s, 3)];
	for (int i = 0; i < s->n; i++)
		make_change(s, i);
	if (world == ONE_TWIN)
		make_one_twin(s);
	for (int key = 0; key < KEYS; key++) {
		uint32_t told = below(s, 8);
		s->told[key] = told == 0 ? OLD_ALONE : told == 1 ? NEW_ALONE : BOTH;
		for (int connection = 0; connection < 2; connection++)
			s->next[connection][key] = next_of(s, connection, key, 0);
	}
}

/* The key whose change the connection brings next; -1: it has brought all. */
static int choose_key(struct service *s, int connection)
{
	int first = -1, with_some[KEYS];
	uint32_t n = 0;

	for (int key = 0; key < KEYS; key++) {
		if (s->next[connection][key] == s->n)
			continue;
		with_some[n++] = key;
		if (first < 0 || s->next[connection][key] < s->next[connection][first])
			first = key;
	}
	return n && s->key_by_key ? with_some[below(s, n)] : first;
}

static void bring(struct service *s, int connection, int key)
{
	int i = s->next[connection][key];
	char number = (char)i;
	struct change change = {
		.key_hash = (uint64_t)key + 1,
		.value_hash = s->value[i],
		.timestamp = s->stamp[connection][i],
		.text = copy_of((struct span){&number, 1}),
	};
	int error = connection == 0 ? handover_old_brings(s->h, &change)
				    : handover_new_brings(s->h, &change, s->told[key] == BOTH);

	free_copy(change.text);
	assert_int_equal(error, 0);
	s->next[connection][key] = next_of(s, connection, key, i + 1);
	s->brought++;
}

/* What the answer to the ping says: the old one has brought what is older than the new one. */
static bool old_one_has_caught_up(const struct service *s)
{
	for (int key = 0; key < KEYS; key++)
		if (s->next[0][key] < s->join)
			return false;
	return true;
}

/* A move that was not preceded by doubles, nor finds any, leaves it unknown that the connections
 * stamp differently. What the old one brings of a key before the new one does then comes twice. */
static void note_doubts(struct service *s)
{
	for (int key = 0; key < KEYS; key++) {
		bool silent = s->next[1][key] == next_of(s, 1, key, 0);
		bool behind = s->next[1][key] < s->next[0][key];
		s->may_double[key] = s->equal < 4 && s->told[key] == BOTH &&
				     s->learned.stamps != HANDOVER_STAMPS_UNLIKE &&
				     (silent || behind);
	}
}

static bool may_move(struct service *s)
{
	return (s->world == OVERTAKEN || old_one_has_caught_up(s)) &&
	       (s->world == UNPROVEN || handover_aligned(s->h));
}

/* Which connection is next depends on a lag that changes at times. */
static void run(struct service *s)
{
	uint32_t lag = below(s, 101), patience = 1 + below(s, 30);
	bool moved = false;

	s->h = handover_new(
		&(struct handover_limits){.remembered = 3 * CHANGES, .held_bytes = CHANGES},
		&s->learned, &saying, s);
	for (;;) {
		int connection = below(s, 100) < lag;
		int key = choose_key(s, connection);
		if (key < 0)
			key = choose_key(s, connection = !connection);
		if (key < 0)
			break;
		bring(s, connection, key);
		if (below(s, 10) == 0)
			lag = below(s, 101);
		if (!moved && may_move(s) && below(s, patience) == 0) {
			handover_move(s->h, true);
			if (s->world == UNPROVEN)
				note_doubts(s);
			if (s->world == OVERTAKEN)
				handover_old_stays(s->h);
			moved = true;
		}
	}
	if (s->world != MANY_TWINS && s->world != UNPROVEN && !handover_aligned(s->h))
		fail_msg("%s, seed %u: never aligned", world_names[s->world], s->seed);
	handover_move(s->h, true);
	handover_old_gone(s->h);
	int told = 0;
	for (int key = 0; key < KEYS; key++)
		told += s->n_said[key];
	/* What was not delivered was dropped, and counted. */
	assert_int_equal(s->brought, told + (int)handover_dropped(s->h));
	handover_free(s->h);
}

/* What should have been delivered of a key, in order. */
static int expected(const struct service *s, int key, int want[CHANGES])
{
	int n = 0;

	for (int i = 0; i < s->n; i++)
		if (s->key[i] == key && (is_told(s, 0, i) || is_told(s, 1, i)))
			want[n++] = i;
	return n;
}

/* Removes the change that can be mistaken for an earlier one, if it was: the first that the new one
 * brings of the key. */
static void remove_mistaken(const struct service *s, int key, int want[CHANGES], int *n)
{
	int first = next_of(s, 1, key, 0), at = 0;

	if (first == s->n || s->told[key] != BOTH || *n != s->n_said[key] + 1)
		return;
	while (want[at] != first)
		at++;
	for (int i = 0; i < at; i++) {
		if (!same(s, want[i], first))
			continue;
		memmove(want + at, want + at + 1, (size_t)(*n - at - 1) * sizeof(*want));
		--*n;
		return;
	}
}

static void print_numbers(char *out, size_t size, const int *numbers, int n)
{
	size_t at = 0;

	out[0] = '\0';
	for (int i = 0; i < n && at < size - 8; i++)
		at += (size_t)snprintf(out + at, size - at, "%d ", numbers[i]);
}

static void expect_exactly(const struct service *s, int key, const int *want, int n)
{
	char said[1024], wanted[1024];

	if (n == s->n_said[key] && memcmp(want, s->said[key], (size_t)n * sizeof(*want)) == 0)
		return;
	print_numbers(said, sizeof(said), s->said[key], s->n_said[key]);
	print_numbers(wanted, sizeof(wanted), want, n);
	fail_msg("%s, seed %u, new one from %d, key %d: %sinstead of %s", world_names[s->world],
		 s->seed, s->join, key, said, wanted);
}

static bool has_twins(const struct service *s, const int *want, int n)
{
	for (int i = 0; i < n; i++)
		for (int j = 0; j < i; j++)
			if (same(s, want[i], want[j]))
				return true;
	return false;
}

/* Of each change the service has told, it or one that equals it was delivered. */
static void expect_at_least_once(const struct service *s, int key, const int *want, int n)
{
	for (int i = 0; i < n; i++) {
		int at = 0;
		while (at < s->n_said[key] && !same(s, s->said[key][at], want[i]))
			at++;
		if (at == s->n_said[key])
			fail_msg("%s, seed %u: %d is lost", world_names[s->world], s->seed,
				 want[i]);
	}
}

static void judge(const struct service *s)
{
	int want[CHANGES];

	for (int key = 0; key < KEYS; key++) {
		int n = expected(s, key, want);
		if (s->may_double[key] || (s->world == MANY_TWINS && has_twins(s, want, n))) {
			expect_at_least_once(s, key, want, n);
			continue;
		}
		if (s->world == ONE_TWIN)
			remove_mistaken(s, key, want, &n);
		expect_exactly(s, key, want, n);
	}
	if (s->world == OTHER_STAMPS)
		assert_int_equal(s->learned.stamps, HANDOVER_STAMPS_UNLIKE);
	else if (s->world == DISTINCT || s->world == LEARNING || s->equal == 4)
		assert_int_not_equal(s->learned.stamps, HANDOVER_STAMPS_UNLIKE);
}

static void run_world(enum world world, unsigned seeds)
{
	for (unsigned seed = 0; seed < seeds; seed++) {
		struct service s;
		make_service(&s, world, seed);
		run(&s);
		judge(&s);
	}
}

enum { SEEDS = 20000 };

static void distinct_changes_come_exactly_as_the_service_has_said_them(void **state)
{
	(void)state;
	run_world(DISTINCT, SEEDS);
}

static void so_they_do_before_it_is_known_that_both_connections_stamp_alike(void **state)
{
	(void)state;
	run_world(LEARNING, SEEDS);
}

static void so_they_do_if_the_connections_stamp_differently_and_values_are_distinct(void **state)
{
	(void)state;
	run_world(OTHER_STAMPS, SEEDS);
}

static void a_move_before_the_old_one_has_caught_up_loses_nothing_if_it_stays(void **state)
{
	(void)state;
	run_world(OVERTAKEN, SEEDS);
}

/* Each second handover waits for all keys, which can be aligned by what the first has shown. */
static void a_move_that_does_not_wait_shows_how_the_connections_stamp(void **state)
{
	unsigned shown = 0;

	(void)state;
	for (unsigned seed = 0; seed < SEEDS; seed++) {
		struct service first, second;
		make_service(&first, UNPROVEN, seed);
		run(&first);
		judge(&first);
		if (first.learned.stamps != HANDOVER_STAMPS_UNLIKE)
			continue;
		shown++;
		make_service(&second, OTHER_STAMPS, seed);
		second.learned = first.learned;
		run(&second);
		judge(&second);
	}
	assert_in_range(shown, SEEDS / 3, SEEDS);
}

/* The one exception: see remove_mistaken(). */
static void of_two_equal_changes_one_may_be_missing_if_the_new_one_begins_with_it(void **state)
{
	(void)state;
	run_world(ONE_TWIN, SEEDS);
}

static void among_many_equal_changes_none_is_lost_of_which_no_equal_was_told(void **state)
{
	(void)state;
	run_world(MANY_TWINS, SEEDS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_old_one_is_believed_at_once),
		cmocka_unit_test(what_both_bring_is_delivered_once_whoever_is_first),
		cmocka_unit_test(what_only_the_new_one_brings_is_held),
		cmocka_unit_test(
			the_first_change_of_the_new_one_is_found_in_what_the_old_one_brought),
		cmocka_unit_test(a_key_waits_for_the_old_one_to_bring_what_the_new_one_began_with),
		cmocka_unit_test(all_keys_must_be_aligned),
		cmocka_unit_test(what_was_brought_before_a_key_was_aligned_is_forgotten),
		cmocka_unit_test(an_unaligned_key_is_aligned_by_the_first_held_change_only),
		cmocka_unit_test(a_key_that_the_old_one_is_not_told_of_is_held_and_not_waited_for),
		cmocka_unit_test(
			a_key_that_the_old_one_should_not_be_told_of_has_no_doubles_either),
		cmocka_unit_test(the_new_one_may_be_behind_by_any_number),
		cmocka_unit_test(the_old_one_may_be_behind_by_any_number),
		cmocka_unit_test(what_the_old_one_skips_is_delivered_before_what_follows),
		cmocka_unit_test(what_the_new_one_skips_is_not_expected_of_it_any_more),
		cmocka_unit_test(a_key_is_unaligned_again_when_the_old_one_brings_what_is_not_held),
		cmocka_unit_test(
			a_key_is_unaligned_again_when_the_new_one_brings_what_is_not_known),
		cmocka_unit_test(nothing_is_lost_of_a_key_that_toggles_when_the_old_one_dies),
		cmocka_unit_test(many_equal_stamps_in_a_row_outweigh_values_once),
		cmocka_unit_test(
			what_the_old_one_is_late_with_comes_before_what_the_new_one_says_first),
		cmocka_unit_test(what_is_held_after_the_move_is_told_when_the_old_one_has_gone),
		cmocka_unit_test(too_much_held_after_the_move_is_told_at_once),
		cmocka_unit_test(a_move_before_the_old_one_has_caught_up_loses_nothing_if_it_stays),
		cmocka_unit_test(the_move_delivers_what_is_held_in_order_of_arrival),
		cmocka_unit_test(after_the_move_the_new_one_is_believed_at_once),
		cmocka_unit_test(after_the_move_what_the_old_one_brought_before_it_is_dropped),
		cmocka_unit_test(after_the_move_what_the_new_one_has_passed_is_forgotten),
		cmocka_unit_test(a_move_before_a_key_is_aligned_forgets_what_is_older),
		cmocka_unit_test(the_move_finds_doubles_by_their_values_if_the_old_one_is_ahead),
		cmocka_unit_test(the_move_finds_doubles_by_their_values_if_the_new_one_is_ahead),
		cmocka_unit_test(values_agree_as_far_as_both_connections_reach_or_not_at_all),
		cmocka_unit_test(the_earliest_run_of_values_that_agrees_counts),
		cmocka_unit_test(values_with_stamps_far_apart_do_not_agree_at_the_move),
		cmocka_unit_test(at_the_move_each_key_is_aligned_on_its_own_and_order_is_kept),
		cmocka_unit_test(at_the_move_doubles_are_found_of_a_key_that_was_not_waited_for),
		cmocka_unit_test(
			after_the_move_doubles_with_other_stamps_come_twice_if_none_were_found),
		cmocka_unit_test(
			after_the_move_the_old_one_is_dropped_where_the_new_one_has_spoken),
		cmocka_unit_test(
			after_the_move_the_old_one_is_believed_where_the_new_one_is_silent),
		cmocka_unit_test(
			what_was_told_in_place_of_the_old_one_is_dropped_when_it_brings_it),
		cmocka_unit_test(what_is_told_in_place_of_the_old_one_aligns_as_well),
		cmocka_unit_test(a_long_late_stream_of_the_old_one_comes_once),
		cmocka_unit_test(values_and_stamps_tell_changes_apart),
		cmocka_unit_test(keys_have_nothing_to_do_with_each_other),
		cmocka_unit_test(stamps_must_be_equal_unless_they_are_known_to_differ),
		cmocka_unit_test(a_key_that_toggles_waits_for_the_same_stamp),
		cmocka_unit_test(stamps_that_are_known_to_differ_may_do_so_a_little),
		cmocka_unit_test(equal_stamps_are_noticed_whoever_is_first),
		cmocka_unit_test(different_stamps_are_no_news_unless_they_are_of_doubles),
		cmocka_unit_test(many_equal_stamps_in_a_row_show_that_they_do_not_differ),
		cmocka_unit_test(equal_stamps_do_not_settle_that_they_are_alike),
		cmocka_unit_test(what_was_counted_before_stamps_differed_is_void),
		cmocka_unit_test(what_is_known_of_stamps_is_kept_for_the_next_handover),
		cmocka_unit_test(changes_without_stamps_are_the_same_and_prove_nothing),
		cmocka_unit_test(stamps_at_both_ends_of_time_are_far_apart),
		cmocka_unit_test(
			the_new_one_begins_at_the_same_stamp_rather_than_at_the_same_value),
		cmocka_unit_test(the_new_one_begins_at_the_earliest_of_equal_values),
		cmocka_unit_test(the_expected_change_is_enough_at_the_same_value),
		cmocka_unit_test(keys_and_changes_of_both_connections_count_towards_the_limit),
		cmocka_unit_test(at_the_limit_a_believed_change_is_delivered_all_the_same),
		cmocka_unit_test(held_text_is_limited),
		cmocka_unit_test(a_limit_is_no_limit_of_the_total),
		cmocka_unit_test(the_move_makes_room),
		cmocka_unit_test(nothing_is_left_when_it_is_freed),
		cmocka_unit_test(no_stream_takes_quadratic_time),
		cmocka_unit_test(distinct_changes_come_exactly_as_the_service_has_said_them),
		cmocka_unit_test(so_they_do_before_it_is_known_that_both_connections_stamp_alike),
		cmocka_unit_test(
			so_they_do_if_the_connections_stamp_differently_and_values_are_distinct),
		cmocka_unit_test(a_move_that_does_not_wait_shows_how_the_connections_stamp),
		cmocka_unit_test(
			of_two_equal_changes_one_may_be_missing_if_the_new_one_begins_with_it),
		cmocka_unit_test(among_many_equal_changes_none_is_lost_of_which_no_equal_was_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
