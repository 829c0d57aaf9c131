/* metrics_page.h - the metrics page over HTTP, for a Prometheus on this machine.
 *
 * GET or HEAD of /metrics on a loopback address or a Unix socket; 404 for all else, 405 for other
 * methods. Each connection gets one answer and is closed. libevent speaks the HTTP, inside the
 * loop, so a slow reader delays nobody. At most METRICS_PAGE_CONNECTIONS_MAX connections are open
 * at a time, each for METRICS_PAGE_CONNECTION_MS; more wait in the backlog.
 *
 * The owner writes the page. Readers are not identified: access to a socket path is a matter of its
 * mode, and on loopback every local user may read the page. */
#pragma once

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"

enum { METRICS_PAGE_CONNECTIONS_MAX = 8, METRICS_PAGE_CONNECTION_MS = 10000 };

struct metrics_page;

struct metrics_page_settings {
	const char *path; /* absolute: a socket with this mode and group; or NULL */
	mode_t mode;
	gid_t group;         /* (gid_t)-1: left as it is */
	const char *address; /* without a path: numeric, IPv4 or IPv6 */
	uint16_t port;
	bool may_wait; /* socketpath.h */
};

struct metrics_page_ops {
	/* Appends the page (metrics_text.h). */
	void (*page)(void *owner, struct buf *out);
};

/* 0, or -errno, logged with the address and a remedy. Two pages need different addresses. */
int metrics_page_new(struct event_base *base, const struct metrics_page_settings *settings,
		     const struct metrics_page_ops *ops, void *owner, struct metrics_page **out);

/* Is the page served there, and its path still in place? */
bool metrics_page_is_at(const struct metrics_page *m, const struct metrics_page_settings *settings);
/* As socketpath.h says, of its path, if it has one. */
void metrics_page_step_aside(struct metrics_page *m);
void metrics_page_step_back(struct metrics_page *m);
/* Sets mode and group of its path, if it has one. 0, or -errno, logged. */
int metrics_page_set_access(struct metrics_page *m, const struct metrics_page_settings *settings);

void metrics_page_free(struct metrics_page *m); /* NULL: nothing */
