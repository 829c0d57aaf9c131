/* answers.h - the unanswered requests of each client, and the order of their answers.
 *
 * An answer with a messageId goes straight to its client's output. An answer without one waits, as
 * PENDING_ANSWERED, until the earlier requests without a messageId are answered. A deferred request
 * that becomes the first of them is reported by turn(), since it may be possible to answer it now.
 *
 * Owns the memory of all pendings and struct answers_peer. The router decides when a request is
 * answered and with which text. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "requests/pending.h"
#include "base/pool.h"
#include "base/span.h"

struct answers {
	struct pool pool;
	/* A deferred request is the next of its client to be answered. Called once for each. */
	void (*turn)(void *owner, struct pending *p);
	void *owner;
};

void answers_init(struct answers *a, void (*turn)(void *owner, struct pending *p), void *owner);
void answers_fini(struct answers *a);
void answers_join(struct peer *peer);

/* A pending of the peer with room for text_max bytes. with_id: it has a messageId. */
struct pending *answers_new(struct answers *a, struct peer *peer, size_t text_max, bool with_id);

/* Where to append the answer's line. answers_done() must follow. */
struct buf *answers_begin(struct pending *p);
/* The line is appended: p is freed, or kept until its turn. Puts out kept answers that follow. */
void answers_done(struct answers *a, struct pending *p);
/* In place of answers_begin(): the answer is this object with the client's id. It holds a secret,
 * so our memory of the line is wiped after it is written. */
void answers_put_secret(struct pending *p, struct span object);

/* Answers a request that has no pending. */
void answers_say(struct answers *a, struct peer *peer, struct span line, bool with_id);

/* Length of the first answer that is kept; 0: none is. */
size_t answers_first_kept(const struct peer *peer);

/* Would its answer be put out at once? */
bool answers_is_next(const struct pending *p);

/* Drops a request without an answer. */
void answers_forget(struct answers *a, struct pending *p);
/* The same in two steps, for a client that leaves: removed from the client's lists ... */
void answers_orphan(struct pending *p);
void answers_drop(struct answers *a, struct pending *p); /* ... and freed */
