/* span.h - a run of bytes that somebody else owns.
 *
 * The hot path hands spans down from the buffer that a read() filled to the frame that goes out, so
 * that nothing is copied on the way. A span is valid only as long as its owner says; whoever keeps
 * one longer copies the bytes. */
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
