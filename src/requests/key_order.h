/* key_order.h - the requests of one client for one key take effect in the order of asking.
 *
 * Two things can break the order. A request that the service's rate limit refused is sent again,
 * behind those that followed it. And of two connections the later one may be faster. While either
 * can happen, one request of a client and key is in flight at a time. A request that waits to be
 * sent again is given up once a later one took effect or may have.
 *
 * Ranges are not ordered against keys. Owns nothing: requests in flight are in inflight.h and
 * unsettled.h, waiting requests in the client's queue (sched.h). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "requests/unsettled.h"
#include "requests/inflight.h"
#include "requests/pending.h"

/* The hash of the client and the key it asks for; 0: the request is not for one key. */
uint64_t key_order_hash(const struct peer *peer, const struct request *request, uint64_t seed);
/* The part of such a hash that is the key's, the same for all clients. */
uint64_t key_order_hash_of_key(const struct peer *peer, uint64_t key_hash);

/* Must p wait for another request of its key before it is sent on this connection? alone: requests
 * may be refused and sent again. */
bool key_order_must_wait(const struct pending *p, const struct inflight *inflight,
			 const struct unsettled *unsettled, uint32_t connection, bool alone);

/* The consequence of a request's end for earlier requests of its client and key. */
struct key_order_effect {
	struct peer *peer; /* NULL: none */
	uint64_t key_hash;
	uint32_t order;
};

/* Call before p leaves its state, whichever that is. */
struct key_order_effect key_order_effect_of(const struct pending *p, enum inflight_end end);
/* An earlier request that waits to be sent again, which is too late now; NULL: there is none, or no
 * further one. */
struct pending *key_order_find_superseded(const struct key_order_effect *e);
