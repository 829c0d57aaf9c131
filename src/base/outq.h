/* outq.h - what a client has not taken yet: its own lines, and the notes that it shares with
 * others.
 *
 * Own lines are bytes in a buf, which whoever answers appends to; notes stand between them in the
 * order in which they were pushed, each a reference (shared_line.h) and no copy. Written out with
 * one writev for many of both. An empty queue owns no memory once outq_trim() was called. It knows
 * no limit: whoever fills it asks outq_len(). */
#pragma once

#include <stdint.h>
#include <sys/uio.h>

#include "base/buf.h"
#include "base/shared_line.h"

struct outq_note {
	struct shared_line *shared;
	size_t before; /* own bytes between the note in front and this one */
};

struct outq {
	struct buf own;
	struct outq_note *ring; /* size of them, a power of two; n in use from head on */
	uint32_t head, n, size;
	uint32_t written;  /* bytes of the first note that are out */
	size_t note_bytes; /* of all notes, without those that are out */
	size_t before;     /* the sum of all outq_note::before */
};

/* Takes a reference of its own. */
void outq_push(struct outq *q, struct shared_line *shared);

static inline size_t outq_len(const struct outq *q)
{
	return buf_len(&q->own) + q->note_bytes;
}

/* What is left to write of the line that comes first; that much or more, if it reaches so far. */
size_t outq_first_line(const struct outq *q, size_t enough);

/* Fills up to max (at least 1) iovecs with what comes first; returns how many. */
int outq_iov(const struct outq *q, struct iovec *iov, int max);
void outq_take(struct outq *q, size_t n); /* n bytes are out */

void outq_trim(struct outq *q); /* frees the memory of an empty queue */
void outq_fini(struct outq *q);
