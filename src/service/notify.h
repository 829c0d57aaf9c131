/* notify.h - what the service manager is told: the protocol of sd_notify(3), over the datagram
 * socket that NOTIFY_SOCKET names by its path or, with @ before it, in the abstract namespace.
 * Without that variable nobody is told anything.
 *
 * Nothing here waits. The manager may be slow, and its socket full: then what it has not been told
 * yet is kept, the latest of each kind, and told when there is room. */
#pragma once

#include <event2/event.h>
#include <stdint.h>

struct notify;

struct notify *notify_new(struct event_base *base);
void notify_free(struct notify *n); /* NULL: nothing */

void notify_ready(struct notify *n); /* the socket answers; whether the service does is another
					matter */
void notify_status(struct notify *n, const char *text); /* one line, for systemctl status */
void notify_reloading(struct notify *n); /* notify_ready() follows, whatever came of it */
void notify_stopping(struct notify *n);

/* The watchdog: within so many microseconds notify_alive() is to be called, again and again, or the
 * manager takes this process for hung. 0: nobody waits for it. */
uint64_t notify_watchdog_us(void);
void notify_alive(struct notify *n);
