/* elsewhere.h - writes whose time was up before their answer came, and that may take effect yet.
 *
 * On the connection that requests go out on, a later request for the key comes behind such a write.
 * On another one it could overtake it, so it waits (keyorder.h). Connections are called lanes here,
 * as in router.h.
 *
 * A write is remembered until its late answer comes or its lane is gone; also on the present lane,
 * since that may be left. Of more than OVERDUE_MAX the oldest is forgotten: a request that waited
 * for it goes out, and may take effect before it. Owns no pending. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pending.h"

enum { OVERDUE_MAX = 1024 };

struct elsewhere { /* zeroed in the beginning */
	struct overdue {
		uint64_t key_hash, wire_id;
		uint32_t lane;
	} overdue[OVERDUE_MAX]; /* the oldest first */
	size_t n;
};

/* The time of this one, which was sent, is up. True: an older one was forgotten for it. */
bool elsewhere_give_up(struct elsewhere *e, const struct pending *p);
/* It was answered, or its lane is gone. True: requests that waited for it may go on. */
bool elsewhere_answered(struct elsewhere *e, uint64_t wire_id);
bool elsewhere_lane_gone(struct elsewhere *e, uint32_t lane);

/* Was any write given up on this lane? */
bool elsewhere_is_on(const struct elsewhere *e, uint32_t lane);
/* Was a write for this key given up on another lane than this one? */
bool elsewhere_has(const struct elsewhere *e, uint64_t key_hash, uint32_t lane);
