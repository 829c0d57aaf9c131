/* fanout.h - lines for many clients: each change once to each client that is subscribed to it.
 *
 * A line is made once (shared_line.h) and every receiver's output refers to it. A client gets a
 * change once however many of its subscriptions match. One whose unread output is beyond
 * output_soft is told later, of each key the latest change (conflation.h); beyond output_hard its
 * socket's owner drops it (client.h). Slow clients cost the others nothing.
 *
 * It knows the clients that have subscriptions: its audience. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "codec/notification.h"
#include "base/shared_line.h"
#include "requests/pending.h"
#include "codec/stats.h"
#include "subscriptions/topics.h"

struct fanout;

struct fanout_ops {
	/* Lines were put into the peer's output. */
	void (*changed)(void *owner, struct peer *peer);
	/* Write out what the peer's socket takes now: its output is long, but it may only have had
	 * no turn. Must not free the peer. */
	void (*flush)(void *owner, struct peer *peer);
	/* Is this change held back from this subscriber for now? (resync.h) */
	bool (*hold)(void *owner, struct sub *sub, struct shared_line *shared);
};

struct fanout *fanout_new(size_t output_soft, const struct fanout_ops *ops, void *owner,
			  struct stats *stats);
void fanout_free(struct fanout *f); /* all peers have left */
void fanout_set(struct fanout *f, size_t output_soft);

void fanout_join(struct peer *peer);
void fanout_leave(struct peer *peer);
/* The peer has its first subscription, or has lost its last one. */
void fanout_update_audience(struct fanout *f, struct peer *peer);

/* A change of the service to everybody whom it concerns. key: decoded. */
void fanout_change(struct fanout *f, struct topics *topics, const struct wire_frame *frame,
		   const struct notification *change, struct span key);

/* One line to one client, to all that are subscribed to a topic, to the whole audience. */
void fanout_push(struct fanout *f, struct peer *peer, struct shared_line *shared);
void fanout_push_topic(struct fanout *f, const struct topic *t, struct span line);
void fanout_push_all(struct fanout *f, struct span line);

/* The client has read: tells it of what it has missed, as far as output_soft allows. */
void fanout_catch_up(struct fanout *f, struct peer *peer);
/* The client has ended subscriptions: what waits for it and matches none that is left is dropped.
 */
void fanout_drop_unwanted(const struct topics *topics, struct peer *peer);
