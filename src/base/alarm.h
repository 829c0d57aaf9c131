/* alarm.h - a timer for times of clock_boot_ms(): it also counts while the machine sleeps.
 *
 * The loop's own timers stand still meanwhile. For what expires elsewhere by the hour, such as
 * tokens; an alarm whose time passed during sleep goes off at once after it. */
#pragma once

#include <event2/event.h>
#include <stdint.h>

struct alarm;

/* NULL, with errno, when the kernel has none to give. */
struct alarm *alarm_new(struct event_base *base, void (*ring)(void *owner), void *owner);
void alarm_free(struct alarm *a);

void alarm_set(struct alarm *a, int64_t boot_ms); /* once; a later call replaces an earlier one */
void alarm_clear(struct alarm *a);
