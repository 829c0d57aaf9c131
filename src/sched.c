#include "sched.h"

void sched_init(struct sched *s)
{
	*s = (struct sched){.n = 0};
	TAILQ_INIT(&s->turns);
	TAILQ_INIT(&s->blocked);
	TAILQ_INIT(&s->last);
}

/* Where a peer stands while something of it waits. */
static struct peer_list *place_of(struct sched *s, const struct peer *peer)
{
	return peer->blocked ? &s->blocked : peer->last ? &s->last : &s->turns;
}

/* Called before p joins the client's queue. */
static void count_in(struct sched *s, struct pending *p)
{
	if (TAILQ_EMPTY(&p->peer->waiting))
		TAILQ_INSERT_TAIL(place_of(s, p->peer), p->peer, turn);
	p->peer->unsent_bytes += p->size;
	s->bytes += p->size;
	s->n++;
}

void sched_add(struct sched *s, struct pending *p)
{
	count_in(s, p);
	TAILQ_INSERT_TAIL(&p->peer->waiting, p, waiting);
}

void sched_add_again(struct sched *s, struct pending *p)
{
	struct pending *q;

	count_in(s, p);
	TAILQ_FOREACH (q, &p->peer->waiting, waiting) {
		if (!q->sequence || q->sequence > p->sequence)
			break;
	}
	if (q)
		TAILQ_INSERT_BEFORE(q, p, waiting);
	else
		TAILQ_INSERT_TAIL(&p->peer->waiting, p, waiting);
}

void sched_remove(struct sched *s, struct pending *p)
{
	TAILQ_REMOVE(&p->peer->waiting, p, waiting);
	if (TAILQ_EMPTY(&p->peer->waiting))
		TAILQ_REMOVE(place_of(s, p->peer), p->peer, turn);
	p->peer->unsent_bytes -= p->size;
	s->bytes -= p->size;
	s->n--;
}

struct pending *sched_first(const struct sched *s)
{
	struct peer *peer = TAILQ_FIRST(&s->turns);

	if (!peer)
		peer = TAILQ_FIRST(&s->last);
	return peer ? TAILQ_FIRST(&peer->waiting) : NULL;
}

struct pending *sched_take(struct sched *s)
{
	struct pending *p = sched_first(s);

	if (!p)
		return NULL;
	sched_remove(s, p);
	if (!TAILQ_EMPTY(&p->peer->waiting)) { /* its next turn comes after everybody else's */
		TAILQ_REMOVE(place_of(s, p->peer), p->peer, turn);
		TAILQ_INSERT_TAIL(place_of(s, p->peer), p->peer, turn);
	}
	return p;
}

static void set_blocked(struct sched *s, struct peer *peer, bool blocked)
{
	if (peer->blocked == blocked)
		return;
	if (!TAILQ_EMPTY(&peer->waiting))
		TAILQ_REMOVE(place_of(s, peer), peer, turn);
	peer->blocked = blocked;
	if (!TAILQ_EMPTY(&peer->waiting))
		TAILQ_INSERT_TAIL(place_of(s, peer), peer, turn);
}

void sched_block(struct sched *s, struct peer *peer)
{
	set_blocked(s, peer, true);
}

void sched_unblock(struct sched *s, struct peer *peer)
{
	set_blocked(s, peer, false);
}

void sched_unblock_all(struct sched *s)
{
	struct peer *peer;

	while ((peer = TAILQ_FIRST(&s->blocked)))
		set_blocked(s, peer, false);
}
