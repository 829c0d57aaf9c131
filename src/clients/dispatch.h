/* dispatch.h - a client's line to the room that answers it.
 *
 * Parses the line and refuses what the access rules forbid. Requests for the service go to the
 * router, subscribes to subscriptions, token requests to token_requests. Ping, status, stats and
 * malformed lines are answered here. One dispatch serves all clients. */
#pragma once

#include <stdint.h>

#include "access/access.h"
#include "base/buf.h"
#include "cache/cache.h"
#include "subscriptions/subscriptions.h"
#include "access/token_requests.h"
#include "codec/request.h"
#include "requests/router.h"
#include "codec/stats.h"

struct dispatch_ops {
	/* Append the members of the answer as one line of JSON, an object without messageId. peer:
	 * the client that asks; top: with the busiest clients. */
	void (*status)(void *owner, const struct peer *peer, bool top, struct buf *out);
	void (*stats)(void *owner, struct buf *out);
	/* Passes a search or query on to HPKV Nexus. False: there is none. */
	bool (*nexus)(void *owner, struct peer *peer, const struct request *request, int64_t now);
};

struct dispatch {
	struct cache *cache; /* NULL: none */
	struct router *router;
	struct subscriptions *subscriptions;
	struct token_requests *token_requests;
	struct access *access;
	struct stats *stats;
	const struct dispatch_ops *ops;
	void *owner;
	enum request_op op; /* of the present line; 0: unknown */
	struct buf scratch; /* owned: a line being built */
};

void dispatch_fini(struct dispatch *d);

void dispatch_line(struct dispatch *d, struct peer *peer, struct span line, int64_t now);

/* A line longer than max_line is being skipped; prefix is its beginning. */
void dispatch_too_long(struct dispatch *d, struct peer *peer, struct span prefix, size_t max_line);
