/* cache.h - reads that are answered from memory, and never wrongly.
 *
 * A value is read from the service once, kept true by a subscription, and served until something
 * may have changed it. doc/cache.md has the promises, the table of events and the argument; the
 * rules for one value are truth.h's, those for a mirror mirror.h's.
 *
 * The cache sees each read and write at four places of its life (struct router_watch), each
 * notification when it arrives, and how connections come and go. What it needs itself it asks for
 * as a client does: with a peer of its own, which subscribes through subscriptions.h and reads
 * through the router. So it has no descriptors and sends nothing. It reads no clock but through its
 * ops.
 *
 * Owns what is remembered. Knows nothing of access rules: who asks has been let through. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "codec/notification.h"
#include "codec/request.h"
#include "codec/stats.h"
#include "codec/wire.h"
#include "requests/pending.h"
#include "requests/router.h"
#include "subscriptions/subscriptions.h"

struct cache;

enum { CACHE_PATTERNS_MAX = 64 };

struct cache_settings {
	const char *const *keys; /* globs */
	size_t n_keys;
	const char *const *mirrors; /* a text and one *; none begins as another does */
	size_t n_mirrors;           /* with n_keys at most CACHE_PATTERNS_MAX */
	size_t memory;
	int64_t max_age_ms, max_stale_ms;
	bool trust; /* a notification's value is the stored value */
	int64_t request_timeout_ms;
	unsigned reads_at_once; /* of keys of mirrors that have changed */
};

struct cache_ops {
	int64_t (*mono_ms)(void); /* the clock of `now`; cheap */
	int64_t (*boot_ms)(void); /* which goes on during sleep */
	/* Call cache_expire() at this time, sooner than was said before. */
	void (*wake_at)(void *owner, int64_t at);
};

/* seed: that of the router's and the subscriptions' hashes. */
struct cache *cache_new(const struct cache_settings *settings, const struct cache_ops *ops,
			void *owner, struct router *router, struct subscriptions *subscriptions,
			struct stats *stats, uint64_t seed);
void cache_stop(struct cache *c);  /* it asks for nothing any more */
void cache_leave(struct cache *c); /* its peer has left; requests that are over still find it */
void cache_free(struct cache *c);  /* after router_free() */
/* From now on. Other keys or mirrors: all is forgotten. */
void cache_set(struct cache *c, const struct cache_settings *settings);

/* Answers a get or range from memory; false: it can't, and somebody else must. */
bool cache_answers(struct cache *c, struct peer *peer, const struct request *request, int64_t now);

/* Is it the cache's own peer, whose output cache_heard() takes? */
bool cache_is_peer(const struct cache *c, const struct peer *peer);
void cache_heard(struct cache *c);

/* ---- what happens to the connection; each before the router or the subscriptions hear of it, if
 * nothing else is said ---- */

void cache_up(struct cache *c); /* requests go out on a connection again, or on another one */
/* After subscriptions_live(), or (without a token) subscriptions_without(). */
void cache_live(struct cache *c, bool token);
void cache_lost(struct cache *c, int64_t heard_ms);
/* The next connection leads to another service, or is another's there. */
void cache_elsewhere(struct cache *c);

/* A notification has arrived, on whichever connection, told to clients or not. */
void cache_arrived(struct cache *c, const struct wire_frame *frame);
/* ... and is told to clients now, in order. */
void cache_change(struct cache *c, const struct wire_frame *frame,
		  const struct notification *change);
/* Something was missed; may have been. */
void cache_missed(struct cache *c);

/* Does what is due. Returns when to call it again, or -1. */
int64_t cache_expire(struct cache *c, int64_t now);

/* ---- for the status ---- */

const struct peer *cache_peer(const struct cache *c);
struct cache_counts {
	bool live; /* reads are remembered, and served */
	size_t entries, bytes, mirrors;
};
struct cache_counts cache_counts(const struct cache *c);
/* Of mirror i; state: "loading", "whole", "too big" or "stale". */
struct cache_mirror {
	struct span pattern;
	const char *state;
	size_t keys;
};
struct cache_mirror cache_mirror(const struct cache *c, size_t i);
