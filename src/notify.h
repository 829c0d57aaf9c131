/* notify.h - what the service manager is told: sd_notify(3), or nothing when built without
 * libsystemd or started by somebody else. */
#pragma once

#include <stdint.h>

void notify_ready(void); /* the socket answers; whether the service does is another matter */
void notify_status(const char *text); /* one line, for systemctl status */
void notify_reloading(void);          /* notify_ready() follows, whatever came of it */
void notify_stopping(void);

/* The watchdog: within so many microseconds notify_alive() is to be called, again and again, or the
 * manager takes this process for hung. 0: nobody waits for it. */
uint64_t notify_watchdog_us(void);
void notify_alive(void);
