#include "notify.h"

#ifdef HAVE_SYSTEMD
#include <inttypes.h>
#include <time.h>

#include <systemd/sd-daemon.h>

void notify_ready(void)
{
	sd_notify(0, "READY=1");
}

void notify_status(const char *text)
{
	sd_notifyf(0, "STATUS=%s", text);
}

/* The time tells the manager which signal this answers (Type=notify-reload). */
void notify_reloading(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64,
		   (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000);
}

void notify_stopping(void)
{
	sd_notify(0, "STOPPING=1");
}

uint64_t notify_watchdog_us(void)
{
	uint64_t us = 0;

	return sd_watchdog_enabled(0, &us) > 0 ? us : 0;
}

void notify_alive(void)
{
	sd_notify(0, "WATCHDOG=1");
}

#else

void notify_ready(void)
{
}

void notify_status(const char *text)
{
	(void)text;
}

void notify_reloading(void)
{
}

void notify_stopping(void)
{
}

uint64_t notify_watchdog_us(void)
{
	return 0;
}

void notify_alive(void)
{
}

#endif
