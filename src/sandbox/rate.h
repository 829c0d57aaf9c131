/* rate.h - how many requests a second an API key may make: a token bucket that holds one second's
 * worth.
 *
 * A fresh bucket is full, so that a burst passes; after it one request passes each 1/N second. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct rate {
	double per_second; /* 0: no limit */
	double left;
	int64_t at_ms;
};

void rate_init(struct rate *r, double per_second, int64_t now_ms);

/* May one more request be made? If so, it is counted. */
bool rate_take(struct rate *r, int64_t now_ms);
