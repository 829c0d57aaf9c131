/* inflight.h - the requests that were sent and not yet answered: found by the id that their frame
 * carries.
 *
 * An id is a place in the table and a generation that is new each time the place is used, so an
 * answer that comes late, twice, or out of the blue finds nothing. The ids fit in 53 bits, which
 * every JSON library carries exactly.
 *
 * It also knows what may not be sent again, since a later request of the same client for the same
 * key would then come before it: a read after a lost connection, when a later request took effect,
 * or may have (overtaken); one that the rate limit refused, likewise (followed).
 */
#pragma once

#include "requests/pending.h"

enum { INFLIGHT_MAX = 65535 };

/* How many are on their way on a connection. */
struct connection_load {
	uint32_t connection;
	unsigned n;
};

struct inflight {
	struct pending **slots;
	uint32_t *free; /* a stack of free places */
	uint32_t n_slots, n_free;
	uint32_t limit;    /* of places in use; fewer than there are, if it was lowered */
	uint64_t sequence; /* of the last one that was sent */
	struct connection_load *connections; /* that some are on their way on */
	size_t n_connections;
	struct pending_list *keys; /* those with a key, in chains by key_hash, the latest last */
	size_t keys_mask;
};

void inflight_init(struct inflight *f, unsigned places); /* 1 … INFLIGHT_MAX */
void inflight_fini(struct inflight *f);                  /* the pendings stay their owner's */
/* Another number of places. What is on its way stays, even if that is more. */
void inflight_set(struct inflight *f, unsigned n_slots);

static inline unsigned inflight_count(const struct inflight *f)
{
	return f->n_slots - f->n_free;
}

static inline bool inflight_full(const struct inflight *f)
{
	return inflight_count(f) >= f->limit;
}

/* Sets p->inflight, its wire_id too; not when full. */
void inflight_add(struct inflight *f, struct pending *p, uint32_t connection);
unsigned inflight_on(const struct inflight *f,
		     uint32_t connection); /* how many are on this connection */
struct pending *inflight_find(const struct inflight *f, uint64_t wire_id); /* NULL: none */
/* The request for this key of this client that was sent last and is still on its way; NULL: none.
 */
struct pending *inflight_last_of_key(const struct inflight *f, uint64_t key_hash);

/* How one is not on its way any more. */
enum inflight_end {
	INFLIGHT_ANSWERED, /* it took effect now */
	INFLIGHT_SILENT,   /* without an answer: if it is a write it may have taken effect */
	INFLIGHT_BACK,     /* it is to be sent again */
	INFLIGHT_END_N
};

void inflight_remove(struct inflight *f, struct pending *p, enum inflight_end end);
/* Those that were sent before p can't be sent behind it. */
bool inflight_has_effect(const struct pending *p, enum inflight_end end);

/* All of them in the order in which they were sent, in an array that the caller frees; *n is their
 * number. */
struct pending **inflight_in_order(const struct inflight *f, size_t *n);
