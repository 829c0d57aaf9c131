#include "pace.h"

enum { BURST_MS = 20 };

void pace_init(struct pace *p, double rate, int64_t now)
{
	*p = (struct pace){.rate = rate, .tokens = 1, .at = now};
}

static void refill(struct pace *p, int64_t now)
{
	double burst = p->rate * BURST_MS / 1000, most = burst > 1 ? burst : 1;

	if (now <= p->at)
		return;
	p->tokens += p->rate * (double)(now - p->at) / 1000;
	if (p->tokens > most)
		p->tokens = most;
	p->at = now;
}

bool pace_allows(struct pace *p, int64_t now)
{
	if (p->rate == 0)
		return true;
	refill(p, now);
	return p->tokens >= 1;
}

void pace_spend(struct pace *p)
{
	if (p->rate > 0)
		p->tokens -= 1;
}

/* In how many whole milliseconds there will be n tokens. */
static int64_t ms_until(const struct pace *p, double n)
{
	if (p->rate == 0 || p->tokens >= n)
		return 0;
	return (int64_t)((n - p->tokens) * 1000 / p->rate) + 1;
}

int64_t pace_next(const struct pace *p)
{
	return p->at + ms_until(p, 1);
}

int64_t pace_wait_ms(const struct pace *p, size_t n)
{
	return ms_until(p, (double)n);
}
