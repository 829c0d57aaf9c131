/* Which requests go as one, who leads them, and what each is told. */
#include "../test.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/mem.h"
#include "codec/request.h"
#include "requests/combine.h"
#include "requests/key_order.h"

enum { PEERS = 4, PENDINGS = 32, NOW = 1000 };

static struct combine c;
static struct peer peers[PEERS];
static struct pending *made[PENDINGS];
static size_t n_made;
static bool one_hash; /* all keys have the same */

static int set_up(void **state)
{
	(void)state;
	c = (struct combine){.kinds = COMBINE_GETS | COMBINE_INCREMENTS};
	n_made = 0;
	one_hash = false;
	for (int i = 0; i < PEERS; i++) {
		peers[i] = (struct peer){.number = (uint64_t)i + 1};
		TAILQ_INIT(&peers[i].sched.waiting);
	}
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	for (size_t i = 0; i < n_made; i++) {
		combine_drop(&c, made[i]);
		free(made[i]);
	}
	assert_int_equal(0, c.keys.n);
	assert_int_equal(0, c.waiting);
	combine_fini(&c);
	return 0;
}

/* A request of the client that waits. */
static struct pending *waits(int peer, const char *line)
{
	struct request request;
	struct request_fault fault;

	assert_int_equal(0, request_parse(span_of(line), &request, &fault));
	struct pending *p = mem_zalloc(sizeof(*p) + wire_body_max(&request));
	p->op = request.op;
	p->peer = &peers[peer];
	p->key_hash =
		one_hash ? key_order_hash_of_key(p->peer, 7) : key_order_hash(p->peer, &request, 3);
	p->answers.order = (uint32_t)n_made;
	p->body_len = (uint32_t)wire_body(&request, p->text);
	assert_true(n_made < PENDINGS);
	made[n_made++] = p;
	TAILQ_INSERT_TAIL(&p->peer->sched.waiting, p, waiting);
	combine_add(&c, p);
	return p;
}

/* As the router does: it waits no more. */
static void takes_turn(struct pending *p)
{
	combine_drop(&c, p);
	TAILQ_REMOVE(&p->peer->sched.waiting, p, waiting);
}

static const struct pending *held_back;

static bool may_go(void *owner, const struct pending *p)
{
	(void)owner;
	return p != held_back;
}

/* Sends p with all that can go along; returns how many. *sum: the frame's body, if it changes. */
static size_t sends(struct pending *p, struct pending ***companions, struct buf *sum)
{
	size_t n;

	takes_turn(p);
	*companions = combine_find(&c, p, may_go, NULL, NOW, &n);
	if (n && !combine_join(p, *companions, n, sum)) {
		free(*companions);
		*companions = NULL;
		return 0;
	}
	for (size_t i = 0; i < n; i++) {
		combine_unindex(&c, (*companions)[i]);
		TAILQ_REMOVE(&(*companions)[i]->peer->sched.waiting, (*companions)[i], waiting);
	}
	return n;
}

static size_t sends_with(struct pending *p)
{
	struct buf sum = {0};
	struct pending **companions;
	size_t n = sends(p, &companions, &sum);

	free(companions);
	buf_release(&sum);
	return n;
}

#define GET(key) "{\"op\":\"get\",\"key\":\"" key "\"}"
#define INCREMENT(key, by) "{\"op\":\"increment\",\"key\":\"" key "\",\"value\":" by "}"

static void gets_of_a_key_go_as_one_whoever_asks(void **state)
{
	struct pending **companions, *lead = waits(1, GET("k"));
	struct buf sum = {0};

	(void)state;
	struct pending *third = waits(2, GET("k")), *second = waits(0, GET("k"));
	struct pending *fourth = waits(2, GET("k"));
	waits(0, GET("other"));
	assert_int_equal(3, combine_spared(&c));
	assert_int_equal(3, sends(lead, &companions, &sum));
	assert_ptr_equal(second, companions[0]); /* by client, and in its order */
	assert_ptr_equal(third, companions[1]);
	assert_ptr_equal(fourth, companions[2]);
	assert_int_equal(0, buf_len(&sum)); /* the leader's own frame goes */
	assert_int_equal(0, combine_spared(&c));
	free(companions);
}

static void only_what_is_the_same_goes_along(void **state)
{
	(void)state;
	struct pending *get = waits(0, GET("k"));
	waits(1, GET("K"));
	waits(1, GET("kk"));
	waits(1, INCREMENT("k", "1"));
	waits(2, "{\"op\":\"set\",\"key\":\"k\",\"value\":\"v\"}");
	waits(2, "{\"op\":\"range\",\"key\":\"k\",\"endKey\":\"l\"}");
	assert_false(combine_has_other(&c, get));
	assert_int_equal(0, sends_with(get));
}

static void a_quote_or_backslash_in_the_key_is_part_of_it(void **state)
{
	(void)state;
	struct pending *p = waits(0, GET("k\\\"x"));
	waits(1, GET("k\\\"x"));
	waits(1, GET("k\\\"y"));
	waits(1, GET("k\\\\"));
	assert_int_equal(1, sends_with(p));
}

static void one_behind_another_kind_of_its_client_stays(void **state)
{
	(void)state;
	struct pending *p = waits(0, GET("k"));
	waits(1, "{\"op\":\"set\",\"key\":\"k\",\"value\":\"v\"}");
	waits(1, GET("k"));
	waits(2, "{\"op\":\"set\",\"key\":\"other\",\"value\":\"v\"}");
	struct pending *free_one = waits(2, GET("k"));
	struct pending **companions;
	struct buf sum = {0};
	assert_int_equal(1, sends(p, &companions, &sum));
	assert_ptr_equal(free_one, companions[0]);
	free(companions);
}

static void one_that_order_holds_back_stays(void **state)
{
	(void)state;
	struct pending *p = waits(0, GET("k"));
	held_back = waits(1, GET("k"));
	assert_int_equal(0, sends_with(p));
	held_back = NULL;
}

static void clients_on_trial_go_alone(void **state)
{
	(void)state;
	struct pending *p = waits(0, GET("k"));
	struct pending *suspect = waits(1, GET("k"));
	peers[1].sched.on_trial = true;
	assert_false(combine_has_other(&c, p));
	assert_int_equal(0, sends_with(p));
	waits(2, GET("k"));
	assert_int_equal(0, sends_with(suspect));
}

static void kinds_are_switched_on(void **state)
{
	(void)state;
	c.kinds = COMBINE_GETS;
	struct pending *p = waits(0, INCREMENT("k", "1"));
	waits(1, INCREMENT("k", "1"));
	assert_int_equal(0, c.waiting);
	assert_int_equal(0, sends_with(p));
	c.kinds = COMBINE_INCREMENTS;
	p = waits(0, GET("k"));
	waits(1, GET("k"));
	assert_int_equal(0, c.waiting);
	assert_int_equal(0, sends_with(p));
}

static void increments_add_up(void **state)
{
	struct pending **companions, *lead;
	struct buf sum = {0};

	(void)state;
	lead = waits(0, INCREMENT("k", "5"));
	waits(1, "{\"op\":\"increment\",\"key\":\"k\"}"); /* by 1 */
	waits(1, INCREMENT("k", "-10"));
	waits(3, INCREMENT("k", "0.5")); /* not a whole number */
	waits(2, INCREMENT("k", "1e3"));
	assert_int_equal(3, sends(lead, &companions, &sum));
	assert_true(span_equal(buf_span(&sum), SPAN("\"op\":6,\"key\":\"k\",\"value\":996}")));
	assert_true(combine_shares_value(lead));
	free(companions);
	buf_release(&sum);
}

static void a_sum_that_is_too_large_goes_one_by_one(void **state)
{
	(void)state;
	struct pending *p = waits(0, INCREMENT("k", "4000000000000000000"));
	waits(1, INCREMENT("k", "4000000000000000000"));
	waits(2, INCREMENT("k", "4000000000000000000"));
	assert_int_equal(0, sends_with(p));
	assert_false(combine_shares_value(p));
	p = waits(0, INCREMENT("k", "9000000000000000000")); /* which is not reckoned with at all */
	assert_false(p->combined);
}

/* The service's newValue and what each is told, in the order of effect. */
static void are_told(const char *value, const char *const *told)
{
	struct pending **companions, *all[3];
	struct buf sum = {0};
	char text[120];
	struct wire_frame frame;

	all[0] = waits(0, INCREMENT("k", "1"));
	all[1] = waits(1, INCREMENT("k", "20"));
	all[2] = waits(2, INCREMENT("k", "-300"));
	assert_int_equal(2, sends(all[0], &companions, &sum));
	free(companions);
	buf_release(&sum);
	snprintf(text, sizeof(text), "{\"code\":200,\"newValue\":%s,\"messageId\":4}", value);
	struct span copy = copy_of(span_of(text));
	wire_parse(copy, &frame);
	for (int i = 0; i < 3; i++) {
		struct buf out = {0};
		struct wire_frame own;
		char expected[120];
		bool can = combine_answer(all[i], &frame, &out, &own);
		assert_int_equal(told[i] != NULL, can);
		snprintf(expected, sizeof(expected),
			 "{\"code\":200,\"newValue\":%s,\"messageId\":4}", told[i] ? told[i] : "");
		if (can) {
			assert_true(span_equal(own.text, span_of(expected)));
			assert_int_equal(4, own.id);
		}
		buf_release(&out);
	}
	free_copy(copy);
	for (int i = 2; i >= 0; i--)
		combine_leave(all[i]);
}

static void each_is_told_the_value_as_if_they_had_gone_one_by_one(void **state)
{
	(void)state;
	are_told("-279", (const char *[]){"1", "21", "-279"});
	are_told("0", (const char *[]){"280", "300", "0"});
	are_told("-300", (const char *[]){"-20", "0", "-300"});
	are_told("0.25", (const char *[]){"280.25", "300.25", "0.25"});
	are_told("-280.5", (const char *[]){"-0.5", "19.5", "-280.5"});
	are_told("999999999999999999",
		 (const char *[]){"1000000000000000279", "1000000000000000299",
				  "999999999999999999"});
	are_told("1e21", (const char *[]){NULL, NULL, "1e21"}); /* can't be told */
	are_told("9999999999999999999", (const char *[]){NULL, NULL, "9999999999999999999"});
	are_told("\"5\"", (const char *[]){NULL, NULL, "\"5\""});
}

static void an_error_is_everybodys(void **state)
{
	struct wire_frame frame, own;
	struct buf out = {0};

	(void)state;
	struct pending *p = waits(0, INCREMENT("k", "1"));
	waits(1, INCREMENT("k", "2"));
	assert_int_equal(1, sends_with(p));
	wire_parse(SPAN("{\"code\":500,\"error\":\"oops\",\"messageId\":1}"), &frame);
	assert_true(combine_answer(p, &frame, &out, &own));
	assert_true(span_equal(own.text, frame.text));
	combine_leave(made[1]);
}

static void the_first_companion_inherits(void **state)
{
	struct pending *a = waits(0, GET("k")), *b = waits(1, GET("k")), *d = waits(2, GET("k"));
	struct pending *e = waits(3, GET("k"));
	size_t n;

	(void)state;
	assert_int_equal(3, sends_with(a));
	assert_null(combine_leave(d)); /* a companion: no change of the leader */
	struct pending *heir = combine_leave(a);
	assert_ptr_equal(heir, b);
	struct pending **all = combine_disband(heir, &n);
	assert_int_equal(1, n);
	assert_ptr_equal(e, all[0]);
	free(all);
	assert_null(combine_leave(heir));
	assert_null(combine_leave(e));
	assert_null(combine_leave(e)); /* it is nothing any more */
}

static void disbanded_they_are_in_the_order_of_effect(void **state)
{
	struct pending *lead = waits(3, GET("k"));
	size_t n;

	(void)state;
	for (int i = 0; i < 9; i++)
		waits((9 - i) % 3, GET("k"));
	assert_int_equal(9, sends_with(lead));
	struct pending **all = combine_disband(lead, &n);
	assert_int_equal(9, n);
	for (size_t i = 1; i < n; i++)
		assert_true(all[i - 1]->peer->number < all[i]->peer->number ||
			    (all[i - 1]->peer == all[i]->peer &&
			     pending_is_before(all[i - 1], all[i])));
	free(all);
	assert_null(combine_leave(lead));
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

static void keys_that_share_a_hash_do_not_go_along(void **state)
{
	(void)state;
	one_hash = true;
	struct pending *lead = waits(0, GET("k\\\\\\\"a"));
	waits(1, GET("k\\\\\\\"b"));
	waits(2, GET("j\\\\\\\"a"));
	waits(2, GET("\\\"k"));
	struct pending *same = waits(3, GET("k\\\\\\\"a"));
	waits(1, INCREMENT("k\\\\\\\"a", "1"));
	assert_int_equal(1, sends_with(lead));
	size_t n;
	struct pending **all = combine_disband(lead, &n);
	assert_int_equal(1, n);
	assert_ptr_equal(same, all[0]);
	free(all);
	lead = waits(0, GET("\\\"a"));
	waits(1, GET("\\\"b"));
	assert_int_equal(0, sends_with(lead));
}

static void companions_of_an_heir_may_leave_it(void **state)
{
	struct pending *lead = waits(0, GET("k")), *p[3];
	size_t n;

	(void)state;
	for (int i = 0; i < 3; i++)
		p[i] = waits(i + 1, GET("k"));
	assert_int_equal(3, sends_with(lead));
	assert_ptr_equal(combine_leave(lead), p[0]);
	assert_null(combine_leave(p[1]));
	struct pending **all = combine_disband(p[0], &n);
	assert_int_equal(1, n);
	assert_ptr_equal(p[2], all[0]);
	free(all);
}

static void others_that_wait_are_known(void **state)
{
	(void)state;
	struct pending *p = waits(0, GET("k"));
	assert_false(combine_has_other(&c, p)); /* but itself */
	struct pending *other = waits(1, GET("k"));
	assert_true(combine_has_other(&c, p));
	peers[1].sched.on_trial = true;
	assert_false(combine_has_other(&c, p));
	peers[1].sched.on_trial = false;
	peers[0].sched.on_trial = true;
	assert_false(combine_has_other(&c, p));
	peers[0].sched.on_trial = false;
	takes_turn(other);
	assert_false(combine_has_other(&c, p));
	takes_turn(p);
	assert_false(combine_has_other(&c, p)); /* nobody waits for the key at all */
	waits(1, GET("k"));
	assert_true(combine_has_other(&c, p));
	p->key_hash = 0; /* as of a read of the daemon's own */
	assert_false(combine_has_other(&c, p));
	struct pending *set = waits(2, "{\"op\":\"set\",\"key\":\"k\",\"value\":\"\"}");
	assert_false(combine_has_other(&c, set));
}

/* A hundred are looked at, which are increments of the same client. */
static void no_more_are_looked_at_than_a_hundred(void **state)
{
	struct pending *p = waits(0, INCREMENT("k", "1"));
	struct combine_looks {
		struct pending *p[100];
	} *all = mem_zalloc(sizeof(*all));

	(void)state;
	takes_turn(p);
	for (int i = 0; i < 100; i++) {
		struct pending *q = mem_zalloc(sizeof(*q) + made[0]->body_len);
		*q = *made[0];
		memcpy(q->text, made[0]->text, made[0]->body_len);
		q->combined = NULL;
		q->peer = &peers[1];
		q->key_hash = key_order_hash_of_key(
			q->peer, key_order_hash_of_key(&peers[0], made[0]->key_hash));
		TAILQ_INSERT_TAIL(&q->peer->sched.waiting, q, waiting);
		combine_add(&c, q);
		all->p[i] = q;
	}
	struct pending *get = waits(2, GET("k"));
	assert_false(combine_has_other(&c, get)); /* there is none */
	waits(3, GET("k"));
	assert_false(combine_has_other(&c, get)); /* is too far behind */
	takes_turn(all->p[0]);
	takes_turn(all->p[1]);
	assert_true(combine_has_other(&c, get));
	for (int i = 0; i < 100; i++) {
		if (i > 1)
			takes_turn(all->p[i]);
		free(all->p[i]);
	}
	free(all);
}

static void reads_without_a_key_hash_are_not_combined(void **state)
{
	size_t n;

	(void)state;
	struct pending *p = waits(0, GET("k"));
	takes_turn(p);
	p->key_hash = 0;
	waits(1, GET("k"));
	size_t waiting = c.waiting;
	combine_add(&c, p);
	assert_int_equal(waiting, c.waiting);
	assert_null(combine_find(&c, p, may_go, NULL, NOW, &n));
	assert_int_equal(0, n);
}

static void steps_grow_with_time_up_to_a_bound(void **state)
{
	size_t n;

	(void)state;
	struct pending *p = waits(0, GET("k"));
	takes_turn(p);
	c.steps = 15000;
	c.at = NOW - 10;
	free(combine_find(&c, p, may_go, NULL, NOW, &n));
	assert_int_equal(17000, c.steps);
	assert_int_equal(NOW, c.at);
	c.at = NOW - 50;
	free(combine_find(&c, p, may_go, NULL, NOW, &n));
	assert_int_equal(20000, c.steps);
}

static void increments_take_effect_in_the_order_of_their_client(void **state)
{
	struct pending **companions;
	struct buf sum = {0};

	(void)state;
	struct pending *lead = waits(0, INCREMENT("k", "1")), *a = waits(1, INCREMENT("k", "2")),
		       *b = waits(1, INCREMENT("k", "3"));
	combine_drop(&c, a); /* was refused, and comes back */
	combine_add(&c, a);
	assert_int_equal(2, sends(lead, &companions, &sum));
	assert_ptr_equal(companions[0], a);
	assert_ptr_equal(companions[1], b);
	free(companions);
	buf_release(&sum);
	combine_leave(b);
	combine_leave(a);
}

/* The first is told a value without the second one's part. */
static void an_increment_overtakes_none_of_its_client(void **state)
{
	(void)state;
	struct pending *lead = waits(0, INCREMENT("k", "1")), *a = waits(1, INCREMENT("k", "2"));
	waits(1, INCREMENT("k", "3"));
	held_back = a;
	assert_int_equal(0, sends_with(lead));
	held_back = NULL;

	lead = waits(0, INCREMENT("l", "1"));
	waits(2, INCREMENT("l", "0.5")); /* goes by itself */
	waits(2, INCREMENT("l", "3"));
	assert_int_equal(0, sends_with(lead));

	c.kinds = COMBINE_GETS;
	waits(3, INCREMENT("m", "2"));
	c.kinds |= COMBINE_INCREMENTS;
	waits(3, INCREMENT("m", "3"));
	assert_int_equal(0, sends_with(waits(0, INCREMENT("m", "1"))));
}

static void a_get_may_overtake_other_gets(void **state)
{
	struct pending *lead = waits(0, GET("k")), *a = waits(1, GET("k")), *b = waits(1, GET("k"));

	(void)state;
	held_back = a;
	assert_int_equal(1, sends_with(lead));
	held_back = NULL;
	combine_leave(b);
}

static void large_increments_add_up_as_far_as_they_can(void **state)
{
	struct pending **companions;
	struct buf sum = {0};

	(void)state;
	struct pending *a = waits(0, INCREMENT("k", "4611686018427387903"));
	waits(1, INCREMENT("k", "4611686018427387903"));
	assert_int_equal(1, sends(a, &companions, &sum));
	free(companions);
	assert_non_null(
		memmem(buf_span(&sum).p, buf_len(&sum), "\"value\":9223372036854775806}", 28));
	buf_release(&sum);
	combine_leave(a);
	combine_leave(made[1]);
	a = waits(0, INCREMENT("n", "-4611686018427387904"));
	waits(1, INCREMENT("n", "-4611686018427387904"));
	assert_int_equal(1, sends(a, &companions, &sum));
	free(companions);
	assert_non_null(
		memmem(buf_span(&sum).p, buf_len(&sum), "\"value\":-9223372036854775808}", 29));
	buf_release(&sum);
	combine_leave(a);
	combine_leave(made[3]);
	a = waits(0, INCREMENT("m", "1")); /* too large without the leader's */
	for (int i = 1; i < 4; i++)
		waits(i, INCREMENT("m", "4611686018427387903"));
	assert_int_equal(0, sends_with(a));
	a = waits(0, INCREMENT("l", "1"));
	waits(1, INCREMENT("l", "4611686018427387904")); /* alone */
	assert_int_equal(0, sends_with(a));
}

static void a_value_with_too_many_places_cannot_be_told(void **state)
{
	(void)state;
	are_told("0.00000000000000001", (const char *[]){NULL, NULL, "0.00000000000000001"});
	are_told("-999999999999999998",
		 (const char *[]){"-999999999999999718", "-999999999999999698",
				  "-999999999999999998"});
}

static void a_value_that_is_beyond_64_bits_cannot_be_told(void **state)
{
	struct pending *all[3];
	struct wire_frame frame, own;
	struct buf out = {0};

	(void)state;
	all[0] = waits(0, INCREMENT("k", "1"));
	for (int i = 1; i < 3; i++)
		all[i] = waits(i, INCREMENT("k", "4611686018427387903"));
	assert_int_equal(2, sends_with(all[0]));
	wire_parse(SPAN("{\"code\":200,\"newValue\":-999999999999999999,\"messageId\":4}"), &frame);
	assert_false(combine_answer(all[0], &frame, &out, &own));
	buf_release(&out);
	wire_parse(SPAN("{\"code\":200,\"newValue\":0.0000000000000001,\"messageId\":4}"), &frame);
	assert_false(combine_answer(all[0], &frame, &out, &own)); /* too many places for that */
	buf_release(&out);
	for (int i = 2; i >= 0; i--)
		combine_leave(all[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(gets_of_a_key_go_as_one_whoever_asks),
		CASE(only_what_is_the_same_goes_along),
		CASE(a_quote_or_backslash_in_the_key_is_part_of_it),
		CASE(one_behind_another_kind_of_its_client_stays),
		CASE(one_that_order_holds_back_stays),
		CASE(clients_on_trial_go_alone),
		CASE(kinds_are_switched_on),
		CASE(increments_add_up),
		CASE(a_sum_that_is_too_large_goes_one_by_one),
		CASE(each_is_told_the_value_as_if_they_had_gone_one_by_one),
		CASE(an_error_is_everybodys),
		CASE(the_first_companion_inherits),
		CASE(disbanded_they_are_in_the_order_of_effect),
		CASE(keys_that_share_a_hash_do_not_go_along),
		CASE(others_that_wait_are_known),
		CASE(no_more_are_looked_at_than_a_hundred),
		CASE(reads_without_a_key_hash_are_not_combined),
		CASE(steps_grow_with_time_up_to_a_bound),
		CASE(increments_take_effect_in_the_order_of_their_client),
		CASE(an_increment_overtakes_none_of_its_client),
		CASE(a_get_may_overtake_other_gets),
		CASE(large_increments_add_up_as_far_as_they_can),
		CASE(a_value_with_too_many_places_cannot_be_told),
		CASE(a_value_that_is_beyond_64_bits_cannot_be_told),
		CASE(companions_of_an_heir_may_leave_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
