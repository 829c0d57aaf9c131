/* loop.h - the loop, its timers and the clocks, in the place of libevent's and of the machine's, so
 * that a test makes the time and each run is the same.
 *
 * loop.c defines what the rooms call (event_new(), clock_mono_ms(), alarm_set(), suspend_new(),
 * log_line() ...). A step is one call of a timer. Steps that ask for each other without end at the
 * same time would keep a real loop busy: more than LOOP_STEPS_MAX of them fail the test. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <event2/event.h>

#include "base/log.h"

enum { LOOP_STEPS_MAX = 500 };

#define LOOP_NEVER INT64_C(1000000000)

/* Milliseconds of all clocks but the wall's, which is ahead of the others by LOOP_WALL. */
extern int64_t loop_now;
enum { LOOP_WALL = 1000000 };

/* What is logged, without the end of line, goes there, if it is not NULL. */
extern void (*loop_log)(enum log_level level, const char *text);

/* Calls that fail with EMFILE; none after loop_begin(). */
enum { LOOP_NO_SUSPEND = 1, LOOP_NO_ALARM = 2, LOOP_NO_WATCH = 4 };
extern unsigned loop_failing;

extern int64_t loop_suspend_ms; /* as suspend_every() was told; 0: suspend_stop() came behind it */

/* Forgets all timers; the random numbers begin anew with the seed. */
void loop_begin(int64_t now, uint32_t seed);
uint32_t loop_lot(uint32_t below); /* a random number */

/* The timer that is due first, or NULL if none is pending. Of those that are due at the same time
 * it is the one that was started first. */
struct event *loop_first(void);
int64_t loop_at(const struct event *timer); /* LOOP_NEVER: it is not pending */
void loop_set(struct event *timer, int64_t at);
/* Calls it. The time has come to be what it is due at, or is later. */
void loop_step(struct event *timer);
/* The descriptor, which is watched with a timeout, is ready: that ends the watch. */
void loop_ready(evutil_socket_t fd, short what);

/* Steps that are due by then, the time being moved along with them; how many there were. */
unsigned loop_pass(int64_t ms);
/* Those that are due now, and what these ask for within the same turn of the loop: nothing. */
unsigned loop_turn(void);

unsigned loop_pending(void); /* timers, alarms included */
unsigned loop_timers(void);  /* those that exist, pending or not */

/* The machine has slept: suspend_new()'s callback is told so, and clock_boot_ms() has gone on. */
void loop_sleep(int64_t ms);
