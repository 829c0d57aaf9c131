/* suspend.h - tells that the machine has slept.
 *
 * The loop's timers stand still meanwhile, as they should for those who wait for an answer: it
 * could not have come. But whether connections have survived it nobody knows, and to find out is
 * not to wait for a timer that still has most of its time to go. */
#pragma once

#include <event2/event.h>
#include <stdint.h>

struct suspend;

/* NULL, with errno, when the kernel has no timer to give. */
struct suspend *suspend_new(struct event_base *base, void (*woke)(void *owner, int64_t slept_ms),
			    void *owner);
void suspend_free(struct suspend *w);

/* Looks so often from now on. Sleep of at least that length is told at once when it is over,
 * shorter ones of a second or more at the next look. */
void suspend_every(struct suspend *w, int64_t ms);
void suspend_stop(struct suspend *w); /* looks no more, until suspend_every() */
