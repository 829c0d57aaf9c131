/* burst.h - changes to order: how a publisher is told to publish, and what it then makes known.
 *
 * A load that measures fan-out orders a number of changes over a Unix socket, in decimal on a line,
 * and orders the next when its subscribers have read all of the last: so nothing is ever queued but
 * what is measured. The publisher words that many notifications as the service does, all of one key
 * and of one length, and writes them together. Each says in its value which it is, counted from 0
 * since the load has connected to order, and when it was written: so a reader knows what is
 * missing, doubled, out of order, altered and late. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "bench.h"
#include "base/buf.h"
#include "base/span.h"

/* Key number 0. */
#define BURST_KEY "bench:0000000"
#define BURST_HEAD "{\"type\":\"notification\",\"key\":\"" BURST_KEY "\",\"value\":\""
#define BURST_PAD                                                                                  \
	BENCH_TEN_BYTES BENCH_TEN_BYTES BENCH_TEN_BYTES BENCH_TEN_BYTES BENCH_TEN_BYTES            \
		BENCH_TEN_BYTES BENCH_TEN_BYTES
#define BURST_MIDDLE BURST_PAD "\",\"timestamp\":"

/* Digits of a value's two numbers, which with the padding make 100 bytes, and of a time in ms. */
enum { BURST_NUMBER = 11, BURST_WRITTEN = 19, BURST_TIMESTAMP = 13, BURST_MAX = 1024 };

enum {
	BURST_TEXT = sizeof BURST_HEAD - 1 + BURST_NUMBER + BURST_WRITTEN + sizeof BURST_MIDDLE -
		     1 + BURST_TIMESTAMP + 1 /* bytes of a notification */
};

struct burst {
	uint64_t next;     /* number of the next change */
	int64_t written;   /* when this burst is, by bench_now_ns() */
	int64_t timestamp; /* the same in ms since 1970 */
};

/* The publisher's side: begin, then word one change after the other. */
void burst_begin(struct burst *b);
void burst_next(struct burst *b, char text[BURST_TEXT]);

/* Takes an order from a queue. 1: *n changes are wanted. 0: it is not whole yet. -1: what is this?
 */
int burst_take_order(struct buf *in, unsigned *n);

/* The load's side. */
void burst_order(int fd, unsigned n);
bool burst_read(struct span text, uint64_t *number, int64_t *written); /* false: it is no change */
