#include "visible.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <wctype.h>

#include "invisible.h"

enum { NAME_MAX_BYTES = 80, SENTENCE_MAX = 600, BUFFERS = 5 };

static void escape_byte(struct glyph *g, unsigned char c)
{
	static const char letters[] = "abtnvfr"; /* 7 to 13 */

	if (c >= 7 && c <= 13)
		snprintf(g->escape, sizeof(g->escape), "\\%c", letters[c - 7]);
	else if (c == 0)
		snprintf(g->escape, sizeof(g->escape), "\\0");
	else
		snprintf(g->escape, sizeof(g->escape), "\\x%02x", c);
	g->columns = strlen(g->escape);
}

struct glyph glyph_at(const char *p, size_t n)
{
	struct glyph g = {.bytes = 1, .columns = 1};
	unsigned char c = (unsigned char)*p;
	mbstate_t state = {0};
	wchar_t wide;

	if (c >= 0x20 && c < 0x7f)
		return g;
	size_t length = c < 0x80 ? 1 : mbrtowc(&wide, p, n, &state);
	if (c < 0x80 || length > n || length == 0) {
		escape_byte(&g, c);
		return g;
	}
	int columns = wcwidth(wide);
	g.bytes = length;
	g.wide = wide;
	if (columns < 0 || !iswprint((wint_t)wide) || invisible((uint32_t)wide)) {
		snprintf(g.escape, sizeof(g.escape), wide > 0xffff ? "\\U%08x" : "\\u%04x",
			 (unsigned)wide);
		g.columns = strlen(g.escape);
	} else {
		g.columns = (size_t)columns;
	}
	return g;
}

size_t visible_width(struct hpkv_bytes bytes)
{
	size_t columns = 0;

	for (size_t i = 0; i < bytes.n;) {
		struct glyph g = glyph_at(bytes.p + i, bytes.n - i);
		columns += g.columns;
		i += g.bytes;
	}
	return columns;
}

const char *visible_text(char *out, size_t size, struct hpkv_bytes bytes)
{
	static const char cut[] = "...";
	size_t n = 0, i = 0;

	while (i < bytes.n) {
		struct glyph g = glyph_at(bytes.p + i, bytes.n - i);
		size_t length = *g.escape ? strlen(g.escape) : g.bytes;
		if (length > size - sizeof(cut) - n)
			break;
		memcpy(out + n, *g.escape ? g.escape : bytes.p + i, length);
		n += length;
		i += g.bytes;
	}
	strcpy(out + n, i < bytes.n ? cut : "");
	return out;
}

static const char *in_turn(struct hpkv_bytes bytes, size_t most)
{
	static char buffers[BUFFERS][SENTENCE_MAX];
	static unsigned next;

	return visible_text(buffers[next++ % BUFFERS], most, bytes);
}

const char *visible_name(struct hpkv_bytes bytes)
{
	return in_turn(bytes, NAME_MAX_BYTES + sizeof("..."));
}

const char *visible_sentence(struct hpkv_bytes bytes)
{
	return in_turn(bytes, SENTENCE_MAX);
}
