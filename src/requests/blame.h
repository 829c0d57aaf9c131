/* blame.h - requests over which the service closes the connection, and the clients that make them.
 *
 * All clients share one connection. If the service answers a request by closing it, the in-flight
 * requests of all clients are lost, and the service does not say which request it was. This room
 * picks the suspects by how the connection ended:
 *
 *   1009 (message too big)     the longest request in flight. Requests of its length or more are
 *                              refused for BLAME_LONG_MS or until blame_forget(). Only its client
 *                              is charged. If a request of that length was answered before, or the
 *                              longest is no longer than BLAME_SHORT: as the next row
 *   another code, except in    every client with a request in flight; a client that is alone is
 *   the last row               the culprit
 *   no close frame, or 1008    the same, but only for requests sent within BLAME_SUDDEN_MS, on a
 *   (also sent when a token    connection younger than BLAME_YOUNG_MS. The network may be the
 *   has expired)               cause, so such a loss weighs less
 *   1000, 1001, 1012 … 1014;   nobody
 *   a ping without a pong;
 *   closed by this daemon
 *
 * A client is on trial after two such losses; after three if the network may be the cause; after
 * one if it was the culprit. Its requests are then sent when nobody else's wait, one at a time and
 * with nothing else in flight (router.h), so the next loss has one suspect and hurts nobody else.
 * The trial ends after one answer; each further loss doubles that number. Losses are forgotten
 * BLAME_MEMORY_MS after the last. After a loss during a trial, the next trial waits for a growing
 * pause.
 *
 * A get or range that was in flight is sent again as if its client were on trial, unless the
 * network may be the cause. It is not sent again after BLAME_READ_LOSSES.
 *
 * Reconnecting does not help a client: the record stays with its user for as long as it would have
 * stayed with the client, and new clients of the user start with it.
 *
 * Owns no pending and no peer; writes peer::blame and pending::blame. Logs the suspects. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "requests/pending.h"

enum {
	BLAME_SHORT = 4096, /* bytes of a frame; HPKV certainly takes longer ones */
	BLAME_LONG_MS = 3600000,
	BLAME_SUDDEN_MS = 1000,
	BLAME_YOUNG_MS = 10000,
	BLAME_MEMORY_MS = 600000,
	/* blame_pending::losses: added by one loss; limit for sending a read again */
	BLAME_SUDDEN_LOSS = 1,
	BLAME_LOSS = 3,
	BLAME_READ_LOSSES = 9,
	BLAME_USERS_MAX = 16,
};

/* How a connection has ended. */
struct blame_end {
	int close_code;    /* in the service's close frame; 0: there was none */
	bool dropped;      /* ended by the service or the network, without a close frame */
	int64_t lasted_ms; /* since requests have gone out on it */
};

/* The record of a user whose clients have left. At BLAME_USERS_MAX the user with the oldest loss is
 * forgotten. */
struct blame_user {
	uid_t uid;
	struct blame_record record;
};

struct blame {
	size_t answered;       /* length of the longest frame that the service answered */
	size_t refused;        /* frames of this length or more are not sent; 0: no limit */
	int64_t refused_until; /* unless refused is 0 */
	uint32_t round;        /* counts the losses that were charged */
	int64_t next_trial;    /* no trial before this time */
	int64_t paused_at;     /* when next_trial was set */
	unsigned pauses;       /* in a row */
	struct blame_user users[BLAME_USERS_MAX];
	size_t n_users;
};

enum blame_verdict {
	BLAME_NOBODY,
	BLAME_SOMEBODY, /* several suspects were charged */
	BLAME_ONE,      /* the culprit is certain */
	BLAME_VERDICT_N
};

/* The next connection leads to another service. Forgets the length limit and the users. A struct
 * blame starts zeroed. */
void blame_forget(struct blame *b);

void blame_join(struct blame *b, struct peer *peer);
void blame_leave(struct blame *b, const struct peer *peer, int64_t now);

/* The connection ended on which these n requests were in flight, in the order of sending. */
enum blame_verdict blame_judge(struct blame *b, struct pending *const *sent, size_t n,
			       const struct blame_end *end, int64_t now);
/* p was answered, with whatever code. True: its client's trial has ended. */
bool blame_answered(struct blame *b, const struct pending *p);
/* Ends the peer's trial if its losses are old enough to be forgotten. True: it was ended. */
bool blame_lapses(struct peer *peer, int64_t now);

/* Did the service close the connection over a frame of this length or less? */
bool blame_is_too_long(struct blame *b, size_t length, int64_t now);
/* May this read be sent again after the loss that was judged? */
static inline bool blame_may_repeat(const struct pending *p)
{
	return p->blame.losses < BLAME_READ_LOSSES;
}

/* For how long nothing else is sent beside a request of this peer, which is on trial. */
int64_t blame_alone_ms(const struct peer *peer);
