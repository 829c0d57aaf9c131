/* backoff.h - how long to pause before the next attempt.
 *
 * Pure arithmetic; chance is passed in. When to pause, and what counts as a failure, is decided
 * where it is tried again (upstream.h, token_requests.h). */
#pragma once

#include <stdint.h>

/* first, doubled so many times, but no more than most. */
int64_t backoff_doubled(int64_t first, unsigned times, int64_t most);

/* Full jitter: anything between nothing and limit, so that many daemons that lost the service at
 * once do not come back at once. random: any number. */
int64_t backoff_jitter(int64_t limit, uint64_t random);

/* What the service asked for by Retry-After; negative when it did not. Whoever answers in its place
 * may ask for a day; but ten minutes at most are obeyed, or max_ms if that is longer, so that a
 * service that is back does not stay unused for long. */
int64_t backoff_asked_ms(int retry_after_s, int64_t max_ms);
