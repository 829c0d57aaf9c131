#include "base/suspend.h"

#include <stdlib.h>

#include "base/alarm.h"
#include "base/clock.h"
#include "base/mem.h"

enum { SLEPT_MIN_MS = 1000 };

struct suspend {
	struct alarm *look;
	int64_t every_ms;
	int64_t slept_ms; /* clock_slept_ms() when it looked last */
	void (*woke)(void *owner, int64_t slept_ms);
	void *owner;
};

static void look_again(struct suspend *w)
{
	w->slept_ms = clock_slept_ms();
	alarm_set(w->look, clock_boot_ms() + w->every_ms);
}

static void on_look(void *owner)
{
	struct suspend *w = owner;
	int64_t slept_ms = clock_slept_ms() - w->slept_ms;

	look_again(w);
	if (slept_ms >= SLEPT_MIN_MS)
		w->woke(w->owner, slept_ms);
}

struct suspend *suspend_new(struct event_base *base, void (*woke)(void *owner, int64_t slept_ms),
			    void *owner)
{
	struct suspend *w = mem_zalloc(sizeof(*w));

	*w = (struct suspend){.look = alarm_new(base, on_look, w), .woke = woke, .owner = owner};
	if (w->look)
		return w;
	free(w);
	return NULL;
}

void suspend_free(struct suspend *w)
{
	if (!w)
		return;
	alarm_free(w->look);
	free(w);
}

void suspend_every(struct suspend *w, int64_t ms)
{
	w->every_ms = ms;
	look_again(w);
}

void suspend_stop(struct suspend *w)
{
	alarm_clear(w->look);
}
