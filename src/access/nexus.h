/* nexus.h - clients' requests to HPKV Nexus, passed on with the API key.
 *
 * Nexus is a service of its own, which searches what the records mean. A request (search, query)
 * was allowed by the rules (access.h); its body goes to Nexus as it was written, and the answer's
 * members come back with the HTTP status as "code". The router keeps its deadline and its place in
 * the order of answers. Nothing is sent twice, for its quotas are small, but when new settings have
 * interrupted it.
 *
 * Bounds: NEXUS_AT_ONCE requests under way, shared between clients: next is one of the client that
 * has the fewest of them. NEXUS_MAX in all, NEXUS_PEER_MAX of one client. */
#pragma once

#include <event2/event.h>

#include "access/access.h"
#include "codec/stats.h"
#include "requests/router.h"
#include "transport/token_client.h"

enum { NEXUS_AT_ONCE = 8, NEXUS_MAX = 256, NEXUS_PEER_MAX = 16 };

struct nexus;

struct nexus_settings {
	struct token_client_settings client; /* but its path; host NULL: there is no Nexus */
	const char *path_prefix;
	const char *api_key; /* secret; stays until nexus_set() or nexus_free() */
};

struct nexus *nexus_new(struct event_base *base, const struct nexus_settings *settings,
			struct router *router, struct access *access);
void nexus_free(struct nexus *n); /* all peers have left */

bool nexus_is_there(const struct nexus *n);

void nexus_join(struct peer *peer);
void nexus_ask(struct nexus *n, struct peer *peer, const struct request *request, int64_t now);

/* As router_ops::deferred_end(), of a search or query. */
const char *nexus_deferred_end(struct nexus *n, struct pending *p);

/* The rules, the key or the service are about to change: nothing is sent until nexus_set(). */
void nexus_interrupt(struct nexus *n);
/* New settings or access rules: each request is judged again, and those under way begin anew. */
void nexus_set(struct nexus *n, const struct nexus_settings *settings, int64_t now);
