/* conflation.h - what a client is told once it reads again: of each key the latest change.
 *
 * While a client has more unread output than output_soft allows, its notifications wait here. A
 * change takes the place of an earlier one of the same key, which is counted as skipped; other
 * lines (gap, connection, a value that was read) keep their place: what comes later of their key
 * stands behind them. Order between keys is that of each key's first waiting change. Notes are
 * shared, so what waits for a thousand slow clients is there once. */
#pragma once

#include <stdbool.h>
#include <sys/queue.h>

#include "base/map.h"
#include "base/shared_line.h"

struct conflation_entry {
	struct map_node by_key; /* lag::keys, if it can be replaced */
	bool replaceable;
	TAILQ_ENTRY(conflation_entry) order;
	struct shared_line *shared;
	uint64_t skipped; /* changes that it has replaced */
};

struct conflation {
	struct map keys;
	TAILQ_HEAD(, conflation_entry) order;
	size_t bytes; /* of all lines that wait */
};

struct conflation *conflation_new(void);
void conflation_free(struct conflation *conflation);

/* Takes a reference of its own. Returns whether it has replaced another. */
bool conflation_put(struct conflation *conflation, struct shared_line *shared);

/* Takes out what comes first: 1, with the caller's reference in *note; 0: nothing waits. */
int conflation_take(struct conflation *conflation, struct shared_line **shared, uint64_t *skipped);

/* Drops what is about keys and patterns that the caller does not want any more. */
void conflation_keep(struct conflation *conflation,
		     bool (*wanted)(void *owner, const struct shared_line *shared), void *owner);
