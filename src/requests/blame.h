/* blame.h - requests over which the service closes the connection, and the clients that make them.
 *
 * One connection carries the requests of all clients, so a request that the service answers by
 * closing it costs all of them what they have in flight. The service does not say which request it
 * was. This room tells whom to suspect, from how the connection has ended:
 *
 *   1009 (message too big)     the longest request in flight, unless one as long was answered
 *                              before or it is no longer than BLAME_SHORT. From then on requests of
 *                              its length or more are not sent, for BLAME_LONG_MS or until
 *                              blame_forget(). The loss counts against its client alone. If no
 *                              request can be it: as the next row
 *   another code, but those    each client with a request in flight. If there is only one, it is
 *   of the last row            the culprit
 *   no close frame, or 1008    the same, but only requests sent less than BLAME_SUDDEN_MS ago on a
 *   (which also says that a    connection that lasted less than BLAME_YOUNG_MS: it may have been
 *   token has expired)         the network, so such a loss weighs less
 *   1000, 1001, 1012 … 1014;   nobody
 *   silence, found by a ping;
 *   an end that is ours
 *
 * A client with two such losses (three if it may have been the network; one if it was the culprit)
 * is on trial: its requests are sent when nobody else's wait, one at a time, with nothing else in
 * flight (router.h). So the next loss has one suspect and hurts nobody else. It is off trial again
 * when so many of them were answered: 1, twice as many with each further loss. Losses are forgotten
 * when BLAME_MEMORY_MS have passed without another. After a loss over a trial there is no other for
 * a while, which grows.
 *
 * A get or range that was in flight is sent again, but in the same way as on trial, unless it may
 * have been the network; and not after BLAME_READ_LOSSES.
 *
 * A client can't escape by connecting anew: what was counted stays for its user for as long as it
 * would have for itself, and newcomers of that user begin with it.
 *
 * Owns no pending and no peer: writes peer::blame, pending::losses. Logs whom it suspects. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "requests/pending.h"

enum {
	BLAME_SHORT = 4096, /* bytes of a frame: HPKV takes longer ones for certain */
	BLAME_LONG_MS = 3600000,
	BLAME_SUDDEN_MS = 1000,
	BLAME_YOUNG_MS = 10000,
	BLAME_MEMORY_MS = 600000,
	/* pending::losses: what one loss adds, and what a read is not sent again after. */
	BLAME_SUDDEN_LOSS = 1,
	BLAME_LOSS = 3,
	BLAME_READ_LOSSES = 9,
	BLAME_USERS_MAX = 16,
};

/* How a connection has ended. */
struct blame_end {
	int close_code;    /* of the service's close frame; 0: none came */
	bool dropped;      /* the other side has ended it, or the network, without one */
	int64_t lasted_ms; /* since requests have gone out on it */
};

/* What is known of a user whose clients have left. Of more than BLAME_USERS_MAX the one whose last
 * loss is the oldest is forgotten. */
struct blame_user {
	uid_t uid;
	struct blame_record record;
};

struct blame {
	size_t answered;       /* the longest frame that the service has answered */
	size_t refused;        /* frames of this length or more are not sent; 0: any are */
	int64_t refused_until; /* if there is one */
	uint64_t round;        /* numbers the losses that count */
	int64_t next_trial;    /* no trial before */
	int64_t paused_at;     /* when that was set */
	unsigned pauses;       /* ... in a row */
	struct blame_user users[BLAME_USERS_MAX];
	size_t n_users;
};

enum blame_verdict {
	BLAME_NOBODY,
	BLAME_SOMEBODY, /* one of those in flight, who were charged with it */
	BLAME_ONE,      /* the culprit is known for certain */
	BLAME_VERDICT_N
};

/* Zeroed in the beginning. The service is another one from now on: forgets what it would not take,
 * and who has left. */
void blame_forget(struct blame *b);

void blame_join(struct blame *b, struct peer *peer);
void blame_leave(struct blame *b, const struct peer *peer, int64_t now);

/* The connection has ended that these n were sent on, in this order. */
enum blame_verdict blame_judge(struct blame *b, struct pending *const *sent, size_t n,
			       const struct blame_end *end, int64_t now);
/* An answer to p has come, whatever it says. True: its client is off trial. */
bool blame_answered(struct blame *b, const struct pending *p);
/* Has so much time passed that the peer is off trial? */
bool blame_lapses(struct peer *peer, int64_t now);

/* Would the service close the connection over a frame of this length? */
bool blame_is_too_long(struct blame *b, size_t length, int64_t now);
/* May this read be sent again, after the loss that was judged? */
static inline bool blame_may_repeat(const struct pending *p)
{
	return p->blame.losses < BLAME_READ_LOSSES;
}

/* How long nothing else is sent beside a request of this peer, who is on trial. */
int64_t blame_alone_ms(const struct peer *peer);
