/* subscriptions.h - subscriptions from the request to the last notification.
 *
 * The service ties subscriptions to a token: what is wanted has to be listed when the token is
 * made. So a subscribe waits (a join) until a token covers all that it asks for and that token's
 * connection is the one that is believed; then it is answered, and live from that moment. What is
 * covered already is live at once.
 *
 *     subscribe -> join -> ops->wanted() -> subscriptions_make_list() -> the owner mints, connects,
 * moves over ^                                                              |
 *        +-- its deadline, no room, refused: an error                   v
 *                                          subscriptions_live(): joins are answered, in order
 *
 * A list may be refused because of one name in it that the service does not like. So after a
 * refusal half of the waiting joins are tried, and so on until the one is found; with each success
 * as many
 * again are tried at once. Whoever has named such a thing before is tried behind the others.
 *
 * After the connection was lost unplanned (subscriptions_lost() … subscriptions_live()) the
 * audience is told so, patterns get a gap and keys are read again (resync.h). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "subscriptions/fanout.h"
#include "subscriptions/resync.h"
#include "requests/router.h"
#include "subscriptions/topics.h"

struct subscriptions;

struct subscriptions_settings {
	size_t output_soft;
	unsigned reads_at_once;
	size_t held_bytes;     /* of changes, while a key is read */
	size_t max_subs;       /* subscriptions of all clients */
	size_t max_peer_subs;  /* of one */
	size_t max_peer_globs; /* ... to patterns that go on behind a *: every change may
				  have to be compared with all of them */
	size_t max_topics;     /* different keys and patterns: each list takes them all in hand */
	size_t max_bytes;      /* memory of all of them, about */
};

struct subscriptions_ops {
	void (*changed)(void *owner, struct peer *peer); /* as struct fanout_ops */
	void (*flush)(void *owner, struct peer *peer);
	/* Something is wanted that the present token, and one that is on its way, do not cover. */
	void (*wanted)(void *owner);
	/* Why subscriptions are not live for so long: a sentence; NULL: no reason is known. */
	const char *(*why_not_live)(void *owner);
	/* The client may not read this key or pattern any more: a subscription has ended, or one
	 * that was not live yet is refused. */
	void (*forbidden)(void *owner, struct peer *peer, struct span name);
	int64_t (*wall_ms)(void);
	int64_t (*boot_ms)(void); /* which goes on during sleep, and never jumps */
	int64_t (*mono_ms)(void); /* of the clock that `now` is read from */
};

struct subscriptions *subscriptions_new(const struct subscriptions_settings *settings,
					const struct subscriptions_ops *ops, void *owner,
					struct router *router, struct stats *stats, uint64_t seed);
void subscriptions_free(struct subscriptions *f); /* all peers have left */
void subscriptions_set(struct subscriptions *f,
		       const struct subscriptions_settings *settings); /* from now on */

void subscriptions_join(struct subscriptions *f, struct peer *peer);
void subscriptions_leave(struct subscriptions *f, struct peer *peer); /* after router_leave() */
void subscriptions_caught_up(struct subscriptions *f,
			     struct peer *peer); /* its socket has taken something */

void subscriptions_subscribe(struct subscriptions *f, struct peer *peer,
			     const struct request *request, int64_t now);
void subscriptions_unsubscribe(struct subscriptions *f, struct peer *peer,
			       const struct request *request);

/* What the client may read has changed: what it may not read any more ends, with a line for each,
 * and requests that still wait to be live are refused. */
void subscriptions_restrict(struct subscriptions *f, struct peer *peer);

/* A notification that is believed. notification_of() it with subscriptions_seed(). */
void subscriptions_change(struct subscriptions *f, const struct wire_frame *frame,
			  const struct notification *change);
uint64_t subscriptions_seed(const struct subscriptions *f);
/* A change that can't be told in order any more: its subscribers get a gap, and the key is read. */
void subscriptions_straggler(struct subscriptions *f, const struct wire_frame *frame,
			     const struct notification *change);

/* The list for the next token, as a JSON array of at most budget bytes appended to *list; returns
 * how many strings it has. What has no room in it is refused at once. */
size_t subscriptions_make_list(struct subscriptions *f, size_t budget, struct buf *list);
/* The connection with the token of that list is believed from now on; if none was made since the
 * last time, a connection with the old token is. */
void subscriptions_live(struct subscriptions *f);
/* There will be no token of that list for now. */
void subscriptions_list_failed(struct subscriptions *f);
/* ... since the service refuses the list itself. Returns whether another one is worth trying at
 * once. */
bool subscriptions_list_refused(struct subscriptions *f, const char *why);
/* No token can be had at all for now: those that wait get an error. */
void subscriptions_refuse_all(struct subscriptions *f, const char *why, long retry_ms);

/* The connection was lost; it was heard of last at this time of ops->boot_ms(). */
void subscriptions_lost(struct subscriptions *f, int64_t heard_ms);
/* A change has come that can't be used, nobody knows of what: see resync_doubt(). */
void subscriptions_unreadable(struct subscriptions *f);
/* Such have come since this time of ops->boot_ms(): all subscribers may have missed something. Keys
 * are not read for them as after a loss: without the change that it has seen a value has no place
 * among those that are still to come. */
void subscriptions_missed(struct subscriptions *f, int64_t since_ms);
/* From now on the connection has no token: nothing is wanted any more. */
void subscriptions_without(struct subscriptions *f);
/* Nothing is read any more. router_stop() follows, after which subscribes are refused. */
void subscriptions_stop(struct subscriptions *f);

/* Sends the last line to all clients with subscriptions: the daemon ends. */
void subscriptions_end(struct subscriptions *f);

bool subscriptions_wants(
	const struct subscriptions *f); /* is anything subscribed to, or waited for? */
bool subscriptions_is_stale(
	const struct subscriptions *f); /* ... that the token made last does not cover? */

/* What the router says: see struct router_ops. */
void subscriptions_deferred_turn(struct subscriptions *f, struct pending *p);
const char *subscriptions_deferred_end(struct subscriptions *f, struct pending *p);
void subscriptions_read_sent(struct subscriptions *f, void *reading);
void subscriptions_read_end(struct subscriptions *f, void *reading, enum router_read_end end,
			    const struct wire_frame *answer, int64_t now);

/* For the status. */
struct subscriptions_counts {
	size_t keys, patterns; /* different ones */
	size_t subscriptions;
	size_t waiting;   /* subscribe requests */
	size_t left_out;  /* keys and patterns for which the token has no room */
	size_t rereading; /* keys */
	size_t bytes;     /* memory, about */
	bool live;
};
struct subscriptions_counts subscriptions_counts(const struct subscriptions *f);
