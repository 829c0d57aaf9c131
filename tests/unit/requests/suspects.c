/* The room blame by itself: the clients that a lost connection is charged to, how much, for how
 * long, and the log lines. blame.c has it behind the router. */
#include "../test.h"

#include <stdio.h>

#include "base/log.h"
#include "codec/wire.h"
#include "requests/blame.h"

enum { PEERS = 12, NOW = 5000000 };

static char logged[4096];

enum log_level log_level(void)
{
	return LOG_LEVEL_DEBUG;
}

void log_line(enum log_level level, const char *format, ...)
{
	size_t n = strlen(logged);
	va_list args;

	(void)level;
	va_start(args, format);
	vsnprintf(logged + n, sizeof(logged) - n, format, args);
	va_end(args);
	n = strlen(logged);
	snprintf(logged + n, sizeof(logged) - n, "\n");
}

struct world {
	struct blame b;
	struct peer peer[PEERS];
	struct pending p[PEERS];
	struct pending *sent[PEERS];
};

static int set_up(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	assert_non_null(w);
	logged[0] = '\0';
	for (int i = 0; i < PEERS; i++) {
		w->peer[i] = (struct peer){
			.number = (uint64_t)i + 1, .pid = 100 + i, .uid = 1000 + (uid_t)i};
		w->p[i] = (struct pending){.op = OP_SET,
					   .peer = &w->peer[i],
					   .since = (uint32_t)NOW,
					   .body_len = 10 + (uint32_t)i};
		w->sent[i] = &w->p[i];
		blame_join(&w->b, &w->peer[i]);
	}
	*state = w;
	return 0;
}

static int tear_down(void **state)
{
	free(*state);
	return 0;
}

static enum blame_verdict lose(struct world *w, size_t n, int code, int64_t now)
{
	struct blame_end end = {.close_code = code, .dropped = !code, .lasted_ms = 1};

	return blame_judge(&w->b, w->sent, n, &end, now);
}

/* How often the text is logged. */
static unsigned told(const char *text)
{
	unsigned n = 0;

	for (const char *at = logged; (at = strstr(at, text)); at++)
		n++;
	return n;
}

static void a_message_weighs_three_of_six_and_a_sudden_end_two(void **state)
{
	struct world *w = *state;

	assert_int_equal(lose(w, 2, 1011, NOW), BLAME_SOMEBODY);
	assert_int_equal(w->peer[0].blame.weight, 3);
	assert_int_equal(w->p[0].blame.losses, BLAME_LOSS);
	assert_int_equal(w->peer[0].blame.trial, 0);
	assert_int_equal(lose(w, 2, 0, NOW), BLAME_SOMEBODY);
	assert_int_equal(w->peer[0].blame.weight, 5);
	assert_int_equal(w->p[0].blame.losses, BLAME_LOSS + BLAME_SUDDEN_LOSS);
	assert_int_equal(w->peer[0].blame.trial, 0);
	assert_string_equal(logged, "");
	assert_int_equal(lose(w, 2, 0, NOW), BLAME_SOMEBODY);
	assert_int_equal(w->peer[1].blame.weight, 7);
	assert_int_equal(w->peer[1].blame.trial, 1);
	assert_int_equal(w->peer[1].blame.at, NOW);
	assert_int_equal(told("connections were lost with requests of it in flight"), 2);
	assert_int_equal(told("until 1 were answered"), 2);
	assert_int_equal(w->peer[2].blame.weight, 0);
}

static void each_further_loss_doubles_the_answers_that_are_wanted(void **state)
{
	static const unsigned wanted[] = {1, 2, 4, 8, 16, 32, 64, 128, 128, 128};
	struct world *w = *state;

	lose(w, 2, 1011, NOW);
	for (size_t i = 0; i < COUNT(wanted); i++) {
		lose(w, 2, 1011, NOW);
		assert_int_equal(w->peer[0].blame.trial, wanted[i]);
	}
	assert_int_equal(w->peer[0].blame.weight, 27);
	assert_int_equal(w->p[0].blame.losses, BLAME_READ_LOSSES);
	assert_int_equal(told("client 1 "), 1); /* when it goes on trial */
}

static void a_client_is_charged_once_per_loss(void **state)
{
	struct world *w = *state;

	w->p[1].peer = &w->peer[0];
	w->p[2].peer = &w->peer[2];
	assert_int_equal(lose(w, 3, 1011, NOW), BLAME_SOMEBODY);
	assert_int_equal(w->peer[0].blame.weight, 3);
	assert_int_equal(w->p[1].blame.losses, BLAME_LOSS);
}

static void one_that_was_alone_is_on_trial_at_once(void **state)
{
	struct world *w = *state;

	w->p[1].peer = &w->peer[0];
	assert_int_equal(lose(w, 2, 1011, NOW), BLAME_SOMEBODY);
	assert_int_equal(w->peer[0].blame.weight, 6);
	assert_int_equal(w->peer[0].blame.trial, 1);
	w->sent[0] = &w->p[2];
	assert_int_equal(lose(w, 1, 0, NOW), BLAME_SOMEBODY); /* unless it may be the network */
	assert_int_equal(w->peer[2].blame.weight, 2);
}

static void one_on_trial_is_the_culprit(void **state)
{
	struct world *w = *state;

	w->p[0].tried = true;
	assert_int_equal(lose(w, 1, 1011, NOW), BLAME_ONE);
	assert_int_equal(w->peer[0].blame.weight, 6);
	assert_int_equal(told("client 1 (pid 100, uid 1000): the service closed the connection "
			      "(1011) over its request"),
			 1);
	assert_int_equal(lose(w, 1, 0, NOW), BLAME_ONE);
	assert_int_equal(w->peer[0].blame.weight, 9); /* strong, though it was sudden */
	assert_int_equal(told("client 1 (pid 100, uid 1000): the connection was lost over"), 1);
	assert_int_equal(lose(w, 2, 1011, NOW), BLAME_SOMEBODY);
	assert_int_equal(w->peer[0].blame.weight, 15);
	assert_int_equal(w->peer[1].blame.weight, 3);
}

static void trials_pause_for_longer_after_each_loss_over_one(void **state)
{
	static const int pause[] = {250, 500, 1000, 2000, 2000};
	struct world *w = *state;

	lose(w, 1, 1011, NOW);
	assert_int_equal(w->b.next_trial, 0); /* it was not on trial */
	w->p[0].tried = true;
	for (size_t i = 0; i < COUNT(pause); i++) {
		lose(w, 1, 1011, NOW);
		assert_int_equal(w->b.next_trial, NOW + pause[i]);
	}
	lose(w, 1, 1011, NOW + 60000); /* a minute later */
	assert_int_equal(w->b.next_trial, NOW + 60000 + 2000);
	lose(w, 1, 1011, NOW + 60000 + 60001); /* more than one */
	assert_int_equal(w->b.next_trial, NOW + 60000 + 60001 + 250);
}

static void losses_are_forgotten_after_their_time(void **state)
{
	struct world *w = *state;

	lose(w, 2, 1011, NOW);
	lose(w, 2, 1011, NOW + BLAME_MEMORY_MS - 1);
	assert_int_equal(w->peer[0].blame.weight, 6);
	assert_false(blame_lapses(&w->peer[0], NOW + 2 * BLAME_MEMORY_MS - 2));
	assert_true(blame_lapses(&w->peer[0], NOW + 2 * BLAME_MEMORY_MS - 1));
	assert_int_equal(w->peer[0].blame.trial, 0);
	assert_int_equal(w->peer[0].blame.weight, 0);
	assert_false(blame_lapses(&w->peer[0], NOW + 9 * BLAME_MEMORY_MS));
	w->p[1].since = (uint32_t)(NOW + 2 * BLAME_MEMORY_MS - 1);
	lose(w, 2, 1011, NOW + 2 * BLAME_MEMORY_MS - 1);
	assert_int_equal(w->peer[1].blame.weight, 3);
}

static void sudden_ends_count_for_a_second_of_a_young_connection(void **state)
{
	struct world *w = *state;
	struct blame_end end = {.dropped = true, .lasted_ms = BLAME_YOUNG_MS};

	assert_int_equal(blame_judge(&w->b, w->sent, 2, &end, NOW), BLAME_NOBODY);
	end.lasted_ms--;
	assert_int_equal(blame_judge(&w->b, w->sent, 2, &end, NOW + BLAME_SUDDEN_MS), BLAME_NOBODY);
	w->p[1].since++;
	assert_int_equal(blame_judge(&w->b, w->sent, 2, &end, NOW + BLAME_SUDDEN_MS),
			 BLAME_SOMEBODY);
	assert_int_equal(w->peer[0].blame.weight, 0);
	assert_int_equal(w->peer[1].blame.weight, 2);
	end.dropped = false;
	assert_int_equal(blame_judge(&w->b, w->sent, 2, &end, NOW), BLAME_NOBODY);
	end.close_code = 1008;
	assert_int_equal(blame_judge(&w->b, w->sent, 1, &end, NOW), BLAME_SOMEBODY);
	assert_int_equal(w->peer[0].blame.weight, 2);
	assert_int_equal(lose(w, 0, 1011, NOW), BLAME_NOBODY); /* nothing was in flight */
}

static void some_closes_are_nobodys_fault(void **state)
{
	static const int innocent[] = {1000, 1001, 1012, 1013, 1014};
	static const int blaming[] = {999, 1002, 1007, 1009, 1010, 1011, 1015};
	struct world *w = *state;

	for (size_t i = 0; i < COUNT(innocent); i++)
		assert_int_equal(lose(w, 2, innocent[i], NOW), BLAME_NOBODY);
	for (size_t i = 0; i < COUNT(blaming); i++)
		assert_int_equal(lose(w, 2, blaming[i], NOW), BLAME_SOMEBODY);
}

static void the_longest_is_refused_for_an_hour(void **state)
{
	struct world *w = *state;
	size_t base = wire_length(0);

	w->p[0].body_len = (uint32_t)(BLAME_SHORT - base);
	assert_int_equal(lose(w, 2, 1009, NOW), BLAME_SOMEBODY); /* too short to be the reason */
	assert_false(blame_is_too_long(&w->b, 1000000, NOW));
	w->p[0].body_len++;
	assert_int_equal(lose(w, 2, 1009, NOW), BLAME_ONE);
	assert_int_equal(w->peer[0].blame.weight, 6);
	assert_int_equal(w->peer[1].blame.weight, 3); /* of the first loss */
	assert_int_equal(told("client 1 (pid 100, uid 1000): the service closed the connection "
			      "over a message of 4097 bytes"),
			 1);
	assert_false(blame_is_too_long(&w->b, BLAME_SHORT, NOW));
	assert_true(blame_is_too_long(&w->b, BLAME_SHORT + 1, NOW));
	w->p[1].body_len = w->p[0].body_len + 1; /* a longer one later is no news */
	assert_int_equal(lose(w, 2, 1009, NOW + 10), BLAME_ONE);
	assert_true(blame_is_too_long(&w->b, BLAME_SHORT + 1, NOW + 10));
	assert_true(blame_is_too_long(&w->b, BLAME_SHORT + 1, NOW + 10 + BLAME_LONG_MS - 1));
	assert_false(blame_is_too_long(&w->b, 1000000, NOW + 10 + BLAME_LONG_MS));
	assert_false(blame_is_too_long(&w->b, 1000000, NOW));
}

/* Alone in flight it is no more at fault than among others: it may be ever so little too long. */
static void one_that_is_too_long_is_charged_as_one_of_several(void **state)
{
	struct world *w = *state;

	w->p[0].body_len = 9000;
	assert_int_equal(lose(w, 1, 1009, NOW), BLAME_ONE);
	assert_int_equal(w->peer[0].blame.weight, 3);
	assert_int_equal(w->peer[0].blame.trial, 0);
}

static void a_length_that_was_answered_is_not_the_reason(void **state)
{
	struct world *w = *state;

	w->p[0].body_len = 9000;
	assert_false(blame_answered(&w->b, &w->p[0]));
	w->p[1].body_len = 8000;
	assert_false(blame_answered(&w->b, &w->p[1]));
	assert_int_equal(lose(w, 2, 1009, NOW), BLAME_SOMEBODY);
	assert_int_equal(w->peer[1].blame.weight, 3);
	w->p[1].body_len = 9001;
	assert_int_equal(lose(w, 2, 1009, NOW), BLAME_ONE);
	blame_forget(&w->b);
	assert_int_equal(w->b.answered, 0);
	assert_false(blame_is_too_long(&w->b, 1000000, NOW));
	assert_int_equal(lose(w, 1, 1009, NOW), BLAME_ONE);
	assert_int_equal(told("9000 bytes") + told("9001 bytes"), 0); /* as the frames are longer */
}

static void a_trial_ends_after_so_many_answers_of_requests_on_trial(void **state)
{
	struct world *w = *state;

	for (int i = 0; i < 3; i++)
		lose(w, 2, 1011, NOW);
	assert_int_equal(w->peer[0].blame.trial, 2);
	assert_false(blame_answered(&w->b, &w->p[0])); /* was sent before the trial */
	assert_int_equal(w->peer[0].blame.trial, 2);
	w->p[0].tried = true;
	assert_false(blame_answered(&w->b, &w->p[0]));
	assert_true(blame_answered(&w->b, &w->p[0]));
	assert_int_equal(w->peer[0].blame.trial, 0);
	assert_false(blame_answered(&w->b, &w->p[0]));
	w->p[0].peer = NULL;
	assert_false(blame_answered(&w->b, &w->p[0]));
	assert_int_equal(w->peer[1].blame.trial, 2);
}

static void nothing_is_sent_beside_one_for_longer_after_each_loss(void **state)
{
	static const int ms[] = {250, 250, 500, 1000, 1000};
	struct world *w = *state;

	for (size_t i = 0; i < COUNT(ms); i++) {
		assert_int_equal(blame_alone_ms(&w->peer[0]), ms[i]);
		lose(w, 2, 1011, NOW);
		if (i == 0) /* the second puts it on trial */
			lose(w, 2, 1011, NOW);
	}
}

static void each_read_that_is_repeated_is_an_answer_more(void **state)
{
	struct world *w = *state;

	for (int i = 0; i < 3; i++) {
		w->p[i].op = OP_GET;
		w->p[i].peer = &w->peer[0];
	}
	w->p[3].op = OP_SET;
	lose(w, 4, 1011, NOW);
	assert_int_equal(w->peer[0].blame.weight, 3);
	assert_int_equal(w->peer[0].blame.repeated, 3);
	assert_int_equal(w->peer[0].blame.trial, 3); /* each is tried */
	assert_int_equal(w->peer[3].blame.trial, 0);
	lose(w, 1, 1011, NOW);
	assert_int_equal(w->peer[0].blame.repeated, 1);
	assert_int_equal(w->peer[0].blame.trial, 2); /* by its weight of 9 */
}

static void reads_that_the_network_may_have_lost_are_not_tried(void **state)
{
	struct world *w = *state;

	w->p[0].op = OP_GET;
	for (int i = 0; i < 2; i++) {
		lose(w, 2, 0, NOW);
		assert_int_equal(w->peer[0].blame.repeated, 0);
	}
	assert_int_equal(w->peer[0].blame.trial, 0);
	lose(w, 2, 0, NOW); /* three of them weigh as much as a message */
	assert_int_equal(w->peer[0].blame.repeated, 1);
	assert_int_equal(w->peer[0].blame.trial, 1);
}

static void repeated_reads_are_counted_up_to_a_bound(void **state)
{
	enum { MANY = 300 };
	struct world *w = *state;
	static struct pending p[MANY];
	static struct pending *sent[MANY];
	struct blame_end end = {.close_code = 1011};

	for (int i = 0; i < MANY; i++) {
		p[i] = (struct pending){.op = OP_GET, .peer = &w->peer[0]};
		sent[i] = &p[i];
	}
	blame_judge(&w->b, sent, MANY, &end, NOW);
	assert_int_equal(w->peer[0].blame.repeated, UINT8_MAX);
	assert_int_equal(w->peer[0].blame.trial, UINT8_MAX);
}

static void a_user_whose_client_has_left_is_charged_in_its_place(void **state)
{
	struct world *w = *state;
	struct peer again = {.number = 50, .uid = 77};

	w->p[0].peer = w->p[1].peer = NULL;
	w->p[0].uid = w->p[1].uid = 77;
	w->p[2].peer = NULL;
	w->p[2].uid = 78;
	assert_int_equal(lose(w, 2, 1011, NOW), BLAME_SOMEBODY);
	assert_int_equal(told("a client that has left (uid 77)"), 1);
	assert_int_equal(w->b.n_users, 1);
	blame_join(&w->b, &again);
	assert_int_equal(again.blame.weight, 6); /* both requests are of one owner */
	assert_int_equal(again.blame.trial, 1);
	lose(w, 3, 1011, NOW);
	assert_int_equal(w->b.n_users, 2);
	blame_join(&w->b, &again);
	assert_int_equal(again.blame.weight, 9);
	again.uid = 78;
	blame_join(&w->b, &again);
	assert_int_equal(again.blame.weight, 3);
	assert_int_equal(again.blame.trial, 0);
	again.uid = 79;
	blame_join(&w->b, &again);
	assert_int_equal(again.blame.weight, 0);
	blame_forget(&w->b);
	again.uid = 77;
	blame_join(&w->b, &again);
	assert_int_equal(again.blame.weight, 0);
}

static void what_a_client_leaves_behind_is_the_heavier_record(void **state)
{
	struct world *w = *state;
	struct peer again = {.number = 50, .uid = 1000};

	blame_leave(&w->b, &w->peer[0], NOW); /* has none */
	assert_int_equal(w->b.n_users, 0);
	w->peer[1].uid = 1000;
	lose(w, 2, 1011, NOW);
	lose(w, 2, 1011, NOW);
	blame_leave(&w->b, &w->peer[0], NOW);
	w->peer[1].blame.weight = 5;
	blame_leave(&w->b, &w->peer[1], NOW);
	blame_join(&w->b, &again);
	assert_int_equal(again.blame.weight, 6);
	w->peer[1].blame.weight = 6;
	w->peer[1].blame.at = NOW + 7;
	blame_leave(&w->b, &w->peer[1], NOW + 7); /* the same weight is the later one's */
	blame_join(&w->b, &again);
	assert_int_equal(again.blame.at, NOW + 7);
	w->peer[1].blame.weight = 1;
	w->peer[1].blame.at = NOW + 7 + BLAME_MEMORY_MS;
	blame_leave(&w->b, &w->peer[1], NOW + 7 + BLAME_MEMORY_MS); /* the other is old */
	blame_join(&w->b, &again);
	assert_int_equal(again.blame.weight, 1);
	w->peer[0].uid = 2000;
	blame_leave(&w->b, &w->peer[0], NOW + BLAME_MEMORY_MS); /* is old itself */
	assert_int_equal(w->b.n_users, 1);
}

static void the_user_with_the_oldest_loss_is_forgotten(void **state)
{
	struct world *w = *state;
	struct peer peer = {.number = 50};

	for (uid_t i = 0; i < BLAME_USERS_MAX; i++) {
		w->p[0].peer = NULL;
		w->p[0].uid = 5000 + i;
		lose(w, 1, 1011, NOW + (i == 3 ? 0 : 10 + i));
	}
	assert_int_equal(w->b.n_users, BLAME_USERS_MAX);
	w->p[0].uid = 6000;
	lose(w, 1, 1011, NOW + 100);
	assert_int_equal(w->b.n_users, BLAME_USERS_MAX);
	for (uid_t i = 0; i < BLAME_USERS_MAX; i++) {
		peer.uid = 5000 + i;
		blame_join(&w->b, &peer);
		assert_int_equal(peer.blame.weight, i == 3 ? 0 : 6);
	}
	peer.uid = 6000;
	blame_join(&w->b, &peer);
	assert_int_equal(peer.blame.weight, 6);
}

/* They lead to no client, and go with none. */
static void reads_of_the_daemons_own_charge_nobody(void **state)
{
	struct world *w = *state;
	struct peer reader = {0};

	w->p[0].reading = &reader;
	w->p[0].peer = &reader;
	w->p[0].tried = true;
	assert_int_equal(lose(w, 1, 1011, NOW), BLAME_ONE);
	assert_int_equal(reader.blame.weight, 0);
	assert_int_equal(w->p[0].blame.losses, BLAME_LOSS);
	assert_int_equal(told("a subscribed key: the service closed the connection (1011)"), 1);
	assert_int_equal(lose(w, 2, 1011, NOW), BLAME_SOMEBODY); /* two owners */
	assert_int_equal(w->peer[1].blame.weight, 3);
}

static void suspects_are_named(void **state)
{
	struct world *w = *state;

	w->peer[0].silent = true;
	w->peer[1].uid = (uid_t)-1;
	for (int i = 0; i < 2; i++)
		lose(w, 3, 1011, NOW);
	assert_int_equal(told("the cache: "), 1);
	assert_int_equal(told("client 2 (by TCP): "), 1);
	assert_int_equal(told("client 3 (pid 102, uid 1002): "), 1);
}

static void so_many_suspects_are_logged_and_no_more(void **state)
{
	struct world *w = *state;

	for (int i = 0; i < 2; i++)
		lose(w, PEERS, 1011, NOW);
	assert_int_equal(told("\n"), 8);
	for (int i = 0; i < PEERS; i++)
		assert_int_equal(w->peer[i].blame.trial, 1);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

static void a_long_request_is_no_reason_for_another_close(void **state)
{
	struct world *w = *state;

	w->p[0].body_len = 9000;
	assert_int_equal(lose(w, 2, 1011, NOW), BLAME_SOMEBODY);
	assert_int_equal(w->peer[1].blame.weight, 3);
	assert_false(blame_is_too_long(&w->b, 1000000, NOW));
}

static void of_equally_long_ones_the_first_is_charged(void **state)
{
	struct world *w = *state;

	w->p[0].body_len = w->p[1].body_len = 9000;
	w->sent[2] = NULL; /* not looked at */
	assert_int_equal(lose(w, 2, 1009, NOW), BLAME_ONE);
	assert_int_equal(w->peer[0].blame.weight, 3);
	assert_int_equal(w->peer[1].blame.weight, 0);
}

static void the_first_user_may_be_the_oldest(void **state)
{
	struct world *w = *state;
	struct peer peer = {.number = 50, .uid = 5000};

	for (uid_t i = 0; i <= BLAME_USERS_MAX; i++) {
		w->p[0].peer = NULL;
		w->p[0].uid = 5000 + i;
		lose(w, 1, 1011, NOW + i);
	}
	blame_join(&w->b, &peer);
	assert_int_equal(peer.blame.weight, 0);
	peer.uid = 5001;
	blame_join(&w->b, &peer);
	assert_int_equal(peer.blame.weight, 6);
}

static void who_comes_again_begins_the_trial_again(void **state)
{
	struct world *w = *state;

	for (int i = 0; i < 3; i++)
		lose(w, 2, 1011, NOW);
	w->p[0].tried = true;
	assert_false(blame_answered(&w->b, &w->p[0]));
	assert_int_equal(w->peer[0].blame.trial, 1);
	blame_leave(&w->b, &w->peer[0], NOW);
	blame_join(&w->b, &w->peer[0]);
	assert_int_equal(w->peer[0].blame.trial, 2);
}

static void another_service_has_no_pauses(void **state)
{
	struct world *w = *state;

	w->p[0].tried = true;
	lose(w, 1, 1011, NOW);
	lose(w, 1, 1011, NOW);
	blame_forget(&w->b);
	assert_int_equal(w->b.next_trial, 0);
	lose(w, 1, 1011, NOW);
	assert_int_equal(w->b.next_trial, NOW + 250);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(a_message_weighs_three_of_six_and_a_sudden_end_two),
		CASE(each_further_loss_doubles_the_answers_that_are_wanted),
		CASE(a_client_is_charged_once_per_loss),
		CASE(one_that_was_alone_is_on_trial_at_once),
		CASE(one_on_trial_is_the_culprit),
		CASE(trials_pause_for_longer_after_each_loss_over_one),
		CASE(losses_are_forgotten_after_their_time),
		CASE(sudden_ends_count_for_a_second_of_a_young_connection),
		CASE(some_closes_are_nobodys_fault),
		CASE(the_longest_is_refused_for_an_hour),
		CASE(one_that_is_too_long_is_charged_as_one_of_several),
		CASE(a_length_that_was_answered_is_not_the_reason),
		CASE(a_trial_ends_after_so_many_answers_of_requests_on_trial),
		CASE(nothing_is_sent_beside_one_for_longer_after_each_loss),
		CASE(each_read_that_is_repeated_is_an_answer_more),
		CASE(reads_that_the_network_may_have_lost_are_not_tried),
		CASE(repeated_reads_are_counted_up_to_a_bound),
		CASE(a_user_whose_client_has_left_is_charged_in_its_place),
		CASE(what_a_client_leaves_behind_is_the_heavier_record),
		CASE(the_user_with_the_oldest_loss_is_forgotten),
		CASE(reads_of_the_daemons_own_charge_nobody),
		CASE(suspects_are_named),
		CASE(so_many_suspects_are_logged_and_no_more),
		CASE(a_long_request_is_no_reason_for_another_close),
		CASE(of_equally_long_ones_the_first_is_charged),
		CASE(the_first_user_may_be_the_oldest),
		CASE(who_comes_again_begins_the_trial_again),
		CASE(another_service_has_no_pauses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
