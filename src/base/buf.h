/* buf.h - a growable byte queue: bytes are appended at the tail and taken from the head.
 *
 * A buf is a pointer to its memory, or NULL. An empty one owns no memory after buf_release(), so
 * ten thousand idle clients cost nothing here. A buf never shrinks by itself and has no limit: a
 * caller that fills it from a peer checks the limit first. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/span.h"

struct buf_memory {
	size_t head, tail, size; /* the queue is head..tail; size bytes are there */
	char p[];
};

struct buf {
	struct buf_memory *memory;
};

char *buf_room(struct buf *b, size_t n); /* room for n bytes at the tail, not yet counted */
void buf_add(struct buf *b, const void *p, size_t n);
void buf_addf(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Empties it and frees its memory, if it has any. */
void buf_free(struct buf *b);
static inline void buf_release(struct buf *b)
{
	if (b->memory)
		buf_free(b);
}
/* The same for secrets: its memory is overwritten before. */
void buf_wipe(struct buf *b);

static inline size_t buf_len(const struct buf *b)
{
	return b->memory ? b->memory->tail - b->memory->head : 0;
}

static inline char *buf_start(const struct buf *b)
{
	return b->memory ? b->memory->p + b->memory->head : NULL;
}

static inline struct span buf_span(const struct buf *b)
{
	return (struct span){buf_start(b), buf_len(b)};
}

/* Is there room for n bytes, without moving the queue? */
static inline bool buf_has_room(const struct buf *b, size_t n)
{
	return b->memory && b->memory->size - b->memory->tail >= n;
}

/* The bytes of its memory, used or not. */
static inline size_t buf_size(const struct buf *b)
{
	return b->memory ? b->memory->size : 0;
}

/* Counts n bytes that were written to the room from buf_room(). */
static inline void buf_grew(struct buf *b, size_t n)
{
	b->memory->tail += n;
}

/* Drops all but the n bytes at the head. */
static inline void buf_cut(struct buf *b, size_t n)
{
	if (n < buf_len(b))
		b->memory->tail = b->memory->head + n;
}

/* Drops n bytes at the head. */
static inline void buf_take(struct buf *b, size_t n)
{
	struct buf_memory *m = b->memory;

	if (!m)
		return;
	m->head += n;
	if (m->head == m->tail)
		m->head = m->tail = 0;
}

/* Drops all, and keeps the memory. */
static inline void buf_clear(struct buf *b)
{
	buf_take(b, buf_len(b));
}
