#include "invisible.h"

#include <stddef.h>

/* In order; both ends included. */
static const struct {
	uint32_t first, last;
} ranges[] = {
	{0x00a0, 0x00a0},    /* no-break space */
	{0x00ad, 0x00ad},    /* soft hyphen */
	{0x034f, 0x034f},    /* combining grapheme joiner */
	{0x061c, 0x061c},    /* Arabic letter mark */
	{0x115f, 0x1160},    /* Hangul fillers */
	{0x1680, 0x1680},    /* Ogham space */
	{0x17b4, 0x17b5},    /* Khmer inherent vowels */
	{0x180b, 0x180f},    /* Mongolian selectors and separator */
	{0x2000, 0x200f},    /* spaces of any width and of none, joiners, marks of direction */
	{0x2028, 0x202f},    /* separators; embeddings and overrides; narrow no-break space */
	{0x205f, 0x206f},    /* mathematical space, word joiner, operators, isolates, controls */
	{0x2800, 0x2800},    /* Braille without dots */
	{0x3164, 0x3164},    /* Hangul filler */
	{0xe000, 0xf8ff},    /* private use */
	{0xfdd0, 0xfdef},    /* noncharacters */
	{0xfe00, 0xfe0f},    /* variation selectors */
	{0xfeff, 0xfeff},    /* byte order mark */
	{0xffa0, 0xffa0},    /* halfwidth Hangul filler */
	{0xfff0, 0xfffb},    /* reserved for such; interlinear annotations */
	{0x13430, 0x1343f},  /* Egyptian hieroglyph format controls */
	{0x16fe4, 0x16fe4},  /* Khitan filler */
	{0x1bca0, 0x1bca3},  /* shorthand format controls */
	{0x1d159, 0x1d159},  /* null notehead */
	{0x1d173, 0x1d17a},  /* musical format controls */
	{0xe0000, 0xe0fff},  /* tags, variation selectors, reserved for such */
	{0xf0000, 0x10ffff}, /* private use */
};

bool invisible(uint32_t c)
{
	if ((c & 0xfffe) == 0xfffe) /* the last two of each plane are noncharacters */
		return true;
	for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
		if (c <= ranges[i].last)
			return c >= ranges[i].first;
	}
	return false;
}
