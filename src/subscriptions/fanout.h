/* fanout.h - one line for many clients: each client gets a change once.
 *
 * A line is made once (shared_line.h), and the output of each receiver refers to it. A client gets
 * a change once, however many of its subscriptions match. A client whose unread output exceeds
 * output_soft gets the latest change of each key later (conflation.h); beyond output_hard the owner
 * of its socket drops it (client.h). Slow clients do not delay others.
 *
 * Owns struct fanout_peer and the list of clients with subscriptions, the audience. */
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
	/* peer::out or the conflation has grown. */
	void (*changed)(void *owner, struct peer *peer);
	/* Write what the peer's socket takes: its output is long, perhaps only because it had no
	 * turn yet. Must not free the peer. */
	void (*flush)(void *owner, struct peer *peer);
	/* Is this change held back from this subscriber for now? (resync.h) */
	bool (*hold_back)(void *owner, struct sub *sub, struct shared_line *shared);
};

struct fanout *fanout_new(size_t output_soft, const struct fanout_ops *ops, void *owner,
			  struct stats *stats);
void fanout_free(struct fanout *f); /* all peers have left */
void fanout_set(struct fanout *f, size_t output_soft);

void fanout_join(struct peer *peer);
void fanout_leave(struct peer *peer);
/* Call after the peer's first subscription was made or its last one has ended. */
void fanout_update_audience(struct fanout *f, struct peer *peer);

/* Delivers a change of the service to all its subscribers. key: decoded. */
void fanout_change(struct fanout *f, struct topics *topics, const struct wire_frame *frame,
		   const struct notification *change, struct span key);

/* Delivers a line to one client, to the subscribers of a topic, to the audience. */
void fanout_push(struct fanout *f, struct peer *peer, struct shared_line *shared);
void fanout_push_topic(struct fanout *f, const struct topic *t, struct span line);
void fanout_push_all(struct fanout *f, struct span line);

/* The client has read: gives it the conflated changes, up to output_soft. */
void fanout_catch_up(struct fanout *f, struct peer *peer);
/* The client has ended subscriptions: drops the conflated lines that match no other. */
void fanout_drop_unwanted(const struct topics *topics, struct peer *peer);
