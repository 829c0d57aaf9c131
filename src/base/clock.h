/* clock.h - the clocks of the daemon, in milliseconds.
 *
 * Pure rooms never call these: they get the time as an argument, so that tests can choose it. */
#pragma once

#include <stdint.h>

/* Never jumps; stands still while the machine sleeps. For deadlines and durations. */
int64_t clock_mono_ms(void);
int64_t clock_mono_us(void); /* the same, in microseconds */

/* The same, up to a few milliseconds behind, at a quarter of the cost. For times that are read on
 * each message and need not be exact. */
int64_t clock_mono_coarse_ms(void);

/* Never jumps; goes on while the machine sleeps. For times that another machine keeps. */
int64_t clock_boot_ms(void);

/* How long the machine has slept since it was started: clock_boot_ms() less clock_mono_ms(). */
int64_t clock_slept_ms(void);

/* Wall-clock time since 1970, for people and for the service. Never for durations. */
int64_t clock_wall_ms(void);
