/* rate.h - the rate limit of an API key: a token bucket that holds one second's worth of requests.
 *
 * A new bucket is full, so that a burst passes. After it, one request passes each 1/N second. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct rate {
	double per_second; /* 0: no limit */
	double left;
	int64_t at_ms;
};

/* A full bucket. */
void rate_init(struct rate *r, double per_second, int64_t now_ms);

/* Takes one request from the bucket. false: it is empty. */
bool rate_take(struct rate *r, int64_t now_ms);
