#include "sched.h"

void sched_init(struct sched *s)
{
	*s = (struct sched){.n = 0};
	TAILQ_INIT(&s->turns);
}

/* Called before p joins the client's queue. */
static void count_in(struct sched *s, struct pending *p)
{
	if (TAILQ_EMPTY(&p->peer->waiting))
		TAILQ_INSERT_TAIL(&s->turns, p->peer, turn);
	p->peer->unsent_bytes += p->size;
	s->bytes += p->size;
	s->n++;
}

void sched_add(struct sched *s, struct pending *p)
{
	count_in(s, p);
	TAILQ_INSERT_TAIL(&p->peer->waiting, p, waiting);
}

void sched_add_first(struct sched *s, struct pending *p)
{
	count_in(s, p);
	TAILQ_INSERT_HEAD(&p->peer->waiting, p, waiting);
}

void sched_remove(struct sched *s, struct pending *p)
{
	TAILQ_REMOVE(&p->peer->waiting, p, waiting);
	if (TAILQ_EMPTY(&p->peer->waiting))
		TAILQ_REMOVE(&s->turns, p->peer, turn);
	p->peer->unsent_bytes -= p->size;
	s->bytes -= p->size;
	s->n--;
}

struct pending *sched_take(struct sched *s)
{
	struct peer *peer = TAILQ_FIRST(&s->turns);

	if (!peer)
		return NULL;
	struct pending *p = TAILQ_FIRST(&peer->waiting);
	sched_remove(s, p);
	if (!TAILQ_EMPTY(&peer->waiting)) { /* its next turn comes after everybody else's */
		TAILQ_REMOVE(&s->turns, peer, turn);
		TAILQ_INSERT_TAIL(&s->turns, peer, turn);
	}
	return p;
}
