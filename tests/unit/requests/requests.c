/* The small structures below the router: turns, places in flight, deadlines, recycled blocks. */
#include "../test.h"
#include "../random.h"

#include <stdint.h>

#include "base/heap.h"
#include "requests/inflight.h"
#include "base/mem.h"
#include "requests/rate_limiter.h"
#include "base/pool.h"
#include "requests/sched.h"
#include "codec/wire.h"

enum { CONNECTION = 1 };

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
		heap_add(&heap, &node[i], random_below(&random, 4096));
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

static void every_order_of_a_few_times_comes_out_sorted(void **state)
{
	enum { N = 6, ORDERS = 46656 }; /* N to the power of N: equal ones are among them */
	struct heap_node node[N] = {{0}};
	struct heap heap = {0};

	(void)state;
	for (unsigned order = 0; order < ORDERS; order++) {
		unsigned rest = order;
		for (size_t i = 0; i < N; i++, rest /= N)
			heap_add(&heap, &node[i], rest % N);
		for (size_t left = N; left > 0; left--) {
			struct heap_node *first = heap_first(&heap);
			for (size_t i = 0; i < N; i++)
				assert_true(!node[i].index || node[i].at >= first->at);
			heap_remove(&heap, first);
		}
		assert_null(heap_first(&heap));
	}
	heap_fini(&heap);
}

static struct pending *pending_make(struct peer *peer, enum request_op op, uint64_t key_hash)
{
	struct pending *p = mem_zalloc(sizeof(*p));

	p->peer = peer;
	p->op = op;
	p->key_hash = key_hash;
	p->answers.size = sizeof(*p);
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
		sched_join(&peer[i]);
	for (int i = 0; i < 3; i++)
		sched_add(&s, pending_make(&peer[0], OP_GET, 0));
	sched_add(&s, pending_make(&peer[1], OP_GET, 0));
	sched_add(&s, pending_make(&peer[2], OP_GET, 0));
	struct pending *again = pending_make(&peer[2], OP_RANGE, 0);
	again->answers.order = UINT32_MAX; /* before all others, which have 0 */
	sched_add_again(&s, again);
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
	assert_int_equal(peer[0].sched.bytes, 0);
	sched_fini(&s);
}

static void a_peer_whose_last_request_is_removed_has_no_turn(void **state)
{
	struct peer peer[2] = {{.number = 1}, {.number = 2}};
	struct sched s;

	(void)state;
	sched_init(&s);
	sched_join(&peer[0]);
	sched_join(&peer[1]);
	struct pending *a = pending_make(&peer[0], OP_GET, 0),
		       *b = pending_make(&peer[1], OP_GET, 0);
	sched_add(&s, a);
	sched_add(&s, b);
	sched_remove(&s, a);
	assert_ptr_equal(sched_take(&s), b);
	assert_int_equal(s.n, 0);
	free(a);
	free(b);
	sched_fini(&s);
}

static void a_peer_on_trial_delays_nobody_and_is_taken_last(void **state)
{
	struct peer peer[2] = {{.number = 1}, {.number = 2}};
	struct sched s;

	(void)state;
	sched_init(&s);
	sched_join(&peer[0]);
	sched_join(&peer[1]);
	struct pending *a = pending_make(&peer[0], OP_GET, 0),
		       *b = pending_make(&peer[1], OP_GET, 0);
	sched_add(&s, a);
	sched_set_trial(&s, &peer[0], true);
	assert_int_equal(sched_ahead(&s, NULL), 0);
	assert_null(sched_first(&s));
	assert_ptr_equal(sched_first_trial(&s), a);
	sched_add(&s, b);
	sched_block(&s, &peer[0]);
	assert_null(sched_first_trial(&s));
	sched_unblock_all(&s);
	assert_int_equal(sched_ahead(&s, NULL), 1);
	assert_ptr_equal(sched_take(&s), b);
	sched_set_trial(&s, &peer[0], false);
	assert_int_equal(sched_ahead(&s, NULL), 1);
	sched_set_trial(&s, &peer[0], true);
	assert_ptr_equal(sched_take(&s), a);
	free(a);
	free(b);
	sched_fini(&s);
}

static void what_waits_is_counted_for_each_peer(void **state)
{
	struct peer peer[2] = {{.number = 1}, {.number = 2}};
	struct sched s;

	(void)state;
	sched_init(&s);
	sched_join(&peer[0]);
	sched_join(&peer[1]);
	struct pending *a = pending_make(&peer[0], OP_GET, 0),
		       *b = pending_make(&peer[0], OP_GET, 0),
		       *c = pending_make(&peer[1], OP_GET, 0);
	a->answers.size = 100;
	b->answers.size = 20;
	c->answers.size = 3;
	sched_add(&s, a);
	b->answers.order = UINT32_MAX; /* before all others, which have 0 */
	sched_add_again(&s, b);
	sched_add(&s, c);
	assert_int_equal(s.bytes, 123);
	assert_int_equal(peer[0].sched.bytes, 120);
	assert_int_equal(peer[1].sched.bytes, 3);
	sched_remove(&s, a);
	assert_int_equal(peer[0].sched.bytes, 20);
	assert_ptr_equal(sched_take(&s), b); /* the peer has kept its turn */
	assert_int_equal(peer[0].sched.bytes, 0);
	assert_int_equal(s.bytes, 3);
	assert_int_equal(s.n, 1);
	assert_ptr_equal(sched_take(&s), c);
	assert_int_equal(s.n, 0);
	free(a);
	free(b);
	free(c);
	sched_fini(&s);
}

static void an_id_is_never_used_twice(void **state)
{
	struct inflight f;
	uint64_t last = 0;

	(void)state;
	inflight_init(&f, 2);
	struct pending *p = pending_make(NULL, OP_GET, 0);
	for (uint64_t i = 0; i < 1000; i++) {
		p->key_hash = i; /* in every chain there is, and in none */
		inflight_add(&f, p, CONNECTION);
		assert_true(p->inflight.wire_id > last);
		assert_true(p->inflight.wire_id <= WIRE_ID_MAX);
		assert_ptr_equal(inflight_find(&f, p->inflight.wire_id), p);
		assert_null(inflight_find(&f, last));
		last = p->inflight.wire_id;
		inflight_remove(&f, p, INFLIGHT_ANSWERED);
		assert_null(inflight_find(&f, last));
	}
	assert_null(inflight_find(&f, UINT64_MAX));
	free(p);
	inflight_fini(&f);
}

static void ids_stay_in_53_bits_for_ever_and_requests_in_order(void **state)
{
	enum { N = 3 };
	struct pending *p[N], **all;
	struct inflight f;
	size_t n;

	(void)state;
	inflight_init(&f, N);
	f.sequence = (UINT64_C(1) << 37) - 2; /* after so many requests the ids begin again */
	for (int i = 0; i < N; i++) {
		p[i] = pending_make(NULL, OP_GET, 0);
		inflight_add(&f, p[i], CONNECTION);
		assert_true(p[i]->inflight.wire_id <= WIRE_ID_MAX);
		assert_ptr_equal(inflight_find(&f, p[i]->inflight.wire_id), p[i]);
	}
	all = inflight_in_order(&f, &n);
	assert_int_equal(n, N);
	for (int i = 0; i < N; i++)
		assert_ptr_equal(all[i], p[i]);
	free(all);
	for (int i = 0; i < N; i++) {
		inflight_remove(&f, p[i], INFLIGHT_ANSWERED);
		free(p[i]);
	}
	inflight_fini(&f);
}

static void an_id_whose_place_is_not_in_the_table_finds_nothing(void **state)
{
	enum { PLACES = 2 };
	struct inflight f;

	(void)state;
	inflight_init(&f, PLACES);
	assert_null(inflight_find(&f, 0));
	for (uint64_t place = 0; place < 4 * PLACES; place++)
		assert_null(inflight_find(&f, UINT64_C(1) << 16 | place));
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
		assert_false(inflight_full(&f, false));
		p[i] = pending_make(NULL, OP_SET, 0);
		inflight_add(&f, p[i], CONNECTION);
	}
	assert_true(inflight_full(&f, false));
	inflight_remove(&f, p[1], INFLIGHT_ANSWERED);
	inflight_add(&f, p[1], CONNECTION); /* now the youngest */
	all = inflight_in_order(&f, &n);
	assert_int_equal(n, N);
	assert_ptr_equal(all[0], p[0]);
	assert_ptr_equal(all[1], p[2]);
	assert_ptr_equal(all[4], p[1]);
	free(all);
	for (int i = 0; i < N; i++) {
		inflight_remove(&f, p[i], INFLIGHT_ANSWERED);
		free(p[i]);
	}
	assert_int_equal(inflight_count(&f), 0);
	inflight_fini(&f);
}

static void places_of_lone_requests_count_among_those_that_are_kept(void **state)
{
	enum { N = 64, FOR_ALL = 60 };
	struct pending *p[FOR_ALL], *heir = pending_make(NULL, OP_SET, 0);
	struct inflight f;

	(void)state;
	inflight_init(&f, N);
	for (int i = 0; i < FOR_ALL; i++)
		inflight_add(&f, p[i] = pending_make(NULL, OP_SET, 0), CONNECTION);
	assert_true(inflight_full(&f, false));
	inflight_set_lone(&f, p[0]);
	assert_false(inflight_full(&f, false));
	inflight_add_companion(&f, heir, p[0]);
	inflight_pass(&f, p[0], heir);
	inflight_remove(&f, p[0], INFLIGHT_SILENT);
	assert_false(inflight_full(&f, false)); /* its place is the heir's */
	inflight_remove(&f, heir, INFLIGHT_ANSWERED);
	inflight_add(&f, p[0], CONNECTION); /* not lone any more */
	assert_true(inflight_full(&f, false));
	for (int i = 0; i < FOR_ALL; i++)
		free(p[i]);
	free(heir);
	inflight_fini(&f);
}

static void places_may_become_more_and_fewer_while_they_are_in_use(void **state)
{
	enum { BEFORE = 20, MORE = 100, SPARE = 4, FEWER = 3, KEY = 7 };
	struct pending *p[MORE];
	struct inflight f;

	(void)state;
	inflight_init(&f, BEFORE);
	for (int i = 0; i < BEFORE; i++)
		inflight_add(&f, p[i] = pending_make(NULL, OP_GET, i % 2 ? KEY : 0), CONNECTION);
	assert_true(inflight_full(&f, false));
	inflight_set(&f, MORE);
	assert_int_equal(inflight_count(&f), BEFORE);
	for (int i = BEFORE; i < MORE; i++) {
		assert_int_equal(inflight_full(&f, false), i >= MORE - SPARE);
		assert_false(inflight_full(&f, true));
		inflight_add(&f, p[i] = pending_make(NULL, OP_GET, 0), CONNECTION);
	}
	assert_true(inflight_full(&f, true));
	assert_ptr_equal(inflight_last_of_key(&f, KEY), p[BEFORE - 1]);
	inflight_set(&f, FEWER);
	for (int i = 0; i < MORE; i++) {
		assert_int_equal(inflight_full(&f, false), MORE - i >= FEWER);
		assert_ptr_equal(inflight_find(&f, p[i]->inflight.wire_id), p[i]);
		inflight_remove(&f, p[i], true);
		free(p[i]);
	}
	assert_null(inflight_last_of_key(&f, KEY));
	inflight_set(&f, MORE);
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
	inflight_add(&f, read[0], CONNECTION);
	inflight_add(&f, read[1], CONNECTION);
	inflight_add(&f, write, CONNECTION);
	inflight_add(&f, read[2], CONNECTION);
	inflight_add(&f, read[3], CONNECTION);
	assert_true(read[0]->inflight.overtaken);
	assert_false(read[1]->inflight.overtaken);
	assert_false(read[2]->inflight.overtaken);
	inflight_remove(&f, read[3],
			INFLIGHT_ANSWERED); /* answered before the one that was sent before it */
	assert_true(read[2]->inflight.overtaken);
	inflight_remove(&f, read[2], INFLIGHT_SILENT);
	inflight_remove(&f, read[1], INFLIGHT_ANSWERED);
	inflight_remove(&f, read[0], INFLIGHT_SILENT);
	inflight_remove(&f, write, INFLIGHT_ANSWERED);
	for (int i = 0; i < READS; i++)
		free(read[i]);
	free(write);
	inflight_fini(&f);
}

static void keys_that_share_a_chain_do_not_overtake_each_other(void **state)
{
	/* With 16 places the lowest 6 bits choose the chain. */
	enum { KEY = 7, OTHER = KEY + 64 };
	struct inflight f;
	struct pending *read = pending_make(NULL, OP_GET, KEY),
		       *other = pending_make(NULL, OP_GET, OTHER),
		       *write = pending_make(NULL, OP_DELETE, KEY),
		       *write_other = pending_make(NULL, OP_INCREMENT, OTHER);

	(void)state;
	inflight_init(&f, 16);
	assert_int_equal(f.keys_mask, 63);
	inflight_add(&f, read, CONNECTION);
	inflight_add(&f, other, CONNECTION);
	inflight_add(&f, write_other, CONNECTION);
	assert_false(read->inflight.overtaken);
	assert_true(other->inflight.overtaken);
	inflight_add(&f, write,
		     CONNECTION); /* finds its read behind the one that is marked already */
	assert_true(read->inflight.overtaken);
	inflight_remove(&f, read, INFLIGHT_SILENT);
	inflight_add(&f, read, CONNECTION); /* sent again: nothing is behind it yet */
	assert_false(read->inflight.overtaken);
	inflight_remove(&f, other,
			INFLIGHT_ANSWERED); /* answered: took effect, but for another key */
	assert_false(read->inflight.overtaken);
	inflight_fini(&f);
	free(read);
	free(other);
	free(write);
	free(write_other);
}

static void only_an_answered_read_overtakes_and_only_older_ones(void **state)
{
	enum { KEY = 7, READS = 4 };
	struct inflight f;
	struct pending *read[READS];

	(void)state;
	inflight_init(&f, 16);
	for (int i = 0; i < READS; i++) {
		read[i] = pending_make(NULL, OP_GET, KEY);
		inflight_add(&f, read[i], CONNECTION);
	}
	inflight_remove(&f, read[2], INFLIGHT_SILENT);
	for (int i = 0; i < READS; i++)
		assert_false(read[i]->inflight.overtaken);
	inflight_remove(&f, read[1], INFLIGHT_ANSWERED);
	assert_true(read[0]->inflight.overtaken);
	assert_false(read[3]->inflight.overtaken);
	inflight_fini(&f);
	for (int i = 0; i < READS; i++)
		free(read[i]);
}

static void a_write_overtakes_all_reads_that_are_still_there(void **state)
{
	enum { KEY = 7 };
	struct inflight f;
	struct pending *gone = pending_make(NULL, OP_GET, KEY),
		       *first = pending_make(NULL, OP_GET, KEY),
		       *second = pending_make(NULL, OP_GET, KEY),
		       *write = pending_make(NULL, OP_SET, KEY);

	(void)state;
	inflight_init(&f, 16);
	inflight_add(&f, first, CONNECTION);
	inflight_add(&f, second, CONNECTION);
	inflight_add(&f, gone, CONNECTION);
	inflight_remove(&f, gone, INFLIGHT_SILENT);
	free(gone);
	inflight_add(&f, write, CONNECTION);
	assert_true(first->inflight.overtaken);
	assert_true(second->inflight.overtaken);
	inflight_fini(&f);
	free(first);
	free(second);
	free(write);
}

static void there_are_more_chains_than_places(void **state)
{
	static const unsigned places[] = {1, 31, 32, 33, 256, 1000, INFLIGHT_MAX};

	(void)state;
	for (size_t i = 0; i < COUNT(places); i++) {
		struct inflight f;
		inflight_init(&f, places[i]);
		assert_true(f.keys_mask + 1 >= 2 * (size_t)places[i]);
		assert_int_equal(f.keys_mask & (f.keys_mask + 1), 0); /* a mask of low bits */
		inflight_fini(&f);
	}
}

static void reads_without_a_key_are_in_no_chain(void **state)
{
	struct inflight f;
	struct pending *range = pending_make(NULL, OP_RANGE, 0),
		       *later = pending_make(NULL, OP_RANGE, 0);

	(void)state;
	inflight_init(&f, 2);
	inflight_add(&f, range, CONNECTION);
	inflight_add(&f, later, CONNECTION);
	inflight_remove(&f, later, INFLIGHT_ANSWERED);
	assert_false(range->inflight.overtaken);
	for (size_t i = 0; i <= f.keys_mask; i++)
		assert_true(TAILQ_EMPTY(&f.keys[i]));
	inflight_fini(&f);
	free(range);
	free(later);
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

static void a_block_has_the_size_that_is_told(void **state)
{
	struct pool pool = {{{0}}};

	(void)state;
	for (size_t n = 1; n <= 5000; n++) {
		size_t size = pool_size(n);
		assert_true(size >= n);
		assert_int_equal(pool_size(size), size);
		char *p = pool_get(&pool, n);
		memset(p, 1, n);
		pool_put(&pool, p, n);
		char *again = pool_get(&pool, size);
		memset(again, 2, size); /* the sanitizers see a block that is smaller */
		pool_put(&pool, again, size);
		if (size > n)
			assert_ptr_equal(again, p);
	}
	assert_int_equal(pool_size(1), 256);
	assert_int_equal(pool_size(1025), 2048);
	assert_int_equal(pool_size(4096), 4096);
	assert_int_equal(pool_size(4097), 4097); /* malloc's business */
	pool_fini(&pool);
}

static void what_a_pool_keeps_is_bounded(void **state)
{
	enum { BLOCKS = 3000 };
	static const size_t size[POOL_CLASSES] = {256, 512, 1024, 2048, 4096};
	static char *p[BLOCKS];
	struct pool pool = {{{0}}};
	size_t kept = 0;

	(void)state;
	for (size_t c = 0; c < POOL_CLASSES; c++) {
		for (size_t i = 0; i < BLOCKS; i++)
			p[i] = pool_get(&pool, size[c]);
		for (size_t i = 0; i < BLOCKS; i++)
			pool_put(&pool, p[i], size[c]);
		kept += pool.free[c].n * size[c];
		assert_in_range(pool.free[c].n, 1, BLOCKS - 1);
	}
	assert_int_equal(kept, 3 << 19); /* 1.5 MiB */
	for (size_t i = 0; i < BLOCKS; i++)
		pool_put(&pool, pool_get(&pool, 1), 1);
	assert_int_equal(pool.free[0].n * 256, 1 << 19); /* none was counted twice */
	pool_fini(&pool);
	assert_int_equal(pool.free[0].n, 0);
	assert_null(pool.free[0].first);
}

static void a_pace_is_smooth(void **state)
{
	static const double rates[] = {0.5, 3, 10, 333, 1000, 20000};

	(void)state;
	for (size_t i = 0; i < COUNT(rates); i++) {
		struct rate_limiter p;
		int64_t now = 1000, until = now + 60000;
		double sent = 0;

		rate_limiter_init(&p, rates[i], now);
		for (now += 100000, until += 100000; now < until;
		     now++) { /* an idle while saves up little */
			for (; rate_limiter_allows(&p, now); sent++)
				rate_limiter_spend(&p, now);
			assert_true(rate_limiter_next(&p) > now);
			assert_true(sent <= rates[i] * (double)(now - (until - 60000)) / 1000 +
						    rates[i] / 50 + 1.001);
		}
		assert_true(sent >= rates[i] * 60 - 1);
	}
}

static void the_next_time_is_the_right_one(void **state)
{
	struct rate_limiter p;
	int64_t now = 0;

	(void)state;
	rate_limiter_init(&p, 10, now);
	for (int i = 0; i < 50; i++) {
		assert_true(rate_limiter_allows(&p, now));
		rate_limiter_spend(&p, now);
		assert_in_range(rate_limiter_wait_ms(&p, now, 3), 200, 301);
		assert_false(rate_limiter_allows(&p, rate_limiter_next(&p) - 2));
		now = rate_limiter_next(&p);
	}
	assert_in_range(now, 4900, 5060);
	rate_limiter_init(&p, 0, 0);
	assert_true(rate_limiter_allows(&p, 0));
	assert_int_equal(rate_limiter_wait_ms(&p, 0, 1000), 0);
}

static void a_pace_allows_when_it_said_it_would(void **state)
{
	static const double rates[] = {0.3, 3, 7, 10, 60};

	(void)state;
	for (size_t i = 0; i < COUNT(rates); i++) {
		struct rate_limiter p;
		rate_limiter_init(&p, rates[i], 0);
		for (int n = 0; n < 20; n++) {
			rate_limiter_spend(&p, p.at);
			int64_t next = rate_limiter_next(&p);
			assert_false(rate_limiter_allows(&p, next - 2));
			assert_true(rate_limiter_allows(&p, next));
			assert_int_equal(rate_limiter_next(&p), next);
		}
	}
}

static void an_idle_while_saves_up_twenty_milliseconds_worth(void **state)
{
	static const struct {
		double rate;
		int burst;
	} want[] = {{1, 1}, {10, 1}, {50, 1}, {100, 2}, {1000, 20}, {5000, 100}};

	(void)state;
	for (size_t i = 0; i < COUNT(want); i++) {
		struct rate_limiter p;
		int sent = 0;
		rate_limiter_init(&p, want[i].rate, 0);
		for (; rate_limiter_allows(&p, 3600000); sent++)
			rate_limiter_spend(&p, p.at);
		assert_int_equal(sent, want[i].burst);
	}
}

static void a_clock_that_stands_or_steps_back_changes_nothing(void **state)
{
	struct rate_limiter p;

	(void)state;
	rate_limiter_init(&p, 10, 1000);
	assert_true(rate_limiter_allows(&p, 900));
	rate_limiter_spend(&p, 900);
	assert_false(rate_limiter_allows(&p, 1000));
	assert_false(rate_limiter_allows(&p, 500));
	assert_in_range(rate_limiter_next(&p), 1100, 1101);
	assert_true(rate_limiter_allows(&p, 1101));
}

static void without_a_rate_there_is_no_wait(void **state)
{
	struct rate_limiter p;

	(void)state;
	rate_limiter_init(&p, 0, 5);
	for (int i = 0; i < 100; i++) {
		assert_true(rate_limiter_allows(&p, 5));
		rate_limiter_spend(&p, 5);
	}
	assert_int_equal(rate_limiter_next(&p), 5);
	assert_int_equal(rate_limiter_wait_ms(&p, 5, 1000000), 0);
}

static void what_was_sent_before_comes_where_it_was(void **state)
{
	static const uint32_t added[] = {UINT32_MAX, 9, 3, 5, 1}, want[] = {UINT32_MAX, 1, 3, 5, 9};
	struct peer peer = {.number = 1};
	struct pending *p;
	struct sched s;

	(void)state;
	sched_init(&s);
	sched_join(&peer);
	for (size_t i = 0; i < COUNT(added); i++) {
		p = pending_make(&peer, OP_GET, 0);
		p->answers.order = added[i];
		sched_add_again(&s, p);
	}
	for (size_t i = 0; i < COUNT(want); i++) {
		p = sched_take(&s);
		assert_int_equal(p->answers.order, want[i]);
		free(p);
	}
	sched_fini(&s);
}

static void a_blocked_peer_has_no_turn(void **state)
{
	struct peer peer[2] = {{.number = 1}, {.number = 2}};
	struct pending *p[3];
	struct sched s;

	(void)state;
	sched_init(&s);
	for (int i = 0; i < 2; i++)
		sched_join(&peer[i]);
	for (int i = 0; i < 3; i++)
		p[i] = pending_make(&peer[i % 2], OP_GET, 0);
	sched_add(&s, p[0]);
	sched_block(&s, &peer[0]);
	sched_block(&s, &peer[1]); /* with nothing waiting yet */
	sched_add(&s, p[1]);
	sched_add(&s, p[2]);
	assert_null(sched_first(&s));
	assert_null(sched_take(&s));
	assert_int_equal(s.n, 3);
	sched_unblock(&s, &peer[1]);
	assert_ptr_equal(sched_take(&s), p[1]);
	sched_remove(&s, p[0]); /* its time was up, say */
	assert_null(sched_first(&s));
	sched_unblock_all(&s);
	assert_ptr_equal(sched_take(&s), p[2]);
	assert_int_equal(s.n, 0);
	for (int i = 0; i < 3; i++)
		free(p[i]);
	sched_fini(&s);
}

static void the_last_ones_have_a_turn_when_nobody_else_has_one(void **state)
{
	/* Who is asked for, in the order of coming, and who gets the turns. */
	static const int added[] = {0, 1, 2, 0, 2, 1}, want[] = {2, 2, 0, 1, 0, 1};
	struct peer peer[3] = {{.number = 1}, {.number = 2}, {.number = 3}};
	struct sched s;

	(void)state;
	sched_init(&s);
	for (int i = 0; i < 3; i++)
		sched_join(&peer[i]);
	sched_set_last(&s, &peer[0]);
	sched_set_last(&s, &peer[1]);
	for (size_t i = 0; i < COUNT(added); i++)
		sched_add(&s, pending_make(&peer[added[i]], OP_GET, 0));
	for (size_t i = 0; i < COUNT(want); i++) {
		struct pending *p = sched_first(&s);
		assert_ptr_equal(p->peer, &peer[want[i]]);
		assert_ptr_equal(sched_take(&s), p);
		free(p);
	}
	assert_null(sched_first(&s));
	assert_int_equal(s.n, 0);
	sched_fini(&s);
}

static void a_last_one_waits_for_others_that_come_later_and_may_be_blocked(void **state)
{
	struct peer peer[2] = {{.number = 1}, {.number = 2}};
	struct pending *p[3];
	struct sched s;

	(void)state;
	sched_init(&s);
	for (int i = 0; i < 2; i++)
		sched_join(&peer[i]);
	sched_set_last(&s, &peer[0]);
	p[0] = pending_make(&peer[0], OP_GET, 0);
	p[1] = pending_make(&peer[1], OP_GET, 0);
	p[2] = pending_make(&peer[0], OP_GET, 0);
	sched_add(&s, p[0]);
	assert_ptr_equal(sched_first(&s), p[0]);
	sched_add(&s, p[1]);
	assert_ptr_equal(sched_first(&s), p[1]);
	sched_block(&s, &peer[1]);
	assert_ptr_equal(sched_first(&s), p[0]);
	sched_block(&s, &peer[0]);
	assert_null(sched_first(&s));
	sched_unblock(&s, &peer[0]);
	assert_ptr_equal(sched_take(&s), p[0]);
	sched_add(&s, p[2]);
	sched_remove(&s, p[2]);
	assert_null(sched_first(&s));
	sched_add(&s, p[2]);
	sched_unblock_all(&s);
	assert_ptr_equal(sched_take(&s), p[1]);
	assert_ptr_equal(sched_take(&s), p[2]);
	for (int i = 0; i < 3; i++)
		free(p[i]);
	sched_fini(&s);
}

static void a_later_request_for_the_same_key_follows(void **state)
{
	struct inflight f;
	struct pending *a = pending_make(NULL, OP_SET, 7), *b = pending_make(NULL, OP_SET, 8),
		       *c = pending_make(NULL, OP_SET, 7), *range = pending_make(NULL, OP_RANGE, 0);

	(void)state;
	inflight_init(&f, 8);
	assert_null(inflight_last_of_key(&f, 7));
	inflight_add(&f, a, CONNECTION);
	inflight_add(&f, b, CONNECTION);
	inflight_add(&f, range, CONNECTION);
	assert_ptr_equal(inflight_last_of_key(&f, 7), a);
	assert_false(a->inflight.followed);
	inflight_add(&f, c, CONNECTION);
	assert_true(c->inflight.follows);
	assert_false(a->inflight.follows);
	assert_false(b->inflight.follows);
	inflight_remove(&f, c, INFLIGHT_BACK);
	assert_false(a->inflight.followed); /* it may be refused as well */
	inflight_add(&f, c, CONNECTION);
	inflight_remove(&f, c, INFLIGHT_SILENT);
	assert_true(a->inflight.followed);
	assert_false(b->inflight.followed);
	assert_false(c->inflight.followed);
	inflight_remove(&f, a, INFLIGHT_SILENT);
	assert_null(inflight_last_of_key(&f, 7));
	inflight_add(&f, a, CONNECTION); /* again: nothing has followed it now */
	assert_false(a->inflight.followed);
	assert_false(a->inflight.follows);
	inflight_remove(&f, a, INFLIGHT_ANSWERED);
	inflight_remove(&f, b, INFLIGHT_ANSWERED);
	inflight_remove(&f, range, INFLIGHT_ANSWERED);
	free(a);
	free(b);
	free(c);
	free(range);
	inflight_fini(&f);
}

/* What happens to the last of three requests for a key, and whether the first is followed then. */
static void only_what_takes_effect_follows(void **state)
{
	static const struct {
		enum request_op op;
		enum inflight_end end;
		bool followed;
	} cases[] = {
		{OP_SET, INFLIGHT_ANSWERED, true}, {OP_SET, INFLIGHT_SILENT, true},
		{OP_SET, INFLIGHT_BACK, false},    {OP_GET, INFLIGHT_ANSWERED, true},
		{OP_GET, INFLIGHT_SILENT, false},  {OP_GET, INFLIGHT_BACK, false},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct pending *p[] = {pending_make(NULL, OP_SET, 7), pending_make(NULL, OP_GET, 7),
				       pending_make(NULL, cases[i].op, 7)};
		struct inflight f;
		inflight_init(&f, 8);
		for (size_t k = 0; k < COUNT(p); k++)
			inflight_add(&f, p[k], CONNECTION);
		inflight_remove(&f, p[2], cases[i].end);
		assert_int_equal(p[0]->inflight.followed, cases[i].followed);
		assert_int_equal(p[1]->inflight.followed, cases[i].followed);
		for (size_t k = 0; k < COUNT(p); k++)
			free(p[k]);
		inflight_fini(&f);
	}
}

/* How many go before another one is what happens if it comes and nobody else does, or a turn less.
 */
static void what_goes_before_is_known(void **state)
{
	static const struct {
		int waiting[4];
		size_t before[4]; /* another one of each */
		size_t newcomer;
	} cases[] = {
		{{0, 0, 0, 0}, {0, 0, 0, 0}, 0},
		{{3, 0, 0, 0}, {3, 1, 1, 1}, 1},
		{{5, 2, 1, 0}, {8, 5, 3, 3}, 3},
		{{20, 20, 20, 20}, {80, 80, 80, 80}, 4},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct peer peer[4] = {{.number = 1}, {.number = 2}, {.number = 3}, {.number = 4}};
		struct pending *p;
		struct sched s;
		sched_init(&s);
		for (int k = 0; k < 4; k++) {
			sched_join(&peer[k]);
			for (int n = 0; n < cases[i].waiting[k]; n++)
				sched_add(&s, pending_make(&peer[k], OP_GET, 0));
		}
		for (int k = 0; k < 4; k++)
			assert_int_equal(sched_ahead(&s, &peer[k]), cases[i].before[k]);
		assert_int_equal(sched_ahead(&s, NULL), cases[i].newcomer);
		while ((p = sched_take(&s)))
			free(p);
		assert_int_equal(sched_ahead(&s, &peer[0]), 0);
		sched_fini(&s);
	}
}

static void who_has_no_turn_delays_nobody(void **state)
{
	struct peer peer[3] = {{.number = 1}, {.number = 2}, {.number = 3}};
	struct pending *p;
	struct sched s;

	(void)state;
	sched_init(&s);
	for (int k = 0; k < 3; k++) {
		sched_join(&peer[k]);
		if (k == 1)
			sched_set_last(&s, &peer[k]);
		for (int n = 0; n < 3; n++)
			sched_add(&s, pending_make(&peer[k], OP_GET, 0));
	}
	assert_int_equal(sched_ahead(&s, NULL), 2);
	assert_int_equal(sched_ahead(&s, &peer[0]), 6);
	sched_block(&s, &peer[0]);
	assert_int_equal(sched_ahead(&s, NULL), 1);
	assert_int_equal(sched_ahead(&s, &peer[0]), 6); /* of its own, and of the third */
	assert_int_equal(sched_ahead(&s, &peer[2]), 3);
	sched_add(&s, pending_make(&peer[0], OP_GET, 0));
	sched_remove(&s, p = TAILQ_FIRST(&peer[0].sched.waiting));
	free(p);
	sched_unblock(&s, &peer[0]);
	assert_int_equal(sched_ahead(&s, NULL), 2);
	assert_int_equal(sched_ahead(&s, &peer[2]), 6);
	while ((p = sched_take(&s)))
		free(p);
	assert_int_equal(sched_ahead(&s, NULL), 0);
	sched_fini(&s);
}

/* Nobody who could have gone by then is told to wait longer, and the wait is not far off. */
static void a_wait_is_never_longer_than_it_turns_out(void **state)
{
	static const double limits[] = {0, 0.5, 3, 80};
	static const unsigned refusals[] = {0, 1, 2, 5};

	(void)state;
	for (size_t i = 0; i < COUNT(limits) * COUNT(refusals); i++) {
		struct rate_limiter p;
		int64_t now = 5000, wait[5000];
		unsigned before = refusals[i % COUNT(refusals)];
		rate_limiter_init(&p, limits[i / COUNT(refusals)], now);
		for (int n = 0; n < 100; n++)
			rate_limiter_spend(&p, now);
		for (unsigned n = 1; n <= before; n++)
			rate_limiter_refused(&p, now, n, n);
		for (size_t n = 0; n < COUNT(wait); n++)
			wait[n] = rate_limiter_wait_ms(&p, now, n + 1);
		for (size_t n = 0; n < COUNT(wait) && now < 60 * 60000; n++) {
			for (; !rate_limiter_allows(&p, now); now++)
				;
			rate_limiter_spend(&p, now);
			int64_t went = now - 5000;
			assert_true(wait[n] - 1 <= went);
			assert_true(wait[n] >= went - went / 4 - 1001);
		}
	}
}

static void an_idle_pace_recovers_unseen(void **state)
{
	struct rate_limiter p;

	(void)state;
	rate_limiter_init(&p, 0, 0);
	rate_limiter_spend(&p, 0);
	rate_limiter_refused(&p, 0, 1, 1);
	assert_true(rate_limiter_rate(&p, 0) == 1);
	assert_true(rate_limiter_rate(&p, 1000) == 2);
	assert_true(rate_limiter_rate(&p, 3600000) == 0);
	assert_int_equal(rate_limiter_wait_ms(&p, 3600000, 1000), 0);
	assert_true(rate_limiter_is_lowered(&p)); /* nothing was changed by asking */
}

/* A service that takes 50 a second, and a pace that finds out. */
static void a_refused_pace_halves_and_recovers(void **state)
{
	struct rate_limiter p;
	uint64_t sequence = 0;

	(void)state;
	rate_limiter_init(&p, 0, 0);
	for (; sequence < 100; sequence++) {
		assert_true(rate_limiter_allows(&p, 0));
		rate_limiter_spend(&p, 0);
	}
	rate_limiter_refused(&p, 10, 60, sequence);
	assert_true(p.rate == 50);
	rate_limiter_refused(&p, 11, 61, sequence); /* of the same burst: nothing new */
	assert_true(p.rate == 50);
	assert_false(rate_limiter_allows(&p, 11));
	rate_limiter_refused(&p, 100, sequence + 1, sequence + 1);
	assert_true(p.rate >= 25 && p.rate < 26);
	double last = p.rate;
	int64_t now = 100;
	for (; p.rate > 0 && now < 600000; now += 100) {
		rate_limiter_allows(&p, now);
		assert_true(p.rate == 0 || p.rate >= last);
		last = p.rate;
	}
	assert_in_range(now, 20000, 100000); /* steadily: not at once, not never */
	assert_true(rate_limiter_allows(&p, now));
}

static void a_limit_is_what_a_refused_pace_comes_back_to(void **state)
{
	struct rate_limiter p;

	(void)state;
	rate_limiter_init(&p, 2, 0);
	rate_limiter_spend(&p, 0);
	for (uint64_t i = 1; i < 10; i++) {
		rate_limiter_refused(&p, 0, i, i);
		assert_true(p.rate == 1);
	}
	for (int64_t now = 0; now < 10000; now += 10) {
		rate_limiter_allows(&p, now);
		assert_true(p.rate >= 1 && p.rate <= 2);
	}
	assert_true(p.rate == 2);
}

static void another_limit_forgets_what_was_learnt(void **state)
{
	struct rate_limiter p;

	(void)state;
	rate_limiter_init(&p, 0, 0);
	rate_limiter_spend(&p, 0);
	rate_limiter_refused(&p, 0, 1, 1);
	assert_true(rate_limiter_is_lowered(&p));
	rate_limiter_set(&p, 100, 1000, 5);
	assert_false(rate_limiter_is_lowered(&p));
	assert_true(rate_limiter_allows(&p, 1000));
	rate_limiter_spend(&p, 1000);
	assert_false(rate_limiter_allows(&p, 1000));
	assert_int_equal(rate_limiter_next(&p), 1011);
	rate_limiter_refused(&p, 1000, 5, 6); /* one that was sent before */
	assert_false(rate_limiter_is_lowered(&p));
	rate_limiter_refused(&p, 1000, 6, 6);
	assert_true(rate_limiter_is_lowered(&p));
	rate_limiter_set(&p, 0, 1000, 6);
	assert_true(rate_limiter_allows(&p, 1000));
}

/* Two sections: the first three peers are of one, the last of the other. */
struct sections {
	struct sched sched;
	struct budget *b[2];
	struct peer peer[4];
	struct pending *p[4][3]; /* wait, three of each peer */
};

static void admit(struct sections *s, int i, int section)
{
	struct budgets *budgets = budgets_new(1);

	budgets->budget[0] = budget_ref(s->b[section]);
	budget_admit(&s->peer[i], budgets);
}

static struct sections *sections_new(void)
{
	struct sections *s = mem_zalloc(sizeof(*s));

	sched_init(&s->sched);
	s->b[0] = budget_new("many");
	s->b[1] = budget_new("one");
	for (int i = 0; i < 4; i++) {
		s->peer[i].number = (uint64_t)i + 1;
		sched_join(&s->peer[i]);
		admit(s, i, i == 3);
		for (int k = 0; k < 3; k++)
			sched_add(&s->sched, s->p[i][k] = pending_make(&s->peer[i], OP_GET, 0));
	}
	return s;
}

static void sections_free(struct sections *s)
{
	while (sched_take(&s->sched))
		;
	assert_int_equal(s->sched.n, 0);
	assert_true(TAILQ_EMPTY(&s->sched.groups) && TAILQ_EMPTY(&s->sched.budgets));
	for (int i = 0; i < 4; i++) {
		assert_null(s->peer[i].sched.group);
		assert_null(s->peer[i].sched.short_of);
		budget_admit(&s->peer[i], NULL);
		for (int k = 0; k < 3; k++)
			free(s->p[i][k]);
	}
	for (int i = 0; i < 2; i++) {
		assert_int_equal(s->b[i]->refs, 1);
		assert_int_equal(s->b[i]->group.n, 0);
		budget_unref(s->b[i]);
	}
	sched_fini(&s->sched);
	free(s);
}

static void sections_take_turns_and_their_clients_within_each(void **state)
{
	static const int order[] = {0, 3, 1, 3, 2, 3, 0, 1, 2, 0, 1, 2};
	struct sections *s = sections_new();

	(void)state;
	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++)
		assert_ptr_equal(sched_take(&s->sched)->peer, &s->peer[order[i]]);
	sections_free(s);
}

static void a_peer_on_trial_takes_no_turn_of_its_section(void **state)
{
	struct sections *s = sections_new();

	(void)state;
	sched_set_trial(&s->sched, &s->peer[1], true);
	sched_take_this(&s->sched, sched_first_trial(&s->sched));
	assert_ptr_equal(sched_take(&s->sched)->peer, &s->peer[0]);
	assert_ptr_equal(sched_take(&s->sched)->peer, &s->peer[3]);
	sections_free(s);
}

static void what_goes_before_is_that_of_the_own_section_and_as_many_turns_of_others(void **state)
{
	struct sections *s = sections_new();
	struct peer nobodys = {.number = 9};

	(void)state;
	assert_int_equal(sched_ahead(&s->sched, &s->peer[3]), 3 + 3);
	assert_int_equal(sched_ahead(&s->sched, &s->peer[0]), 9 + 3);
	assert_int_equal(sched_ahead(&s->sched, &nobodys), 2);
	assert_int_equal(sched_ahead(&s->sched, NULL), 2);
	sections_free(s);
}

static void a_peer_that_is_short_waits_with_its_budget(void **state)
{
	struct sections *s = sections_new();

	(void)state;
	for (int i = 0; i < 3; i++)
		sched_set_short(&s->sched, &s->peer[i], s->b[0]);
	assert_int_equal(s->b[0]->n_waiting, 3);
	assert_int_equal(s->b[0]->group.n, 0);
	assert_ptr_equal(sched_take(&s->sched), s->p[3][0]);
	assert_ptr_equal(sched_take(&s->sched), s->p[3][1]);
	assert_ptr_equal(TAILQ_FIRST(&s->b[0]->waiting), &s->peer[0]);
	sched_block(&s->sched, &s->peer[0]);
	assert_ptr_equal(TAILQ_FIRST(&s->b[0]->waiting), &s->peer[1]);
	sched_set_short(&s->sched, &s->peer[1], NULL);
	assert_ptr_equal(sched_take(&s->sched), s->p[3][2]);
	assert_ptr_equal(sched_take(&s->sched), s->p[1][0]);
	for (int k = 0; k < 3; k++) /* their time is up */
		sched_remove(&s->sched, s->p[2][k]);
	assert_int_equal(s->b[0]->n_waiting, 1);
	sched_unblock(&s->sched, &s->peer[0]);
	sched_clear_short(&s->sched);
	sections_free(s);
}

static void a_peer_of_another_section_takes_its_turns_there(void **state)
{
	static const int order[] = {1, 3, 2, 0, 1, 3};
	struct sections *s = sections_new();

	(void)state;
	admit(s, 0, 1);
	sched_regroup(&s->sched, &s->peer[0]);
	assert_int_equal(s->b[0]->group.n, 6);
	assert_int_equal(s->b[1]->group.n, 6);
	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++)
		assert_ptr_equal(sched_take(&s->sched)->peer, &s->peer[order[i]]);
	sections_free(s);
}

static void a_reserved_place_is_waited_for_and_taken_from_requests(void **state)
{
	struct rate_limiter p;
	int64_t now = 1000;

	(void)state;
	rate_limiter_init(&p, 10, now);
	assert_int_equal(rate_limiter_reserve(&p, now), 0);
	assert_in_range(rate_limiter_reserve(&p, now), 100, 101);
	assert_in_range(rate_limiter_reserve(&p, now), 200, 201);
	assert_in_range(rate_limiter_wait_ms(&p, now, 1), 300, 301);
	assert_false(rate_limiter_allows(&p, now + 290));
	assert_true(rate_limiter_allows(&p, now + 301));
	rate_limiter_init(&p, 0, now);
	for (int i = 0; i < 100; i++)
		assert_int_equal(rate_limiter_reserve(&p, now), 0);
	rate_limiter_refused(&p, now, 1, 1); /* they count for what is learnt */
	assert_true(rate_limiter_rate(&p, now) == 50);
}

static void a_peer_begins_with_nothing(void **state)
{
	struct peer peer = {.number = 1, .sched = {.n = 3, .bytes = 7, .blocked = true}};
	struct sched s;

	(void)state;
	sched_init(&s);
	sched_join(&peer);
	assert_int_equal(peer.sched.bytes, 0);
	struct pending *p = pending_make(&peer, OP_GET, 0);
	sched_add(&s, p);
	assert_int_equal(peer.sched.n, 1);
	assert_ptr_equal(sched_take(&s), p);
	free(p);
	sched_fini(&s);
}

static void memory_is_charged_and_discharged(void **state)
{
	struct peer peer = {.number = 1};
	struct sched s;

	(void)state;
	sched_init(&s);
	sched_join(&peer);
	struct pending *p = pending_make(&peer, OP_GET, 0);
	sched_charge(&s, p);
	assert_int_equal(s.bytes, sizeof(*p));
	assert_int_equal(peer.sched.bytes, sizeof(*p));
	assert_int_equal(s.n, 0);
	sched_discharge(&s, p);
	assert_int_equal(s.bytes, 0);
	assert_int_equal(peer.sched.bytes, 0);
	free(p);
	sched_fini(&s);
}

static void refused_requests_are_counted(void **state)
{
	struct peer peer = {.number = 1};
	struct sched s;

	(void)state;
	sched_init(&s);
	sched_join(&peer);
	struct pending *p = pending_make(&peer, OP_GET, 0), *q = pending_make(&peer, OP_GET, 0);
	p->refused = true;
	sched_add_again(&s, p);
	sched_add(&s, q);
	assert_int_equal(peer.sched.refused, 1);
	sched_remove(&s, q);
	assert_int_equal(peer.sched.refused, 1);
	sched_remove(&s, p);
	assert_int_equal(peer.sched.refused, 0);
	free(p);
	free(q);
	sched_fini(&s);
}

/* More than 16 requests of one peer, so that levels are added while others are counted. */
static void long_queues_are_counted(void **state)
{
	enum { N = 70 };
	struct peer peer[2] = {{.number = 1}, {.number = 2}};
	struct pending *p;
	struct sched s;

	(void)state;
	sched_init(&s);
	for (int k = 0; k < 2; k++)
		sched_join(&peer[k]);
	sched_block(&s, &peer[0]);
	for (int n = 0; n < N; n++)
		sched_add(&s, pending_make(&peer[0], OP_GET, 0));
	assert_int_equal(sched_ahead(&s, &peer[1]), 0);
	sched_unblock(&s, &peer[0]);
	for (int n = 0; n < N; n++) {
		assert_int_equal(sched_ahead(&s, &peer[1]), n ? 2 * n : 1);
		sched_add(&s, pending_make(&peer[1], OP_GET, 0));
	}
	assert_int_equal(sched_ahead(&s, &peer[0]), 2 * N);
	sched_block(&s, &peer[1]);
	assert_int_equal(sched_ahead(&s, &peer[0]), N);
	sched_unblock_all(&s);
	while ((p = sched_take(&s)))
		free(p);
	sched_fini(&s);
}

static void a_peer_of_another_section_that_has_no_turn_waits_on(void **state)
{
	struct sections *s = sections_new();

	(void)state;
	sched_block(&s->sched, &s->peer[0]);
	admit(s, 0, 1);
	sched_regroup(&s->sched, &s->peer[0]);
	assert_ptr_equal(s->peer[0].sched.group, s->b[1]);
	assert_int_equal(s->b[0]->group.n, 6);
	assert_int_equal(s->b[1]->group.n, 3);
	assert_ptr_equal(TAILQ_FIRST(&s->sched.blocked), &s->peer[0]);
	sched_unblock_all(&s->sched);
	assert_int_equal(s->b[1]->group.n, 6);
	assert_int_equal(s->b[1]->group.at_least[0], 2);
	assert_int_equal(s->b[1]->group.at_least[2], 2);
	sections_free(s);
}

static void the_same_section_again_keeps_the_turn(void **state)
{
	struct sections *s = sections_new();

	(void)state;
	sched_regroup(&s->sched, &s->peer[0]);
	assert_ptr_equal(sched_take(&s->sched), s->p[0][0]);
	for (int k = 0; k < 3; k++) /* one that waits for nothing is of no group */
		sched_remove(&s->sched, s->p[3][k]);
	admit(s, 3, 0);
	sched_regroup(&s->sched, &s->peer[3]);
	assert_null(s->peer[3].sched.group);
	sched_add(&s->sched, s->p[3][0]);
	assert_ptr_equal(s->peer[3].sched.group, s->b[0]);
	sections_free(s);
}

static void a_peer_may_be_short_of_one_budget_after_another(void **state)
{
	struct sections *s = sections_new();

	(void)state;
	sched_set_short(&s->sched, &s->peer[0], s->b[0]);
	assert_int_equal(s->b[0]->group.n, 6);
	sched_set_short(&s->sched, &s->peer[0], s->b[1]);
	assert_int_equal(s->b[0]->n_waiting, 0);
	assert_int_equal(s->b[1]->n_waiting, 1);
	assert_int_equal(s->b[0]->group.n, 6);
	assert_ptr_equal(TAILQ_FIRST(&s->sched.budgets), s->b[1]);
	sched_set_short(&s->sched, &s->peer[1], s->b[1]);
	assert_int_equal(s->b[1]->n_waiting, 2);
	assert_null(TAILQ_NEXT(s->b[1], of_sched));
	sched_set_short(&s->sched, &s->peer[0], NULL);
	assert_int_equal(s->b[0]->group.n, 6);
	assert_ptr_equal(TAILQ_FIRST(&s->sched.budgets), s->b[1]);
	sched_block(&s->sched, &s->peer[1]);
	sched_clear_short(&s->sched);
	assert_null(s->peer[1].sched.short_of);
	assert_int_equal(s->b[0]->group.n, 9);
	sections_free(s);
}

static void what_goes_before_one_of_a_section_without_turns(void **state)
{
	struct sections *s = sections_new();
	struct budget *b = budget_new("none");
	struct peer newcomer = {.number = 9};
	struct budgets *budgets = budgets_new(1);

	(void)state;
	budgets->budget[0] = b;
	budget_admit(&newcomer, budgets);
	sched_join(&newcomer);
	assert_int_equal(sched_ahead(&s->sched, &newcomer), 2); /* one turn of each section */
	struct budgets *same = budgets_new(1);
	same->budget[0] = budget_ref(s->b[0]);
	budget_admit(&newcomer, same);
	assert_int_equal(sched_ahead(&s->sched, &newcomer), 3 + 3);
	budget_admit(&newcomer, NULL);
	sections_free(s);
}

/* ---- the rate, to the number ---- */

static void what_was_learnt_is_taken_over(void **state)
{
	struct rate_limiter p;

	(void)state;
	rate_limiter_init(&p, 0, 100);
	rate_limiter_restore(&p, 200, 40, 90);
	assert_true(p.rate == 40 && p.goal == 90 && p.step == 4 && p.tokens == 0);
	assert_false(rate_limiter_allows(&p, 200));
	assert_true(rate_limiter_is_lowered(&p));
	assert_true(rate_limiter_rate(&p, 1200) == 44);
	rate_limiter_restore(&p, 300, 5, 90);
	assert_true(p.step == 1);
	rate_limiter_init(&p, 10, 100);
	rate_limiter_restore(&p, 100, 10, 90); /* nothing above the limit */
	assert_false(rate_limiter_is_lowered(&p));
	assert_true(p.rate == 10);
	rate_limiter_restore(&p, 100, 9, 90);
	assert_true(p.rate == 9 && p.goal == 10);
}

/* The rate so far is that of the fuller of the present second and the one before. */
static void the_rate_so_far_is_counted_by_seconds(void **state)
{
	static const struct {
		int64_t second_at;  /* when the present second begins */
		unsigned was, sent; /* in the former, in the present */
		double rate, goal;  /* after a refusal */
	} cases[] = {
		{999, 40, 20, 30, 120},                         /* one second */
		{1000, 40, 20, 20, 80},                         /* two */
		{1999, 40, 20, 20, 80}, {2000, 40, 20, 10, 50}, /* with one between */
		{1000, 20, 40, 20, 80}, {1000, 10, 5, 5, 50},   {1000, 1, 1, 1, 50},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct rate_limiter p;
		rate_limiter_init(&p, 0, 0);
		for (unsigned n = 0; n < cases[i].was; n++)
			rate_limiter_spend(&p, 0);
		for (unsigned n = 0; n < cases[i].sent; n++)
			rate_limiter_spend(&p, cases[i].second_at);
		rate_limiter_refused(&p, 3000, 1, 1);
		assert_true(p.rate == cases[i].rate);
		assert_true(p.goal == cases[i].goal);
		assert_true(p.tokens == 0 && p.at == 3000);
	}
}

static void a_lowered_rate_grows_by_a_twentieth_of_the_former_each_second(void **state)
{
	struct rate_limiter p;

	(void)state;
	rate_limiter_init(&p, 0, 0);
	for (int i = 0; i < 100; i++)
		rate_limiter_spend(&p, 0);
	rate_limiter_refused(&p, 0, 1, 100);
	assert_true(p.rate == 50 && p.step == 5 && p.goal == 200);
	rate_limiter_refused(&p, 0, 101, 101); /* lowered again, with the same goal */
	assert_true(p.rate == 25 && p.step == 2.5 && p.goal == 200);
	assert_true(rate_limiter_rate(&p, 2000) == 30);
	assert_true(rate_limiter_rate(&p, 69999) < 200 && rate_limiter_rate(&p, 69999) > 199.9);
	assert_true(rate_limiter_rate(&p, 70000) == 0);
	rate_limiter_init(&p, 10, 0);
	rate_limiter_refused(&p, 0, 1, 1);
	assert_true(p.rate == 5 && p.step == 1 && p.goal == 10);
	assert_true(rate_limiter_rate(&p, 4999) < 10);
	rate_limiter_allows(&p, 5000);
	assert_true(p.rate == 10 && p.step == 0);
}

static void waits_are_reckoned_with_the_growth(void **state)
{
	struct rate_limiter p;

	(void)state;
	rate_limiter_init(&p, 0, 0);
	rate_limiter_restore(&p, 0, 10, 20); /* 10, 11, 12 ... requests in the coming seconds */
	assert_int_equal(rate_limiter_wait_ms(&p, 0, 10), 910); /* at 11/s, the second's last */
	assert_int_equal(rate_limiter_wait_ms(&p, 0, 21), 1876);
	assert_int_equal(rate_limiter_wait_ms(&p, 0, 1000), 10001); /* unlimited then */
	rate_limiter_init(&p, 20, 0);
	rate_limiter_restore(&p, 0, 10, 99);
	assert_int_equal(rate_limiter_wait_ms(&p, 0, 150 + 20), 11001); /* the limit then */
	rate_limiter_init(&p, 4, 0);
	assert_int_equal(rate_limiter_wait_ms(&p, 0, 1), 0);
	assert_int_equal(rate_limiter_wait_ms(&p, 0, 2), 251);
	assert_int_equal(rate_limiter_wait_ms(&p, 0, 5), 1001);
}

static void another_limit_keeps_the_counts_of_the_second(void **state)
{
	struct rate_limiter p;

	(void)state;
	rate_limiter_init(&p, 0, 0);
	for (int i = 0; i < 80; i++)
		rate_limiter_spend(&p, 0);
	for (int i = 0; i < 60; i++)
		rate_limiter_spend(&p, 1000);
	rate_limiter_set(&p, 0, 1500, 140);
	rate_limiter_spend(&p, 1999); /* the same second still */
	rate_limiter_refused(&p, 1999, 140, 141);
	assert_false(rate_limiter_is_lowered(&p));
	rate_limiter_refused(&p, 1999, 141, 141);
	assert_true(p.rate == 40);
	rate_limiter_set(&p, 0, 2500, 141);
	rate_limiter_spend(&p, 2500);
	rate_limiter_refused(&p, 2500, 142, 142);
	assert_true(p.rate == 30.5); /* of the 61 before */
}

static void one_that_waits_is_counted_where_it_takes_its_turns(void **state)
{
	struct sections *s = sections_new();

	(void)state;
	admit(s, 0, 1); /* without sched_regroup() */
	assert_int_equal(sched_ahead(&s->sched, &s->peer[0]), 9 + 3);
	sched_regroup(&s->sched, &s->peer[0]);
	assert_int_equal(sched_ahead(&s->sched, &s->peer[0]), 6 + 6);
	sections_free(s);
}

static void a_companion_takes_over_the_slot(void **state)
{
	struct inflight f;
	struct pending *leader = pending_make(NULL, OP_GET, 7),
		       *companion = pending_make(NULL, OP_GET, 8),
		       *other = pending_make(NULL, OP_GET, 9);

	(void)state;
	inflight_init(&f, 4);
	inflight_add(&f, leader, CONNECTION);
	inflight_add_companion(&f, companion, leader);
	inflight_add_companion(&f, other, leader);
	assert_int_equal(companion->inflight.sequence, leader->inflight.sequence);
	assert_int_equal(companion->inflight.connection, CONNECTION);
	assert_true(companion->inflight.companion);
	assert_int_equal(inflight_count(&f), 1);
	assert_int_equal(inflight_on(&f, CONNECTION), 1);
	inflight_pass(&f, leader, companion);
	inflight_remove(&f, leader, INFLIGHT_SILENT);
	assert_ptr_equal(inflight_find(&f, companion->inflight.wire_id), companion);
	assert_false(companion->inflight.companion);
	assert_int_equal(inflight_on(&f, CONNECTION), 1);
	inflight_remove(&f, other, INFLIGHT_ANSWERED);
	assert_int_equal(inflight_count(&f), 1);
	inflight_remove(&f, companion, INFLIGHT_ANSWERED);
	assert_int_equal(inflight_count(&f), 0);
	assert_int_equal(inflight_on(&f, CONNECTION), 0);
	assert_int_equal(f.n_keys, 0);
	free(leader);
	free(companion);
	free(other);
	inflight_fini(&f);
}

static void requests_are_counted_by_connection(void **state)
{
	enum { N = 6 };
	static const uint32_t on[N] = {5, 6, 5, 7, 6, 5};
	struct pending *p[N];
	struct inflight f;

	(void)state;
	inflight_init(&f, N);
	for (int i = 0; i < N; i++)
		inflight_add(&f, p[i] = pending_make(NULL, OP_GET, 0), on[i]);
	assert_int_equal(inflight_on(&f, 5), 3);
	assert_int_equal(inflight_on(&f, 6), 2);
	assert_int_equal(inflight_on(&f, 7), 1);
	assert_int_equal(inflight_on(&f, 8), 0);
	assert_int_equal(f.n_connections, 3);
	inflight_remove(&f, p[1], INFLIGHT_ANSWERED);
	inflight_remove(&f, p[4], INFLIGHT_ANSWERED);
	assert_int_equal(inflight_on(&f, 6), 0);
	assert_int_equal(inflight_on(&f, 7), 1);
	assert_int_equal(inflight_on(&f, 5), 3);
	assert_int_equal(f.n_connections, 2);
	inflight_add(&f, p[1], 8);
	assert_int_equal(inflight_on(&f, 8), 1);
	for (int i = 0; i < N; i++) {
		if (i != 4)
			inflight_remove(&f, p[i], INFLIGHT_ANSWERED);
		free(p[i]);
	}
	assert_int_equal(f.n_connections, 0);
	inflight_fini(&f);
}

static void a_write_marks_no_reads_before_another_write(void **state)
{
	struct inflight f;
	struct pending *read = pending_make(NULL, OP_GET, 7), *set = pending_make(NULL, OP_SET, 7),
		       *last = pending_make(NULL, OP_GET, 7);

	(void)state;
	inflight_init(&f, 4);
	inflight_add(&f, set, CONNECTION);
	inflight_add(&f, read, CONNECTION);
	inflight_add(&f, last, CONNECTION);
	inflight_remove(&f, last, INFLIGHT_ANSWERED);
	assert_true(read->inflight.overtaken);
	assert_false(set->inflight.overtaken);
	assert_true(read->inflight.followed);
	assert_true(set->inflight.followed);
	inflight_remove(&f, read, INFLIGHT_SILENT);
	inflight_remove(&f, set, INFLIGHT_SILENT);
	free(read);
	free(set);
	free(last);
	inflight_fini(&f);
}

static void one_with_a_single_request_changes_its_section_too(void **state)
{
	struct sections *s = sections_new();

	(void)state;
	sched_remove(&s->sched, s->p[0][1]);
	sched_remove(&s->sched, s->p[0][2]);
	admit(s, 0, 1);
	sched_regroup(&s->sched, &s->peer[0]);
	assert_ptr_equal(s->peer[0].sched.group, s->b[1]);
	assert_int_equal(s->b[1]->group.n, 4);
	sections_free(s);
}

static void a_long_queue_changes_its_section_while_it_has_no_turn(void **state)
{
	enum { N = 40 };
	struct sections *s = sections_new();
	struct budget *b = budget_new("third");
	struct budgets *budgets = budgets_new(1);
	struct pending *more[N];

	(void)state;
	for (int i = 0; i < N; i++)
		sched_add(&s->sched, more[i] = pending_make(&s->peer[0], OP_GET, 0));
	sched_block(&s->sched, &s->peer[0]);
	budgets->budget[0] = budget_ref(b);
	budget_admit(&s->peer[0], budgets);
	sched_regroup(&s->sched, &s->peer[0]);
	sched_unblock_all(&s->sched);
	assert_int_equal(b->group.n, N + 3);
	assert_int_equal(b->group.at_least[N + 2], 1);
	for (int i = 0; i < N; i++) {
		sched_remove(&s->sched, more[i]);
		free(more[i]);
	}
	assert_int_equal(b->group.n, 3);
	sections_free(s);
	assert_int_equal(b->refs, 1);
	budget_unref(b);
}

/* A section that the rules name no more lives until the last of its requests has had its turn. */
static void a_section_that_is_gone_ends_with_its_last_request(void **state)
{
	struct budget *b = budget_new("gone");
	struct budgets *budgets = budgets_new(1);
	struct peer peer = {.number = 1};
	struct sched s;

	(void)state;
	sched_init(&s);
	sched_join(&peer);
	budgets->budget[0] = b;
	budget_admit(&peer, budgets);
	struct pending *p = pending_make(&peer, OP_GET, 0);
	sched_add(&s, p);
	budget_admit(&peer, NULL);
	assert_int_equal(b->refs, 1);
	assert_ptr_equal(sched_take(&s), p);
	assert_null(peer.sched.group);
	assert_true(TAILQ_EMPTY(&s.groups));
	free(p);
	sched_fini(&s);
}

static void a_mark_that_changes_nothing_costs_no_turn(void **state)
{
	struct sections *s = sections_new();

	(void)state;
	sched_set_trial(&s->sched, &s->peer[0], false);
	sched_give_turns(&s->sched, &s->peer[0]);
	sched_set_short(&s->sched, &s->peer[0], NULL);
	assert_ptr_equal(sched_first(&s->sched), s->p[0][0]);
	for (int i = 0; i < 3; i++)
		sched_set_short(&s->sched, &s->peer[i], s->b[0]);
	sched_set_short(&s->sched, &s->peer[0], s->b[0]);
	assert_ptr_equal(TAILQ_FIRST(&s->b[0]->waiting), &s->peer[0]);
	assert_int_equal(s->b[0]->n_waiting, 3);
	sched_clear_short(&s->sched);
	sections_free(s);
}

static void chains_grow_and_lose_nothing(void **state)
{
	enum { N = 700 };
	struct pending *leader = pending_make(NULL, OP_GET, 1), *all[N];
	struct inflight f;

	(void)state;
	inflight_init(&f, 4);
	inflight_add(&f, leader, CONNECTION);
	for (uint64_t i = 0; i < N; i++) {
		inflight_add_companion(&f, all[i] = pending_make(NULL, OP_GET, i + 2), leader);
		assert_int_equal(f.keys_mask & (f.keys_mask + 1), 0);
		assert_true(f.n_keys <= f.keys_mask + 1);
		for (uint64_t k = 0; k <= i; k += 1 + i / 8)
			assert_ptr_equal(inflight_last_of_key(&f, k + 2), all[k]);
	}
	inflight_set(&f, 3000);
	assert_int_equal(f.keys_mask + 1, 8192);
	for (uint64_t i = 0; i < N; i++) {
		assert_ptr_equal(inflight_last_of_key(&f, i + 2), all[i]);
		inflight_remove(&f, all[i], INFLIGHT_ANSWERED);
		free(all[i]);
	}
	inflight_remove(&f, leader, INFLIGHT_ANSWERED);
	free(leader);
	inflight_fini(&f);
}

static void a_companion_of_the_second_slot_takes_that_over(void **state)
{
	struct pending *first = pending_make(NULL, OP_GET, 1),
		       *leader = pending_make(NULL, OP_GET, 2),
		       *companion = pending_make(NULL, OP_GET, 3);
	struct inflight f;

	(void)state;
	inflight_init(&f, 4);
	inflight_add(&f, first, CONNECTION);
	inflight_add(&f, leader, CONNECTION);
	inflight_add_companion(&f, companion, leader);
	assert_int_equal(companion->inflight.wire_id, leader->inflight.wire_id);
	inflight_pass(&f, leader, companion);
	inflight_remove(&f, leader, INFLIGHT_SILENT);
	inflight_remove(&f, companion, INFLIGHT_ANSWERED);
	assert_ptr_equal(inflight_find(&f, first->inflight.wire_id), first);
	inflight_remove(&f, first, INFLIGHT_ANSWERED);
	assert_int_equal(inflight_count(&f), 0);
	free(first);
	free(leader);
	free(companion);
	inflight_fini(&f);
}

static void a_rate_of_one_a_second_is_a_rate(void **state)
{
	struct rate_limiter p;

	(void)state;
	rate_limiter_init(&p, 1, 0);
	assert_int_equal(rate_limiter_reserve(&p, 0), 0);
	assert_in_range(rate_limiter_next(&p), 1000, 1001);
	assert_in_range(rate_limiter_reserve(&p, 500), 500, 501);
	for (int i = 0; i < 5; i++)
		rate_limiter_spend(&p, 500);
	rate_limiter_refused(&p, 500, 1, 1);
	assert_true(p.rate == 1 && p.goal == 1);
	rate_limiter_init(&p, 1, 0);
	rate_limiter_restore(&p, 0, 1, 90);
	assert_false(rate_limiter_is_lowered(&p));
	rate_limiter_restore(&p, 0, 0.5, 90);
	assert_true(p.goal == 1);
}

static void waits_are_those_of_the_seconds_that_they_take(void **state)
{
	struct rate_limiter p;

	(void)state;
	rate_limiter_init(&p, 0, 0);
	rate_limiter_restore(&p, 0, 40, 90); /* 42 in the first second */
	assert_int_equal(rate_limiter_wait_ms(&p, 0, 42), 955);
	assert_int_equal(rate_limiter_wait_ms(&p, 0, 50), 1167);
	rate_limiter_init(&p, 20, 0);
	rate_limiter_restore(&p, 0, 10, 99);
	assert_int_equal(rate_limiter_wait_ms(&p, 0, 150 + 40), 12001);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_heap_gives_times_in_order_whatever_is_removed),
		cmocka_unit_test(every_order_of_a_few_times_comes_out_sorted),
		cmocka_unit_test(peers_take_turns_one_request_each),
		cmocka_unit_test(a_peer_whose_last_request_is_removed_has_no_turn),
		cmocka_unit_test(a_peer_on_trial_delays_nobody_and_is_taken_last),
		cmocka_unit_test(what_waits_is_counted_for_each_peer),
		cmocka_unit_test(an_id_is_never_used_twice),
		cmocka_unit_test(ids_stay_in_53_bits_for_ever_and_requests_in_order),
		cmocka_unit_test(an_id_whose_place_is_not_in_the_table_finds_nothing),
		cmocka_unit_test(places_are_bounded_and_come_back),
		cmocka_unit_test(places_of_lone_requests_count_among_those_that_are_kept),
		cmocka_unit_test(places_may_become_more_and_fewer_while_they_are_in_use),
		cmocka_unit_test(only_older_reads_of_the_same_key_are_overtaken),
		cmocka_unit_test(keys_that_share_a_chain_do_not_overtake_each_other),
		cmocka_unit_test(only_an_answered_read_overtakes_and_only_older_ones),
		cmocka_unit_test(a_write_overtakes_all_reads_that_are_still_there),
		cmocka_unit_test(there_are_more_chains_than_places),
		cmocka_unit_test(reads_without_a_key_are_in_no_chain),
		cmocka_unit_test(blocks_of_all_sizes_are_recycled),
		cmocka_unit_test(a_block_has_the_size_that_is_told),
		cmocka_unit_test(what_a_pool_keeps_is_bounded),
		cmocka_unit_test(a_pace_is_smooth),
		cmocka_unit_test(the_next_time_is_the_right_one),
		cmocka_unit_test(a_pace_allows_when_it_said_it_would),
		cmocka_unit_test(an_idle_while_saves_up_twenty_milliseconds_worth),
		cmocka_unit_test(a_clock_that_stands_or_steps_back_changes_nothing),
		cmocka_unit_test(without_a_rate_there_is_no_wait),
		cmocka_unit_test(what_was_sent_before_comes_where_it_was),
		cmocka_unit_test(a_blocked_peer_has_no_turn),
		cmocka_unit_test(the_last_ones_have_a_turn_when_nobody_else_has_one),
		cmocka_unit_test(a_last_one_waits_for_others_that_come_later_and_may_be_blocked),
		cmocka_unit_test(a_later_request_for_the_same_key_follows),
		cmocka_unit_test(only_what_takes_effect_follows),
		cmocka_unit_test(what_goes_before_is_known),
		cmocka_unit_test(who_has_no_turn_delays_nobody),
		cmocka_unit_test(a_wait_is_never_longer_than_it_turns_out),
		cmocka_unit_test(an_idle_pace_recovers_unseen),
		cmocka_unit_test(a_refused_pace_halves_and_recovers),
		cmocka_unit_test(a_limit_is_what_a_refused_pace_comes_back_to),
		cmocka_unit_test(another_limit_forgets_what_was_learnt),
		cmocka_unit_test(sections_take_turns_and_their_clients_within_each),
		cmocka_unit_test(a_peer_on_trial_takes_no_turn_of_its_section),
		cmocka_unit_test(
			what_goes_before_is_that_of_the_own_section_and_as_many_turns_of_others),
		cmocka_unit_test(a_peer_that_is_short_waits_with_its_budget),
		cmocka_unit_test(a_peer_of_another_section_takes_its_turns_there),
		cmocka_unit_test(a_reserved_place_is_waited_for_and_taken_from_requests),
		cmocka_unit_test(a_peer_begins_with_nothing),
		cmocka_unit_test(memory_is_charged_and_discharged),
		cmocka_unit_test(refused_requests_are_counted),
		cmocka_unit_test(long_queues_are_counted),
		cmocka_unit_test(a_peer_of_another_section_that_has_no_turn_waits_on),
		cmocka_unit_test(the_same_section_again_keeps_the_turn),
		cmocka_unit_test(a_peer_may_be_short_of_one_budget_after_another),
		cmocka_unit_test(what_goes_before_one_of_a_section_without_turns),
		cmocka_unit_test(what_was_learnt_is_taken_over),
		cmocka_unit_test(the_rate_so_far_is_counted_by_seconds),
		cmocka_unit_test(a_lowered_rate_grows_by_a_twentieth_of_the_former_each_second),
		cmocka_unit_test(waits_are_reckoned_with_the_growth),
		cmocka_unit_test(another_limit_keeps_the_counts_of_the_second),
		cmocka_unit_test(one_that_waits_is_counted_where_it_takes_its_turns),
		cmocka_unit_test(a_companion_takes_over_the_slot),
		cmocka_unit_test(requests_are_counted_by_connection),
		cmocka_unit_test(a_write_marks_no_reads_before_another_write),
		cmocka_unit_test(one_with_a_single_request_changes_its_section_too),
		cmocka_unit_test(a_long_queue_changes_its_section_while_it_has_no_turn),
		cmocka_unit_test(a_section_that_is_gone_ends_with_its_last_request),
		cmocka_unit_test(a_mark_that_changes_nothing_costs_no_turn),
		cmocka_unit_test(chains_grow_and_lose_nothing),
		cmocka_unit_test(a_companion_of_the_second_slot_takes_that_over),
		cmocka_unit_test(a_rate_of_one_a_second_is_a_rate),
		cmocka_unit_test(waits_are_those_of_the_seconds_that_they_take),
	};

	return cmocka_run_group_tests_name("core", tests, NULL, NULL);
}
