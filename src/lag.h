/* lag.h - what a client is told once it reads again: of each key the latest change.
 *
 * While a client has more unread output than output_soft allows, its notifications wait here. A
 * change takes the place of an earlier one of the same key, which is counted as skipped; other
 * lines (gap, connection, a value that was read) keep their place: what comes later of their key
 * stands behind them. Order between keys is that of each key's first waiting change. Notes are
 * shared, so what waits for a thousand slow clients is there once. */
#pragma once

#include <stdbool.h>
#include <sys/queue.h>

#include "map.h"
#include "note.h"

struct lag_entry {
	struct map_node by_key; /* lag::keys, if it can be replaced */
	bool replaceable;
	TAILQ_ENTRY(lag_entry) order;
	struct note *note;
	uint64_t skipped; /* changes that it has replaced */
};

struct lag {
	struct map keys;
	TAILQ_HEAD(, lag_entry) order;
	size_t bytes; /* of all lines that wait */
};

struct lag *lag_new(void);
void lag_free(struct lag *lag);

/* Takes a reference of its own. Returns whether it has replaced another. */
bool lag_put(struct lag *lag, struct note *note);

/* Takes out what comes first: 1, with the caller's reference in *note; 0: nothing waits. */
int lag_take(struct lag *lag, struct note **note, uint64_t *skipped);

/* Drops what is about keys and patterns that the caller does not want any more. */
void lag_keep(struct lag *lag, bool (*wanted)(void *owner, const struct note *note), void *owner);
