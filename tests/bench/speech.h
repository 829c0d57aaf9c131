/* speech.h - the languages that a benchmark client speaks, as a table: hpkvd's lines, HPKV's
 * WebSocket, its REST over HTTP, redis's RESP.
 *
 * Every request reads one key of the talker's own; every answer carries the same 100 bytes. lines
 * is also what the bare echo and the bare pipe are asked in; of an echo the answer is the request.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "bench.h"
#include "base/buf.h"
#include "conn.h"
#include "base/span.h"

struct talker {
	char key[BENCH_KEY + 1];
	bool writes;       /* its requests are sets, not gets */
	uint64_t answered; /* names the request that an answer without an id belongs to: they come
			      in order */
};

struct answer {
	uint64_t id;
	bool success;
};

struct speech {
	const char *name;
	void (*connect)(struct conn *c, const char *to, SSL_CTX *tls);
	void (*request)(struct talker *t, struct buf *out, uint64_t id);
	/* Takes one answer from a queue that is not empty. 1: *a is it. 0: it is not whole yet. -1:
	 * what is this? */
	int (*answer)(struct talker *t, struct buf *in, struct answer *a);
};

void talker_init(struct talker *t, size_t number, bool writes);
const struct speech *speech_named(const char *name); /* dies of an unknown one */

/* The messageId of an answer in JSON, which is its last member and a number; false: it is not. */
bool speech_last_id(struct span text, uint64_t *id);
