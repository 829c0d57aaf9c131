/* peer.h - a local client, as the rooms behind its socket see it.
 *
 * Each room keeps what it knows of a client in a part of its own, struct ROOM_peer. A room writes
 * its own part and no other; another room's part it may read. The parts stand here, and not in the
 * rooms' headers, because several of those rooms are above this one in the map.
 *
 * A peer is embedded in the structure of the connection's owner (client.c). The owner
 * sets number, pid and uid, and calls each room's ROOM_join() and ROOM_leave(). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "base/map.h"
#include "base/outq.h"

struct access_view;
struct budget;
struct budgets;
struct local_key;

TAILQ_HEAD(pending_list, pending);

/* The process that connected to a client's socket, as the kernel recorded it then. */
struct peer_identity {
	bool known; /* if not, no other field is */
	pid_t pid;  /* 0: of another PID namespace */
	uid_t uid;  /* -1: a user without a number here (overflow_ids.h), whom no rule names */
	gid_t gid;  /* the same */
	const gid_t *groups; /* the supplementary ones */
	size_t n_groups;
	bool by_key; /* of TCP, where the kernel records nobody; all others are unknown then */
	const struct local_key *key; /* ... that was presented; NULL: none so far */
};

struct answers_peer {
	struct pending_list pendings; /* unanswered requests, the oldest first */
	struct pending_list ordered;  /* those without a messageId, answered in this order */
	uint32_t unanswered : 31;     /* length of pendings */
	bool flushing : 1;            /* kept answers are being put out */
	uint32_t asked;               /* requests so far, low 32 bits */
	size_t kept_bytes;            /* of answers that wait for those before them */
};

struct sched_peer {
	struct pending_list waiting; /* to be sent */
	uint32_t n;                  /* length of waiting */
	uint32_t bytes;              /* memory of these requests */
	TAILQ_ENTRY(peer) turn;      /* the queue of sched that the peer is in, unless n is 0 */
	struct budget *group;    /* whose clients it takes turns with; NULL: those of no section */
	uint32_t refused;        /* of these requests, those that the rate limit has refused */
	bool blocked;            /* gets no turn */
	bool last;               /* gets a turn when no other peer has one */
	bool on_trial;           /* takes its turns among the peers on trial */
	struct budget *short_of; /* gets no turn until this has room; NULL: none */
};

/* The record of a client or user: see blame.h. */
struct blame_record {
	uint8_t weight;   /* of the connections lost, perhaps over one of its requests */
	uint8_t repeated; /* of its reads, those sent again after the last of these losses */
	uint16_t trial;   /* answers until it is off trial; 0: it is not on trial */
	uint32_t round;   /* blame::round of the last loss */
	int64_t at;       /* time of the last loss */
};

struct access_pattern;
struct budget_peer {
	struct budgets *budgets; /* of the access sections that name it; NULL: there are no rules */
	size_t subscriptions;    /* that it has or waits for */
};

/* How it has come. Access's, and beside the other part to leave no gap in struct peer. */
struct access_arrival {
	bool by_key : 1;   /* over TCP, and has shown a local key */
	bool by_token : 1; /* with a token, which bounds it further */
};

struct access_peer {
	struct access_view *view; /* what the rules allow; NULL: there are no rules */
	struct access_pattern
		*pattern;    /* that its token bounds it to; NULL: to none in particular */
	int64_t refusals_at; /* token bucket of its refusals in the log */
};

struct topics_peer {
	LIST_HEAD(, sub) subs;
	uint32_t n;       /* length of subs */
	uint32_t n_globs; /* subs that topic_is_glob() */
};

struct subscriptions_peer {
	TAILQ_HEAD(, join) joins; /* subscribes that are not live yet */
	uint32_t n;               /* keys and patterns in joins */
	uint32_t n_globs : 31;    /* patterns in joins that topic_is_glob() */
	bool suspect : 1;         /* the service has refused a name that this client asked for */
};

/* The changes for a slow reader that wait: see conflation.h. */
struct conflation {
	struct map keys;
	TAILQ_HEAD(, conflation_entry) order;
	size_t bytes; /* of all waiting lines */
};

struct fanout_peer {
	LIST_ENTRY(peer) of_audience;  /* le_prev NULL: it is not of the audience */
	uint64_t change;               /* number of the last change that was delivered to it */
	struct conflation *conflation; /* of a slow reader; or NULL */
};

struct resync_peer {
	uint32_t round; /* the next one in which it may have an initial value */
};

struct token_requests_peer {
	uint32_t n;     /* requests that wait or are being minted */
	uint64_t round; /* of the last of them */
};

struct nexus_peer {
	uint8_t n;    /* requests that wait or are under way: NEXUS_PEER_MAX at most */
	uint8_t sent; /* ... that are under way */
};

struct peer {
	uint64_t number; /* never used again for another client; 0: no client, but the daemon's
			    own reads (router.c) */
	pid_t pid;       /* for the log; 0: unknown */
	uid_t uid;       /* ... -1: unknown */
	bool silent;     /* the cache's own: it is told of nothing that it has not asked for */
	struct access_arrival arrival;
	struct nexus_peer nexus;
	struct resync_peer resync;
	struct outq out; /* lines for the client: every room appends here */

	struct answers_peer answers;
	struct sched_peer sched;
	struct blame_record blame;
	struct budget_peer budget;
	struct access_peer access;
	struct topics_peer topics;
	struct subscriptions_peer subscriptions;
	struct fanout_peer fanout;
	struct token_requests_peer token_requests;
};

/* Bytes for the client that it has not taken yet. */
static inline size_t peer_unread(const struct peer *peer)
{
	const struct conflation *later = peer->fanout.conflation;

	return outq_len(&peer->out) + peer->answers.kept_bytes + (later ? later->bytes : 0);
}
