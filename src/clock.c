#include "clock.h"

#include <time.h>

static int64_t read_ms(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* The clock that libevent's timers use, so that a timer never fires before its time by this one. It
 * moves in steps of a few milliseconds and costs a quarter of the exact one, which counts where it
 * is read for each message. */
int64_t clock_mono_ms(void)
{
	return read_ms(CLOCK_MONOTONIC_COARSE);
}

int64_t clock_wall_ms(void)
{
	return read_ms(CLOCK_REALTIME);
}
