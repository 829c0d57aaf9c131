#include "base/backoff.h"

enum { ASKED_MAX_MS = 600000 };

int64_t backoff_doubled(int64_t first, unsigned times, int64_t most)
{
	while (times-- && first < most)
		first *= 2;
	return first < most ? first : most;
}

int64_t backoff_jitter(int64_t limit, uint64_t random)
{
	return limit > 0 ? (int64_t)(random % ((uint64_t)limit + 1)) : 0;
}

int64_t backoff_asked_ms(int retry_after_s, int64_t max_ms)
{
	int64_t ms = (int64_t)retry_after_s * 1000;
	int64_t most = max_ms > ASKED_MAX_MS ? max_ms : ASKED_MAX_MS;

	return ms < most ? ms : most;
}
