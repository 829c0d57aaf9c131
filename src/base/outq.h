/* outq.h - the output that a client has not taken yet: its own lines, and shared lines.
 *
 * Own lines are bytes in a buf, to which answers are appended. Shared lines stand between them in
 * the order of pushing, each a reference (shared_line.h) and no copy before it is written. One
 * writev() writes many of both. An empty queue owns no memory after outq_trim(). It has no limit:
 * callers check outq_len() before they add. */
#pragma once

#include <stdint.h>
#include <sys/uio.h>

#include "base/buf.h"
#include "base/shared_line.h"

struct outq_slot {
	struct shared_line *shared;
	size_t before; /* own bytes between the previous shared line and this one */
};

/* The shared lines of a queue that has any, or has had them since it was trimmed. */
struct outq_ring {
	uint32_t head, n, size; /* size of the slots, a power of two; n in use from head on */
	uint32_t written;       /* bytes of the first shared line that are written */
	size_t bytes;           /* of all shared lines, less what is written */
	size_t before;          /* the sum of all outq_slot::before */
	struct outq_slot slot[];
};

struct outq {
	struct buf own;
	struct outq_ring *ring; /* or NULL */
};

/* Takes a reference of its own. */
void outq_push(struct outq *q, struct shared_line *shared);

static inline size_t outq_len(const struct outq *q)
{
	return buf_len(&q->own) + (q->ring ? q->ring->bytes : 0);
}

/* How many bytes of the first line are left to write, or more, if n reaches that far. */
size_t outq_first_line(const struct outq *q, size_t enough);

/* Is the line that comes first a secret (shared_line.h)? */
static inline bool outq_first_is_secret(const struct outq *q)
{
	const struct outq_ring *r = q->ring;

	if (!r || !r->n)
		return false;
	const struct outq_slot *first = &r->slot[r->head & (r->size - 1)];
	return first->before == 0 && first->shared->secret;
}

/* Fills up to max (at least 1) iovecs with the head of the queue; returns how many. Short lines,
 * but no secrets, are copied into the room, as far as that goes: those that follow each other share
 * an iovec, which costs the kernel less. The room is the caller's again once it has written. */
int outq_gather(const struct outq *q, struct iovec *iov, int max, char *room, size_t size);
/* The same without copies. */
static inline int outq_iov(const struct outq *q, struct iovec *iov, int max)
{
	return outq_gather(q, iov, max, NULL, 0);
}
void outq_take(struct outq *q, size_t n); /* n bytes were written */

void outq_trim(struct outq *q); /* frees the memory of an empty queue */
void outq_fini(struct outq *q);
