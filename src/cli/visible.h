/* visible.h - text as it may stand on a terminal: characters that move the cursor or change colours
 * are written as \n, \t, \x1b, invisible ones (invisible.h) as \u200b. */
#pragma once

#include <stddef.h>
#include <wchar.h>

#include <hpkv.h>

enum { GLYPH_ESCAPE_MAX = 12 };

/* The character at p: its bytes, its columns, and its escape unless it is shown as it is. */
struct glyph {
	size_t bytes;
	size_t columns;
	wchar_t wide; /* L'\0': a byte that is not part of a character, or ASCII */
	char escape[GLYPH_ESCAPE_MAX];
};

/* The first character of the bytes. */
struct glyph glyph_at(const char *p, size_t n);

size_t visible_width(struct hpkv_bytes bytes); /* in columns */

/* Writes the bytes as printable text to out. Text that is cut to fit ends visibly. Returns out. */
const char *visible_text(char *out, size_t size, struct hpkv_bytes bytes);

/* The same for messages, in static memory that the next four calls do not reuse. visible_name()
 * cuts a key or value to a sensible length; visible_sentence() has room for a sentence or a path.
 */
const char *visible_name(struct hpkv_bytes bytes);
const char *visible_sentence(struct hpkv_bytes bytes);
