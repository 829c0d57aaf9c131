/* unsettled.h - writes that timed out and may still take effect.
 *
 * A later request for the key comes behind such a write on the same connection. On another
 * connection it could overtake the write, so it waits (key_order.h).
 *
 * A write is remembered until its late answer comes or its connection is gone; also on the main
 * connection, which may be replaced. At UNSETTLED_MAX the oldest write is forgotten: a request that
 * waits for it is sent and may take effect first. Owns no pending. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "requests/pending.h"

enum { UNSETTLED_MAX = 1024 };

struct unsettled { /* starts zeroed */
	struct unsettled_write {
		uint64_t key_hash, wire_id;
		uint32_t connection;
	} writes[UNSETTLED_MAX]; /* the oldest first */
	size_t n;
};

/* p was sent and has timed out. True: an older write was forgotten for it. */
bool unsettled_give_up(struct unsettled *u, const struct pending *p);
/* The write of this id was answered (several were, if they were combined; 0: none), or this
 * connection is gone (0: none). True: requests that waited for a write may go on. */
bool unsettled_over(struct unsettled *u, uint64_t wire_id, uint32_t connection);

/* Is there a write on this connection? */
bool unsettled_is_on(const struct unsettled *u, uint32_t connection);
/* Is there a write for this key on another connection than this one? */
bool unsettled_has(const struct unsettled *u, uint64_t key_hash, uint32_t connection);
