/* The loop's turns: a step that is done again and again keeps nothing else from being done. */
#include "../test.h"

#include <sys/socket.h>
#include <unistd.h>

#include <event2/event.h>

#include "base/timer.h"

enum { PLENTY = 1000 };

/* Two steps that ask for each other, for ever, beside a socket that something has come on. */
struct loop {
	struct event_base *base;
	struct event *step[2], *late, *early;
	unsigned steps, calls;
	int pair[2];
};

static void open_loop(struct loop *l)
{
	*l = (struct loop){.base = event_base_new()};
	assert_non_null(l->base);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, l->pair), 0);
}

static void close_loop(struct loop *l)
{
	struct event *all[] = {l->step[0], l->step[1], l->late, l->early};

	for (size_t i = 0; i < COUNT(all); i++) {
		if (all[i])
			event_free(all[i]);
	}
	event_base_free(l->base);
	close(l->pair[0]);
	close(l->pair[1]);
}

static void enough(struct loop *l)
{
	if (++l->steps == PLENTY)
		fail_msg("nothing but these steps has been done");
}

static void on_first(evutil_socket_t fd, short what, void *arg)
{
	struct loop *l = arg;

	(void)fd, (void)what;
	enough(l);
	timer_next_turn(l->step[1]);
}

static void on_second(evutil_socket_t fd, short what, void *arg)
{
	struct loop *l = arg;

	(void)fd, (void)what;
	enough(l);
	timer_next_turn(l->step[0]);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct loop *l = arg;

	(void)fd, (void)what;
	event_base_loopbreak(l->base);
}

static void steps_that_ask_for_each_other_leave_the_loop_its_turns(void **state)
{
	struct loop l;

	(void)state;
	open_loop(&l);
	l.step[0] = event_new(l.base, -1, 0, on_first, &l);
	l.step[1] = event_new(l.base, -1, 0, on_second, &l);
	l.late = event_new(l.base, l.pair[0], EV_READ, on_readable, &l);
	timer_next_turn(l.step[0]);
	assert_int_equal(event_base_loop(l.base, EVLOOP_ONCE), 0);
	assert_int_equal(l.steps, 1);
	/* What comes now is seen by the very next turn, however many steps are to come. */
	assert_int_equal(write(l.pair[1], "x", 1), 1);
	event_add(l.late, NULL);
	assert_int_equal(event_base_dispatch(l.base), 0);
	assert_in_range(l.steps, 1, 3);
	close_loop(&l);
}

static void on_late(evutil_socket_t fd, short what, void *arg)
{
	struct loop *l = arg;

	(void)fd, (void)what;
	l->calls++;
	event_base_loopbreak(l->base);
}

static void on_early(evutil_socket_t fd, short what, void *arg)
{
	struct loop *l = arg;

	(void)fd, (void)what;
	enough(l);
	timer_next_turn(l->early);
	timer_next_turn(l->late);
}

/* libevent takes a timer that is started anew off the list of those that are due. */
static void asking_again_does_not_put_it_off(void **state)
{
	struct loop l;

	(void)state;
	open_loop(&l);
	l.early = event_new(l.base, -1, 0, on_early, &l);
	l.late = event_new(l.base, -1, 0, on_late, &l);
	timer_next_turn(l.early);
	timer_next_turn(l.late);
	assert_int_equal(event_base_dispatch(l.base), 0);
	assert_int_equal(l.calls, 1);
	assert_in_range(l.steps, 1, 3);
	close_loop(&l);
}

static void one_that_was_called_off_is_not_done(void **state)
{
	struct loop l;

	(void)state;
	open_loop(&l);
	l.late = event_new(l.base, -1, 0, on_late, &l);
	timer_next_turn(l.late);
	event_del(l.late);
	assert_int_equal(event_base_loop(l.base, EVLOOP_NONBLOCK), 1); /* nothing is waited for */
	assert_int_equal(l.calls, 0);
	close_loop(&l);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(steps_that_ask_for_each_other_leave_the_loop_its_turns),
		cmocka_unit_test(asking_again_does_not_put_it_off),
		cmocka_unit_test(one_that_was_called_off_is_not_done),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
