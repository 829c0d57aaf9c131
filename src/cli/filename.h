/* filename.h - keys as names of files, and back.
 *
 * Bytes that a name can't have, or that would be in the way, are %XX (capital hexadecimal digits):
 * a
 * /, a %, control characters (also U+0080 to U+009F), a space, DEL, a dot that a name begins with,
 * and what is no UTF-8. All others stand for themselves. An empty name is % alone. With folders,
 * each part of a key between / is such a name, and the / is kept. Different keys have different
 * names; percent-decoding leads back. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/span.h"

enum { FILENAME_PART_MAX = 255 };

/* Bytes that filename_of() may need for a key of n bytes, its NUL included. */
static inline size_t filename_room(size_t n)
{
	return 3 * n + 2;
}

/* Writes the name of a key, ended by a NUL. Returns its length. */
size_t filename_of(struct span key, bool folders, char *out);

/* Can file systems take it: no part has more than FILENAME_PART_MAX bytes? */
bool filename_fits(const char *name);
