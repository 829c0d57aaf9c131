/* inflight.h - requests that were sent and not yet answered, found by the id in their frame.
 *
 * An id is a slot of the table and a generation that changes with each use of the slot. An answer
 * that is late, repeated or made up therefore finds nothing. Ids have 53 bits, which every JSON
 * library carries exactly.
 *
 * The room also marks the requests that must not be sent again, since a later request of the same
 * client for the same key would then come first: reads to repeat after a lost connection
 * (overtaken) and requests that the rate limit refused (followed), if the later request took
 * effect or may have.
 *
 * Owns struct inflight_pending, not the pendings. */
#pragma once

#include "requests/pending.h"

enum {
	INFLIGHT_MAX = 65535,
	INFLIGHT_KEPT_OF = 64, /* of so many places, four can be kept for lone requests */
};

/* The number of requests in flight on a connection. */
struct connection_load {
	uint32_t connection;
	unsigned n;
};

struct inflight {
	struct pending **slots;
	uint32_t *free; /* stack of free slots */
	uint32_t n_slots, n_free;
	uint32_t limit;                      /* of slots in use; below n_slots if it was lowered */
	uint32_t n_lone;                     /* slots of lone requests */
	uint64_t sequence;                   /* of the request that was sent last */
	struct connection_load *connections; /* with requests in flight */
	size_t n_connections;
	struct pending_list *keys; /* requests with a key: chains by key_hash, the latest last */
	size_t keys_mask;          /* never fewer chains than requests, companions included */
	size_t n_keys;             /* requests in chains */
};

void inflight_init(struct inflight *f, unsigned limit); /* 1 … INFLIGHT_MAX */
void inflight_fini(struct inflight *f);
/* Changes the limit. Requests in flight stay, even if they are more. */
void inflight_set(struct inflight *f, unsigned limit);

static inline unsigned inflight_count(const struct inflight *f)
{
	return f->n_slots - f->n_free;
}

/* Places that are kept for lone requests, beside those that such requests have. */
static inline unsigned inflight_kept(const struct inflight *f)
{
	unsigned kept = f->limit / INFLIGHT_KEPT_OF * 4;

	return kept > f->n_lone ? kept - f->n_lone : 0;
}

/* Is there no place for a request? all: it may have one of those that are kept. */
static inline bool inflight_full(const struct inflight *f, bool all)
{
	return inflight_count(f) + (all ? 0 : inflight_kept(f)) >= f->limit;
}

/* Adds p, which is being sent on this connection. Not when full. */
void inflight_add(struct inflight *f, struct pending *p, uint32_t connection);
/* p, which was added, is lone: its place counts as one of those that are kept. */
void inflight_set_lone(struct inflight *f, struct pending *p);
/* The number of requests in flight on this connection. */
unsigned inflight_on(const struct inflight *f, uint32_t connection);
/* p goes along with the leader, which was added: it has no slot. */
void inflight_add_companion(struct inflight *f, struct pending *p, const struct pending *leader);
/* The slot of p, which is about to be removed, is its companion's from now on. */
void inflight_pass(struct inflight *f, struct pending *p, struct pending *companion);
/* NULL: no request in flight has this id. */
struct pending *inflight_find(const struct inflight *f, uint64_t wire_id);
/* The request in flight for this client and key that was sent last; NULL: there is none. */
struct pending *inflight_last_of_key(const struct inflight *f, uint64_t key_hash);

/* Why a request is no longer in flight. */
enum inflight_end {
	INFLIGHT_ANSWERED, /* it has taken effect */
	INFLIGHT_SILENT,   /* without an answer: a write may have taken effect */
	INFLIGHT_BACK,     /* it is to be sent again */
	INFLIGHT_END_N
};

void inflight_remove(struct inflight *f, struct pending *p, enum inflight_end end);
/* Does this end of p bar earlier requests for its key from being sent again? */
bool inflight_has_effect(const struct pending *p, enum inflight_end end);

/* All requests in flight in the order of sending: an array that the caller frees, of length *n. */
struct pending **inflight_in_order(const struct inflight *f, size_t *n);
