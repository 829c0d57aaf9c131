#include "requests/sched.h"

#include <stdlib.h>

#include "base/mem.h"

void sched_init(struct sched *s)
{
	*s = (struct sched){.n = 0};
	TAILQ_INIT(&s->groups);
	TAILQ_INIT(&s->common.turns);
	TAILQ_INIT(&s->blocked);
	TAILQ_INIT(&s->last);
	TAILQ_INIT(&s->trial);
	TAILQ_INIT(&s->budgets);
}

void sched_fini(struct sched *s)
{
	free(s->common.at_least);
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
	return !peer->sched.blocked && !peer->sched.last && !peer->sched.on_trial &&
	       !peer->sched.short_of;
}

static struct sched_group *group_of(struct sched *s, const struct peer *peer)
{
	return peer->sched.group ? &peer->sched.group->group : &s->common;
}

static void make_levels(struct sched_group *g, uint32_t n)
{
	uint32_t levels = g->levels ? g->levels : 16;

	while (levels < n)
		levels *= 2;
	if (levels == g->levels)
		return;
	g->at_least = mem_resize(g->at_least, levels * sizeof(*g->at_least));
	while (g->levels < levels)
		g->at_least[g->levels++] = 0;
}

static void one_more(struct sched *s, struct peer *peer)
{
	struct sched_group *g = group_of(s, peer);

	make_levels(g, peer->sched.n + 1);
	if (counts(peer)) {
		g->at_least[peer->sched.n]++;
		g->n++;
	}
	peer->sched.n++;
}

static void one_less(struct sched *s, struct peer *peer)
{
	struct sched_group *g = group_of(s, peer);

	peer->sched.n--;
	if (counts(peer)) {
		g->at_least[peer->sched.n]--;
		g->n--;
	}
}

/* Counts all requests of the peer in or out, when it gets its turns back or loses them. */
static void count_all(struct sched *s, const struct peer *peer, bool in)
{
	struct sched_group *g = group_of(s, peer);

	make_levels(g, peer->sched.n);
	for (uint32_t k = 0; k < peer->sched.n; k++)
		g->at_least[k] += in ? 1 : UINT32_MAX; /* UINT32_MAX is -1 */
	g->n += in ? peer->sched.n : 0 - (size_t)peer->sched.n;
}

/* The turns of its group that go before, at least. */
static size_t ahead_in_group(const struct sched_group *g, const struct peer *peer)
{
	uint32_t own = peer ? peer->sched.n : 0;
	size_t n = peer && !counts(peer) ? own : 0;

	if (!own)
		return g->levels ? g->at_least[0] : 0;
	for (uint32_t k = 0; k < own; k++)
		n += g->at_least[k];
	return n;
}

/* The group of a new request of this peer. */
static const struct sched_group *next_group(const struct sched *s, const struct peer *peer)
{
	const struct budget *b = peer && peer->sched.n ? peer->sched.group
				 : peer                ? budget_first(peer)
						       : NULL;

	return b ? &b->group : &s->common;
}

size_t sched_ahead(const struct sched *s, const struct peer *peer)
{
	const struct sched_group *own = next_group(s, peer), *g;
	size_t turns = ahead_in_group(own, peer), n = turns;

	if (TAILQ_EMPTY(&own->turns)) /* all others have a turn first */
		turns++;
	TAILQ_FOREACH (g, &s->groups, of_sched) {
		if (g != own)
			n += g->n < turns ? g->n : turns;
	}
	return n;
}

/* ---- the queues ---- */

/* The queue of a peer with waiting requests. */
static struct peer_list *place_of(struct sched *s, const struct peer *peer)
{
	if (peer->sched.blocked)
		return &s->blocked;
	if (peer->sched.short_of)
		return &peer->sched.short_of->waiting;
	if (peer->sched.on_trial)
		return &s->trial;
	return peer->sched.last ? &s->last : &group_of(s, peer)->turns;
}

/* At the end of the queue of a peer with waiting requests, or out of it. A group with turns is in
 * the list of groups. */
static void enter_place(struct sched *s, struct peer *peer)
{
	struct sched_group *g = group_of(s, peer);
	struct peer_list *place = place_of(s, peer);

	if (place == &g->turns && TAILQ_EMPTY(place))
		TAILQ_INSERT_TAIL(&s->groups, g, of_sched);
	TAILQ_INSERT_TAIL(place, peer, sched.turn);
}

static void leave_place(struct sched *s, struct peer *peer)
{
	struct sched_group *g = group_of(s, peer);
	struct peer_list *place = place_of(s, peer);

	TAILQ_REMOVE(place, peer, sched.turn);
	if (place == &g->turns && TAILQ_EMPTY(place))
		TAILQ_REMOVE(&s->groups, g, of_sched);
}

/* Of a peer with nothing waiting. */
static void set_group(struct peer *peer, struct budget *b)
{
	struct budget *former = peer->sched.group;

	peer->sched.group = b ? budget_ref(b) : NULL;
	if (former)
		budget_unref(former);
}

void sched_regroup(struct sched *s, struct peer *peer)
{
	bool waits = peer->sched.n > 0;

	if (!waits || peer->sched.group == budget_first(peer))
		return;
	leave_place(s, peer);
	if (counts(peer))
		count_all(s, peer, false);
	set_group(peer, budget_first(peer));
	if (counts(peer))
		count_all(s, peer, true);
	enter_place(s, peer);
}

/* Called before p is added to the client's queue. */
static void count_in(struct sched *s, struct pending *p)
{
	if (TAILQ_EMPTY(&p->peer->sched.waiting)) {
		set_group(p->peer, budget_first(p->peer));
		enter_place(s, p->peer);
	}
	one_more(s, p->peer);
	p->peer->sched.refused += p->refused;
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
		leave_place(s, p->peer);
	one_less(s, p->peer);
	p->peer->sched.refused -= p->refused;
	p->peer->sched.bytes -= p->answers.size;
	s->bytes -= p->answers.size;
	s->n--;
	if (p->peer->sched.n)
		return;
	sched_set_short(s, p->peer, NULL);
	set_group(p->peer, NULL);
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
	const struct sched_group *g = TAILQ_FIRST(&s->groups);
	struct peer *peer = g ? TAILQ_FIRST(&g->turns) : NULL;

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
	struct sched_group *g = group_of(s, p->peer);
	struct budget *b = p->peer->sched.group ? budget_ref(p->peer->sched.group) : NULL;
	bool groups_turn = place_of(s, p->peer) == &g->turns; /* not that of a peer on trial */

	sched_remove(s, p);
	if (!TAILQ_EMPTY(&p->peer->sched.waiting)) { /* its next turn comes after all others */
		leave_place(s, p->peer);
		enter_place(s, p->peer);
	}
	if (groups_turn && !TAILQ_EMPTY(&g->turns)) { /* and so does that of its group */
		TAILQ_REMOVE(&s->groups, g, of_sched);
		TAILQ_INSERT_TAIL(&s->groups, g, of_sched);
	}
	if (b)
		budget_unref(b);
}

/* Sets one of the marks that decide in which queue the peer is. */
static void set_mark(struct sched *s, struct peer *peer, bool *mark, bool on)
{
	if (*mark == on)
		return;
	bool counted = counts(peer);
	if (!TAILQ_EMPTY(&peer->sched.waiting))
		leave_place(s, peer);
	*mark = on;
	if (counts(peer) != counted)
		count_all(s, peer, !counted);
	if (!TAILQ_EMPTY(&peer->sched.waiting))
		enter_place(s, peer);
}

void sched_set_short(struct sched *s, struct peer *peer, struct budget *b)
{
	struct budget *former = peer->sched.short_of;
	bool counted = counts(peer);

	if (former == b)
		return;
	if (!TAILQ_EMPTY(&peer->sched.waiting))
		leave_place(s, peer);
	if (former && --former->n_waiting == 0)
		TAILQ_REMOVE(&s->budgets, former, of_sched);
	if (b && b->n_waiting++ == 0)
		TAILQ_INSERT_TAIL(&s->budgets, b, of_sched);
	peer->sched.short_of = b ? budget_ref(b) : NULL;
	if (former)
		budget_unref(former);
	if (counts(peer) != counted)
		count_all(s, peer, !counted);
	if (!TAILQ_EMPTY(&peer->sched.waiting))
		enter_place(s, peer);
}

void sched_clear_short(struct sched *s)
{
	struct budget *b;
	struct peer *peer;

	sched_unblock_all(s); /* those in the budgets' queues are all that are short of one */
	while ((b = TAILQ_FIRST(&s->budgets)) && (peer = TAILQ_FIRST(&b->waiting)))
		sched_set_short(s, peer, NULL);
}

void sched_block(struct sched *s, struct peer *peer)
{
	set_mark(s, peer, &peer->sched.blocked, true);
}

void sched_give_turns(struct sched *s, struct peer *peer)
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
