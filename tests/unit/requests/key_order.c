/* The order of one client's requests for one key, and writes that were given up: the two small
 * rooms alone. What the router makes of them is in router.c and order.c. */
#include "../test.h"

#include <stdio.h>

#include "requests/key_order.h"
#include "requests/unsettled.h"

enum { CONNECTION = 7, KEY = 5, ID = 100 };

static struct request request_of(const char *line)
{
	struct request r;
	struct request_fault fault;

	if (request_parse(span_of(line), &r, &fault) < 0)
		fail_msg("%s: %s", line, fault.text);
	return r;
}

/* ---- hashes ---- */

static void only_requests_for_one_key_have_a_hash(void **state)
{
	const struct peer peer = {.number = 1};
	struct request get = request_of("{\"op\":\"get\",\"key\":\"a\"}"),
		       range = request_of("{\"op\":\"range\",\"key\":\"a\",\"endKey\":\"b\"}"),
		       ping = request_of("{\"op\":\"ping\"}");

	(void)state;
	assert_true(key_order_hash(&peer, &get, 1) != 0);
	assert_true(key_order_hash(&peer, &ping, 1) == 0);
	assert_true(key_order_hash(&peer, &range, 1) == 0);
}

static void a_hash_is_of_the_key_and_of_its_client(void **state)
{
	const struct peer ada = {.number = 1}, bob = {.number = 2};
	struct request a = request_of("{\"op\":\"get\",\"key\":\"a\"}"),
		       again = request_of("{\"op\":\"set\",\"key\":\"\\u0061\",\"value\":\"\"}"),
		       b = request_of("{\"op\":\"get\",\"key\":\"b\"}");
	uint64_t hash = key_order_hash(&ada, &a, 1);

	(void)state;
	assert_true(hash == key_order_hash(&ada, &again, 1));
	assert_true(hash != key_order_hash(&ada, &b, 1));
	assert_true(hash != key_order_hash(&bob, &a, 1));
	assert_true(hash != key_order_hash(&ada, &a, 2));
	assert_true(key_order_hash_of_key(&ada, hash) ==
		    key_order_hash_of_key(&bob, key_order_hash(&bob, &a, 1)));
}

/* ---- what an end means for earlier ones ---- */

static void only_one_that_follows_and_has_an_effect_bars_earlier_ones(void **state)
{
	static const struct {
		enum pending_state state;
		enum request_op op;
		bool follows;
		enum inflight_end end;
		bool bars;
	} rows[] = {
		{PENDING_SENT, OP_SET, true, INFLIGHT_ANSWERED, true},
		{PENDING_SENT, OP_GET, true, INFLIGHT_ANSWERED, true},
		{PENDING_SENT, OP_SET, true, INFLIGHT_SILENT, true},
		{PENDING_SENT, OP_GET, true, INFLIGHT_SILENT, false},
		{PENDING_SENT, OP_SET, true, INFLIGHT_BACK, false},
		{PENDING_SENT, OP_SET, false, INFLIGHT_ANSWERED, false},
		{PENDING_WAITING, OP_SET, true, INFLIGHT_ANSWERED, false},
	};
	struct peer peer = {.number = 1};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct pending p = {.state = rows[i].state,
				    .op = rows[i].op,
				    .peer = &peer,
				    .key_hash = KEY,
				    .inflight.follows = rows[i].follows,
				    .answers.order = 3};
		struct key_order_effect e = key_order_effect_of(&p, rows[i].end);
		if ((e.peer == &peer) != rows[i].bars)
			fail_msg("row %zu", i);
		assert_true(!rows[i].bars || (e.key_hash == KEY && e.order == 3));
	}
}

/* ---- writes that were given up ---- */

static struct pending sent(enum request_op op, struct peer *peer, uint64_t key, uint64_t id,
			   uint32_t connection)
{
	return (struct pending){.op = op,
				.peer = peer,
				.key_hash = key,
				.inflight = {.wire_id = id, .connection = connection}};
}

static void only_a_write_that_others_may_follow_is_remembered(void **state)
{
	static struct unsettled u;
	struct peer peer = {.number = 1};
	struct pending read = sent(OP_GET, &peer, KEY, ID, CONNECTION),
		       keyless = sent(OP_SET, &peer, 0, ID, CONNECTION),
		       orphan = sent(OP_SET, NULL, KEY, ID, CONNECTION),
		       write = sent(OP_SET, &peer, KEY, ID, CONNECTION);

	(void)state;
	u = (struct unsettled){0};
	assert_false(unsettled_give_up(&u, &read));
	assert_false(unsettled_give_up(&u, &keyless));
	assert_false(unsettled_give_up(&u, &orphan));
	assert_int_equal(u.n, 0);
	assert_false(unsettled_give_up(&u, &write));
	assert_true(unsettled_is_on(&u, CONNECTION));
	assert_false(unsettled_is_on(&u, CONNECTION + 1));
	assert_true(unsettled_has(&u, KEY, CONNECTION + 1));
	assert_false(unsettled_has(&u, KEY, CONNECTION));
	assert_false(unsettled_has(&u, KEY + 1, CONNECTION + 1));
}

/* One of each key, with its id; on two connections in turn. */
static void fill(struct unsettled *u, struct peer *peer, unsigned n)
{
	*u = (struct unsettled){0};
	for (unsigned i = 0; i < n; i++) {
		struct pending p = sent(OP_SET, peer, KEY + i, ID + i, CONNECTION + i % 2);
		assert_false(unsettled_give_up(u, &p));
	}
}

static void one_that_is_settled_leaves_all_others(void **state)
{
	static const unsigned removed[] = {0, 1, 2, UNSETTLED_MAX / 2, UNSETTLED_MAX - 1};
	static struct unsettled u;
	struct peer peer = {.number = 1};

	(void)state;
	for (size_t at = 0; at < COUNT(removed); at++) {
		fill(&u, &peer, UNSETTLED_MAX);
		assert_true(unsettled_over(&u, ID + removed[at], 0));
		assert_false(unsettled_over(&u, ID + removed[at], 0));
		assert_int_equal(u.n, UNSETTLED_MAX - 1);
		for (unsigned i = 0; i < UNSETTLED_MAX; i++)
			assert_int_equal(unsettled_has(&u, KEY + i, 0), i != removed[at]);
	}
}

static void the_oldest_is_forgotten_for_one_too_many(void **state)
{
	static struct unsettled u;
	struct peer peer = {.number = 1};
	struct pending next = sent(OP_SET, &peer, 1, 1, CONNECTION);

	(void)state;
	fill(&u, &peer, UNSETTLED_MAX);
	assert_true(unsettled_give_up(&u, &next));
	assert_int_equal(u.n, UNSETTLED_MAX);
	assert_false(unsettled_has(&u, KEY, 0));
	assert_true(unsettled_has(&u, KEY + 1, 0));
	assert_true(unsettled_has(&u, 1, 0));
}

static void a_lost_connection_takes_its_writes_along(void **state)
{
	static struct unsettled u;
	struct peer peer = {.number = 1};

	(void)state;
	fill(&u, &peer, 5);
	assert_false(unsettled_over(&u, 0, CONNECTION + 2));
	assert_true(unsettled_over(&u, 0, CONNECTION));
	assert_false(unsettled_is_on(&u, CONNECTION));
	assert_int_equal(u.n, 2);
	assert_true(unsettled_has(&u, KEY + 1, 0) && unsettled_has(&u, KEY + 3, 0));
}

static void several_of_one_frame_are_settled_together(void **state)
{
	static struct unsettled u;
	struct peer peer[3] = {{.number = 1}, {.number = 2}, {.number = 3}};

	(void)state;
	u = (struct unsettled){0};
	for (unsigned i = 0; i < 3; i++) {
		struct pending p = sent(OP_INCREMENT, &peer[i], KEY + i, ID, CONNECTION);
		unsettled_give_up(&u, &p);
	}
	assert_true(unsettled_over(&u, ID, 0));
	assert_int_equal(u.n, 0);
	assert_false(unsettled_is_on(&u, CONNECTION));
	fill(&u, &peer[0], 2);
	assert_true(unsettled_is_on(&u, CONNECTION + 1)); /* the second one is */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_requests_for_one_key_have_a_hash),
		cmocka_unit_test(a_hash_is_of_the_key_and_of_its_client),
		cmocka_unit_test(only_one_that_follows_and_has_an_effect_bars_earlier_ones),
		cmocka_unit_test(only_a_write_that_others_may_follow_is_remembered),
		cmocka_unit_test(one_that_is_settled_leaves_all_others),
		cmocka_unit_test(the_oldest_is_forgotten_for_one_too_many),
		cmocka_unit_test(a_lost_connection_takes_its_writes_along),
		cmocka_unit_test(several_of_one_frame_are_settled_together),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
