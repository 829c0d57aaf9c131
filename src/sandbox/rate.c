#include "rate.h"

/* A limit below one per second must let one request through at times. */
static double capacity(const struct rate *r)
{
	return r->per_second < 1 ? 1 : r->per_second;
}

void rate_init(struct rate *r, double per_second, int64_t now_ms)
{
	*r = (struct rate){.per_second = per_second, .at_ms = now_ms};
	r->left = capacity(r);
}

bool rate_take(struct rate *r, int64_t now_ms)
{
	if (r->per_second <= 0)
		return true;
	r->left += (double)(now_ms - r->at_ms) * r->per_second / 1000;
	r->at_ms = now_ms;
	if (r->left > capacity(r))
		r->left = capacity(r);
	if (r->left < 1)
		return false;
	r->left--;
	return true;
}
