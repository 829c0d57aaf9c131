#include "base/alarm.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/timer.h"

struct alarm {
	int fd;
	struct event *ready;
	void (*ring)(void *owner);
	void *owner;
};

static void on_ready(evutil_socket_t fd, short what, void *arg)
{
	struct alarm *a = arg;
	uint64_t times;

	(void)what;
	if (read(fd, &times, sizeof(times)) == sizeof(times))
		a->ring(a->owner);
}

struct alarm *alarm_new(struct event_base *base, void (*ring)(void *owner), void *owner)
{
	int fd = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC);

	if (fd < 0)
		return NULL;
	struct alarm *a = mem_alloc(sizeof(*a));
	*a = (struct alarm){.fd = fd, .ring = ring, .owner = owner};
	a->ready = watch_new(base, fd, EV_READ | EV_PERSIST, on_ready, a);
	int err = watch_start(a->ready);
	if (err == 0)
		return a;
	alarm_free(a);
	errno = -err;
	return NULL;
}

void alarm_free(struct alarm *a)
{
	event_free(a->ready);
	close(a->fd);
	free(a);
}

void alarm_set(struct alarm *a, int64_t boot_ms)
{
	struct itimerspec at = {
		.it_value = {.tv_sec = boot_ms / 1000, .tv_nsec = boot_ms % 1000 * 1000000 + 1}};

	timerfd_settime(a->fd, TFD_TIMER_ABSTIME, &at, NULL);
}

void alarm_clear(struct alarm *a)
{
	static const struct itimerspec never;

	timerfd_settime(a->fd, 0, &never, NULL);
}
