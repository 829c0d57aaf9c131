/* alarm.h - a timer on clock_boot_ms(), which also counts while the machine sleeps.
 *
 * The loop's own timers stand still during sleep. Alarms are for times that another machine keeps,
 * such as the expiry of a token. An alarm that comes due during sleep fires right after it. */
#pragma once

#include <event2/event.h>
#include <stdint.h>

struct alarm;

/* NULL, with errno, when the kernel has no timer to give. */
struct alarm *alarm_new(struct event_base *base, void (*ring)(void *owner), void *owner);
void alarm_free(struct alarm *a);

/* Fires once, at this time of clock_boot_ms(); a later call replaces an earlier one. */
void alarm_set(struct alarm *a, int64_t boot_ms);
void alarm_clear(struct alarm *a);
