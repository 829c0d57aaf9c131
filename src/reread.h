/* reread.h - keys that the daemon reads itself: the value that a new subscriber wants to begin
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

#include "fanout.h"
#include "router.h"
#include "subs.h"

struct reread;

struct reread_settings {
	unsigned at_once;  /* readings on their way */
	size_t held_bytes; /* changes held back for one reading; beyond, they go out and it begins
			      anew */
};

struct reread_ops {
	int64_t (*wall_ms)(void *owner); /* for the timestamps of what is told */
};

struct reread *reread_new(const struct reread_settings *settings, const struct reread_ops *ops,
			  void *owner, struct subs *subs, struct fanout *fanout,
			  struct router *router, struct stats *stats);
void reread_free(struct reread *r);
void reread_set(struct reread *r, const struct reread_settings *settings); /* from now on */

/* The client wants the value of the key that it is subscribed to, behind what it has been sent. */
void reread_initial(struct reread *r, struct sub *sub);
/* All subscribers of the key may have missed changes. */
void reread_resync(struct reread *r, struct topic *t);
/* The sub is about to end; leaves: with its client. */
void reread_forget(struct reread *r, struct sub *sub, bool leaves);

/* Readings are sent from now on; or wait, the connection being lost: what is on its way then does
 * not count. */
void reread_start(struct reread *r, int64_t now);
void reread_pause(struct reread *r);

/* A change was lost on its way here. A value that has seen it has no certain place among the
 * others, so what is being read has failed for this time. */
void reread_doubt(struct reread *r);

/* Sends readings that were asked for, as far as there is room. */
void reread_pump(struct reread *r, int64_t now);

/* See struct fanout_ops and struct router_ops. */
bool reread_hold(struct reread *r, struct sub *sub, struct note *note);
void reread_sent(struct reread *r, void *reading);
void reread_end(struct reread *r, void *reading, enum router_read_end end,
		const struct wire_frame *answer, int64_t now);

size_t reread_waiting(const struct reread *r); /* readings that are not done */
