/* conflation.h - what a slow reader is told once it reads again: the latest change of each key.
 *
 * While a client has more unread output than output_soft, its notifications wait here. A change
 * replaces an earlier one of the same key, which is counted as skipped. Other lines (a gap, the
 * connection's state, a value that was read) are never replaced, and later changes of their key
 * come behind them. Keys are in the order of their first waiting change. Lines are shared, so one
 * that waits for a thousand clients is in memory once. */
#pragma once

#include <stdbool.h>
#include <sys/queue.h>

#include "base/map.h"
#include "base/shared_line.h"
#include "requests/peer.h"

struct conflation_entry {
	struct map_node by_key; /* conflation::keys, if it is replaceable */
	bool replaceable;
	TAILQ_ENTRY(conflation_entry) order;
	struct shared_line *shared;
	uint64_t skipped; /* changes that this one has replaced */
};

struct conflation *conflation_new(void);
void conflation_free(struct conflation *conflation);

/* Takes a reference of its own. True: the line has replaced another. */
bool conflation_put(struct conflation *conflation, struct shared_line *shared);

/* Removes the first line. 1: *shared is the caller's reference; 0: nothing waits. */
int conflation_take(struct conflation *conflation, struct shared_line **shared, uint64_t *skipped);

/* Drops the lines that are not wanted. */
void conflation_keep(struct conflation *conflation,
		     bool (*wanted)(void *owner, const struct shared_line *shared), void *owner);
