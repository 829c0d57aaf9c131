/* Who goes along with whom, and how many requests are looked at for it. */
#include "../test.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/mem.h"
#include "requests/combine.h"
#include "requests/inflight.h"
#include "requests/key_order.h"
#include "requests/peer.h"
#include "requests/sched.h"

enum { CLIENTS = 40, EACH = 1000, STEPS = 20000, STEPS_PER_MS = 200 };

struct world {
	struct sched sched;
	struct combine combine;
	struct peer peer[CLIENTS];
	uint32_t order;
	unsigned asked; /* of may_go() */
};

/* A request for the key with this digit. */
static struct pending *wait_for(struct world *w, struct peer *peer, enum request_op op,
				unsigned key)
{
	char body[80];
	int n = snprintf(body, sizeof(body), "\"op\":%d,\"key\":\"%u\",\"value\":1}",
			 op == OP_GET ? 1 : 2, key);
	struct pending *p = mem_zalloc(sizeof(*p) + (size_t)n);

	memcpy(p->text, body, (size_t)n);
	p->body_len = (uint32_t)n;
	p->op = op;
	p->peer = peer;
	p->answers.order = w->order++;
	/* That of peer and key together; without the peer it is the key's. */
	p->key_hash = key_order_hash_of_key(peer, 0x1000 + key);
	sched_add(&w->sched, p);
	combine_add(&w->combine, p);
	return p;
}

static void leave(struct world *w, struct pending *p)
{
	combine_drop(&w->combine, p);
	sched_remove(&w->sched, p);
	free(p);
}

static int set_up(void **state)
{
	struct world *w = mem_zalloc(sizeof(*w));

	sched_init(&w->sched);
	w->combine.kinds = COMBINE_GETS;
	for (size_t i = 0; i < CLIENTS; i++) {
		w->peer[i].number = i + 1;
		sched_join(&w->peer[i]);
	}
	*state = w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;
	struct pending *p;

	for (size_t i = 0; i < CLIENTS; i++) {
		while ((p = TAILQ_FIRST(&w->peer[i].sched.waiting)))
			leave(w, p);
	}
	assert_int_equal(w->combine.waiting, 0);
	assert_int_equal(w->combine.keys.n, 0);
	combine_fini(&w->combine);
	sched_fini(&w->sched);
	free(w);
	return 0;
}

static bool may_go(void *owner, const struct pending *p)
{
	struct world *w = owner;

	(void)p;
	w->asked++;
	return true;
}

/* How many go along with a new request of the first client, which is sent now. */
static size_t find(struct world *w, unsigned key, int64_t now)
{
	struct pending *p = wait_for(w, &w->peer[0], OP_GET, key);
	size_t n;

	combine_drop(&w->combine, p);
	sched_remove(&w->sched, p);
	free(combine_find(&w->combine, p, may_go, w, now, &n));
	free(p);
	return n;
}

static void all_that_wait_for_the_key_go_along(void **state)
{
	struct world *w = *state;

	for (size_t i = 0; i < CLIENTS; i++) {
		wait_for(w, &w->peer[i], OP_GET, 1);
		wait_for(w, &w->peer[i], OP_GET, 2);
		wait_for(w, &w->peer[i], OP_GET, 1);
	}
	assert_int_equal(find(w, 1, 1000), 2 * CLIENTS);
	assert_int_equal(find(w, 2, 1000), CLIENTS);
	assert_int_equal(find(w, 3, 1000), 0);
	assert_int_equal(combine_spared(&w->combine), 3 * CLIENTS - 2);
}

static void one_behind_another_kind_of_its_client_does_not(void **state)
{
	struct world *w = *state;

	wait_for(w, &w->peer[1], OP_SET, 1);
	wait_for(w, &w->peer[1], OP_GET, 1);
	wait_for(w, &w->peer[2], OP_SET, 2);
	wait_for(w, &w->peer[2], OP_GET, 1);
	assert_int_equal(find(w, 1, 1000), 1);
}

/* An enemy's clients have long queues, and he has requests sent all the time, for which they are
 * searched. All searches of a moment together take no more steps than one may. */
static void searches_of_one_moment_share_their_steps(void **state)
{
	struct world *w = *state;

	for (size_t i = 0; i < CLIENTS; i++) {
		for (unsigned n = 0; n < EACH; n++)
			wait_for(w, &w->peer[i], OP_GET, n % 10);
	}
	find(w, 9, 1000);
	assert_int_equal(w->combine.steps, 0);
	unsigned asked = w->asked;
	assert_true(asked < STEPS);
	for (unsigned n = 0; n < 100; n++)
		assert_int_equal(find(w, n % 10, 1000), 0);
	assert_int_equal(w->asked, asked);
	find(w, 9, 1001);
	assert_true(w->asked - asked <= STEPS_PER_MS);
	find(w, 11, 100000); /* a key that nobody waits for */
	assert_int_equal(w->combine.steps, STEPS);
	find(w, 11, 99999); /* a clock that steps back gives none */
	assert_int_equal(w->combine.steps, STEPS);
}

/* Companions have no slots: their number is bounded by the queues only. */
static void chains_grow_with_companions(void **state)
{
	struct world *w = *state;
	struct inflight f;
	struct pending *leader = wait_for(w, &w->peer[0], OP_GET, 0), *all[2000];

	inflight_init(&f, 4);
	inflight_add(&f, leader, 1);
	for (unsigned i = 0; i < 2000; i++) {
		all[i] = wait_for(w, &w->peer[i % CLIENTS], OP_GET, i + 1);
		inflight_add_companion(&f, all[i], leader);
		assert_true(f.n_keys <= f.keys_mask + 1);
	}
	inflight_set(&f, 5000);
	for (unsigned i = 0; i < 2000; i++)
		assert_ptr_equal(inflight_last_of_key(&f, all[i]->key_hash), all[i]);
	for (unsigned i = 0; i < 2000; i++)
		inflight_remove(&f, all[i], INFLIGHT_ANSWERED);
	inflight_remove(&f, leader, INFLIGHT_ANSWERED);
	assert_int_equal(f.n_keys, 0);
	inflight_fini(&f);
}

static int64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* The time of all is up at once, and each time that of the leader or of the last one. The bound is
 * generous: a search for each would exceed it many times. */
static void each_leaves_the_others_without_a_search(void **state)
{
	enum { N = CLIENTS * EACH, EACH_NS = 20000 };
	static struct pending *all[N];
	struct world *w = *state;
	struct buf body = {0};

	for (size_t i = 0; i < N; i++)
		all[i] = wait_for(w, &w->peer[i % CLIENTS], OP_GET, 1);
	assert_true(combine_join(all[0], all + 1, N - 1, &body));
	for (size_t i = 0; i < N; i++)
		combine_unindex(&w->combine, all[i]);
	int64_t begin = cpu_ns();
	for (size_t i = 0; i < N / 2 - 1; i++) {
		assert_ptr_equal(combine_leave(all[i]), all[i + 1]);
		assert_null(combine_leave(all[N - 1 - i]));
	}
	assert_in_range(cpu_ns() - begin, 0, (int64_t)N * EACH_NS);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(all_that_wait_for_the_key_go_along),
		CASE(one_behind_another_kind_of_its_client_does_not),
		CASE(searches_of_one_moment_share_their_steps),
		CASE(chains_grow_with_companions),
		CASE(each_leaves_the_others_without_a_search),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
