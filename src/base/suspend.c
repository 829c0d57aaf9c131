#include "base/suspend.h"

#include <stdlib.h>

#include "base/alarm.h"
#include "base/clock.h"
#include "base/mem.h"

enum { SLEPT_MIN_MS = 1000 };

struct suspend {
	struct alarm *check;
	int64_t every_ms;
	int64_t slept_ms; /* clock_slept_ms() at the last check */
	void (*resumed)(void *owner, int64_t slept_ms);
	void *owner;
};

static void check_again(struct suspend *s)
{
	s->slept_ms = clock_slept_ms();
	alarm_set(s->check, clock_boot_ms() + s->every_ms);
}

static void on_check(void *owner)
{
	struct suspend *s = owner;
	int64_t slept_ms = clock_slept_ms() - s->slept_ms;

	check_again(s);
	if (slept_ms >= SLEPT_MIN_MS)
		s->resumed(s->owner, slept_ms);
}

struct suspend *suspend_new(struct event_base *base, void (*resumed)(void *owner, int64_t slept_ms),
			    void *owner)
{
	struct suspend *s = mem_zalloc(sizeof(*s));

	*s = (struct suspend){
		.check = alarm_new(base, on_check, s), .resumed = resumed, .owner = owner};
	if (s->check)
		return s;
	free(s);
	return NULL;
}

void suspend_free(struct suspend *s)
{
	if (!s)
		return;
	alarm_free(s->check);
	free(s);
}

void suspend_every(struct suspend *s, int64_t ms)
{
	s->every_ms = ms;
	check_again(s);
}

void suspend_stop(struct suspend *s)
{
	alarm_clear(s->check);
}
