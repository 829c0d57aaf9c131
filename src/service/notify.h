/* notify.h - messages to the service manager: the protocol of sd_notify(3), over the datagram
 * socket that NOTIFY_SOCKET names, by its path or with @ in the abstract namespace. Without that
 * variable no message is sent.
 *
 * Nothing here blocks. If the manager's socket is full, the latest message of each kind is kept,
 * and sent when there is room. */
#pragma once

#include <event2/event.h>
#include <stdint.h>

struct notify;

struct notify *notify_new(struct event_base *base);
void notify_free(struct notify *n); /* NULL: nothing */

void notify_ready(struct notify *n); /* clients can connect; the service may be away */
void notify_status(struct notify *n, const char *text); /* one line, for systemctl status */
void notify_reloading(struct notify *n);                /* notify_ready() follows in any case */
void notify_stopping(struct notify *n);

/* The watchdog: if notify_alive() is not called every so many microseconds, the manager takes this
 * process for hung. 0: there is no watchdog. */
uint64_t notify_watchdog_us(void);
void notify_alive(struct notify *n);
