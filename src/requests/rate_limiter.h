/* rate_limiter.h - how many requests a second may go out: a token bucket that learns.
 *
 * With a limit it keeps to it. Without one it is unpaced until the service refuses a request
 * because of its rate limit; from then on it goes at half of what it went at, a little faster each
 * second, until it is back where it was and beyond: additive up, multiplicative down. Refusals of
 * requests that were sent before the pace was last lowered say nothing new.
 *
 * A small bucket, so that the pace is smooth: what an idle while has saved up is worth 20 ms at
 * most. Times and the sequence numbers of requests are passed in. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rate_limiter {
	double limit;               /* requests/s that are never exceeded; 0: none is set */
	double rate;                /* requests/s that may go now; 0: unpaced */
	double step;                /* by which rate grows in a second */
	double goal;                /* a rate that has grown to it is forgotten: back to limit */
	double tokens;              /* requests that may go at once */
	int64_t at;                 /* when rate and tokens were right */
	uint64_t cut;               /* the last request that was sent when rate was lowered */
	int64_t second;             /* when the present second of counting began */
	unsigned sent, sent_before; /* in that second, and in the one before */
};

void rate_limiter_init(struct rate_limiter *p, double limit, int64_t now);

/* Another limit from now on: what was learnt is forgotten. cut: the last request that was sent; a
 * refusal of it, or of one before it, says nothing of the new pace. */
void rate_limiter_set(struct rate_limiter *p, double limit, int64_t now, uint64_t cut);

/* May a request go now? */
bool rate_limiter_allows(struct rate_limiter *p, int64_t now);

/* One went. */
void rate_limiter_spend(struct rate_limiter *p, int64_t now);

/* The request of this sequence was refused; latest is the sequence of the last one that was sent.
 */
void rate_limiter_refused(struct rate_limiter *p, int64_t now, uint64_t sequence, uint64_t latest);

/* Has the service refused something not long ago? */
bool rate_limiter_is_lowered(const struct rate_limiter *p);

/* The rate at this time; 0: unpaced. */
double rate_limiter_rate(const struct rate_limiter *p, int64_t now);

/* When rate_limiter_allows() will say yes next. */
int64_t rate_limiter_next(const struct rate_limiter *p);

/* How long the last of n requests that wait at this time has to wait, in ms: a rate that was
 * lowered is taken to recover, so that it may be longer, but is hardly shorter. */
int64_t rate_limiter_wait_ms(const struct rate_limiter *p, int64_t now, size_t n);
