/* answers.h - the unanswered requests of each client, and the order in which their answers leave.
 *
 * An answer with a messageId goes straight to its client's output. One without waits, as
 * PENDING_ANSWERED, until those before it are out. A held request (a subscribe, a token) that comes
 * to the head is told so, since it may be possible to answer it now.
 *
 * Owns the memory of all pendings, the lists peer::pendings and peer::ordered, and what is kept of
 * answers. What an answer says, and when there is one, is decided above (router.h). */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "requests/pending.h"
#include "base/pool.h"
#include "base/span.h"

struct answers {
	struct pool pool;
	/* Of a request that is held: it is the next of its client to be answered. Once each. */
	void (*turn)(void *owner, struct pending *p);
	void *owner;
};

void answers_init(struct answers *a, void (*turn)(void *owner, struct pending *p), void *owner);
void answers_fini(struct answers *a);
void answers_join(struct peer *peer);

/* A pending of the peer, with room for so much text. with_id: it does not wait for others. */
struct pending *answers_new(struct answers *a, struct peer *peer, size_t text_max, bool with_id);

/* Where the answer's line goes. answers_done() must follow. */
struct buf *answers_begin(struct pending *p);
/* The line is there: it was handed on and p is freed, or it is kept. Others that waited for it
 * leave. */
void answers_done(struct answers *a, struct pending *p);
/* In the place of answers_begin() and what is written then: this object with the client's id. It
 * holds a secret, so what is ours of the line is wiped once it is out. */
void answers_put_secret(struct pending *p, struct span object);

/* A line that is known at once, and has no pending so far. */
void answers_say(struct answers *a, struct peer *peer, struct span line, bool with_id);

/* How long is the first answer that is kept? 0: none is. */
size_t answers_first_kept(const struct peer *peer);

/* Would its answer leave at once? */
bool answers_is_next(const struct pending *p);

/* There will be no answer. */
void answers_forget(struct answers *a, struct pending *p);
/* The same when the client leaves, in two steps: from here on it is none of the client's ... */
void answers_orphan(struct pending *p);
void answers_drop(struct answers *a, struct pending *p); /* ... and it is freed */
