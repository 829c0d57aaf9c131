/* notify.h - what the service manager is told: sd_notify(3), or nothing when built without
 * libsystemd or started by somebody else. */
#pragma once

void notify_ready(void); /* the socket answers; whether the service does is another matter */
void notify_status(const char *text); /* one line, for systemctl status */
void notify_reloading(void);          /* notify_ready() follows, whatever came of it */
void notify_stopping(void);
