/* ports.h - one port for both loopback addresses, 127.0.0.1 and ::1.
 *
 * "localhost" means either, so a program that tries them in turn must not meet a stranger on one of
 * them. The port is held by bound sockets that do not listen; another socket of ours with
 * SO_REUSEADDR, as libwebsockets' have, may bind to it as well, while the kernel gives it to nobody
 * who asks for any port. */
#pragma once

#include <stdbool.h>

struct ports {
	int port;
	bool has_v6;
	int v4_fd, v6_fd; /* -1: none */
};

/* want: a port, or 0 for any. 0, or a negative errno: -EADDRINUSE when it is taken on one of them.
 */
int ports_hold(struct ports *p, int want);
void ports_release(struct ports *p);
