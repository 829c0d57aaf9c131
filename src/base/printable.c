#include "base/printable.h"

#include <stdio.h>

enum { ESCAPE_MAX = sizeof("\\xff") }; /* with the NUL that snprintf() adds */

size_t printable_copy(struct span text, char *out, size_t size, size_t *taken)
{
	size_t n = 0, i = 0;

	for (; i < text.n && n + ESCAPE_MAX <= size; i++) {
		unsigned char c = (unsigned char)text.p[i];
		if (c >= 0x20 && c < 0x7f)
			out[n++] = (char)c;
		else
			n += (size_t)snprintf(out + n, size - n, "\\x%02x", c);
	}
	*taken = i;
	return n;
}
