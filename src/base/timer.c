#include "base/timer.h"

#include <errno.h>

#include "base/mem.h"

struct event *watch_new(struct event_base *base, evutil_socket_t fd, short what,
			event_callback_fn callback, void *owner)
{
	struct event *e = event_new(base, fd, what, callback, owner);

	if (!e)
		mem_refused(event_get_struct_event_size());
	return e;
}

struct event *timer_new(struct event_base *base, event_callback_fn callback, void *owner)
{
	return watch_new(base, -1, 0, callback, owner);
}

void timer_start(struct event *timer, int64_t ms)
{
	struct timeval t = {0};

	if (ms > 0)
		t = (struct timeval){ms / 1000, ms % 1000 * 1000};
	if (event_add(timer, &t) < 0) /* its slot among the loop's timers */
		mem_refused(sizeof(timer));
}

void timer_next_turn(struct event *timer)
{
	if (!event_pending(timer, EV_TIMEOUT, NULL))
		timer_start(timer, 0);
}

int watch_start(struct event *watch)
{
	int before = errno, err = 0;

	errno = 0;
	if (event_add(watch, NULL) < 0)
		err = errno ? -errno : -ENOMEM;
	errno = before;
	return err;
}
