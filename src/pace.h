/* pace.h - how many requests a second may go out: a token bucket.
 *
 * A small bucket, so that the pace is smooth: what an idle while has saved up is worth BURST_MS at
 * most. Times are passed in. A rate of 0 means unpaced. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pace {
	double rate;   /* requests/s; 0: unpaced */
	double tokens; /* requests that may go now */
	int64_t at;    /* when tokens was right */
};

void pace_init(struct pace *p, double rate, int64_t now);

/* May a request go now? */
bool pace_allows(struct pace *p, int64_t now);

/* One went. */
void pace_spend(struct pace *p);

/* When pace_allows() will say yes next. */
int64_t pace_next(const struct pace *p);

/* How long the last of n requests that wait has to wait, in ms. */
int64_t pace_wait_ms(const struct pace *p, size_t n);
