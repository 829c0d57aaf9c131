/* rate_limiter.h - how many requests a second may go out: a token bucket that adapts.
 *
 * A configured limit is never exceeded. Without one, requests go unlimited until the service
 * refuses one because of its rate limit. The rate is then half of the rate so far; it grows a
 * little each second until it is back where it was and beyond (additive increase, multiplicative
 * decrease). Refusals of requests that were sent before the last decrease are ignored.
 *
 * The bucket is small, so that requests are evenly spaced: idle time saves up 20 ms of requests at
 * most. Times and the sequence numbers of requests are passed in. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rate_limiter {
	double limit;               /* configured, in requests/s; 0: none */
	double rate;                /* at present, in requests/s; 0: unlimited */
	double step;                /* growth of rate per second; 0: it is not lowered */
	double goal;                /* where rate stops growing and is limit again */
	double tokens;              /* requests that may go at once */
	int64_t at;                 /* when rate and tokens were computed */
	uint64_t cut;               /* sequence of the last request sent before rate was lowered */
	int64_t second;             /* start of the second in which sent counts */
	unsigned sent, sent_before; /* in that second, and in the one before */
};

void rate_limiter_init(struct rate_limiter *p, double limit, int64_t now);

/* Sets another limit and resets the rate. cut: sequence of the last request that was sent; refusals
 * up to it are ignored. */
void rate_limiter_set(struct rate_limiter *p, double limit, int64_t now, uint64_t cut);

/* May a request be sent now? */
bool rate_limiter_allows(struct rate_limiter *p, int64_t now);

/* A request was sent. */
void rate_limiter_spend(struct rate_limiter *p, int64_t now);

/* Counts a request that is sent elsewhere. Returns after how many ms that may be: requests wait
 * until then as well. */
int64_t rate_limiter_reserve(struct rate_limiter *p, int64_t now);

/* The request with this sequence was refused; latest is the sequence of the last one sent. */
void rate_limiter_refused(struct rate_limiter *p, int64_t now, uint64_t sequence, uint64_t latest);

/* The rate was lowered before, in another process: it grows from here to the goal. Nothing above
 * the configured limit. */
void rate_limiter_restore(struct rate_limiter *p, int64_t now, double rate, double goal);

/* Is the rate still lowered after a refusal? */
bool rate_limiter_is_lowered(const struct rate_limiter *p);

/* The rate at this time in requests/s; 0: unlimited. */
double rate_limiter_rate(const struct rate_limiter *p, int64_t now);

/* The time when rate_limiter_allows() becomes true. */
int64_t rate_limiter_next(const struct rate_limiter *p);

/* How long, in ms, the last of n waiting requests has to wait. Assumes that a lowered rate recovers
 * undisturbed, so the real wait may be longer but is hardly shorter. */
int64_t rate_limiter_wait_ms(const struct rate_limiter *p, int64_t now, size_t n);
