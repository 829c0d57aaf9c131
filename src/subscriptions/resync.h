/* resync.h - keys that the daemon reads itself: initial values for new subscribers, and values that
 * may have changed while the connection was lost.
 *
 * One reading serves all subscribers that wait for the key. Readings for initial values take turns
 * with the clients' requests; readings after a loss come after all requests. The settings limit how
 * many are in flight.
 *
 *     *     queued -> sent -> done    answered with 200 or 404
 *        ^       |
 *        +-------+       the connection was lost or replaced, or the rate limit refused it; or it
 *                |       failed or was not sent in time
 *                +----> gap          the last of these TRIES times: its subscribers get a gap
 *
 * A key over which the service may have closed the connection (blame.h) is read alone the next
 * time. After a few such losses its subscribers get a gap, and the key is not read for ten minutes.
 * An answered reading clears the record.
 *
 * A key that the present token does not cover is not read: its subscribers have a gap, and changes
 * that the value includes could arrive later. It is read once a token covers it again.
 *
 * Order. A value and a change may cross. While a reading is sent, the changes of its key are
 * therefore held back from the subscribers that wait for it. Then all are told in order: the value
 * comes behind the last held change with the same value, or before all changes if there is none. No
 * subscriber is left with a value older than a change, and no change is left out.
 *
 * The value never comes before a change that it includes, provided that the service keeps its
 * messages in order on each connection. A value that arrives on a former connection is therefore
 * read again, a few times. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "subscriptions/fanout.h"
#include "requests/router.h"
#include "subscriptions/topics.h"

struct resync;

struct resync_settings {
	unsigned at_once;  /* readings that the router has, at most */
	size_t held_bytes; /* held changes of one reading; beyond, they are delivered and the key is
			      read again */
};

struct resync_ops {
	int64_t (*wall_ms)(void *owner); /* for timestamps */
};

struct resync *resync_new(const struct resync_settings *settings, const struct resync_ops *ops,
			  void *owner, struct topics *topics, struct fanout *fanout,
			  struct router *router, struct stats *stats);
void resync_free(struct resync *r);
void resync_set(struct resync *r,
		const struct resync_settings *settings); /* replaces the settings */

void resync_join(struct peer *peer);

/* The subscriber gets the value of its key, behind the lines sent so far. */
void resync_initial(struct resync *r, struct sub *sub);
/* All subscribers of the key may have missed changes: reads the key for them. */
void resync_topic(struct resync *r, struct topic *t);
/* The subscription is about to end. leaves: because its client leaves. */
void resync_forget(struct resync *r, struct sub *sub, bool leaves);

/* Starts to send readings; or stops, since the connection was lost: readings in flight do not
 * count. */
void resync_start(struct resync *r, int64_t now);
void resync_pause(struct resync *r);

/* A change could not be used. A value that includes it can not be ordered, so the readings in
 * flight fail. */
void resync_doubt(struct resync *r);

/* Sends queued readings, as far as the settings allow. */
void resync_pump(struct resync *r, int64_t now);

/* See struct fanout_ops and struct router_ops. */
bool resync_hold_back(struct resync *r, struct sub *sub, struct shared_line *shared);
void resync_read_sent(struct resync *r, void *reading);
void resync_read_end(struct resync *r, void *reading, enum router_read_end end,
		     const struct wire_frame *answer, int64_t now);

size_t resync_waiting(const struct resync *r); /* readings that are queued or sent */
