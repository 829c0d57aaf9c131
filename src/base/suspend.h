/* suspend.h - reports that the machine has slept (been suspended).
 *
 * The loop's timers stand still during sleep. That is right for answers, which could not have come
 * meanwhile. But a connection may not have survived the sleep, and its keepalive timer may have
 * most of its time to go: so it is checked at once. */
#pragma once

#include <event2/event.h>
#include <stdint.h>

struct suspend;

/* NULL, with errno, when the kernel has no timer to give. */
struct suspend *suspend_new(struct event_base *base, void (*resumed)(void *owner, int64_t slept_ms),
			    void *owner);
void suspend_free(struct suspend *s);

/* Checks at this interval from now on. Sleep of at least the interval is reported as soon as it is
 * over, shorter sleep of a second or more at the next check. */
void suspend_every(struct suspend *s, int64_t ms);
void suspend_stop(struct suspend *s); /* no checks until suspend_every() */
