/* text.h - a growable byte buffer that survives a lack of memory.
 *
 * The daemon's buf ends the program when there is no memory; a library must not. A text that could
 * not grow is failed and takes nothing more. Its owner checks that once, at the end. */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include "hpkv.h"
#include "base/span.h"

struct text {
	char *p;
	size_t n, size;
	bool failed;
};

char *text_room(struct text *t, size_t n); /* room for n bytes at the end; NULL: no memory */
void text_add(struct text *t, const void *p, size_t n);
void text_addf(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_json(struct text *t, struct hpkv_bytes plain); /* as a JSON string, quotes included */
void text_take(struct text *t, size_t n);                /* removes n bytes at the beginning */
void text_free(struct text *t);

static inline void text_word(struct text *t, const char *s)
{
	text_add(t, s, strlen(s));
}

static inline struct span text_span(const struct text *t)
{
	return (struct span){t->p, t->n};
}
