#include "upstream/handover_pace.h"

enum {
	FIRST_MS = 10,  /* the distances grow from here, however short subscribe_batch is */
	MOST_MS = 2000, /* ... up to here, unless subscribe_batch is longer */
	STEP_MS = 2000, /* that take back one step */
	STEPS_MAX = 14, /* from FIRST_MS to MOST_MS, each half as much again */
};

static int64_t steps(const struct handover_pace *p, int64_t now)
{
	return p->row_until > now ? (p->row_until - now + STEP_MS - 1) / STEP_MS : 0;
}

int64_t handover_pace_wait_ms(const struct handover_pace *p, int64_t batch_ms, int64_t now)
{
	int64_t distance = batch_ms > FIRST_MS ? batch_ms : FIRST_MS;

	for (int64_t n = steps(p, now); n && distance < MOST_MS; n--)
		distance = distance * 3 / 2 < MOST_MS ? distance * 3 / 2 : MOST_MS;
	int64_t wait = p->row_until > now ? p->last_at + distance - now : 0;
	return wait > batch_ms ? wait : batch_ms;
}

void handover_pace_began(struct handover_pace *p, int64_t now)
{
	int64_t most = now + (STEPS_MAX - 1) * STEP_MS;

	if (p->row_until < now)
		p->row_until = now;
	else if (p->row_until > most)
		p->row_until = most;
	p->row_until += STEP_MS;
	p->last_at = now;
}
