/* timer.h - events of the loop: timers, in milliseconds, and watched descriptors. The owner of an
 * event frees it with event_free().
 *
 * In each turn the loop asks the kernel for events and then calls everything that is due. libevent
 * calls an event of event_active() within the same turn, even if a callback of that turn activated
 * it: two steps that activate each other would keep the loop from ever asking the kernel again. A
 * timer is checked once a turn. So nothing calls event_active(), and a step that repeats leaves
 * room for all others, signals included.
 *
 * Memory for an event is one of our small allocations: without it the program ends (mem.h). A timer
 * needs nothing else, so starting one can't fail. Watching a descriptor also takes room in the
 * kernel, which may have none: callers handle that error. */
#pragma once

#include <event2/event.h>
#include <stdint.h>

struct event *timer_new(struct event_base *base, event_callback_fn callback, void *owner);

/* ms from now; a time that has passed means the loop's next turn. A later call replaces an earlier
 * one. */
void timer_start(struct event *timer, int64_t ms);

/* Runs once in the next turn of the loop, never within this one. A call does not put off a timer
 * that is due already. */
void timer_next_turn(struct event *timer);

/* what: EV_READ and so on; EV_PERSIST without a descriptor (-1) is a timer that repeats. */
struct event *watch_new(struct event_base *base, evutil_socket_t fd, short what,
			event_callback_fn callback, void *owner);

/* Watches a descriptor or a signal. 0, or -errno: it is not watched, mostly ENOSPC
 * (fs.epoll.max_user_watches) or ENOMEM. */
int watch_start(struct event *watch) __attribute__((warn_unused_result));
