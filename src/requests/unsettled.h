/* unsettled.h - writes whose time was up before their answer came, and that may take effect yet.
 *
 * On the connection that requests go out on, a later request for the key comes behind such a write.
 * On another one it could overtake it, so it waits (key_order.h). Connections are called
 * connections here, as in router.h.
 *
 * A write is remembered until its late answer comes or its connection is gone; also on the present
 * connection, since that may be left. Of more than UNSETTLED_MAX the oldest is forgotten: a request
 * that waited for it goes out, and may take effect before it. Owns no pending. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "requests/pending.h"

enum { UNSETTLED_MAX = 1024 };

struct unsettled { /* zeroed in the beginning */
	struct overdue {
		uint64_t key_hash, wire_id;
		uint32_t connection;
	} overdue[UNSETTLED_MAX]; /* the oldest first */
	size_t n;
};

/* The time of this one, which was sent, is up. True: an older one was forgotten for it. */
bool unsettled_give_up(struct unsettled *u, const struct pending *p);
/* It was answered, or its connection is gone. True: requests that waited for it may go on. */
bool unsettled_answered(struct unsettled *u, uint64_t wire_id);
bool unsettled_connection_lost(struct unsettled *u, uint32_t connection);

/* Was any write given up on this connection? */
bool unsettled_is_on(const struct unsettled *u, uint32_t connection);
/* Was a write for this key given up on another connection than this one? */
bool unsettled_has(const struct unsettled *u, uint64_t key_hash, uint32_t connection);
