/* key_order.h - one client's requests for one key take effect in the order in which it asked: which
 * of them has to wait, and which comes too late.
 *
 * Requests overtake each other in two ways. One that the service's rate limit has refused is sent
 * again, behind those that followed it; and of two connections the later may be the faster. So,
 * while either can happen, one of a client and key is on its way at a time; and one that waits to
 * be sent again is over as soon as a later one took effect, or may have.
 *
 * Ranges have no order against keys. Owns nothing: what is known of requests on their way is in
 * inflight.h and unsettled.h, what waits is in the client's queue (sched.h). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "requests/unsettled.h"
#include "requests/inflight.h"
#include "requests/pending.h"

/* Of a client and the key that it asks for; 0: it is no request for one key. */
uint64_t key_order_hash(const struct peer *peer, const struct request *request, uint64_t seed);

/* Must p wait for another of its key before it is sent on this connection? alone: requests may be
 * refused and sent again. */
bool key_order_must_wait(const struct pending *p, const struct inflight *inflight,
			 const struct unsettled *unsettled, uint32_t connection, bool alone);

/* What the end of a request means for those that its client has sent before it. */
struct key_order_effect {
	struct peer *peer; /* NULL: nothing */
	uint64_t key_hash;
	uint32_t order;
};

/* Before p, which may be in any state, leaves that. */
struct key_order_effect key_order_effect_of(const struct pending *p, enum inflight_end end);
/* One that waits to be sent again and was asked before it: it can't be sent behind it. NULL: there
 * is none (any more). */
struct pending *key_order_find_superseded(const struct key_order_effect *e);
