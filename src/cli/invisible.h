/* invisible.h - characters that are invisible, or that change how other characters look.
 *
 * Keys and values may hold them. A terminal shows them as their code points, so that two keys that
 * look alike are equal. The list is from Unicode 15.1: Default_Ignorable_Code_Point, format
 * controls, bidirectional marks, line and paragraph separators, spaces other than U+0020,
 * characters that have a width and no glyph, noncharacters. Private-use characters are included:
 * they look different everywhere, or like nothing.
 *
 * Emoji that are joined, or have a variation selector, are therefore shown in parts. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Is it one of these? */
bool invisible(uint32_t character);
