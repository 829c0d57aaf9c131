/* The small structures below the router: turns, places in flight, deadlines, recycled blocks. */
#include "test.h"

#include <stdint.h>

#include "heap.h"
#include "inflight.h"
#include "mem.h"
#include "pace.h"
#include "pool.h"
#include "sched.h"
#include "wire.h"

static void the_heap_gives_times_in_order_whatever_is_removed(void **state)
{
	enum { N = 500 };
	static struct heap_node node[N];
	struct heap heap = {0};
	uint32_t random = 1;
	int64_t last = -1;
	size_t left = 0;

	(void)state;
	for (size_t i = 0; i < N; i++) {
		random = random * 1664525 + 1013904223;
		heap_add(&heap, &node[i], random >> 20);
	}
	for (size_t i = 0; i < N; i += 3) {
		heap_remove(&heap, &node[i]);
		heap_remove(&heap, &node[i]); /* a second time does nothing */
	}
	for (struct heap_node *first; (first = heap_first(&heap)); left++) {
		assert_true(first->at >= last);
		last = first->at;
		heap_remove(&heap, first);
	}
	assert_int_equal(left, N - (N + 2) / 3);
	heap_fini(&heap);
}

static struct pending *pending_make(struct peer *peer, enum request_op op, uint64_t key_hash)
{
	struct pending *p = mem_zalloc(sizeof(*p));

	p->peer = peer;
	p->op = op;
	p->key_hash = key_hash;
	p->size = sizeof(*p);
	return p;
}

static void peers_take_turns_one_request_each(void **state)
{
	static const int want[] = {0, 1, 2, 0, 2, 0};
	struct peer peer[3] = {{.number = 1}, {.number = 2}, {.number = 3}};
	struct sched s;
	struct pending *p;

	(void)state;
	sched_init(&s);
	for (int i = 0; i < 3; i++)
		TAILQ_INIT(&peer[i].waiting);
	for (int i = 0; i < 3; i++)
		sched_add(&s, pending_make(&peer[0], OP_GET, 0));
	sched_add(&s, pending_make(&peer[1], OP_GET, 0));
	sched_add(&s, pending_make(&peer[2], OP_GET, 0));
	struct pending *again = pending_make(&peer[2], OP_RANGE, 0);
	sched_add_first(&s, again);
	assert_int_equal(s.n, 6);
	assert_int_equal(s.bytes, 6 * sizeof(*p));
	for (size_t i = 0; i < 6; i++) {
		p = sched_take(&s);
		assert_ptr_equal(p->peer, &peer[want[i]]);
		if (i == 2)
			assert_ptr_equal(p, again);
		free(p);
	}
	assert_null(sched_take(&s));
	assert_int_equal(s.bytes, 0);
	assert_int_equal(peer[0].unsent_bytes, 0);
}

static void a_peer_whose_last_request_is_removed_has_no_turn(void **state)
{
	struct peer peer[2] = {{.number = 1}, {.number = 2}};
	struct sched s;

	(void)state;
	sched_init(&s);
	TAILQ_INIT(&peer[0].waiting);
	TAILQ_INIT(&peer[1].waiting);
	struct pending *a = pending_make(&peer[0], OP_GET, 0),
		       *b = pending_make(&peer[1], OP_GET, 0);
	sched_add(&s, a);
	sched_add(&s, b);
	sched_remove(&s, a);
	assert_ptr_equal(sched_take(&s), b);
	assert_true(sched_empty(&s));
	free(a);
	free(b);
}

static void an_id_is_never_used_twice(void **state)
{
	struct inflight f;
	uint64_t last = 0;

	(void)state;
	inflight_init(&f, 2);
	struct pending *p = pending_make(NULL, OP_SET, 0);
	for (int i = 0; i < 1000; i++) {
		inflight_add(&f, p);
		assert_true(p->wire_id > last);
		assert_true(p->wire_id <= WIRE_ID_MAX);
		assert_ptr_equal(inflight_find(&f, p->wire_id), p);
		assert_null(inflight_find(&f, last));
		last = p->wire_id;
		inflight_remove(&f, p, true);
		assert_null(inflight_find(&f, last));
	}
	assert_null(inflight_find(&f, UINT64_MAX));
	free(p);
	inflight_fini(&f);
}

static void places_are_bounded_and_come_back(void **state)
{
	enum { N = 5 };
	struct pending *p[N], **all;
	struct inflight f;
	size_t n;

	(void)state;
	inflight_init(&f, N);
	for (int i = 0; i < N; i++) {
		assert_false(inflight_full(&f));
		p[i] = pending_make(NULL, OP_SET, 0);
		inflight_add(&f, p[i]);
	}
	assert_true(inflight_full(&f));
	inflight_remove(&f, p[1], true);
	inflight_add(&f, p[1]); /* now the youngest */
	all = inflight_in_order(&f, &n);
	assert_int_equal(n, N);
	assert_ptr_equal(all[0], p[0]);
	assert_ptr_equal(all[1], p[2]);
	assert_ptr_equal(all[4], p[1]);
	free(all);
	for (int i = 0; i < N; i++) {
		inflight_remove(&f, p[i], true);
		free(p[i]);
	}
	assert_int_equal(inflight_count(&f), 0);
	inflight_fini(&f);
}

static void only_older_reads_of_the_same_key_are_overtaken(void **state)
{
	enum { KEY = 7, OTHER = 8, READS = 4 };
	struct inflight f;
	struct pending *read[READS], *write = pending_make(NULL, OP_PATCH, KEY);

	(void)state;
	inflight_init(&f, 16);
	for (int i = 0; i < READS; i++)
		read[i] = pending_make(NULL, OP_GET, i == 1 ? OTHER : KEY);
	inflight_add(&f, read[0]);
	inflight_add(&f, read[1]);
	inflight_add(&f, write);
	inflight_add(&f, read[2]);
	inflight_add(&f, read[3]);
	assert_true(read[0]->overtaken);
	assert_false(read[1]->overtaken);
	assert_false(read[2]->overtaken);
	inflight_remove(&f, read[3], true); /* answered before the one that was sent before it */
	assert_true(read[2]->overtaken);
	inflight_remove(&f, read[2], false);
	inflight_remove(&f, read[1], true);
	inflight_remove(&f, read[0], false);
	inflight_remove(&f, write, true);
	for (int i = 0; i < READS; i++)
		free(read[i]);
	free(write);
	inflight_fini(&f);
}

static void blocks_of_all_sizes_are_recycled(void **state)
{
	struct pool pool = {0};
	char *p[3000];

	(void)state;
	for (size_t size = 1; size < 10000; size += 997) {
		for (size_t i = 0; i < 3000; i++) {
			p[i] = pool_get(&pool, size);
			memset(p[i], (int)i, size);
		}
		for (size_t i = 0; i < 3000; i++) {
			assert_int_equal((unsigned char)p[i][size - 1], i & 0xff);
			pool_put(&pool, p[i], size);
		}
	}
	pool_put(&pool, p[0] = pool_get(&pool, 100), 100);
	assert_ptr_equal(pool_get(&pool, 100), p[0]); /* the one that was put back last */
	pool_put(&pool, p[0], 100);
	pool_fini(&pool);
}

static void a_pace_is_smooth(void **state)
{
	static const double rates[] = {0.5, 3, 10, 333, 1000, 20000};

	(void)state;
	for (size_t i = 0; i < COUNT(rates); i++) {
		struct pace p;
		int64_t now = 1000, until = now + 60000;
		double sent = 0;

		pace_init(&p, rates[i], now);
		for (now += 100000, until += 100000; now < until;
		     now++) { /* an idle while saves up little */
			for (; pace_allows(&p, now); sent++)
				pace_spend(&p);
			assert_true(pace_next(&p) > now);
			assert_true(sent <= rates[i] * (double)(now - (until - 60000)) / 1000 +
						    rates[i] / 50 + 1.001);
		}
		assert_true(sent >= rates[i] * 60 - 1);
	}
}

static void the_next_time_is_the_right_one(void **state)
{
	struct pace p;
	int64_t now = 0;

	(void)state;
	pace_init(&p, 10, now);
	for (int i = 0; i < 50; i++) {
		assert_true(pace_allows(&p, now));
		pace_spend(&p);
		assert_in_range(pace_wait_ms(&p, 3), 200, 301);
		assert_false(pace_allows(&p, pace_next(&p) - 2));
		now = pace_next(&p);
	}
	assert_in_range(now, 4900, 5060);
	pace_init(&p, 0, 0);
	assert_true(pace_allows(&p, 0));
	assert_int_equal(pace_wait_ms(&p, 1000), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_heap_gives_times_in_order_whatever_is_removed),
		cmocka_unit_test(peers_take_turns_one_request_each),
		cmocka_unit_test(a_peer_whose_last_request_is_removed_has_no_turn),
		cmocka_unit_test(an_id_is_never_used_twice),
		cmocka_unit_test(places_are_bounded_and_come_back),
		cmocka_unit_test(only_older_reads_of_the_same_key_are_overtaken),
		cmocka_unit_test(blocks_of_all_sizes_are_recycled),
		cmocka_unit_test(a_pace_is_smooth),
		cmocka_unit_test(the_next_time_is_the_right_one),
	};

	return cmocka_run_group_tests_name("core", tests, NULL, NULL);
}
