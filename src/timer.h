/* timer.h - an event of the loop, in as many milliseconds as the rooms count in.
 *
 * Nothing but the step from a number to libevent's struct timeval. The event is its owner's. */
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
