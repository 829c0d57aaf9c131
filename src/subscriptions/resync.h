/* resync.h - keys that the daemon reads itself: the value that a new subscriber wants to begin
 * with, and what a key has become while the connection was lost.
 *
 * One reading serves all that wait for the key. Initial values take their turn among the clients'
 * requests, rereading after a loss comes behind them all; so many are on their way at once as the
 * settings allow.
 *
 *     *     queued -> sent -> done    an answer: 200 or 404
 *        ^       |
 *        +-------+       connection lost or left, rate limit; failed, or no turn in time
 *                +----> gap          ... TRIES times: its subscribers are told to look themselves
 *
 * A key over which the service may have closed the connection (blame.h) is read alone the next
 * time. After a few such losses its subscribers are told of a gap, and it is not read until ten
 * minutes have passed; a reading that is answered clears it.
 *
 * Nor is a key read that the present token does not cover any more: its subscribers have a gap, and
 * changes that the value has seen could come behind it. Once a token covers it again it is read.
 *
 * An answer and a change may cross on the way. So while a reading is sent, changes of its key are
 * held back from those who wait for it, and then told in order: the value comes behind the last
 * change that it equals, and before all of them if there is none, so that nobody is left with a
 * value that is older than a change. A change is never left out for it.
 *
 * Nor does the value come before changes that it has seen, if the service keeps to the order of
 * what it sends on one connection: a value that comes on a connection that was left meanwhile is
 * asked for again, a few times. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "subscriptions/fanout.h"
#include "requests/router.h"
#include "subscriptions/topics.h"

struct resync;

struct resync_settings {
	unsigned at_once;  /* readings on their way */
	size_t held_bytes; /* changes held back for one reading; beyond, they go out and it begins
			      anew */
};

struct resync_ops {
	int64_t (*wall_ms)(void *owner); /* for the timestamps of what is told */
};

struct resync *resync_new(const struct resync_settings *settings, const struct resync_ops *ops,
			  void *owner, struct topics *topics, struct fanout *fanout,
			  struct router *router, struct stats *stats);
void resync_free(struct resync *r);
void resync_set(struct resync *r, const struct resync_settings *settings); /* from now on */

void resync_join(struct peer *peer);

/* The client wants the value of the key that it is subscribed to, behind what it has been sent. */
void resync_initial(struct resync *r, struct sub *sub);
/* All subscribers of the key may have missed changes. */
void resync_topic(struct resync *r, struct topic *t);
/* The sub is about to end; leaves: with its client. */
void resync_forget(struct resync *r, struct sub *sub, bool leaves);

/* Readings are sent from now on; or wait, the connection being lost: what is on its way then does
 * not count. */
void resync_start(struct resync *r, int64_t now);
void resync_pause(struct resync *r);

/* A change was lost on its way here. A value that has seen it has no certain place among the
 * others, so what is being read has failed for this time. */
void resync_doubt(struct resync *r);

/* Sends readings that were asked for, as far as there is room. */
void resync_pump(struct resync *r, int64_t now);

/* See struct fanout_ops and struct router_ops. */
bool resync_hold_back(struct resync *r, struct sub *sub, struct shared_line *shared);
void resync_read_sent(struct resync *r, void *reading);
void resync_read_end(struct resync *r, void *reading, enum router_read_end end,
		     const struct wire_frame *answer, int64_t now);

size_t resync_waiting(const struct resync *r); /* readings that are not done */
