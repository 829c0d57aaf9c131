#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { SMALLEST = 512 };

char *buf_room(struct buf *b, size_t n)
{
	size_t len = buf_len(b);

	if (b->p && b->size - b->tail >= n)
		return b->p + b->tail;
	/* Moving the queue costs its length, so each move must make room for as much again before
	 * the next one: by itself if that much has left at the head, else by growing. Else a long
	 * queue that loses a few bytes at a time would be moved for each of them. */
	if (b->p && b->head >= len && b->size - len >= n) {
		memmove(b->p, b->p + b->head, len);
	} else {
		size_t size = b->size ? b->size : SMALLEST;
		while (size - len < n || size - len < len)
			size *= 2;
		char *p = mem_alloc(size);
		if (len)
			memcpy(p, b->p + b->head, len);
		free(b->p);
		b->p = p;
		b->size = size;
	}
	b->head = 0;
	b->tail = len;
	return b->p + len;
}

void buf_add(struct buf *b, const void *p, size_t n)
{
	if (!n)
		return;
	memcpy(buf_room(b, n), p, n);
	b->tail += n;
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
		b->tail += (size_t)n;
	}
	va_end(again);
}

void buf_free(struct buf *b)
{
	free(b->p);
	*b = (struct buf){0};
}
