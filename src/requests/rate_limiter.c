#include "requests/rate_limiter.h"

enum { SECOND_MS = 1000 };

static const double burst_s = 0.020; /* of requests that idle time saves up */
static const double steps = 20;      /* seconds in which a lowered rate grows by the rate before */
static const double goal_min = 50; /* requests/s: the least that a service's limit is taken to be */

static double more(double a, double b)
{
	return a > b ? a : b;
}

void rate_limiter_init(struct rate_limiter *p, double limit, int64_t now)
{
	*p = (struct rate_limiter){
		.limit = limit, .rate = limit, .tokens = 1, .at = now, .second = now};
}

void rate_limiter_set(struct rate_limiter *p, double limit, int64_t now, uint64_t cut)
{
	unsigned sent = p->sent, sent_before = p->sent_before;
	int64_t second = p->second;

	rate_limiter_init(p, limit, now);
	p->sent = sent;
	p->sent_before = sent_before;
	p->second = second;
	p->cut = cut;
}

/* Brings rate and tokens up to this time. */
static void refill(struct rate_limiter *p, int64_t now)
{
	double passed = (double)(now - p->at) / 1e3;

	if (now <= p->at)
		return;
	p->at = now;
	p->rate += p->step * passed;
	if (p->step > 0 && p->rate >= p->goal) {
		p->rate = p->limit;
		p->step = 0;
	}
	p->tokens += p->rate * passed;
	if (p->tokens > more(1, p->rate * burst_s))
		p->tokens = more(1, p->rate * burst_s);
}

bool rate_limiter_allows(struct rate_limiter *p, int64_t now)
{
	if (p->rate > 0)
		refill(p, now);
	return p->rate == 0 || p->tokens >= 1;
}

void rate_limiter_spend(struct rate_limiter *p, int64_t now)
{
	if (now - p->second >= SECOND_MS) {
		p->sent_before = now - p->second < 2 * SECOND_MS ? p->sent : 0;
		p->sent = 0;
		p->second = now;
	}
	p->sent++;
	if (p->rate > 0)
		p->tokens -= 1;
}

void rate_limiter_refused(struct rate_limiter *p, int64_t now, uint64_t sequence, uint64_t latest)
{
	double was = p->rate > 0 ? p->rate : more(p->sent, p->sent_before);

	if (sequence <= p->cut)
		return;
	p->cut = latest;
	if (p->step == 0) /* it was not lowered */
		p->goal = p->limit > 0 ? p->limit : more(goal_min, 2 * was);
	p->rate = more(1, was / 2);
	p->step = more(1, was / steps);
	p->tokens = 0;
	p->at = now;
}

/* A lowered rate is half of the rate before. */
void rate_limiter_restore(struct rate_limiter *p, int64_t now, double rate, double goal)
{
	if (p->limit > 0 && rate >= p->limit)
		return;
	p->rate = rate;
	p->goal = p->limit > 0 ? p->limit : goal;
	p->step = more(1, 2 * rate / steps);
	p->tokens = 0;
	p->at = now;
}

double rate_limiter_rate(const struct rate_limiter *p, int64_t now)
{
	struct rate_limiter then = *p;

	if (p->rate > 0)
		refill(&then, now);
	return then.rate;
}

bool rate_limiter_is_lowered(const struct rate_limiter *p)
{
	return p->step > 0;
}

/* Whole milliseconds until there are n tokens. */
static int64_t ms_until(const struct rate_limiter *p, double n)
{
	if (p->rate == 0 || p->tokens >= n)
		return 0;
	return (int64_t)((n - p->tokens) * 1e3 / p->rate) + 1;
}

int64_t rate_limiter_next(const struct rate_limiter *p)
{
	return p->at + ms_until(p, 1);
}

int64_t rate_limiter_reserve(struct rate_limiter *p, int64_t now)
{
	if (p->rate > 0)
		refill(p, now);
	rate_limiter_spend(p, now);
	return ms_until(p, 0);
}

/* Seconds until there are n tokens, at best. */
static double seconds_until(const struct rate_limiter *p, double n)
{
	double need = n - p->tokens, rate = p->rate, s = 0;
	double grown = p->step > 0 ? (p->goal - rate) / p->step : 0; /* seconds until goal */

	for (; s < grown && need > rate + p->step / 2; s++) {
		need -= rate + p->step / 2;
		rate += p->step;
	}
	if (s < grown)
		return s + need / (rate + p->step);
	if (p->step > 0 && p->limit == 0)
		return grown;
	return s + need / p->limit;
}

int64_t rate_limiter_wait_ms(const struct rate_limiter *p, int64_t now, size_t n)
{
	struct rate_limiter then = *p;

	if (p->rate > 0)
		refill(&then, now);
	if (then.rate == 0 || then.tokens >= (double)n)
		return 0;
	return (int64_t)(seconds_until(&then, (double)n) * 1e3) + 1;
}
