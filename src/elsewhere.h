/* elsewhere.h - what may take effect yet on another connection than the one that requests go out
 * on: requests that are on their way on those that were left, and writes whose time was up there.
 *
 * A later request of the same client for the same key could be the faster one, so it waits
 * (router.h). Connections are called lanes here, as there.
 *
 * Writes that were given up are kept for as long as their connection is there or until their late
 * answer comes; also those on the present lane, since that may be left. Of more than OVERDUE_MAX
 * the oldest is forgotten: a request that waited for it goes out, and may take effect before it.
 * Owns no pending: it counts them and remembers numbers. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pending.h"

enum { OVERDUE_MAX = 1024 };

/* A connection that requests do not go out on any more, while some are still on their way there. */
struct left_lane {
	uint32_t lane;
	unsigned n; /* on their way */
};

/* A write whose time was up before its answer came. On its connection it may take effect yet. */
struct overdue {
	uint64_t key_hash, wire_id;
	uint32_t lane;
};

struct elsewhere {
	uint32_t lane; /* the present one */
	struct left_lane *left;
	size_t n_left;
	struct overdue overdue[OVERDUE_MAX]; /* the oldest first */
	size_t n_overdue;
	bool overdue_elsewhere; /* one of them is not on the present lane */
};

void elsewhere_fini(struct elsewhere *e); /* zeroed in the beginning */

/* There was no lane, and this is the present one now. */
void elsewhere_begin(struct elsewhere *e, uint32_t lane);
/* The present lane is left for this one, while so many are on their way there. */
void elsewhere_move(struct elsewhere *e, uint32_t lane, unsigned on_way);
/* One that was sent on this lane, not the present one, is not on its way any more. True: it was the
 * last one there. */
bool elsewhere_landed(struct elsewhere *e, uint32_t lane);
/* How many are on their way on this lane, of so many on all. */
unsigned elsewhere_count(const struct elsewhere *e, uint32_t lane, unsigned all);

/* The time of this one, which was sent, is up. True: an older one was forgotten for it, and whoever
 * waited for that may go on. */
bool elsewhere_give_up(struct elsewhere *e, const struct pending *p);
/* It was answered, or its connection is gone, for all on that lane. True: whoever waited for that
 * may go on. */
bool elsewhere_answered(struct elsewhere *e, uint64_t wire_id);
bool elsewhere_lane_gone(struct elsewhere *e, uint32_t lane);

/* Was a write for this key given up on another lane than the present one? */
bool elsewhere_has_overdue(const struct elsewhere *e, uint64_t key_hash);

static inline bool elsewhere_is_empty(const struct elsewhere *e)
{
	return !e->n_left && !e->overdue_elsewhere;
}
