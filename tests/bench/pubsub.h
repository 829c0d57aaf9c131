/* pubsub.h - the languages in which one subscribes and publishes, as a table: hpkvd's lines,
 * redis's RESP, MQTT 3.1.1 with QoS 0.
 *
 * What is subscribed to are keys by their numbers (bench_key()); what is published is one text of
 * key 0, and that text is what a subscriber is told, in whatever its language wraps it. */
#pragma once

#include <stddef.h>

#include "base/buf.h"
#include "conn.h"
#include "base/span.h"

enum { PUBSUB_KEYS_MAX = 1000 }; /* in one request; its line stays far below hpkvd's max_line */

struct heard {
	struct span change; /* the text that was published, until the queue is written to again;
			       p NULL: it was a consent */
	size_t keys;        /* how many keys the consent is to; 0: to the hello */
};

struct pubsub {
	const char *name;
	struct span hello;     /* what a subscriber says first, and is answered */
	struct span publisher; /* what a publisher says first; it need not read anything, ever */
	void (*subscribe)(struct buf *out, size_t first, size_t n);
	void (*publish)(struct buf *out, struct span text);
	/* Takes one message from a queue that is not empty. 1: *h is it. 0: it is not whole yet.
	 * -1: a refusal, or what is this? It still lies in the queue. */
	int (*hear)(struct buf *in, struct heard *h);
};

const struct pubsub *pubsub_named(const char *name); /* dies of an unknown one */

/* For a subscriber, whose socket does not block. Queues the request for keys first to first+n-1, in
 * as many parts as it takes. */
void pubsub_subscribe(const struct pubsub *s, struct conn *c, size_t first, size_t n);

/* Gives the kernel all that is queued, and waits until the hello (n = 0) or n keys have been
 * consented to; dies of anything else that the peer says. */
void pubsub_flush(struct conn *c);
void pubsub_await(const struct pubsub *s, struct conn *c, size_t n);

/* Dies of what lies in the queue and was not understood. */
_Noreturn void pubsub_die(const struct pubsub *s, struct span text);
