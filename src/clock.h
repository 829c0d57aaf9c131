/* clock.h - the two clocks of the daemon, in milliseconds.
 *
 * Rooms of the core never call these: time is passed in, so that their tests make it. */
#pragma once

#include <stdint.h>

/* Never jumps; stands still while the machine sleeps. For deadlines and durations of more than a
 * few milliseconds. */
int64_t clock_mono_ms(void);

/* Wall-clock time since 1970, for what people and the service read. Never for durations. */
int64_t clock_wall_ms(void);
