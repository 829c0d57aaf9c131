/* ports.h - one port for both loopback addresses, 127.0.0.1 and ::1.
 *
 * "localhost" means either, so a program that tries them in turn must not meet a stranger on one of
 * them. The sockets are bound, and do not listen yet. */
#pragma once

#include <stdbool.h>

struct ports {
	int port;
	bool has_v6;
	int v4_fd, v6_fd; /* -1: none, or somebody else's by now */
};

/* want: a port, or 0 for any. 0, or a negative errno: -EADDRINUSE when it is taken on one of them.
 */
int ports_hold(struct ports *p, int want);
void ports_release(struct ports *p);
