/* hist.h - a histogram of durations with a relative error below 2 %, in a fixed 30 KB, and nothing
 * to allocate or sort.
 *
 * Each power of two is cut into 64 equal buckets; below 64 every value has its own. */
#pragma once

#include <stdint.h>

enum { HIST_BITS = 6, HIST_SUB = 1 << HIST_BITS, HIST_BUCKETS = (65 - HIST_BITS) * HIST_SUB };

struct hist {
	uint64_t bucket[HIST_BUCKETS];
	uint64_t n, max;
};

static inline void hist_add(struct hist *h, uint64_t v)
{
	unsigned shift = v < HIST_SUB ? 0 : 63 - HIST_BITS - (unsigned)__builtin_clzll(v);

	h->bucket[(uint64_t)shift * HIST_SUB + (v >> shift)]++;
	h->n++;
	if (v > h->max)
		h->max = v;
}

/* The value that a share of all values do not exceed: the upper edge of its bucket, at most the
 * largest value. */
static inline uint64_t hist_quantile(const struct hist *h, double share)
{
	uint64_t wanted = (uint64_t)((double)h->n * share), seen = 0;

	for (unsigned i = 0; i < HIST_BUCKETS; i++) {
		seen += h->bucket[i];
		if (seen > wanted) {
			unsigned shift = i < HIST_SUB ? 0 : i / HIST_SUB - 1;
			uint64_t edge = ((uint64_t)(i - shift * HIST_SUB) + 1) << shift;
			return edge - 1 < h->max ? edge - 1 : h->max;
		}
	}
	return h->max;
}
