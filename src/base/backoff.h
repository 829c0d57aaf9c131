/* backoff.h - how long to pause before the next attempt.
 *
 * Pure arithmetic; randomness is passed in. The callers decide when to pause and what counts as a
 * failure (upstream.h, token_requests.h). */
#pragma once

#include <stdint.h>

/* The first pause, doubled so many times, but no more than most. */
int64_t backoff_doubled(int64_t first, unsigned times, int64_t most);

/* Full jitter: a random pause between 0 and limit, so that many daemons that lost the service at
 * the same time do not come back at the same time. random: any number. */
int64_t backoff_jitter(int64_t limit, uint64_t random);

/* The pause that a Retry-After header asks for; negative: there was none. A proxy's error page may
 * ask for a day. At most ten minutes are obeyed, or max_ms if that is longer, so that a service
 * that is back does not stay unused for long. */
int64_t backoff_asked_ms(int retry_after_s, int64_t max_ms);
