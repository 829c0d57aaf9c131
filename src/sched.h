/* sched.h - who is next: requests wait in their client's queue, and clients take turns.
 *
 * One request a turn, round and round among the clients that have one waiting, whatever each has
 * queued: a client with a thousand requests delays the others by one each. Within a client, first
 * come first served. */
#pragma once

#include "pending.h"

struct sched {
	TAILQ_HEAD(, peer) turns; /* peers with something waiting; the first is next */
	size_t n;                 /* requests waiting in all */
	size_t bytes;             /* their memory */
};

void sched_init(struct sched *s);
void sched_add(struct sched *s, struct pending *p); /* behind the client's others */
void sched_add_first(struct sched *s,
		     struct pending *p); /* before them: it has been there already */
void sched_remove(struct sched *s, struct pending *p);
struct pending *sched_take(struct sched *s); /* the next to send, removed; NULL: nothing waits */

static inline bool sched_empty(const struct sched *s)
{
	return s->n == 0;
}
