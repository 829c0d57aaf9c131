/* timer.h - an event of the loop, in as many milliseconds as the rooms count in, or in its next
 * turn.
 *
 * A turn of the loop asks the kernel what has come, and then calls what that and the timers have
 * made due. libevent calls an event of event_active() within the same turn, even one that such a
 * call has activated: two steps that activate each other would keep it from ever asking the kernel
 * again. A timer is looked at once a turn. So nothing calls event_active(), and a
 * step that is done again and again leaves room for all others, signals included.
 *
 * The event is its owner's. */
#pragma once

#include <event2/event.h>
#include <stdint.h>

/* From now; a time that has passed already is the loop's next turn. A later call replaces an
 * earlier one. */
static inline void timer_start(struct event *timer, int64_t ms)
{
	struct timeval t = {0};

	if (ms > 0)
		t = (struct timeval){ms / 1000, ms % 1000 * 1000};
	event_add(timer, &t);
}

/* In the next turn of the loop, never within this one. Once, however often it is asked for: a call
 * does not put off one that is due already. */
static inline void timer_next_turn(struct event *timer)
{
	if (!event_pending(timer, EV_TIMEOUT, NULL))
		timer_start(timer, 0);
}
