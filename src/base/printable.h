/* printable.h - bytes of unknown origin as printable ASCII, for logs and error texts. */
#pragma once

#include "base/span.h"

/* Copies text to out with all but printable ASCII as \xNN, until less than five bytes of out are
 * free. Adds no NUL. Returns the bytes written, and in *taken the bytes of text that they stand
 * for. */
size_t printable_copy(struct span text, char *out, size_t size, size_t *taken);
