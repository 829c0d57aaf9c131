/* clock.h - the clocks of the daemon, in milliseconds.
 *
 * Rooms of the core never call these: time is passed in, so that their tests make it. */
#pragma once

#include <stdint.h>

/* Never jumps; stands still while the machine sleeps. For deadlines and durations. */
int64_t clock_mono_ms(void);

/* The same, but up to a few milliseconds behind, and for a quarter of the cost: for what is asked
 * about each message and need not be exact. */
int64_t clock_mono_coarse_ms(void);

/* Never jumps, and goes on while the machine sleeps. For what expires elsewhere. */
int64_t clock_boot_ms(void);

/* For how long the machine has slept since it was started: what the one is ahead of the other. */
int64_t clock_slept_ms(void);

/* Wall-clock time since 1970, for what people and the service read. Never for durations. */
int64_t clock_wall_ms(void);
