/* handover_pace.h - how soon the connection may be replaced again because of new subscriptions.
 *
 * A handover costs the service a token and a handshake. A client that subscribes to something new
 * again and again could cause any number of them. So the first handover of a row starts after
 * subscribe_batch, and each further one at a greater distance from the one before, up to 2 s; what
 * is subscribed to meanwhile shares it. A row ends by itself: two seconds take back one step. In
 * the long run there is one handover in two seconds.
 *
 * Pure: times are passed in, in ms of one clock. */
#pragma once

#include <stdint.h>

/* Zeroed, no handover was begun. */
struct handover_pace {
	int64_t last_at;   /* when the last one was begun */
	int64_t row_until; /* when the row has ended by itself */
};

/* How long the next one waits. batch_ms: subscribe_batch, the least. */
int64_t handover_pace_wait_ms(const struct handover_pace *p, int64_t batch_ms, int64_t now);
/* One is begun, for whatever reason. */
void handover_pace_began(struct handover_pace *p, int64_t now);
