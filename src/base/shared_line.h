/* shared_line.h - one line for many clients, in one reference-counted buffer.
 *
 * A change comes once and goes to thousands of clients: its line is made once, each client's output
 * holds a reference (outq.h), and the last reference frees it. A shared line never changes after it
 * was made. One thread only: the count is not atomic. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"

struct shared_line {
	uint32_t refs;
	uint32_t n;          /* bytes of text, line end included */
	bool own;            /* it tells no change: it is a line of our own about the key */
	bool pattern;        /* ... or about a pattern, which is then in key */
	bool secret;         /* overwritten before it is freed */
	uint64_t key_hash;   /* hashed as in topics.h; 0: it is about no key */
	uint64_t value_hash; /* of a change: the hash of its value (notification.h) */
	struct span key;     /* decoded; points into this block */
	char text[];
};

/* One reference, the caller's. text is uninitialised and n bytes long, which the caller has bounded
 * below 4 GiB; the caller fills it and may make n smaller. key is copied behind it; the hashes are
 * 0. */
struct shared_line *shared_line_new(size_t n, struct span key);

static inline struct shared_line *shared_line_ref(struct shared_line *shared)
{
	shared->refs++;
	return shared;
}

void shared_line_unref(struct shared_line *shared); /* frees it with the last reference */

static inline struct span shared_line_span(const struct shared_line *shared)
{
	return (struct span){shared->text, shared->n};
}
