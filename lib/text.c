#include "text.h"

#include <stdio.h>
#include <stdlib.h>

#include "codec/json.h"

enum { SMALLEST = 256 };

char *text_room(struct text *t, size_t n)
{
	if (t->failed)
		return NULL;
	if (t->size - t->n >= n && t->p)
		return t->p + t->n;
	size_t size = t->size ? t->size : SMALLEST;
	while (size - t->n < n && size <= SIZE_MAX / 2)
		size *= 2;
	char *p = size - t->n < n ? NULL : realloc(t->p, size);
	if (!p) {
		t->failed = true;
		return NULL;
	}
	t->p = p;
	t->size = size;
	return p + t->n;
}

void text_add(struct text *t, const void *p, size_t n)
{
	char *room = text_room(t, n);

	if (room && n) {
		memcpy(room, p, n);
		t->n += n;
	}
}

void text_addf(struct text *t, const char *format, ...)
{
	char small[128]; /* for numbers and the like: no longer text is written this way */
	va_list args;

	va_start(args, format);
	int n = vsnprintf(small, sizeof(small), format, args);
	va_end(args);
	text_add(t, small, n > 0 && (size_t)n < sizeof(small) ? (size_t)n : 0);
}

void text_json(struct text *t, struct hpkv_bytes plain)
{
	char *room = plain.n > SIZE_MAX / 8 ? NULL : text_room(t, 6 * plain.n + 2);

	if (!room) {
		t->failed = true;
		return;
	}
	size_t n = 1;
	room[0] = '"';
	n += json_escape((struct span){plain.p, plain.n}, room + n);
	room[n++] = '"';
	t->n += n;
}

void text_take(struct text *t, size_t n)
{
	t->n -= n;
	if (t->n)
		memmove(t->p, t->p + n, t->n);
}

void text_free(struct text *t)
{
	free(t->p);
	*t = (struct text){0};
}
