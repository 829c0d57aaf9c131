#include "requests/sched.h"

#include <stdlib.h>

#include "base/mem.h"

void sched_init(struct sched *s)
{
	*s = (struct sched){.n = 0};
	TAILQ_INIT(&s->turns);
	TAILQ_INIT(&s->blocked);
	TAILQ_INIT(&s->last);
	TAILQ_INIT(&s->trial);
}

void sched_fini(struct sched *s)
{
	free(s->at_least);
	*s = (struct sched){.n = 0};
}

void sched_join(struct peer *peer)
{
	peer->sched = (struct sched_peer){.n = 0};
	TAILQ_INIT(&peer->sched.waiting);
}

/* ---- lengths of queues ---- */

/* Do its requests delay those of other peers? */
static bool counts(const struct peer *peer)
{
	return !peer->sched.blocked && !peer->sched.last && !peer->sched.on_trial;
}

static void one_more(struct sched *s, struct peer *peer)
{
	if (peer->sched.n == s->levels) {
		uint32_t levels = s->levels ? 2 * s->levels : 16;
		s->at_least = mem_resize(s->at_least, levels * sizeof(*s->at_least));
		while (s->levels < levels)
			s->at_least[s->levels++] = 0;
	}
	if (counts(peer))
		s->at_least[peer->sched.n]++;
	peer->sched.n++;
}

static void one_less(struct sched *s, struct peer *peer)
{
	peer->sched.n--;
	if (counts(peer))
		s->at_least[peer->sched.n]--;
}

/* Counts all requests of the peer in or out, when it gets its turns back or loses them. */
static void count_all(struct sched *s, const struct peer *peer, bool in)
{
	for (uint32_t k = 0; k < peer->sched.n; k++)
		s->at_least[k] += in ? 1 : UINT32_MAX; /* UINT32_MAX is -1 */
}

size_t sched_ahead(const struct sched *s, const struct peer *peer)
{
	uint32_t own = peer ? peer->sched.n : 0;
	size_t n = peer && !counts(peer) ? own : 0;

	if (!own)
		return s->levels ? s->at_least[0] : 0;
	for (uint32_t k = 0; k < own; k++)
		n += s->at_least[k];
	return n;
}

/* ---- the queues ---- */

/* The queue of a peer with waiting requests. */
static struct peer_list *place_of(struct sched *s, const struct peer *peer)
{
	if (peer->sched.blocked)
		return &s->blocked;
	if (peer->sched.on_trial)
		return &s->trial;
	return peer->sched.last ? &s->last : &s->turns;
}

/* Called before p is added to the client's queue. */
static void count_in(struct sched *s, struct pending *p)
{
	if (TAILQ_EMPTY(&p->peer->sched.waiting))
		TAILQ_INSERT_TAIL(place_of(s, p->peer), p->peer, sched.turn);
	one_more(s, p->peer);
	p->peer->sched.bytes += p->answers.size;
	s->bytes += p->answers.size;
	s->n++;
}

void sched_add(struct sched *s, struct pending *p)
{
	count_in(s, p);
	TAILQ_INSERT_TAIL(&p->peer->sched.waiting, p, waiting);
}

void sched_add_again(struct sched *s, struct pending *p)
{
	struct pending *q;

	count_in(s, p);
	TAILQ_FOREACH (q, &p->peer->sched.waiting, waiting) {
		if (pending_is_before(p, q))
			break;
	}
	if (q)
		TAILQ_INSERT_BEFORE(q, p, waiting);
	else
		TAILQ_INSERT_TAIL(&p->peer->sched.waiting, p, waiting);
}

void sched_remove(struct sched *s, struct pending *p)
{
	TAILQ_REMOVE(&p->peer->sched.waiting, p, waiting);
	if (TAILQ_EMPTY(&p->peer->sched.waiting))
		TAILQ_REMOVE(place_of(s, p->peer), p->peer, sched.turn);
	one_less(s, p->peer);
	p->peer->sched.bytes -= p->answers.size;
	s->bytes -= p->answers.size;
	s->n--;
}

void sched_charge(struct sched *s, const struct pending *p)
{
	p->peer->sched.bytes += p->answers.size;
	s->bytes += p->answers.size;
}

void sched_discharge(struct sched *s, const struct pending *p)
{
	p->peer->sched.bytes -= p->answers.size;
	s->bytes -= p->answers.size;
}

struct pending *sched_first(const struct sched *s)
{
	struct peer *peer = TAILQ_FIRST(&s->turns);

	if (!peer)
		peer = TAILQ_FIRST(&s->last);
	return peer ? TAILQ_FIRST(&peer->sched.waiting) : NULL;
}

struct pending *sched_first_trial(const struct sched *s)
{
	struct peer *peer = TAILQ_FIRST(&s->trial);

	return peer ? TAILQ_FIRST(&peer->sched.waiting) : NULL;
}

struct pending *sched_take(struct sched *s)
{
	struct pending *p = sched_first(s);

	if (!p)
		p = sched_first_trial(s);
	if (p)
		sched_take_this(s, p);
	return p;
}

void sched_take_this(struct sched *s, struct pending *p)
{
	sched_remove(s, p);
	if (!TAILQ_EMPTY(&p->peer->sched.waiting)) { /* its next turn comes after all others */
		TAILQ_REMOVE(place_of(s, p->peer), p->peer, sched.turn);
		TAILQ_INSERT_TAIL(place_of(s, p->peer), p->peer, sched.turn);
	}
}

/* Sets one of the marks that decide in which queue the peer is. */
static void set_mark(struct sched *s, struct peer *peer, bool *mark, bool on)
{
	bool counted = counts(peer);

	if (*mark == on)
		return;
	if (!TAILQ_EMPTY(&peer->sched.waiting))
		TAILQ_REMOVE(place_of(s, peer), peer, sched.turn);
	*mark = on;
	if (counts(peer) != counted)
		count_all(s, peer, !counted);
	if (!TAILQ_EMPTY(&peer->sched.waiting))
		TAILQ_INSERT_TAIL(place_of(s, peer), peer, sched.turn);
}

void sched_block(struct sched *s, struct peer *peer)
{
	set_mark(s, peer, &peer->sched.blocked, true);
}

void sched_unblock(struct sched *s, struct peer *peer)
{
	set_mark(s, peer, &peer->sched.blocked, false);
}

void sched_set_trial(struct sched *s, struct peer *peer, bool on_trial)
{
	set_mark(s, peer, &peer->sched.on_trial, on_trial);
}

void sched_set_last(struct sched *s, struct peer *peer)
{
	set_mark(s, peer, &peer->sched.last, true);
}

void sched_unblock_all(struct sched *s)
{
	struct peer *peer;

	while ((peer = TAILQ_FIRST(&s->blocked)))
		sched_unblock(s, peer);
}
