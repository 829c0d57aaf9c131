#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { SMALLEST = 512 };

/* Memory for at least len and n bytes. */
static struct buf_memory *grown(const struct buf *b, size_t len, size_t n)
{
	size_t size = b->memory ? b->memory->size : SMALLEST;

	while (size - len < n || size - len < len)
		size *= 2;
	struct buf_memory *m = mem_alloc(sizeof(*m) + size);
	m->size = size;
	return m;
}

char *buf_room(struct buf *b, size_t n)
{
	struct buf_memory *m = b->memory;
	size_t len = buf_len(b);

	if (buf_has_room(b, n))
		return m->p + m->tail;
	/* Moving the queue costs its length, so each move must make room for as much again before
	 * the next one: by itself if that much has left at the head, else by growing. Else a long
	 * queue that loses a few bytes at a time would be moved for each of them. */
	if (m && m->head >= len && m->size - len >= n) {
		memmove(m->p, m->p + m->head, len);
	} else {
		m = grown(b, len, n);
		if (len)
			memcpy(m->p, buf_start(b), len);
		free(b->memory);
		b->memory = m;
	}
	m->head = 0;
	m->tail = len;
	return m->p + len;
}

void buf_add(struct buf *b, const void *p, size_t n)
{
	if (!n)
		return;
	memcpy(buf_room(b, n), p, n);
	buf_grew(b, n);
}

void buf_addf(struct buf *b, const char *format, ...)
{
	va_list args, again;

	va_start(args, format);
	va_copy(again, args);
	int n = vsnprintf(NULL, 0, format, args);
	va_end(args);
	if (n > 0) {
		vsnprintf(buf_room(b, (size_t)n + 1), (size_t)n + 1, format, again);
		buf_grew(b, (size_t)n);
	}
	va_end(again);
}

void buf_free(struct buf *b)
{
	free(b->memory);
	b->memory = NULL;
}

void buf_wipe(struct buf *b)
{
	if (b->memory)
		mem_wipe(b->memory->p, b->memory->size);
	buf_release(b);
}
