/* sched.h - which request is sent next: requests wait in their client's queue, clients take turns.
 *
 * A turn is one request. Clients with waiting requests take turns round robin, so a client with a
 * thousand requests delays each other client by one. Access sections take turns as well, and within
 * each turn of a section its clients: a section with a thousand clients delays others by one.
 * Within a client the order is first in, first out. A peer marked last gets a turn when no other
 * peer has one. Peers on trial (blame.h) take turns among themselves; the router says when. A peer
 * may be short of a budget (budget.h): it gets no turn, and waits in the budget's own queue.
 *
 * Owns struct sched_peer, not the pendings. */
#pragma once

#include "requests/budget.h"
#include "requests/pending.h"

struct sched {
	/* Peers with waiting requests; the first of a list is next. */
	TAILQ_HEAD(, sched_group) groups; /* whose peers have turns */
	struct sched_group common;        /* of the peers that no section names */
	struct peer_list blocked;         /* get no turn */
	struct peer_list last;            /* get a turn when no group has one */
	struct peer_list trial;           /* on trial */
	TAILQ_HEAD(, budget) budgets;     /* that peers are short of */
	size_t n;                         /* waiting requests */
	size_t bytes;                     /* their memory */
};

void sched_init(struct sched *s);
void sched_fini(struct sched *s);

void sched_join(struct peer *peer);
void sched_add(struct sched *s, struct pending *p); /* at the end of the client's queue */
/* Adds a request that was sent before, in the order in which the client asked. */
void sched_add_again(struct sched *s, struct pending *p);
void sched_remove(struct sched *s, struct pending *p);

/* The memory of a request that has left the queue, and is not charged to its client otherwise. */
void sched_charge(struct sched *s, const struct pending *p);
void sched_discharge(struct sched *s, const struct pending *p);

/* The next to send; NULL: no peer has a turn. */
struct pending *sched_first(const struct sched *s);
struct pending *sched_first_trial(const struct sched *s); /* the same among the peers on trial */
/* Removes one of these two, which ends its peer's turn. */
void sched_take_this(struct sched *s, struct pending *p);
/* Removes the next to send; one of a peer on trial only if no other has a turn. */
struct pending *sched_take(struct sched *s);

/* How many requests, at least, go before a new one of this peer: all of its own, and as many of
 * each other peer. NULL: of a peer with nothing waiting. */
size_t sched_ahead(const struct sched *s, const struct peer *peer);

/* A blocked peer gets no turn; its requests wait. */
void sched_block(struct sched *s, struct peer *peer);
void sched_give_turns(struct sched *s, struct peer *peer);
static inline void sched_unblock(struct sched *s, struct peer *peer)
{
	if (peer->sched.blocked)
		sched_give_turns(s, peer);
}
void sched_unblock_all(struct sched *s);
/* The peer is short of this budget; NULL: of none any more. Ends by itself when nothing of the peer
 * waits. */
void sched_set_short(struct sched *s, struct peer *peer, struct budget *b);
/* Its sections may be others now. */
void sched_regroup(struct sched *s, struct peer *peer);
void sched_clear_short(struct sched *s); /* no peer is short of any */
void sched_set_last(struct sched *s, struct peer *peer);
void sched_set_trial(struct sched *s, struct peer *peer, bool on_trial);
