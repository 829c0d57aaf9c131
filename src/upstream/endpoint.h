/* endpoint.h - where connections to the service lead to: its address, perhaps a proxy before it,
 * whose certificates are believed, and how patient to be.
 *
 * There is a present place, which connections are made for; new settings make another one. The
 * former goes with the last connection that uses it, but not at once: the link that has just
 * ended may be among the callers. Places whose trust anchors are the same share the context
 * that these are kept in.
 *
 * Owns the endpoints, their texts and contexts. Which place is the present one, and when a
 * connection leaves for another, is decided above (upstream.h). */
#pragma once

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "transport/conn.h"
#include "codec/stats.h"

enum { CA_DIGEST_SIZE = 32 };

struct endpoint_settings {
	const char *shown; /* the URL, for those who ask; strings are copied */
	struct conn_settings conn;
	const char *ca_file;            /* or NULL */
	const unsigned char *ca_digest; /* CA_DIGEST_SIZE bytes: what the file holds */
};

struct anchors;

struct endpoint {
	struct conn_shared shared; /* its strings are these */
	struct anchors *anchors;
	struct dial_memory memory;
	char *shown, *host, *proxy_host, *proxy_login; /* the last one: secret */
	unsigned connections;                          /* that lead there */
	LIST_ENTRY(endpoint) of_retired; /* endpoints::retired, once nobody needs it */
};

struct endpoints {
	struct event_base *base;
	struct stats *stats;
	struct endpoint *present; /* that connections are made for; NULL before endpoints_set() */
	LIST_HEAD(, endpoint) retired;
	struct event *reap; /* frees them, from a fresh stack */
};

void endpoints_init(struct endpoints *p, struct event_base *base, struct stats *stats);
void endpoints_fini(struct endpoints *p); /* no connection leads anywhere any more */

/* A place that is not the present one yet. NULL, with a reason, when the CA file can't be used. */
struct endpoint *endpoint_new(struct endpoints *p, const struct endpoint_settings *s,
			      const char **why);
void endpoints_set(struct endpoints *p, struct endpoint *endpoint); /* from now on it is */
/* Other times and limits; also for a former one that connections still use. */
void endpoint_set_times(struct endpoint *endpoint, const struct conn_settings *settings);

/* One connection more leads to the present place, or one less to this one. */
struct endpoint *endpoint_take(struct endpoints *p);
void endpoint_leave(struct endpoints *p, struct endpoint *endpoint);
