/* endpoint.h - where connections to the service lead to: address, proxy, trust anchors and times.
 *
 * New connections lead to the present endpoint; new settings make another one. A former endpoint is
 * freed after its last connection, in the next turn of the loop: a connection that has just ended
 * may be among the callers. Endpoints with the same trust anchors share the TLS context.
 *
 * Owns the endpoints, their texts and contexts. upstream.h decides which one is present, and when a
 * connection is replaced. */
#pragma once

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "transport/conn.h"
#include "codec/stats.h"

enum { CA_DIGEST_SIZE = 32 };

struct trust;

struct endpoint_settings {
	const char *shown; /* the URL for logs and status; strings are copied */
	struct conn_settings conn;
	struct trust *trust;
	const unsigned char *ca_digest; /* CA_DIGEST_SIZE bytes: what the file in it holds */
};

struct anchors;

struct endpoint {
	struct conn_shared shared; /* its strings are these */
	struct anchors *anchors;
	struct dial_memory memory;
	char *shown, *host, *proxy_host, *proxy_login; /* the last one: secret */
	unsigned connections;                          /* that lead there */
	LIST_ENTRY(endpoint) of_retired;               /* endpoints::retired, once it has no user */
};

struct endpoints {
	struct event_base *base;
	struct stats *stats;
	struct endpoint *present; /* NULL before endpoints_set() */
	LIST_HEAD(, endpoint) retired;
	struct event *reap; /* frees them, from a fresh stack */
};

/* There is no endpoint at first: endpoints_set() follows. */
void endpoints_init(struct endpoints *all, struct event_base *base, struct stats *stats);
void endpoints_fini(struct endpoints *all); /* there is no connection any more */

/* An endpoint that is not the present one yet. NULL, with a reason, when the CA file can't be used.
 */
struct endpoint *endpoint_new(struct endpoints *all, const struct endpoint_settings *s,
			      const char **why);
void endpoints_set(struct endpoints *all, struct endpoint *endpoint); /* makes it the present one */
/* Other times and limits; also for a former endpoint that is still in use. */
void endpoint_set_times(struct endpoint *endpoint, const struct conn_settings *settings);

/* A connection to the present endpoint begins; a connection to this one has ended. */
struct endpoint *endpoint_take(struct endpoints *all);
void endpoint_leave(struct endpoints *all, struct endpoint *endpoint);
