#include "base/turn.h"

#include "base/timer.h"

/* The steps of the turn that the loop is in. An event_base, which is all that rooms know of the
 * loop, has no place for them; a process runs one loop at a time. */
static TAILQ_HEAD(, turn_step) steps = TAILQ_HEAD_INITIALIZER(steps);
static bool in_events; /* the loop handles events: steps follow */
static uint32_t turns;

static void on_later(evutil_socket_t fd, short what, void *arg)
{
	struct turn_step *s = arg;

	(void)fd;
	(void)what;
	if (in_events)
		turn_step_want(s);
	else
		s->run(s->owner);
}

void turn_step_init(struct turn_step *s, struct event_base *base, void (*run)(void *owner),
		    void *owner)
{
	*s = (struct turn_step){.run = run, .owner = owner};
	s->later = timer_new(base, on_later, s);
}

void turn_step_fini(struct turn_step *s)
{
	turn_step_forgo(s);
	event_free(s->later);
}

void turn_step_later(struct turn_step *s)
{
	if (!s->wanted)
		timer_next_turn(s->later);
}

void turn_step_want(struct turn_step *s)
{
	if (!in_events) {
		turn_step_later(s);
		return;
	}
	if (s->wanted)
		return;
	s->wanted = true;
	TAILQ_INSERT_TAIL(&steps, s, of_turn);
}

void turn_step_forgo(struct turn_step *s)
{
	if (s->wanted)
		TAILQ_REMOVE(&steps, s, of_turn);
	s->wanted = false;
	event_del(s->later);
}

static void run_steps(void)
{
	struct turn_step *s;

	while ((s = TAILQ_FIRST(&steps))) {
		turn_step_forgo(s);
		s->run(s->owner);
	}
}

uint32_t turn_number(void)
{
	return turns;
}

int turn_loop(struct event_base *base)
{
	int err;

	do {
		turns++;
		in_events = true;
		err = event_base_loop(base, EVLOOP_ONCE);
		in_events = false;
		run_steps();
	} while (err == 0 && !event_base_got_break(base));
	return err < 0 ? -1 : 0;
}
