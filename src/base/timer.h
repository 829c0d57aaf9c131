/* timer.h - events of the loop: timers, in as many milliseconds as the rooms count in, and watched
 * descriptors. Each event is its owner's, who frees it with event_free().
 *
 * A turn of the loop asks the kernel what has come, and then calls what that and the timers have
 * made due. libevent calls an event of event_active() within the same turn, even one that such a
 * call has activated: two steps that activate each other would keep it from ever asking the kernel
 * again. A timer is looked at once a turn. So nothing calls event_active(), and a step that is done
 * again and again leaves room for all others, signals included.
 *
 * Memory for an event is one of our small allocations: without it the program ends (mem.h). A timer
 * needs nothing else, so it can always be started. To watch a descriptor takes room in the kernel
 * as well, which may have none to give: whoever watches has to heed the result. */
#pragma once

#include <event2/event.h>
#include <stdint.h>

struct event *timer_new(struct event_base *base, event_callback_fn callback, void *owner);

/* From now; a time that has passed already is the loop's next turn. A later call replaces an
 * earlier one. */
void timer_start(struct event *timer, int64_t ms);

/* In the next turn of the loop, never within this one. Once, however often it is asked for: a call
 * does not put off one that is due already. */
void timer_next_turn(struct event *timer);

/* what: EV_READ and so on; EV_PERSIST without a descriptor (-1) is a timer that repeats. */
struct event *watch_new(struct event_base *base, evutil_socket_t fd, short what,
			event_callback_fn callback, void *owner);

/* Of a descriptor or a signal. 0, or -errno: it is not watched. Mostly that is ENOSPC
 * (fs.epoll.max_user_watches) or ENOMEM. */
int watch_start(struct event *watch) __attribute__((warn_unused_result));
