/* span.h - a run of bytes in somebody else's memory.
 *
 * The hot path passes spans from the buffer that a read() filled down to the frame that goes out,
 * without a copy. A span is valid only as long as its owner says; code that keeps bytes longer
 * copies them. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct span {
	const char *p;
	size_t n;
};

/* A string literal as a span, without its terminating NUL. */
#define SPAN(literal) ((struct span){(literal), sizeof(literal) - 1})

static inline bool span_equal(struct span a, struct span b)
{
	return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}
