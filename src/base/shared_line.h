/* shared_line.h - one line for many clients, in one buffer that all of them share.
 *
 * A change comes once and goes to thousands: its line is made once, each client's output holds a
 * reference to it (outq.h), and the last that has written it frees it. A note never changes after
 * it was made. One thread only: the count is not atomic. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"

struct shared_line {
	uint32_t refs;
	uint32_t n;          /* bytes of text, line end included */
	bool own;            /* it is no change of the service's, but what we say of the key */
	bool pattern;        /* ... or of a pattern, which stands in the place of the key */
	bool secret;         /* wiped before it is freed */
	uint64_t key_hash;   /* as topics.h hashes; 0: it is about no key */
	uint64_t value_hash; /* of a change: its value's, as notification.h hashes */
	struct span key;     /* decoded; points into this block */
	char text[];
};

/* One reference, the caller's. text is uninitialised and n bytes long, which the caller has bounded
 * below 4 GiB; whoever fills it may make n smaller. key is copied behind it; the hashes are 0. */
struct shared_line *shared_line_new(size_t n, struct span key);

static inline struct shared_line *shared_line_ref(struct shared_line *shared)
{
	shared->refs++;
	return shared;
}

void shared_line_unref(struct shared_line *shared); /* frees it with the last reference */

static inline struct span shared_line_line(const struct shared_line *shared)
{
	return (struct span){shared->text, shared->n};
}
