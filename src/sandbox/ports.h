/* ports.h - reserves one port on both loopback addresses, 127.0.0.1 and ::1.
 *
 * "localhost" may resolve to either, so no other program may have the port on one of them. Bound
 * sockets that do not listen hold the port. Another socket of the sandbox with SO_REUSEADDR, as
 * libwebsockets sets it, may bind to it as well, while the kernel never hands it out as a free
 * port. */
#pragma once

#include <stdbool.h>

struct ports {
	int port;
	bool has_v6;
	int v4_fd, v6_fd; /* -1: none */
};

/* Reserves a port; want 0: any. 0, or a negative errno; -EADDRINUSE: it is taken on one of them. */
int ports_hold(struct ports *p, int want);
void ports_release(struct ports *p);
