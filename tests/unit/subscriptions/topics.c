#include "subscriptions/topics.h"

#include <stdio.h>

#include "codec/json.h"
#include "base/mem.h"
#include "../test.h"
#include "../random.h"

enum { SEED = 42, BUDGET = 4000, PEERS = 8 };

/* A struct topics and its clients. */
struct world {
	struct topics topics;
	struct peer peer[PEERS];
	uint64_t batch;
	int64_t now;
};

static struct world *world_new(void)
{
	struct world *w = mem_zalloc(sizeof(*w));

	topics_init(&w->topics, SEED);
	for (size_t i = 0; i < PEERS; i++) {
		w->peer[i].number = i + 1;
		topics_join(&w->peer[i]);
	}
	return w;
}

static void world_free(struct world *w)
{
	struct sub *sub;

	for (size_t i = 0; i < PEERS; i++) {
		while ((sub = LIST_FIRST(&w->peer[i].topics.subs)))
			topics_remove_sub(&w->topics, sub, w->now);
		assert_int_equal(w->peer[i].topics.n, 0);
	}
	assert_int_equal(w->topics.n, 0);
	topics_fini(&w->topics);
	assert_int_equal(w->topics.bytes, 0);
	free(w);
}

static struct topic *find(const struct world *w, enum topic_kind kind, const char *text)
{
	struct span s = span_of(text);

	return topics_find_topic(&w->topics, kind, s, topics_hash(&w->topics, s));
}

static struct sub *add(struct world *w, size_t peer, enum topic_kind kind, const char *text)
{
	return topics_add_sub(&w->topics, &w->peer[peer],
			      topics_get_topic(&w->topics, kind, span_of(text)));
}

static void end(struct world *w, size_t peer, enum topic_kind kind, const char *text)
{
	topics_remove_sub(&w->topics,
			  topics_find_sub(&w->topics, &w->peer[peer], find(w, kind, text)), w->now);
}

static void assert_list(struct world *w, size_t budget, const char *want)
{
	struct buf list = {0};

	topics_make_list(&w->topics, w->batch, budget, w->now, &list);
	assert_span(buf_span(&list), want);
	buf_release(&list);
}

/* Appends the topic's text and a ; to a string. */
static void write_down(void *owner, struct topic *t)
{
	char *text = owner;

	memcpy(text + strlen(text), topic_text(t).p, topic_text(t).n);
	strcat(text, ";");
}

static void accept(struct world *w, const char *lost)
{
	char text[1000] = "";

	topics_accept_list(&w->topics, write_down, text);
	assert_string_equal(text, lost);
}

/* ---- topics and subs ---- */

static void a_topic_is_there_as_long_as_something_needs_it(void **state)
{
	struct world *w = world_new();
	struct topic *t = topics_get_topic(&w->topics, TOPIC_KEY, SPAN("a"));

	(void)state;
	assert_ptr_equal(topics_get_topic(&w->topics, TOPIC_KEY, SPAN("a")), t);
	assert_null(find(w, TOPIC_PATTERN, "a"));
	t->n_joins = 1;
	topics_release(&w->topics, t);
	assert_ptr_equal(find(w, TOPIC_KEY, "a"), t);
	struct sub *sub = topics_add_sub(&w->topics, &w->peer[0], t);
	t->n_joins = 0;
	topics_release(&w->topics, t);
	assert_ptr_equal(find(w, TOPIC_KEY, "a"), t);
	topics_remove_sub(&w->topics, sub, w->now);
	assert_null(find(w, TOPIC_KEY, "a"));
	assert_int_equal(w->topics.bytes, 0);
	world_free(w);
}

static void keys_and_patterns_of_the_same_text_are_two_topics(void **state)
{
	struct world *w = world_new();

	(void)state;
	struct sub *key = add(w, 0, TOPIC_KEY, "a*"), *pattern = add(w, 0, TOPIC_PATTERN, "a*");
	assert_ptr_not_equal(key->topic, pattern->topic);
	assert_int_equal(w->topics.live[TOPIC_KEY], 1);
	assert_int_equal(w->topics.live[TOPIC_PATTERN], 1);
	end(w, 0, TOPIC_KEY, "a*");
	assert_int_equal(w->topics.live[TOPIC_KEY], 0);
	assert_non_null(find(w, TOPIC_PATTERN, "a*"));
	world_free(w);
}

static void a_text_may_hold_any_bytes(void **state)
{
	struct world *w = world_new();
	struct topic *t = topics_get_topic(&w->topics, TOPIC_KEY, SPAN("a\0b"));

	(void)state;
	assert_ptr_not_equal(topics_get_topic(&w->topics, TOPIC_KEY, SPAN("a\0c")), t);
	assert_ptr_not_equal(topics_get_topic(&w->topics, TOPIC_KEY, SPAN("a")), t);
	assert_true(span_equal(topic_text(t), SPAN("a\0b")));
	assert_ptr_equal(topics_get_topic(&w->topics, TOPIC_KEY, SPAN("a\0b")), t);
	world_free(w);
}

/* Each receiver's sub knows its index, whichever receiver is removed. */
static void check_receivers(const struct topic *t)
{
	assert_true(t->n <= t->size);
	for (uint32_t i = 0; i < t->n; i++) {
		assert_int_equal(t->receivers[i].sub->receiver, i);
		assert_ptr_equal(t->receivers[i].sub->peer, t->receivers[i].peer);
		assert_ptr_equal(t->receivers[i].sub->topic, t);
	}
}

static void receivers_go_in_any_order(void **state)
{
	(void)state;
	for (size_t first = 0; first < PEERS; first++) {
		struct world *w = world_new();
		struct topic *t = topics_get_topic(&w->topics, TOPIC_KEY, SPAN("a"));
		for (size_t i = 0; i < PEERS; i++) {
			topics_add_sub(&w->topics, &w->peer[i], t);
			check_receivers(t);
		}
		assert_int_equal(t->n, PEERS);
		for (size_t i = 0; i + 1 < PEERS; i++) {
			end(w, (first + 3 * i) % PEERS, TOPIC_KEY, "a");
			check_receivers(t);
			assert_int_equal(t->n, PEERS - 1 - i);
		}
		assert_true(t->size <= 4); /* of eight places: memory comes back */
		world_free(w);
	}
}

static void a_new_sub_has_been_told_nothing(void **state)
{
	struct world *w = world_new();

	(void)state;
	struct topic *t = add(w, 0, TOPIC_KEY, "a")->topic;
	t->changes = 7;
	t->last_value = 9;
	struct sub *sub = add(w, 1, TOPIC_KEY, "a");
	assert_int_equal(sub->told, 0);
	assert_int_equal(sub->told_at, 7);
	assert_int_equal(sub->wish, SUB_NO_WISH);
	world_free(w);
}

/* ---- what a change matches ---- */

static void assert_matches(const struct world *w, const char *key, const char *want)
{
	char text[1000] = "";

	topics_match_patterns(&w->topics, span_of(key), write_down, text);
	assert_string_equal(text, want);
}

static void a_key_finds_the_patterns_that_match_it(void **state)
{
	struct world *w = world_new();

	(void)state;
	add(w, 0, TOPIC_PATTERN, "*");
	add(w, 0, TOPIC_PATTERN, "a*");
	add(w, 1, TOPIC_PATTERN, "a*");
	add(w, 0, TOPIC_PATTERN, "a*z");
	add(w, 0, TOPIC_PATTERN, "abc");
	add(w, 0, TOPIC_KEY, "ab");
	topics_get_topic(&w->topics, TOPIC_PATTERN, SPAN("ab*")); /* nobody has it yet */
	assert_matches(w, "", "*;");
	assert_matches(w, "a", "*;a*;");
	assert_matches(w, "b", "*;");
	assert_matches(w, "abc", "*;a*;abc;");
	assert_matches(w, "az", "*;a*z;a*;");
	assert_matches(w, "abcd", "*;a*;");
	end(w, 0, TOPIC_PATTERN, "a*");
	assert_matches(w, "ab", "*;a*;"); /* another has it */
	end(w, 1, TOPIC_PATTERN, "a*");
	assert_matches(w, "ab", "*;");
	assert_matches(w, "az", "*;a*z;");
	world_free(w);
}

/* ---- lists ---- */

static void a_list_is_in_force_once_it_was_accepted(void **state)
{
	struct world *w = world_new();

	(void)state;
	struct topic *a = add(w, 0, TOPIC_KEY, "a")->topic;
	assert_int_equal(w->topics.left_out, 1);
	assert_list(w, BUDGET, "[\"a\"]");
	assert_false(topic_is_covered(a));
	assert_true(topic_is_covered_next(a));
	accept(w, "");
	assert_true(topic_is_covered(a));
	assert_false(topic_is_covered_next(a));
	assert_true(a->current == TOKEN_SCOPE_LISTED);
	assert_int_equal(w->topics.left_out, 0);
	assert_false(w->topics.has_next);
	accept(w, ""); /* there is none */
	assert_true(topic_is_covered(a));
	world_free(w);
}

static void a_listed_topic_stays_for_those_who_come_again(void **state)
{
	struct world *w = world_new();

	(void)state;
	struct topic *t = add(w, 0, TOPIC_KEY, "a")->topic;
	add(w, 0, TOPIC_KEY, "z");
	assert_list(w, BUDGET, "[\"a\",\"z\"]");
	accept(w, "");
	end(w, 0, TOPIC_KEY, "a");
	assert_ptr_equal(topics_get_topic(&w->topics, TOPIC_KEY, SPAN("a")), t);
	assert_true(topic_is_covered(t));
	w->now += TOPICS_LEFT_MS - 1; /* further lists have it as well */
	assert_list(w, BUDGET, "[\"a\",\"z\"]");
	accept(w, "");
	assert_true(topic_is_covered(t));
	w->now += 2; /* ... for a while */
	assert_list(w, BUDGET, "[\"z\"]");
	assert_true(topic_is_covered(t));
	assert_false(topic_is_covered_next(t));
	accept(w, ""); /* nobody has lost it */
	assert_null(find(w, TOPIC_KEY, "a"));
	world_free(w);
}

static void a_topic_with_a_new_subscriber_was_not_left(void **state)
{
	struct world *w = world_new();

	(void)state;
	add(w, 0, TOPIC_KEY, "a");
	assert_list(w, BUDGET, "[\"a\"]");
	accept(w, "");
	end(w, 0, TOPIC_KEY, "a");
	add(w, 1, TOPIC_KEY, "a");
	assert_int_equal(w->topics.n_left, 0);
	w->now += TOPICS_LEFT_MS / 2;
	end(w, 1, TOPIC_KEY, "a");
	add(w, 0, TOPIC_KEY, "b");
	w->now += TOPICS_LEFT_MS / 2 + 1; /* counted from its last subscriber */
	assert_list(w, BUDGET, "[\"a\",\"b\"]");
	world_free(w);
}

/* Those that were left last, in half of the budget, and none if nothing else is listed. */
static void topics_that_were_left_take_no_room_from_others(void **state)
{
	struct world *w = world_new();

	(void)state;
	add(w, 0, TOPIC_KEY, "a");
	add(w, 0, TOPIC_KEY, "b");
	add(w, 0, TOPIC_KEY, "c");
	assert_list(w, BUDGET, "[\"a\",\"b\",\"c\"]");
	accept(w, "");
	end(w, 0, TOPIC_KEY, "b");
	end(w, 0, TOPIC_KEY, "a");
	assert_list(w, 2 * 8, "[\"a\",\"c\"]");
	assert_true(w->topics.listed_left);
	assert_list(w, 2 * 8 - 1, "[\"c\"]");
	assert_false(w->topics.listed_left);
	end(w, 0, TOPIC_KEY, "c");
	assert_list(w, BUDGET, "[]");
	world_free(w);
}

static void forgotten_topics_are_not_listed(void **state)
{
	struct world *w = world_new();

	(void)state;
	add(w, 0, TOPIC_KEY, "a");
	add(w, 0, TOPIC_KEY, "b");
	assert_list(w, BUDGET, "[\"a\",\"b\"]");
	accept(w, "");
	end(w, 0, TOPIC_KEY, "a");
	assert_false(topics_forget_left(&w->topics)); /* no list has had it */
	assert_list(w, BUDGET, "[\"b\"]");
	topics_reject_list(&w->topics);
	add(w, 0, TOPIC_KEY, "a");
	end(w, 0, TOPIC_KEY, "a");
	assert_list(w, BUDGET, "[\"a\",\"b\"]");
	topics_reject_list(&w->topics);
	assert_true(topics_forget_left(&w->topics));
	assert_list(w, BUDGET, "[\"b\"]");
	world_free(w);
}

static void so_many_topics_that_were_left_are_listed(void **state)
{
	struct world *w = world_new();
	char name[16];

	(void)state;
	add(w, 0, TOPIC_KEY, "z");
	for (int i = 0; i <= TOPICS_LEFT_MAX; i++) {
		snprintf(name, sizeof(name), "k%d", i);
		add(w, 0, TOPIC_KEY, name);
	}
	struct buf list = {0};
	assert_int_equal(topics_make_list(&w->topics, 0, 100000, 0, &list), TOPICS_LEFT_MAX + 2);
	accept(w, "");
	for (int i = 0; i <= TOPICS_LEFT_MAX; i++) {
		snprintf(name, sizeof(name), "k%d", i);
		end(w, 0, TOPIC_KEY, name);
	}
	assert_int_equal(topics_make_list(&w->topics, 0, 100000, 0, &list), TOPICS_LEFT_MAX + 1);
	assert_false(topic_is_covered_next(find(w, TOPIC_KEY, "k0")));
	buf_release(&list);
	world_free(w);
}

static void a_topic_of_the_coming_list_stays_until_that_is_rejected(void **state)
{
	struct world *w = world_new();

	(void)state;
	add(w, 0, TOPIC_KEY, "a");
	assert_list(w, BUDGET, "[\"a\"]");
	end(w, 0, TOPIC_KEY, "a");
	assert_non_null(find(w, TOPIC_KEY, "a"));
	topics_reject_list(&w->topics);
	assert_null(find(w, TOPIC_KEY, "a"));
	topics_reject_list(&w->topics);
	world_free(w);
}

static void a_rejected_list_leaves_the_old_one_in_force(void **state)
{
	struct world *w = world_new();

	(void)state;
	struct topic *a = add(w, 0, TOPIC_KEY, "a")->topic;
	assert_list(w, BUDGET, "[\"a\"]");
	accept(w, "");
	struct topic *b = add(w, 0, TOPIC_KEY, "b")->topic;
	assert_list(w, BUDGET, "[\"a\",\"b\"]");
	topics_reject_list(&w->topics);
	assert_true(topic_is_covered(a) && !topic_is_covered_next(a));
	assert_true(!topic_is_covered(b) && !topic_is_covered_next(b));
	accept(w, "");
	assert_true(topic_is_covered(a) && !topic_is_covered(b));
	assert_int_equal(w->topics.left_out, 1);
	world_free(w);
}

static void forgotten_lists_cover_nothing_and_hold_nothing(void **state)
{
	struct world *w = world_new();

	(void)state;
	add(w, 0, TOPIC_KEY, "a");
	struct topic *p = add(w, 0, TOPIC_PATTERN, "p*")->topic;
	assert_list(w, BUDGET, "[\"a\",\"p*\"]");
	accept(w, "");
	end(w, 0, TOPIC_KEY, "a");
	add(w, 0, TOPIC_KEY, "b");
	assert_list(w, BUDGET, "[\"a\",\"b\",\"p*\"]");
	topics_forget_lists(&w->topics, NULL, NULL);
	assert_null(find(w, TOPIC_KEY, "a"));
	assert_false(topic_is_covered(p));
	assert_false(topic_is_covered_next(p));
	assert_false(p->current == TOKEN_SCOPE_LISTED);
	assert_int_equal(w->topics.left_out, 2);
	assert_false(topic_is_covered(topics_get_topic(&w->topics, TOPIC_KEY, SPAN("px"))));
	world_free(w);
}

static void a_newcomer_is_covered_by_the_globs_of_both_lists(void **state)
{
	struct world *w = world_new();

	(void)state;
	add(w, 0, TOPIC_PATTERN, "p*");
	assert_list(w, BUDGET, "[\"p*\"]");
	accept(w, "");
	end(w, 0, TOPIC_PATTERN, "p*");
	w->now += TOPICS_LEFT_MS + 1;
	add(w, 0, TOPIC_PATTERN, "pq*");
	assert_list(w, BUDGET, "[\"pq*\"]");
	struct topic *both = topics_get_topic(&w->topics, TOPIC_KEY, SPAN("pqr")),
		     *now = topics_get_topic(&w->topics, TOPIC_PATTERN, SPAN("pa*b")),
		     *none = topics_get_topic(&w->topics, TOPIC_PATTERN, SPAN("*p"));
	assert_true(topic_is_covered(both) && topic_is_covered_next(both));
	assert_true(topic_is_covered(now) && !topic_is_covered_next(now));
	assert_true(!topic_is_covered(none) && !topic_is_covered_next(none));
	world_free(w);
}

static void what_nobody_wants_any_more_may_be_covered_by_the_coming_list(void **state)
{
	struct world *w = world_new();

	(void)state;
	struct topic *key = add(w, 0, TOPIC_KEY, "pq")->topic,
		     *pattern = add(w, 0, TOPIC_PATTERN, "pq*r")->topic;
	assert_list(w, BUDGET, "[\"pq\",\"pq*r\"]");
	accept(w, "");
	end(w, 0, TOPIC_KEY, "pq");
	end(w, 0, TOPIC_PATTERN, "pq*r");
	add(w, 0, TOPIC_PATTERN, "p*");
	assert_list(w, BUDGET, "[\"p*\"]");
	assert_true(topic_is_covered_next(key) && topic_is_covered_next(pattern));
	accept(w, "");
	assert_null(find(w, TOPIC_KEY, "pq")); /* it is not listed by itself */
	world_free(w);
}

/* To the service a string that begins with ^ is a regular expression. */
static void keys_and_patterns_are_listed_as_what_they_are(void **state)
{
	struct world *w = world_new();

	(void)state;
	add(w, 0, TOPIC_KEY, "^a*");
	assert_list(w, BUDGET, "[\"^\\\\^a\\\\*$\"]");
	end(w, 0, TOPIC_KEY, "^a*");
	add(w, 0, TOPIC_PATTERN, "^a*");
	assert_list(w, BUDGET, "[\"^\\\\^a\"]");
	world_free(w);
}

static void joins_are_listed_if_their_batch_is_the_one(void **state)
{
	struct world *w = world_new();

	(void)state;
	struct topic *a = topics_get_topic(&w->topics, TOPIC_KEY, SPAN("a")),
		     *b = topics_get_topic(&w->topics, TOPIC_KEY, SPAN("b"));
	a->n_joins = b->n_joins = 1;
	a->batch = w->batch = 3;
	b->batch = 2;
	assert_list(w, BUDGET, "[\"a\"]");
	b->batch = 3;
	assert_list(w, BUDGET, "[\"a\",\"b\"]");
	world_free(w);
}

static void what_has_no_room_is_left_out_and_lost(void **state)
{
	struct world *w = world_new();

	(void)state;
	struct topic *a = add(w, 0, TOPIC_KEY, "aaaaaa")->topic,
		     *b = add(w, 0, TOPIC_KEY, "bbbbbb")->topic;
	assert_list(w, BUDGET, "[\"aaaaaa\",\"bbbbbb\"]");
	accept(w, "");
	assert_list(w, 12, "[\"aaaaaa\"]"); /* the later one has to go */
	assert_true(!topic_is_covered_next(b) && topic_is_covered_next(a));
	assert_true(topic_is_covered(b));
	accept(w, "bbbbbb;");
	assert_false(topic_is_covered(b));
	assert_int_equal(w->topics.left_out, 1);
	assert_list(w, 12, "[\"aaaaaa\"]");
	accept(w, ""); /* lost once */
	end(w, 0, TOPIC_KEY, "bbbbbb");
	assert_int_equal(w->topics.left_out, 0);
	world_free(w);
}

/* ---- against a model ---- */

enum { TEXTS = 12, STEPS = 2000 };

static const char *const texts[TEXTS] = {"a",   "ab", "abc", "b",  "*",    "a*",
					 "ab*", "b*", "a*c", "*c", "ab*c", "**"};

struct model {
	struct world *w;
	bool has[PEERS][TOPIC_KIND_N][TEXTS];
	uint32_t random;
};

static uint32_t pick(struct model *m, uint32_t n)
{
	return random_below(&m->random, n);
}

static void model_toggle(struct model *m)
{
	size_t peer = pick(m, PEERS), i = pick(m, TEXTS);
	enum topic_kind kind = (enum topic_kind)pick(m, TOPIC_KIND_N);
	bool *has = &m->has[peer][kind][i];

	if (*has)
		end(m->w, peer, kind, texts[i]);
	else
		add(m->w, peer, kind, texts[i]);
	*has = !*has;
}

static void model_list(struct model *m)
{
	struct buf list = {0};
	char lost[1000] = "";

	switch (pick(m, 5)) {
	case 0:
		topics_accept_list(&m->w->topics, write_down, lost);
		assert_string_equal(lost, ""); /* there is room for all of them */
		break;
	case 1:
		topics_reject_list(&m->w->topics);
		break;
	case 2:
		topics_forget_lists(&m->w->topics, NULL, NULL);
		break;
	default:
		topics_make_list(&m->w->topics, 0, BUDGET, m->w->now, &list);
		buf_release(&list);
		break;
	}
}

static uint32_t receivers(const struct model *m, enum topic_kind kind, size_t i)
{
	uint32_t n = 0;

	for (size_t peer = 0; peer < PEERS; peer++)
		n += m->has[peer][kind][i];
	return n;
}

static void check_topic(const struct model *m, enum topic_kind kind, size_t i, uint32_t seed)
{
	const struct topic *t = find(m->w, kind, texts[i]);
	uint32_t n = receivers(m, kind, i);

	if ((t ? t->n : 0) != n)
		fail_msg("seed %u: %s has %u receivers, not %u", seed, texts[i], t ? t->n : 0, n);
	if (!t)
		return;
	check_receivers(t);
	assert_true(n || t->current == TOKEN_SCOPE_LISTED || t->next == TOKEN_SCOPE_LISTED);
	assert_true(t->current != TOKEN_SCOPE_LISTED || topic_is_covered(t));
	assert_true(t->next != TOKEN_SCOPE_LISTED || topic_is_covered_next(t));
	assert_true(!topic_is_covered_next(t) || m->w->topics.has_next);
	for (size_t peer = 0; peer < PEERS; peer++) {
		const struct sub *sub = topics_find_sub(&m->w->topics, &m->w->peer[peer], t);
		assert_int_equal(sub != NULL, m->has[peer][kind][i]);
	}
}

static void model_check(const struct model *m, uint32_t seed)
{
	const struct topics *s = &m->w->topics;
	size_t n = 0, live = 0, left_out = 0;

	for (int kind = 0; kind < TOPIC_KIND_N; kind++) {
		for (size_t i = 0; i < TEXTS; i++) {
			uint32_t here = receivers(m, (enum topic_kind)kind, i);
			check_topic(m, (enum topic_kind)kind, i, seed);
			n += here;
			live += here > 0;
			left_out += here &&
				    !topic_is_covered(find(m->w, (enum topic_kind)kind, texts[i]));
		}
	}
	assert_int_equal(s->n, n);
	assert_int_equal(s->live[TOPIC_KEY] + s->live[TOPIC_PATTERN], live);
	assert_int_equal(s->left_out, left_out);
}

static void topics_are_those_that_somebody_has_or_a_list_names(void **state)
{
	(void)state;
	for (uint32_t seed = 1; seed <= 20; seed++) {
		struct model m = {.w = world_new(), .random = seed};
		for (int step = 0; step < STEPS; step++) {
			if (pick(&m, 4))
				model_toggle(&m);
			else
				model_list(&m);
			model_check(&m, seed);
		}
		world_free(m.w);
	}
}

/* ---- to the number ---- */

static void patterns_with_text_behind_the_star_are_counted(void **state)
{
	struct world *w = world_new();

	(void)state;
	add(w, 0, TOPIC_PATTERN, "a*");
	add(w, 0, TOPIC_PATTERN, "*");
	add(w, 0, TOPIC_KEY, "a*b");
	assert_int_equal(w->peer[0].topics.n_globs, 0);
	add(w, 0, TOPIC_PATTERN, "a*b");
	add(w, 0, TOPIC_PATTERN, "*b");
	add(w, 1, TOPIC_PATTERN, "*b");
	assert_int_equal(w->peer[0].topics.n_globs, 2);
	assert_int_equal(w->peer[1].topics.n_globs, 1);
	end(w, 0, TOPIC_PATTERN, "*b");
	end(w, 0, TOPIC_PATTERN, "a*");
	end(w, 0, TOPIC_KEY, "a*b");
	assert_int_equal(w->peer[0].topics.n_globs, 1);
	assert_int_equal(w->peer[0].topics.n, 2);
	world_free(w);
}

static void the_last_receiver_takes_the_place_of_one_that_goes(void **state)
{
	struct world *w = world_new();
	struct sub *sub[5];

	(void)state;
	for (size_t i = 0; i < 5; i++)
		sub[i] = add(w, i, TOPIC_KEY, "k");
	struct topic *t = find(w, TOPIC_KEY, "k");
	assert_int_equal(t->size, 8);
	assert_null(topics_find_sub(&w->topics, &w->peer[6], t));
	topics_remove_sub(&w->topics, sub[1], w->now);
	assert_int_equal(t->n, 4);
	assert_ptr_equal(t->receivers[1].sub, sub[4]);
	assert_ptr_equal(t->receivers[1].peer, &w->peer[4]);
	assert_int_equal(sub[4]->receiver, 1);
	topics_remove_sub(&w->topics, sub[4], w->now);
	assert_int_equal(t->size, 8);
	assert_ptr_equal(t->receivers[1].sub, sub[3]);
	topics_remove_sub(&w->topics, sub[3], w->now);
	assert_int_equal(t->size, 4); /* a quarter is left */
	topics_remove_sub(&w->topics, sub[0], w->now);
	assert_int_equal(t->size, 2);
	assert_ptr_equal(t->receivers[0].sub, sub[2]);
	world_free(w);
}

static void a_topic_that_was_left_and_had_again_is_left_no_more(void **state)
{
	struct world *w = world_new();

	(void)state;
	add(w, 0, TOPIC_KEY, "a");
	assert_list(w, BUDGET, "[\"a\"]");
	accept(w, "");
	end(w, 0, TOPIC_KEY, "a");
	assert_int_equal(w->topics.n_left, 1);
	add(w, 0, TOPIC_KEY, "a");
	assert_int_equal(w->topics.n_left, 0);
	end(w, 0, TOPIC_KEY, "a");
	assert_int_equal(w->topics.n_left, 1);
	topics_forget_left(&w->topics);
	assert_int_equal(w->topics.n_left, 0);
	add(w, 0, TOPIC_KEY, "a");
	assert_int_equal(w->topics.n_left, 0);
	end(w, 0, TOPIC_KEY, "a");
	topics_forget_lists(&w->topics, NULL, NULL); /* frees it */
	assert_int_equal(w->topics.n_left, 0);
	assert_null(find(w, TOPIC_KEY, "a"));
	world_free(w);
}

static void only_what_a_list_has_is_left(void **state)
{
	struct world *w = world_new();

	(void)state;
	add(w, 0, TOPIC_KEY, "a");
	end(w, 0, TOPIC_KEY, "a");
	assert_int_equal(w->topics.n_left, 0); /* of none yet */
	add(w, 0, TOPIC_KEY, "b");
	add(w, 0, TOPIC_KEY, "c");
	assert_list(w, BUDGET, "[\"b\",\"c\"]");
	end(w, 0, TOPIC_KEY, "c"); /* of the coming one */
	assert_int_equal(w->topics.n_left, 1);
	accept(w, "");
	assert_non_null(find(w, TOPIC_KEY, "c"));
	world_free(w);
}

/* A name that was left is listed as long as all names take half of the budget at most. */
static void names_that_were_left_are_measured_as_they_are_listed(void **state)
{
	static const struct {
		char first, other;
		size_t n, length;
	} cases[] = {
		{'x', 'x', 300, 303},
		{'x', '"', 100, 103 + 99 * 5},
		{'"', '"', 100, 103 + 100 * 5},
		{'\\', 'x', 100, 103 + 5},
		{'x', '\x01', 100, 103 + 99 * 5},
		{'x', '\x1f', 100, 103 + 99 * 5},
		{'x', ' ', 100, 103},
		{'x', '\x7f', 100, 103 + 99 * 5},
		{'^', 'x', 100, 103 + 100 * 8},
		{'x', '^', 100, 103},
	};

	(void)state;
	for (size_t i = 0; i < 2 * COUNT(cases); i++) {
		struct world *w = world_new();
		size_t n = cases[i / 2].n, room = 8 + cases[i / 2].length - i % 2;
		char name[400];
		struct buf list = {0};
		memset(name, cases[i / 2].other, n);
		name[0] = cases[i / 2].first;
		name[n] = '\0';
		add(w, 0, TOPIC_KEY, "v");
		add(w, 0, TOPIC_KEY, "w");
		add(w, 0, TOPIC_KEY, name);
		topics_make_list(&w->topics, 0, 9000, w->now, &list);
		accept(w, "");
		end(w, 0, TOPIC_KEY, name);
		assert_int_equal(w->topics.n_left, 1);
		topics_make_list(&w->topics, 0, 2 * room, w->now, &list);
		assert_int_equal(find(w, TOPIC_KEY, name)->next == TOKEN_SCOPE_LISTED, i % 2 == 0);
		assert_int_equal(topics_forget_left(&w->topics), i % 2 == 0);
		buf_release(&list);
		world_free(w);
	}
}

static void names_are_left_for_a_minute(void **state)
{
	struct world *w = world_new();

	(void)state;
	w->now = 1000;
	add(w, 0, TOPIC_KEY, "a");
	add(w, 0, TOPIC_KEY, "b");
	assert_list(w, BUDGET, "[\"a\",\"b\"]");
	accept(w, "");
	end(w, 0, TOPIC_KEY, "b");
	w->now += TOPICS_LEFT_MS - 1;
	assert_list(w, BUDGET, "[\"a\",\"b\"]");
	assert_true(w->topics.listed_left);
	w->now++;
	assert_list(w, BUDGET, "[\"a\"]");
	assert_false(w->topics.listed_left);
	assert_int_equal(w->topics.n_left, 0);
	world_free(w);
}

/* A list of keys with a star in them may have become a glob (a regular expression, as of all
 * names with ^). It covers keys that begin so, and no
 * pattern that is spelt so. */
static void a_star_in_a_key_is_not_that_of_a_pattern(void **state)
{
	struct world *w = world_new();
	struct buf list = {0};
	char name[20];

	(void)state;
	for (int i = 10; i < 40; i++) {
		snprintf(name, sizeof(name), "^a*%d", i);
		add(w, 0, TOPIC_KEY, name);
	}
	struct topic *later = topics_get_topic(&w->topics, TOPIC_KEY, SPAN("^a*1x"));
	later->n_joins = 1;
	later->batch = 5; /* not of this list */
	topics_make_list(&w->topics, 0, 120, w->now, &list);
	assert_int_equal(later->next, TOKEN_SCOPE_BY_GLOB);
	accept(w, "");
	assert_int_equal(later->current, TOKEN_SCOPE_BY_GLOB);
	assert_int_equal(topics_get_topic(&w->topics, TOPIC_KEY, SPAN("^a*1y"))->current,
			 TOKEN_SCOPE_BY_GLOB);
	assert_int_equal(topics_get_topic(&w->topics, TOPIC_PATTERN, SPAN("^a*1z"))->current,
			 TOKEN_SCOPE_LEFT_OUT);
	assert_int_equal(topics_get_topic(&w->topics, TOPIC_PATTERN, SPAN("^a*1*"))->current,
			 TOKEN_SCOPE_LEFT_OUT);
	topics_release(&w->topics, find(w, TOPIC_KEY, "^a*1y"));
	topics_release(&w->topics, find(w, TOPIC_PATTERN, "^a*1z"));
	topics_release(&w->topics, find(w, TOPIC_PATTERN, "^a*1*"));
	later->n_joins = 0;
	topics_release(&w->topics, later);
	buf_release(&list);
	world_free(w);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_topic_is_there_as_long_as_something_needs_it),
		cmocka_unit_test(keys_and_patterns_of_the_same_text_are_two_topics),
		cmocka_unit_test(a_text_may_hold_any_bytes),
		cmocka_unit_test(receivers_go_in_any_order),
		cmocka_unit_test(a_new_sub_has_been_told_nothing),
		cmocka_unit_test(a_key_finds_the_patterns_that_match_it),
		cmocka_unit_test(a_list_is_in_force_once_it_was_accepted),
		cmocka_unit_test(a_listed_topic_stays_for_those_who_come_again),
		cmocka_unit_test(a_topic_with_a_new_subscriber_was_not_left),
		cmocka_unit_test(topics_that_were_left_take_no_room_from_others),
		cmocka_unit_test(forgotten_topics_are_not_listed),
		cmocka_unit_test(so_many_topics_that_were_left_are_listed),
		cmocka_unit_test(a_topic_of_the_coming_list_stays_until_that_is_rejected),
		cmocka_unit_test(a_rejected_list_leaves_the_old_one_in_force),
		cmocka_unit_test(forgotten_lists_cover_nothing_and_hold_nothing),
		cmocka_unit_test(a_newcomer_is_covered_by_the_globs_of_both_lists),
		cmocka_unit_test(what_nobody_wants_any_more_may_be_covered_by_the_coming_list),
		cmocka_unit_test(keys_and_patterns_are_listed_as_what_they_are),
		cmocka_unit_test(joins_are_listed_if_their_batch_is_the_one),
		cmocka_unit_test(what_has_no_room_is_left_out_and_lost),
		cmocka_unit_test(topics_are_those_that_somebody_has_or_a_list_names),
		cmocka_unit_test(patterns_with_text_behind_the_star_are_counted),
		cmocka_unit_test(the_last_receiver_takes_the_place_of_one_that_goes),
		cmocka_unit_test(a_topic_that_was_left_and_had_again_is_left_no_more),
		cmocka_unit_test(only_what_a_list_has_is_left),
		cmocka_unit_test(names_that_were_left_are_measured_as_they_are_listed),
		cmocka_unit_test(names_are_left_for_a_minute),
		cmocka_unit_test(a_star_in_a_key_is_not_that_of_a_pattern),
	};

	return cmocka_run_group_tests_name("topics", tests, NULL, NULL);
}
