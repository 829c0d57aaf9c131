/* metrics_page.h - the metrics page over HTTP, for a Prometheus on this machine.
 *
 * GET or HEAD of /metrics on a loopback address or a Unix socket; 404 for all else, 405 for other
 * methods. One answer a connection: it is closed behind it. The HTTP is libevent's, inside the
 * loop, so that whoever reads slowly keeps nobody waiting; there are METRICS_PAGE_CONNECTIONS_MAX
 * connections at a time, of METRICS_PAGE_CONNECTION_MS each at most, and more wait in the backlog.
 *
 * What the page says is brought by the owner. It does not ask who is asking: on a socket path the
 * mode does that, on loopback nobody does. */
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

/* 0, or -errno, which it has logged with the address and what to do. A second one beside another
 * needs another address. */
int metrics_page_new(struct event_base *base, const struct metrics_page_settings *settings,
		     const struct metrics_page_ops *ops, void *owner, struct metrics_page **out);

/* Is it served there? Somebody may have removed the path. */
bool metrics_page_is_at(const struct metrics_page *m, const struct metrics_page_settings *settings);
/* As socketpath.h says, of its path, if it has one. */
void metrics_page_step_aside(struct metrics_page *m);
void metrics_page_step_back(struct metrics_page *m);
/* Mode and group of its path, if it has one, become these. 0, or -errno, which it has logged. */
int metrics_page_set_access(struct metrics_page *m, const struct metrics_page_settings *settings);

void metrics_page_free(struct metrics_page *m); /* NULL: nothing */
