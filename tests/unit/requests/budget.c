/* What the clients of an access section may use together. */
#include "../test.h"

#include "base/mem.h"
#include "requests/budget.h"

enum { PEERS = 3 };

struct world {
	struct budget *b;
	struct peer peer[PEERS];
};

static struct world *world_new(struct budget_limits limits)
{
	struct world *w = mem_zalloc(sizeof(*w));

	w->b = budget_new("web");
	budget_set(w->b, &limits);
	for (int i = 0; i < PEERS; i++) {
		struct budgets *s = budgets_new(1);
		s->budget[0] = budget_ref(w->b);
		budget_admit(&w->peer[i], s);
	}
	return w;
}

static void world_free(struct world *w)
{
	for (int i = 0; i < PEERS; i++)
		budget_admit(&w->peer[i], NULL);
	assert_int_equal(w->b->clients, 0);
	assert_int_equal(w->b->subscriptions, 0);
	budget_unref(w->b);
	free(w);
}

static void a_second_is_had_at_once(void **state)
{
	struct world *w = world_new((struct budget_limits){.rate = 5});
	int64_t now = 1000;

	(void)state;
	for (int i = 0; i < 5; i++) {
		assert_null(budget_lacking(&w->peer[0], true, false, now));
		budget_pay(&w->peer[i % PEERS], now);
	}
	assert_ptr_equal(budget_lacking(&w->peer[0], true, false, now), w->b);
	assert_null(budget_lacking(&w->peer[0], true, true, now)); /* it is paid for */
	assert_in_range(budget_next(w->b), now + 200, now + 201);
	assert_int_equal(budget_room(w->b, now + 199), 0);
	assert_int_equal(budget_room(w->b, now + 201), 1);
	assert_int_equal(budget_room(w->b, now + 100000), 5); /* no more is saved up */
	assert_int_equal(budget_room(w->b, now), 5); /* a clock that steps back takes nothing */
	assert_int_equal(w->b->requests, 5);
	world_free(w);
}

static void a_wait_is_the_time_until_there_is_room(void **state)
{
	struct world *w = world_new((struct budget_limits){.rate = 10});
	struct budget *slowest;
	int64_t now = 1000;

	(void)state;
	assert_int_equal(budget_wait_ms(w->b, 10, now), 0);
	assert_in_range(budget_wait_ms(w->b, 11, now), 100, 101);
	assert_int_equal(budget_peer_wait_ms(&w->peer[0], now, &slowest), 0);
	assert_null(slowest);
	for (int i = 0; i < 10; i++)
		budget_pay(&w->peer[0], now);
	w->peer[0].sched.n = 4; /* wait before it */
	w->b->n_waiting = 2;
	assert_in_range(budget_peer_wait_ms(&w->peer[0], now, &slowest), 700, 701);
	assert_ptr_equal(slowest, w->b);
	w->peer[0].sched.short_of = w->b; /* it is one of the two */
	assert_in_range(budget_peer_wait_ms(&w->peer[0], now, &slowest), 600, 601);
	assert_in_range(budget_rate_wait_ms(&w->peer[1], now), 100, 101);
	world_free(w);
}

static void without_limits_there_is_room(void **state)
{
	struct world *w = world_new((struct budget_limits){0});

	(void)state;
	for (int i = 0; i < 5000; i++)
		budget_pay(&w->peer[0], 0);
	assert_null(budget_lacking(&w->peer[0], true, false, 0));
	assert_null(budget_lacking_subscriptions(&w->peer[0], 1000000));
	assert_int_equal(budget_rate_wait_ms(&w->peer[0], 0), 0);
	struct peer nobodys = {0};
	assert_null(budget_lacking(&nobodys, true, false, 0));
	world_free(w);
}

static void places_are_those_of_all_clients(void **state)
{
	struct world *w = world_new((struct budget_limits){.rate = 100, .max_in_flight = 2});
	struct pending p = {.peer = &w->peer[0]}, q = {.peer = &w->peer[1]};

	(void)state;
	budget_begin(&p, 0);
	budget_begin(&q, 0);
	assert_ptr_equal(budget_lacking(&w->peer[2], true, false, 0), w->b);
	assert_ptr_equal(budget_lacking(&w->peer[2], true, true, 0), w->b);
	assert_int_equal(budget_next(w->b), -1);
	budget_end(&p);
	budget_end(&p); /* a second time does nothing */
	assert_null(budget_lacking(&w->peer[2], true, false, 0));
	budget_begin(&p, 0); /* again: it is paid for */
	assert_int_equal(w->b->requests, 2);
	budget_end(&p);
	budget_admit(&w->peer[1], NULL); /* it has left, and its request is still in flight */
	assert_int_equal(w->b->in_flight, 1);
	budget_end(&q);
	assert_int_equal(w->b->in_flight, 0);
	world_free(w);
}

static void room_that_others_wait_for_is_theirs(void **state)
{
	struct world *w = world_new((struct budget_limits){.rate = 100});

	(void)state;
	TAILQ_INSERT_TAIL(&w->b->waiting, &w->peer[1], sched.turn);
	assert_ptr_equal(budget_lacking(&w->peer[0], true, false, 0), w->b);
	assert_null(budget_lacking(&w->peer[1], false, false, 0));
	world_free(w);
}

static void subscriptions_move_with_their_client(void **state)
{
	struct world *w = world_new((struct budget_limits){.max_subscriptions = 3});
	struct budgets *two = budgets_new(2);
	struct budget *other = budget_new("other");

	(void)state;
	budget_add_subscriptions(&w->peer[0], 2);
	assert_null(budget_lacking_subscriptions(&w->peer[1], 1));
	assert_ptr_equal(budget_lacking_subscriptions(&w->peer[1], 2), w->b);
	budget_add_subscriptions(&w->peer[1], 1);
	assert_ptr_equal(budget_lacking_subscriptions(&w->peer[1], 1), w->b);
	assert_null(budget_lacking_subscriptions(&w->peer[1], 0));
	two->budget[0] = budget_ref(other);
	two->budget[1] = budget_ref(w->b);
	budget_admit(&w->peer[0], two);
	assert_int_equal(w->b->subscriptions, 3);
	assert_int_equal(other->subscriptions, 2);
	assert_int_equal(other->clients, 1);
	budget_remove_subscriptions(&w->peer[0], 2);
	budget_remove_subscriptions(&w->peer[1], 1);
	assert_int_equal(other->subscriptions, 0);
	world_free(w);
	budget_unref(other);
}

static void other_limits_count_at_once(void **state)
{
	struct world *w = world_new((struct budget_limits){.rate = 1000});

	(void)state;
	budget_set(w->b, &(struct budget_limits){.rate = 2});
	assert_int_equal(budget_room(w->b, 0), 2);
	budget_pay(&w->peer[0], 0);
	budget_pay(&w->peer[0], 0);
	budget_set(w->b, &(struct budget_limits){.rate = 1000}); /* is no gift */
	assert_int_equal(budget_room(w->b, 0), 0);
	budget_set(w->b, &(struct budget_limits){0});
	assert_true(budget_room(w->b, 0) > 100);
	world_free(w);
}

/* A client of two sections, the first of which has no limits. */
static struct budget *other_of(struct world *w, struct budget_limits limits)
{
	struct budget *other = budget_new("other");

	budget_set(other, &limits);
	for (int i = 0; i < PEERS; i++) {
		struct budgets *two = budgets_new(2);
		two->budget[0] = budget_ref(w->b);
		two->budget[1] = budget_ref(other);
		budget_admit(&w->peer[i], two);
	}
	return other;
}

static void end_both(struct world *w, struct budget *other)
{
	world_free(w);
	assert_int_equal(other->refs, 1);
	assert_int_equal(other->clients, 0);
	budget_unref(other);
}

static void each_section_must_have_room(void **state)
{
	struct world *w = world_new((struct budget_limits){0});
	struct budget *other = other_of(w, (struct budget_limits){.rate = 2, .max_in_flight = 2});
	struct pending p[2] = {{.peer = &w->peer[0]}, {.peer = &w->peer[1]}};
	struct budget *slowest;

	(void)state;
	assert_int_equal(other->clients, PEERS);
	budget_begin(&p[0], 0);
	assert_int_equal(w->b->requests, 1);
	assert_int_equal(other->requests, 1);
	assert_int_equal(w->b->in_flight, 1);
	assert_int_equal(other->in_flight, 1);
	assert_int_equal(budget_room(other, 0), 1);
	assert_null(budget_lacking(&w->peer[2], true, true, 0));
	budget_begin(&p[1], 0);
	assert_ptr_equal(budget_lacking(&w->peer[2], true, true, 0), other);
	budget_end(&p[0]);
	budget_end(&p[1]);
	assert_int_equal(other->in_flight, 0);
	assert_int_equal(w->b->in_flight, 0);
	assert_ptr_equal(budget_lacking(&w->peer[2], true, false, 0), other);
	assert_in_range(budget_peer_wait_ms(&w->peer[2], 0, &slowest), 500, 501);
	assert_ptr_equal(slowest, other);
	assert_in_range(budget_rate_wait_ms(&w->peer[2], 0), 500, 501);
	end_both(w, other);
}

static void subscriptions_count_in_each_section(void **state)
{
	struct world *w = world_new((struct budget_limits){0});
	struct budget *other = other_of(w, (struct budget_limits){.max_subscriptions = 2});

	(void)state;
	budget_add_subscriptions(&w->peer[0], 2);
	assert_int_equal(w->b->subscriptions, 2);
	assert_int_equal(other->subscriptions, 2);
	assert_ptr_equal(budget_lacking_subscriptions(&w->peer[1], 1), other);
	budget_remove_subscriptions(&w->peer[0], 2);
	assert_int_equal(w->b->subscriptions, 0);
	assert_int_equal(other->subscriptions, 0);
	end_both(w, other);
}

static void room_is_what_places_are_left(void **state)
{
	struct world *w = world_new((struct budget_limits){.max_in_flight = 5});
	struct pending p[2] = {{.peer = &w->peer[0]}, {.peer = &w->peer[1]}};

	(void)state;
	budget_begin(&p[0], 0);
	budget_begin(&p[1], 0);
	assert_int_equal(budget_room(w->b, 0), 3);
	budget_set(w->b, &(struct budget_limits){.max_in_flight = 1}); /* fewer than are taken */
	assert_int_equal(budget_room(w->b, 0), 0);
	assert_int_equal(budget_next(w->b), -1);
	budget_end(&p[0]);
	budget_end(&p[1]);
	budget_set(w->b, &(struct budget_limits){.max_in_flight = 5000});
	assert_int_equal(budget_room(w->b, 0), 1000); /* as many as are looked at at once */
	world_free(w);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_second_is_had_at_once),
		cmocka_unit_test(a_wait_is_the_time_until_there_is_room),
		cmocka_unit_test(without_limits_there_is_room),
		cmocka_unit_test(places_are_those_of_all_clients),
		cmocka_unit_test(room_that_others_wait_for_is_theirs),
		cmocka_unit_test(subscriptions_move_with_their_client),
		cmocka_unit_test(other_limits_count_at_once),
		cmocka_unit_test(each_section_must_have_room),
		cmocka_unit_test(subscriptions_count_in_each_section),
		cmocka_unit_test(room_is_what_places_are_left),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
