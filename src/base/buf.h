/* buf.h - a growable byte queue: bytes are appended at the tail and taken from the head.
 *
 * An empty buf owns no memory after buf_release(), so ten thousand idle clients cost nothing here.
 * A buf never shrinks by itself and has no limit: a caller that fills it from a peer checks the
 * limit first. */
#pragma once

#include <stddef.h>

#include "base/span.h"

struct buf {
	char *p;
	size_t head, tail, size; /* the queue is head..tail; size bytes are allocated */
};

char *buf_room(struct buf *b, size_t n); /* room for n bytes at the tail, not yet counted */
void buf_add(struct buf *b, const void *p, size_t n);
void buf_addf(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Empties it and frees its memory, if it has any. */
void buf_free(struct buf *b);
static inline void buf_release(struct buf *b)
{
	if (b->p)
		buf_free(b);
}

static inline size_t buf_len(const struct buf *b)
{
	return b->tail - b->head;
}

static inline struct span buf_span(const struct buf *b)
{
	/* An empty buf has p NULL, and C does not allow adding even 0 to NULL. */
	return (struct span){b->p ? b->p + b->head : NULL, b->tail - b->head};
}

/* Counts n bytes that were written to the room from buf_room(). */
static inline void buf_grew(struct buf *b, size_t n)
{
	b->tail += n;
}

/* Drops all but the n bytes at the head. */
static inline void buf_cut(struct buf *b, size_t n)
{
	if (n < buf_len(b))
		b->tail = b->head + n;
}

/* Drops n bytes at the head. */
static inline void buf_take(struct buf *b, size_t n)
{
	b->head += n;
	if (b->head == b->tail)
		b->head = b->tail = 0;
}
