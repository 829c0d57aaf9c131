/* invisible.h - characters that nobody sees, or that change how others are seen.
 *
 * They may stand in keys and values. On a terminal they are shown by their numbers, so that two
 * keys that look alike are alike. The source is Unicode 15.1: Default_Ignorable_Code_Point, format
 * controls, marks of the direction of text, separators of lines and paragraphs, spaces other than
 * U+0020, characters that have a width and no glyph, noncharacters. What is for private use looks
 * different everywhere, or like nothing, and is counted among them.
 *
 * Emoji that are joined, or have a variation selector, are therefore shown in parts. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

bool invisible(uint32_t character);
