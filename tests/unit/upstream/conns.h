/* conns.h - connections that do what a test says, in the place of conn.c's; and a trust store for
 * endpoint.c. They are known by the order in which they were made, from 1 on. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "transport/conn.h"

enum { CONNS_MAX = 400 };

struct conn {
	const struct conn_shared *shared;
	const struct conn_ops *ops;
	void *owner;
	unsigned number;
	char path[200];
	bool open, congested;
	int closing;    /* with this code */
	uint32_t pings; /* that it was sent */
	uint32_t pongs; /* ... and has answered */
	unsigned checks, retimes;
	int64_t heard_at;
	char sent[2000]; /* all frames, each with a line end */
};

void conns_begin(void);
unsigned conns_made(void);
unsigned conns_left(void); /* that were not freed */
/* NULL: it was freed. */
struct conn *conns_get(unsigned number);
struct conn *conns_last(void);

/* What happens to them; each has to be there. */
void conns_open(unsigned number);
void conns_pong(unsigned number); /* all pings so far are answered */
/* Opens it and answers the pings that follow from that, of whichever connection. */
void conns_take_over(unsigned number, unsigned old);
void conns_end(unsigned number, int http_status, int retry_after_s); /* open ones: it is lost */
void conns_say(unsigned number, const char *text);
void conns_say_flagged(unsigned number, const char *text, unsigned flags); /* of websocket.h */
/* A notification. */
void conns_tell(unsigned number, const char *key, const char *value, int timestamp);
void conns_drain(unsigned number);
