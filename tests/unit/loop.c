#include "test.h"
#include "random.h"

#include "loop.h"

#include <errno.h>
#include <stdio.h>

#include <event2/util.h>

#include "base/alarm.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/suspend.h"

enum { TIMERS = 64 };

struct event {
	event_callback_fn call;
	void *arg;
	evutil_socket_t fd; /* -1: none */
	int64_t at;         /* LOOP_NEVER: it is not pending */
	uint64_t order;     /* of being started */
	bool used, alarm;
};

struct alarm {
	struct event *timer;
	void (*ring)(void *owner);
	void *owner;
};

struct suspend {
	void (*woke)(void *owner, int64_t slept_ms);
	void *owner;
};

int64_t loop_now;
void (*loop_log)(enum log_level level, const char *text);
unsigned loop_failing;
int64_t loop_suspend_ms;

static struct event timers[TIMERS];
static struct suspend *watcher;
static uint64_t started;
static uint32_t random_state;
static int64_t slept, steps_at;
static unsigned steps; /* at steps_at */

void loop_begin(int64_t now, uint32_t seed)
{
	for (int i = 0; i < TIMERS; i++)
		timers[i] = (struct event){.at = LOOP_NEVER};
	loop_now = now;
	slept = 0;
	steps = 0;
	loop_failing = 0;
	loop_suspend_ms = 0;
	watcher = NULL;
	random_state = seed * 2654435761U + 1;
	loop_lot(2);
}

uint32_t loop_lot(uint32_t below)
{
	return (uint32_t)((uint64_t)random_next(&random_state) * below >> 32);
}

/* ---- clocks ---- */

int64_t clock_mono_ms(void)
{
	return loop_now;
}

int64_t clock_mono_coarse_ms(void)
{
	return loop_now;
}

int64_t clock_boot_ms(void)
{
	return loop_now + slept;
}

int64_t clock_slept_ms(void)
{
	return slept;
}

int64_t clock_wall_ms(void)
{
	return LOOP_WALL + loop_now + slept;
}

/* ---- timers ---- */

struct event *event_new(struct event_base *base, evutil_socket_t fd, short what,
			event_callback_fn call, void *arg)
{
	(void)base, (void)what;
	for (int i = 0; i < TIMERS; i++) {
		if (timers[i].used)
			continue;
		timers[i] = (struct event){
			.call = call, .arg = arg, .fd = fd, .at = LOOP_NEVER, .used = true};
		return &timers[i];
	}
	fail_msg("too many timers");
	return NULL;
}

void event_free(struct event *e)
{
	assert_true(e->used);
	*e = (struct event){.at = LOOP_NEVER};
}

void loop_set(struct event *e, int64_t at)
{
	assert_true(e->used);
	e->at = at > loop_now ? at : loop_now;
	e->order = ++started;
}

int event_add(struct event *e, const struct timeval *t)
{
	if (e->fd >= 0 && (loop_failing & LOOP_NO_WATCH)) {
		errno = ENOSPC;
		return -1;
	}
	loop_set(e, loop_now + t->tv_sec * 1000 + t->tv_usec / 1000);
	return 0;
}

int event_del(struct event *e)
{
	assert_true(e->used);
	e->at = LOOP_NEVER;
	return 0;
}

int event_pending(const struct event *e, short what, struct timeval *t)
{
	(void)what, (void)t;
	return e->at != LOOP_NEVER;
}

int64_t loop_at(const struct event *e)
{
	return e->at;
}

static bool comes_before(const struct event *a, const struct event *b)
{
	return a->at != b->at ? a->at < b->at : a->order < b->order;
}

struct event *loop_first(void)
{
	struct event *first = NULL;

	for (int i = 0; i < TIMERS; i++) {
		struct event *e = &timers[i];
		if (e->used && e->at != LOOP_NEVER && (!first || comes_before(e, first)))
			first = e;
	}
	return first;
}

static void count_step(void)
{
	if (steps_at != loop_now) {
		steps_at = loop_now;
		steps = 0;
	}
	if (++steps > LOOP_STEPS_MAX)
		fail_msg("at %d: the loop is busy without end", (int)loop_now);
}

void loop_step(struct event *e)
{
	assert_true(e->used && e->at <= loop_now);
	count_step();
	e->at = LOOP_NEVER;
	e->call(e->fd, EV_TIMEOUT, e->arg);
}

void loop_ready(evutil_socket_t fd, short what)
{
	for (int i = 0; i < TIMERS; i++) {
		struct event *e = &timers[i];
		if (!e->used || e->fd != fd || e->at == LOOP_NEVER)
			continue;
		count_step();
		e->at = LOOP_NEVER;
		e->call(fd, what, e->arg);
		return;
	}
	fail_msg("%d is not watched", fd);
}

unsigned loop_pass(int64_t ms)
{
	int64_t until = loop_now + ms;
	struct event *e;
	unsigned n = 0;

	while ((e = loop_first()) && e->at <= until) {
		if (e->at > loop_now)
			loop_now = e->at;
		loop_step(e);
		n++;
	}
	loop_now = until;
	return n;
}

unsigned loop_turn(void)
{
	uint64_t last = started;
	struct event *e;
	unsigned n = 0;

	while ((e = loop_first()) && e->at <= loop_now && e->order <= last) {
		loop_step(e);
		n++;
	}
	return n;
}

unsigned loop_pending(void)
{
	unsigned n = 0;

	for (int i = 0; i < TIMERS; i++)
		n += timers[i].used && timers[i].at != LOOP_NEVER;
	return n;
}

unsigned loop_timers(void)
{
	unsigned n = 0;

	for (int i = 0; i < TIMERS; i++)
		n += timers[i].used;
	return n;
}

void evutil_secure_rng_get_bytes(void *to, size_t n)
{
	for (size_t i = 0; i < n; i++)
		((unsigned char *)to)[i] = (unsigned char)loop_lot(256);
}

/* ---- alarms ---- */

static void on_alarm(evutil_socket_t fd, short what, void *arg)
{
	struct alarm *a = arg;

	(void)fd, (void)what;
	a->ring(a->owner);
}

struct alarm *alarm_new(struct event_base *base, void (*ring)(void *owner), void *owner)
{
	if (loop_failing & LOOP_NO_ALARM) {
		errno = EMFILE;
		return NULL;
	}
	struct alarm *a = mem_zalloc(sizeof(*a));

	*a = (struct alarm){event_new(base, -1, 0, on_alarm, a), ring, owner};
	a->timer->alarm = true;
	return a;
}

void alarm_free(struct alarm *a)
{
	event_free(a->timer);
	free(a);
}

void alarm_set(struct alarm *a, int64_t at)
{
	loop_set(a->timer, at - slept);
}

void alarm_clear(struct alarm *a)
{
	event_del(a->timer);
}

struct suspend *suspend_new(struct event_base *base, void (*woke)(void *owner, int64_t slept_ms),
			    void *owner)
{
	(void)base;
	if (loop_failing & LOOP_NO_SUSPEND) {
		errno = EMFILE;
		return NULL;
	}
	struct suspend *wake = mem_zalloc(sizeof(*wake));

	*wake = (struct suspend){woke, owner};
	watcher = wake;
	return wake;
}

void suspend_free(struct suspend *wake)
{
	if (watcher == wake)
		watcher = NULL;
	free(wake);
}

void suspend_every(struct suspend *wake, int64_t ms)
{
	(void)wake;
	loop_suspend_ms = ms;
}

void suspend_stop(struct suspend *wake)
{
	(void)wake;
	loop_suspend_ms = 0;
}

void loop_sleep(int64_t ms)
{
	slept += ms;
	for (int i = 0; i < TIMERS; i++) {
		if (timers[i].used && timers[i].alarm && timers[i].at != LOOP_NEVER)
			loop_set(&timers[i], timers[i].at - ms);
	}
	if (watcher)
		watcher->woke(watcher->owner, ms);
}

/* ---- the log ---- */

enum log_level log_level(void)
{
	return LOG_LEVEL_INFO;
}

void log_line(enum log_level level, const char *format, ...)
{
	char text[1000];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (loop_log)
		loop_log(level, text);
}
