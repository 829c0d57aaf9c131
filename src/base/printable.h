/* printable.h - bytes of unknown origin as printable ASCII, for logs and error texts. */
#pragma once

#include "base/span.h"

/* Copies text to out with all but printable ASCII as \xNN, as far as it fits; at least one byte of
 * out stays free. Adds no NUL. Returns the bytes written; *taken is how much of text they are. */
size_t printable_copy(struct span text, char *out, size_t size, size_t *taken);
