#include "wake.h"

#include <stdlib.h>

#include "alarm.h"
#include "clock.h"
#include "mem.h"

enum { SLEPT_MIN_MS = 1000 };

struct wake {
	struct alarm *look;
	int64_t every_ms;
	int64_t slept_ms; /* clock_slept_ms() when it looked last */
	void (*woke)(void *owner, int64_t slept_ms);
	void *owner;
};

static void look_again(struct wake *w)
{
	w->slept_ms = clock_slept_ms();
	alarm_set(w->look, clock_boot_ms() + w->every_ms);
}

static void on_look(void *owner)
{
	struct wake *w = owner;
	int64_t slept_ms = clock_slept_ms() - w->slept_ms;

	look_again(w);
	if (slept_ms >= SLEPT_MIN_MS)
		w->woke(w->owner, slept_ms);
}

struct wake *wake_new(struct event_base *base, void (*woke)(void *owner, int64_t slept_ms),
		      void *owner)
{
	struct wake *w = mem_zalloc(sizeof(*w));

	*w = (struct wake){.look = alarm_new(base, on_look, w), .woke = woke, .owner = owner};
	if (w->look)
		return w;
	free(w);
	return NULL;
}

void wake_free(struct wake *w)
{
	if (!w)
		return;
	alarm_free(w->look);
	free(w);
}

void wake_every(struct wake *w, int64_t ms)
{
	w->every_ms = ms;
	look_again(w);
}

void wake_stop(struct wake *w)
{
	alarm_clear(w->look);
}
