/* sched.h - who is next: requests wait in their client's queue, and clients take turns.
 *
 * One request a turn, round and round among the clients that have one waiting, whatever each has
 * queued: a client with a thousand requests delays the others by one each. Within a client, first
 * come first served. A peer that is marked as last gets its turn when nobody else has one. Peers on
 * trial (blame.h) take turns among themselves, whenever the router gives them one. */
#pragma once

#include "requests/pending.h"

TAILQ_HEAD(peer_list, peer);

struct sched {
	struct peer_list turns;   /* peers with something waiting; the first is next */
	struct peer_list blocked; /* those of them that get no turn */
	struct peer_list last;    /* those of them that get one when turns is empty */
	struct peer_list trial;   /* those of them that are on trial */
	size_t n;                 /* requests waiting in all */
	size_t bytes;             /* their memory */
	uint32_t *at_least;       /* [k]: how many peers of turns have more than k waiting */
	uint32_t levels;          /* its length */
};

void sched_init(struct sched *s);
void sched_fini(struct sched *s); /* the pendings stay their owner's */
void sched_join(struct peer *peer);
void sched_add(struct sched *s, struct pending *p); /* behind the client's others */
/* Again: where it was in the order of the client's asking, which is not that of the last sending:
 * some may have been sent again already. */
void sched_add_again(struct sched *s, struct pending *p);
void sched_remove(struct sched *s, struct pending *p);
struct pending *sched_first(const struct sched *s); /* the next to send; NULL: nobody has a turn */
struct pending *sched_first_trial(const struct sched *s); /* the same of those on trial */
/* Removes one of these two. */
void sched_take_this(struct sched *s, struct pending *p);
/* The next to send, removed; of those on trial only if nobody else has a turn. */
struct pending *sched_take(struct sched *s);

/* How many requests go before another one of this peer at least, as things are: all of its own, and
 * as many of each other client's. NULL: of a client that has nothing waiting. */
size_t sched_ahead(const struct sched *s, const struct peer *peer);

/* A blocked client's requests wait, and it gets no turn. */
void sched_block(struct sched *s, struct peer *peer);
void sched_unblock(struct sched *s, struct peer *peer);
void sched_unblock_all(struct sched *s);
void sched_set_last(struct sched *s, struct peer *peer);
void sched_set_trial(struct sched *s, struct peer *peer, bool on_trial);
