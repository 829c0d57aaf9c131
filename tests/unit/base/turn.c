/* What is done at the end of a turn of the loop. */
#include "../test.h"

#include <sys/socket.h>
#include <unistd.h>

#include "base/turn.h"

enum { PLENTY = 1000 };

struct world {
	struct event_base *base;
	struct turn_step first, second;
	struct event *readable;
	int pair[2];
	char order[16]; /* a letter for each thing that was done */
	unsigned asked; /* how often the two steps have asked for each other */
};

static void note(struct world *w, char what)
{
	size_t n = strlen(w->order);

	assert_true(n + 1 < sizeof(w->order));
	w->order[n] = what;
	w->order[n + 1] = '\0';
}

static void on_first(void *owner)
{
	note(owner, '1');
}

static void on_second(void *owner)
{
	note(owner, '2');
}

static void open_world(struct world *w, void (*first)(void *owner), void (*second)(void *owner),
		       event_callback_fn on_readable)
{
	*w = (struct world){.base = event_base_new()};
	assert_non_null(w->base);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, w->pair), 0);
	turn_step_init(&w->first, w->base, first, w);
	turn_step_init(&w->second, w->base, second, w);
	w->readable = event_new(w->base, w->pair[0], EV_READ, on_readable, w);
	event_add(w->readable, NULL);
	assert_int_equal(write(w->pair[1], "x", 1), 1);
}

static void close_world(struct world *w)
{
	event_free(w->readable);
	turn_step_fini(&w->first);
	turn_step_fini(&w->second);
	event_base_free(w->base);
	close(w->pair[0]);
	close(w->pair[1]);
}

/* The socket stays readable: the next turn finds it so at once. */
static void wants_both_twice(evutil_socket_t fd, short what, void *arg)
{
	struct world *w = arg;

	(void)fd, (void)what;
	note(w, 'r');
	if (w->asked++) {
		event_base_loopbreak(w->base);
		return;
	}
	turn_step_want(&w->second);
	turn_step_want(&w->first);
	turn_step_want(&w->second);
	event_add(w->readable, NULL);
}

static void steps_run_once_each_before_the_next_turn(void **state)
{
	struct world w;

	(void)state;
	open_world(&w, on_first, on_second, wants_both_twice);
	assert_int_equal(turn_loop(w.base), 0);
	assert_string_equal(w.order, "r21r");
	close_world(&w);
}

static void wants_both_but_forgoes_one(evutil_socket_t fd, short what, void *arg)
{
	struct world *w = arg;

	(void)fd, (void)what;
	turn_step_want(&w->first);
	turn_step_want(&w->second);
	turn_step_forgo(&w->first);
}

static void one_that_was_called_off_does_not_run(void **state)
{
	struct world w;

	(void)state;
	open_world(&w, on_first, on_second, wants_both_but_forgoes_one);
	assert_int_equal(turn_loop(w.base), 0); /* ends, as nothing is left to wait for */
	assert_string_equal(w.order, "2");
	close_world(&w);
}

static void asks_for_second(void *owner)
{
	struct world *w = owner;

	if (++w->asked == PLENTY)
		fail_msg("nothing but these steps has been done");
	turn_step_want(&w->second);
}

static void asks_for_first(void *owner)
{
	struct world *w = owner;

	turn_step_want(&w->first);
}

static void begins_or_ends(evutil_socket_t fd, short what, void *arg)
{
	struct world *w = arg;

	(void)fd, (void)what;
	if (w->asked) {
		event_base_loopbreak(w->base);
		return;
	}
	turn_step_want(&w->first);
	event_add(w->readable, NULL);
}

static void steps_that_ask_for_each_other_leave_the_loop_its_turns(void **state)
{
	struct world w;

	(void)state;
	open_world(&w, asks_for_second, asks_for_first, begins_or_ends);
	assert_int_equal(turn_loop(w.base), 0);
	assert_in_range(w.asked, 1, 3);
	close_world(&w);
}

static void ignored(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what, (void)arg;
}

static void outside_of_a_turn_it_runs_in_the_next_one(void **state)
{
	struct world w;

	(void)state;
	open_world(&w, on_first, on_second, ignored);
	turn_step_want(&w.first);
	turn_step_want(&w.first);
	assert_string_equal(w.order, "");
	assert_int_equal(turn_loop(w.base), 0);
	assert_string_equal(w.order, "1");
	turn_step_later(&w.second); /* a loop without ends of turns does it as well */
	event_base_loop(w.base, EVLOOP_NONBLOCK);
	assert_string_equal(w.order, "12");
	close_world(&w);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(steps_run_once_each_before_the_next_turn),
		cmocka_unit_test(one_that_was_called_off_does_not_run),
		cmocka_unit_test(steps_that_ask_for_each_other_leave_the_loop_its_turns),
		cmocka_unit_test(outside_of_a_turn_it_runs_in_the_next_one),
	};

	return cmocka_run_group_tests_name("turn", tests, NULL, NULL);
}
