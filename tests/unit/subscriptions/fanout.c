/* One line to many: who is slow, who is silent, and which changes reach whom. The room by itself,
 * over real topics. */
#include "../test.h"

#include <stdio.h>

#include "base/mem.h"
#include "codec/notification.h"
#include "subscriptions/conflation.h"
#include "subscriptions/fanout.h"

enum { PEERS = 3, LENGTH = 10, SOFT = 2 * LENGTH, SEED = 3 };

struct world {
	struct topics topics;
	struct fanout *fanout;
	struct stats stats;
	struct peer peer[PEERS];
	unsigned changed[PEERS], flushed[PEERS];
	bool reads; /* flush() writes all */
};

static void on_changed(void *owner, struct peer *peer)
{
	struct world *w = owner;

	w->changed[peer - w->peer]++;
}

static void take_all(struct peer *peer)
{
	outq_take(&peer->out, outq_len(&peer->out));
}

static void on_flush(void *owner, struct peer *peer)
{
	struct world *w = owner;

	w->flushed[peer - w->peer]++;
	if (w->reads)
		take_all(peer);
}

static bool hold_nothing_back(void *owner, struct sub *sub, struct shared_line *shared)
{
	(void)owner, (void)sub, (void)shared;
	return false;
}

static const struct fanout_ops ops = {
	.changed = on_changed, .flush = on_flush, .hold_back = hold_nothing_back};

/* Bytes that the client is told later. */
static size_t later(const struct peer *peer)
{
	return peer->fanout.conflation ? peer->fanout.conflation->bytes : 0;
}

static int set_up(void **state)
{
	struct world *w = mem_zalloc(sizeof(*w));

	topics_init(&w->topics, SEED);
	w->fanout = fanout_new(SOFT, &ops, w, &w->stats);
	for (int i = 0; i < PEERS; i++) {
		w->peer[i].number = (uint64_t)i + 1;
		w->peer[i].fanout.change = 7; /* of one that was there before */
		topics_join(&w->peer[i]);
		fanout_join(&w->peer[i]);
		assert_int_equal(w->peer[i].fanout.change, 0);
	}
	*state = w;
	return 0;
}

static void unsubscribe(struct world *w, int i)
{
	struct sub *sub;

	while ((sub = LIST_FIRST(&w->peer[i].topics.subs)))
		topics_remove_sub(&w->topics, sub, 0);
	fanout_update_audience(w->fanout, &w->peer[i]);
}

static int tear_down(void **state)
{
	struct world *w = *state;

	for (int i = 0; i < PEERS; i++) {
		unsubscribe(w, i);
		fanout_leave(&w->peer[i]);
		assert_null(w->peer[i].fanout.conflation);
		outq_fini(&w->peer[i].out);
	}
	topics_fini(&w->topics);
	fanout_free(w->fanout);
	free(w);
	return 0;
}

static struct topic *subscribe(struct world *w, int i, enum topic_kind kind, const char *text)
{
	struct topic *t = topics_get_topic(&w->topics, kind, span_of(text));

	topics_add_sub(&w->topics, &w->peer[i], t);
	fanout_update_audience(w->fanout, &w->peer[i]);
	t->current = TOKEN_SCOPE_LISTED;
	return t;
}

/* A change of the key, with a number; its line has about 80 bytes. */
static void change(struct world *w, const char *key, unsigned number)
{
	struct wire_frame frame;
	struct notification n;
	char text[200];

	snprintf(text, sizeof(text),
		 "{\"type\":\"notification\",\"key\":\"%s\",\"value\":\"%u\",\"timestamp\":1}", key,
		 number);
	wire_parse(span_of(text), &frame);
	assert_int_equal(frame.kind, WIRE_NOTIFICATION);
	n = (struct notification){.key_hash = topics_hash(&w->topics, span_of(key)),
				  .value_hash = number + 1};
	fanout_change(w->fanout, &w->topics, &frame, &n, span_of(key));
}

static void push(struct world *w, int i)
{
	struct shared_line *line = shared_line_new(LENGTH, SPAN("k"));

	memset(line->text, 'x', LENGTH);
	fanout_push(w->fanout, &w->peer[i], line);
	shared_line_unref(line);
}

static void who_does_not_read_is_slow_from_the_soft_limit_on(void **state)
{
	struct world *w = *state;

	push(w, 0);
	push(w, 0);
	assert_int_equal(w->flushed[0], 0);
	assert_int_equal(outq_len(&w->peer[0].out), SOFT);
	push(w, 0);
	assert_int_equal(w->flushed[0], 1);
	assert_int_equal(outq_len(&w->peer[0].out), SOFT);
	assert_int_equal(later(&w->peer[0]), LENGTH);
	assert_int_equal(w->stats.lines_out, 2);
	assert_int_equal(w->changed[0], 3);
	w->reads = true;
	push(w, 1);
	push(w, 1);
	push(w, 1);
	assert_int_equal(w->flushed[1], 1);
	assert_null(w->peer[1].fanout.conflation);
	assert_int_equal(outq_len(&w->peer[1].out), LENGTH);
	fanout_set(w->fanout, LENGTH);
	w->reads = false;
	push(w, 1);
	assert_int_equal(w->flushed[1], 2);
	assert_non_null(w->peer[1].fanout.conflation);
}

static void who_reads_again_is_given_as_much_as_it_may_have(void **state)
{
	struct world *w = *state;

	for (int i = 0; i < 6; i++)
		push(w, 0);
	assert_int_equal(later(&w->peer[0]), 4 * LENGTH);
	fanout_catch_up(w->fanout, &w->peer[0]);
	assert_int_equal(outq_len(&w->peer[0].out), SOFT);
	assert_int_equal(later(&w->peer[0]), 4 * LENGTH);
	outq_take(&w->peer[0].out, 1);
	fanout_catch_up(w->fanout, &w->peer[0]);
	assert_int_equal(outq_len(&w->peer[0].out), SOFT - 1 + LENGTH);
	assert_int_equal(later(&w->peer[0]), 3 * LENGTH);
	for (int i = 0; i < 3; i++) {
		take_all(&w->peer[0]);
		fanout_catch_up(w->fanout, &w->peer[0]);
	}
	assert_null(w->peer[0].fanout.conflation);
	assert_int_equal(later(&w->peer[0]), 0);
	assert_int_equal(w->stats.lines_out, 6);
}

/* The cache's own. */
static void a_silent_peer_is_told_nothing_but_is_there(void **state)
{
	struct world *w = *state;

	w->peer[0].silent = true;
	push(w, 0);
	assert_int_equal(w->changed[0], 0);
	subscribe(w, 0, TOPIC_KEY, "k");
	change(w, "k", 1);
	fanout_push_all(w->fanout, SPAN("all\n"));
	assert_int_equal(outq_len(&w->peer[0].out), 0);
	assert_int_equal(w->stats.notifications_unwanted, 0);
	change(w, "other", 1);
	assert_int_equal(w->stats.notifications_unwanted, 1);
}

static void what_nobody_listens_to_any_more_is_dropped(void **state)
{
	struct world *w = *state;

	subscribe(w, 0, TOPIC_KEY, "k");
	subscribe(w, 0, TOPIC_PATTERN, "p*");
	change(w, "k", 1); /* longer than the limit */
	change(w, "k", 2);
	change(w, "p1", 3);
	size_t two = later(&w->peer[0]);
	topics_remove_sub(&w->topics, LIST_NEXT(LIST_FIRST(&w->peer[0].topics.subs), of_peer), 0);
	fanout_drop_unwanted(&w->topics, &w->peer[0]);
	assert_in_range(later(&w->peer[0]), 1, two - 1);
	unsubscribe(w, 0);
	fanout_drop_unwanted(&w->topics, &w->peer[0]);
	assert_null(w->peer[0].fanout.conflation);
	assert_int_equal(later(&w->peer[0]), 0);
}

/* A key that the token does not cover is told of what a pattern of somebody's covers. */
static void a_pattern_of_anybody_covers_a_key(void **state)
{
	struct world *w = *state;

	struct topic *key = subscribe(w, 0, TOPIC_KEY, "k1");
	key->current = TOKEN_SCOPE_LEFT_OUT;
	change(w, "k1", 1);
	assert_int_equal(outq_len(&w->peer[0].out), 0);
	struct topic *pattern = subscribe(w, 1, TOPIC_PATTERN, "k*");
	pattern->current = TOKEN_SCOPE_LEFT_OUT;
	change(w, "k1", 2);
	assert_int_equal(outq_len(&w->peer[0].out), 0);
	assert_int_equal(outq_len(&w->peer[1].out), 0);
	pattern->current = TOKEN_SCOPE_LISTED;
	change(w, "k1", 3);
	assert_true(outq_len(&w->peer[0].out) > 0);
	assert_int_equal(outq_len(&w->peer[0].out), outq_len(&w->peer[1].out));
	assert_int_equal(key->changes, 1);
	assert_int_equal(key->last_value, 4);
}

static void each_client_is_told_once(void **state)
{
	struct world *w = *state;

	subscribe(w, 0, TOPIC_KEY, "k1");
	subscribe(w, 0, TOPIC_PATTERN, "k*");
	subscribe(w, 1, TOPIC_PATTERN, "*1");
	change(w, "k1", 1);
	assert_int_equal(w->stats.lines_out, 2);
	assert_int_equal(outq_len(&w->peer[0].out), outq_len(&w->peer[1].out));
	assert_int_equal(outq_len(&w->peer[2].out), 0);
	take_all(&w->peer[0]);
	change(w, "k2", 2);
	assert_int_equal(w->stats.lines_out, 3);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(who_does_not_read_is_slow_from_the_soft_limit_on),
		CASE(who_reads_again_is_given_as_much_as_it_may_have),
		CASE(a_silent_peer_is_told_nothing_but_is_there),
		CASE(what_nobody_listens_to_any_more_is_dropped),
		CASE(a_pattern_of_anybody_covers_a_key),
		CASE(each_client_is_told_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
