/* subscriptions.h - subscriptions, from the request to the last notification.
 *
 * The service ties subscriptions to a token: the keys and patterns must be listed when the token is
 * minted. A subscribe therefore waits, as a join, until a token covers all its names and that
 * token's connection is the main one. Then it is answered and live. A subscribe whose names are
 * covered already is live at once.
 *
 *     subscribe -> join -> ops->wanted() -> subscriptions_make_list() -> token and connection
 *                    |                                                      |
 *                    +--> deadline, no room, refused: an error              v
 *                                    subscriptions_live(): joins are answered, in order
 *
 * The service may refuse a whole list because of one name. Half of the waiting joins are then
 * tried, and so on until the one is found; each success doubles the number again. A client that has
 * named something refused is suspect: its joins are tried after those of the others.
 *
 * After an unplanned loss of the connection (subscriptions_lost() … subscriptions_live()) the
 * audience is told, patterns get a gap and keys are read again (resync.h). */
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
	size_t held_bytes;     /* changes held while a key is read */
	size_t max_subs;       /* of all clients */
	size_t max_peer_subs;  /* of one client */
	size_t max_peer_globs; /* ... to patterns with text behind the first *, which every change
				  may have to be compared with */
	size_t max_topics;     /* different keys and patterns; the cost of a list grows with it */
	size_t max_bytes;      /* memory of all subscriptions, about */
};

struct subscriptions_ops {
	void (*changed)(void *owner, struct peer *peer); /* as struct fanout_ops */
	void (*flush)(void *owner, struct peer *peer);
	/* Some name is covered neither by the present token nor by one being made. */
	void (*wanted)(void *owner);
	/* Why subscriptions are not live for so long: a sentence; NULL: unknown. */
	const char *(*why_not_live)(void *owner);
	/* The access rules have ended a subscription of the client to this name, or refused one
	 * that was not live yet. */
	void (*forbidden)(void *owner, struct peer *peer, struct span name);
	int64_t (*wall_ms)(void);
	int64_t (*boot_ms)(void); /* continues during sleep, never jumps */
	int64_t (*mono_ms)(void); /* the clock of `now` */
};

struct subscriptions *subscriptions_new(const struct subscriptions_settings *settings,
					const struct subscriptions_ops *ops, void *owner,
					struct router *router, struct stats *stats, uint64_t seed);
void subscriptions_free(struct subscriptions *s); /* all peers have left */
void subscriptions_set(struct subscriptions *s,
		       const struct subscriptions_settings *settings); /* from now on */

void subscriptions_join(struct subscriptions *s, struct peer *peer);
void subscriptions_leave(struct subscriptions *s, struct peer *peer); /* after router_leave() */
void subscriptions_caught_up(struct subscriptions *s,
			     struct peer *peer); /* its socket has taken output */

void subscriptions_subscribe(struct subscriptions *s, struct peer *peer,
			     const struct request *request, int64_t now);
void subscriptions_unsubscribe(struct subscriptions *s, struct peer *peer,
			       const struct request *request);

/* The access rules for the client have changed. Ends the subscriptions that they forbid, with a
 * line for each, and refuses such joins. */
void subscriptions_restrict(struct subscriptions *s, struct peer *peer);

/* Delivers a notification. change: of notification_of() with subscriptions_seed(). */
void subscriptions_change(struct subscriptions *s, const struct wire_frame *frame,
			  const struct notification *change);
uint64_t subscriptions_seed(const struct subscriptions *s);
/* A change that can not be told in order: its subscribers get a gap, and the key is read. */
void subscriptions_straggler(struct subscriptions *s, const struct wire_frame *frame,
			     const struct notification *change);

/* Makes the list for the next token: appends a JSON array of at most budget bytes to *list and
 * returns the number of its strings. Joins with names that have no room are refused. */
size_t subscriptions_make_list(struct subscriptions *s, size_t budget, struct buf *list);
/* The main connection has the token of the list that was made last; or the old token, if none was
 * made since the last call. */
void subscriptions_live(struct subscriptions *s);
/* No token with the list that was made last could be had. */
void subscriptions_list_failed(struct subscriptions *s);
/* ... since the service refused the list itself. True: another list is worth trying at once. */
bool subscriptions_list_refused(struct subscriptions *s, const char *why);
/* No token can be had for now: refuses all joins that wait for one. */
void subscriptions_refuse_all(struct subscriptions *s, const char *why, long retry_ms);

/* The connection was lost; it was heard of last at this time of ops->boot_ms(). */
void subscriptions_lost(struct subscriptions *s, int64_t heard_ms);
/* A change has come that can't be used, nobody knows of what: see resync_doubt(). */
void subscriptions_unreadable(struct subscriptions *s);
/* Such have come since this time of ops->boot_ms(): all subscribers may have missed something. Keys
 * are not read for them as after a loss: without the change that it has seen a value has no place
 * among those that are still to come. */
void subscriptions_missed(struct subscriptions *s, int64_t since_ms);
/* From now on the connection has no token: nothing is wanted any more. */
void subscriptions_without(struct subscriptions *s);
/* Nothing is read any more. router_stop() follows, after which subscribes are refused. */
void subscriptions_stop(struct subscriptions *s);

/* Sends the last line to all clients with subscriptions: the daemon ends. */
void subscriptions_end(struct subscriptions *s);

bool subscriptions_wants(
	const struct subscriptions *s); /* is anything subscribed to, or waited for? */
bool subscriptions_is_stale(
	const struct subscriptions *s); /* ... that the present token does not cover? */

/* See struct router_ops. */
void subscriptions_deferred_turn(struct subscriptions *s, struct pending *p);
const char *subscriptions_deferred_end(struct subscriptions *s, struct pending *p);
void subscriptions_read_sent(struct subscriptions *s, void *reading);
void subscriptions_read_end(struct subscriptions *s, void *reading, enum router_read_end end,
			    const struct wire_frame *answer, int64_t now);

/* Figures for the status. */
struct subscriptions_counts {
	size_t keys, patterns; /* different ones */
	size_t subscriptions;
	size_t waiting;   /* subscribe requests */
	size_t left_out;  /* keys and patterns that the token has no room for */
	size_t rereading; /* keys */
	size_t bytes;     /* memory, about */
	bool live;
};
struct subscriptions_counts subscriptions_counts(const struct subscriptions *s);
