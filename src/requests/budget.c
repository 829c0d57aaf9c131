#include "requests/budget.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { ROOM_MAX = 1000 };

/* ---- budgets come and go ---- */

struct budget *budget_new(const char *name)
{
	size_t n = strlen(name) + 1;
	struct budget *b = mem_zalloc(sizeof(*b) + n);

	b->refs = 1;
	memcpy(b->name, name, n);
	TAILQ_INIT(&b->waiting);
	TAILQ_INIT(&b->group.turns);
	return b;
}

struct budget *budget_ref(struct budget *b)
{
	b->refs++;
	return b;
}

void budget_unref(struct budget *b)
{
	if (--b->refs)
		return;
	free(b->group.at_least);
	free(b);
}

void budget_set(struct budget *b, const struct budget_limits *limits)
{
	if (!b->limits.rate || b->tokens > limits->rate)
		b->tokens = limits->rate;
	b->limits = *limits;
}

struct budgets *budgets_new(size_t n)
{
	struct budgets *s = mem_zalloc(sizeof(*s) + n * sizeof(s->budget[0]));

	s->refs = 1;
	s->n = n;
	return s;
}

static struct budgets *budgets_ref(struct budgets *s)
{
	s->refs++;
	return s;
}

static void budgets_unref(struct budgets *s)
{
	if (--s->refs)
		return;
	for (size_t i = 0; i < s->n; i++)
		budget_unref(s->budget[i]);
	free(s);
}

void budget_admit(struct peer *peer, struct budgets *budgets)
{
	struct budgets *former = peer->budget.budgets;

	for (size_t i = 0; former && i < former->n; i++) {
		former->budget[i]->clients--;
		former->budget[i]->subscriptions -= peer->budget.subscriptions;
	}
	for (size_t i = 0; budgets && i < budgets->n; i++) {
		budgets->budget[i]->clients++;
		budgets->budget[i]->subscriptions += peer->budget.subscriptions;
	}
	if (former)
		budgets_unref(former);
	peer->budget.budgets = budgets;
}

/* ---- requests ---- */

static double tokens_at(const struct budget *b, int64_t now)
{
	double tokens = b->tokens;

	if (now > b->at)
		tokens += (double)(now - b->at) / 1e3 * b->limits.rate;
	return tokens < b->limits.rate ? tokens : b->limits.rate;
}

static void refill(struct budget *b, int64_t now)
{
	b->tokens = tokens_at(b, now);
	if (now > b->at)
		b->at = now;
}

/* ... a request that is paid for already. */
static unsigned room_in_flight(const struct budget *b)
{
	unsigned max = b->limits.max_in_flight;

	if (!max)
		return ROOM_MAX;
	return b->in_flight < max ? max - b->in_flight : 0;
}

unsigned budget_room(struct budget *b, int64_t now)
{
	unsigned room = room_in_flight(b);

	if (room > ROOM_MAX)
		room = ROOM_MAX;
	if (!b->limits.rate)
		return room;
	refill(b, now);
	if (b->tokens < 1)
		return 0;
	return b->tokens < room ? (unsigned)b->tokens : room;
}

/* Whole milliseconds until there are n tokens. */
static int64_t ms_until(const struct budget *b, double tokens, double n)
{
	if (!b->limits.rate || tokens >= n)
		return 0;
	return (int64_t)((n - tokens) * 1e3 / b->limits.rate) + 1;
}

int64_t budget_next(const struct budget *b)
{
	return room_in_flight(b) ? b->at + ms_until(b, b->tokens, 1) : -1;
}

int64_t budget_wait_ms(const struct budget *b, size_t n, int64_t now)
{
	return ms_until(b, tokens_at(b, now), (double)n);
}

struct budget *budget_lacking(const struct peer *peer, bool fair, bool paid, int64_t now)
{
	const struct budgets *s = peer->budget.budgets;

	for (size_t i = 0; s && i < s->n; i++) {
		struct budget *b = s->budget[i];
		bool has_room = paid ? room_in_flight(b) > 0 : budget_room(b, now) > 0;
		if (!has_room || (fair && !TAILQ_EMPTY(&b->waiting)))
			return b;
	}
	return NULL;
}

int64_t budget_peer_wait_ms(const struct peer *peer, int64_t now, struct budget **slowest)
{
	const struct budgets *s = peer->budget.budgets;
	int64_t longest = 0;

	*slowest = NULL;
	for (size_t i = 0; s && i < s->n; i++) {
		struct budget *b = s->budget[i];
		/* Each other peer that waits has a turn before. */
		size_t others = b->n_waiting - (peer->sched.short_of == b);
		int64_t wait = budget_wait_ms(b, others + peer->sched.n + 1, now);
		if (wait > longest) {
			longest = wait;
			*slowest = b;
		}
	}
	return longest;
}

int64_t budget_rate_wait_ms(const struct peer *peer, int64_t now)
{
	const struct budgets *s = peer->budget.budgets;
	int64_t longest = 0;

	for (size_t i = 0; s && i < s->n; i++) {
		int64_t wait = budget_wait_ms(s->budget[i], 1, now);
		if (wait > longest)
			longest = wait;
	}
	return longest;
}

void budget_pay(const struct peer *peer, int64_t now)
{
	struct budgets *s = peer->budget.budgets;

	for (size_t i = 0; s && i < s->n; i++) {
		struct budget *b = s->budget[i];
		b->requests++;
		refill(b, now);
		b->tokens -= 1;
	}
}

void budget_begin(struct pending *p, int64_t now)
{
	struct budgets *s = p->peer->budget.budgets;

	p->in = NULL;
	if (!s)
		return;
	if (!p->paid)
		budget_pay(p->peer, now);
	p->paid = true;
	p->in = budgets_ref(s);
	for (size_t i = 0; i < s->n; i++)
		s->budget[i]->in_flight++;
}

void budget_end(struct pending *p)
{
	struct budgets *s = p->in;

	if (!s)
		return;
	p->in = NULL;
	for (size_t i = 0; i < s->n; i++)
		s->budget[i]->in_flight--;
	budgets_unref(s);
}

/* ---- subscriptions ---- */

struct budget *budget_lacking_subscriptions(const struct peer *peer, size_t n)
{
	const struct budgets *s = peer->budget.budgets;

	for (size_t i = 0; s && i < s->n; i++) {
		struct budget *b = s->budget[i];
		if (b->limits.max_subscriptions && n &&
		    b->subscriptions + n > b->limits.max_subscriptions)
			return b;
	}
	return NULL;
}

void budget_add_subscriptions(struct peer *peer, size_t n)
{
	struct budgets *s = peer->budget.budgets;

	peer->budget.subscriptions += n;
	for (size_t i = 0; s && i < s->n; i++)
		s->budget[i]->subscriptions += n;
}

void budget_remove_subscriptions(struct peer *peer, size_t n)
{
	struct budgets *s = peer->budget.budgets;

	peer->budget.subscriptions -= n;
	for (size_t i = 0; s && i < s->n; i++)
		s->budget[i]->subscriptions -= n;
}
