#include "codec/uri.h"

static int digit_of(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)(c | 0x20);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte that %XX at the beginning of text means; -1: there is none. */
static int byte_of(struct span text)
{
	if (text.n < 3 || text.p[0] != '%' || digit_of(text.p[1]) < 0 || digit_of(text.p[2]) < 0)
		return -1;
	return digit_of(text.p[1]) << 4 | digit_of(text.p[2]);
}

bool uri_decode(struct span text, struct buf *out)
{
	char *to = buf_room(out, text.n);
	size_t n = 0;

	while (text.n) {
		size_t taken = 1;
		if (text.p[0] == '%') {
			int byte = byte_of(text);
			if (byte < 0)
				return false;
			to[n++] = (char)byte;
			taken = 3;
		} else {
			to[n++] = text.p[0];
		}
		text = (struct span){text.p + taken, text.n - taken};
	}
	buf_grew(out, n);
	return true;
}

static bool is_left_alone(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       (c && strchr("-_.!~*'()", c));
}

bool uri_is_encoded_again(struct span text)
{
	bool encoded = false;

	while (text.n) {
		size_t taken = 1;
		if (byte_of(text) >= 0) {
			encoded = true;
			taken = 3;
		} else if (!is_left_alone(text.p[0])) {
			return false;
		}
		text = (struct span){text.p + taken, text.n - taken};
	}
	return encoded;
}

bool uri_next_parameter(struct span *query, struct span *name, struct span *value)
{
	if (!query->n)
		return false;
	const char *end = memchr(query->p, '&', query->n);
	struct span one = {query->p, end ? (size_t)(end - query->p) : query->n};
	size_t taken = one.n + (end != NULL);
	*query = (struct span){query->p + taken, query->n - taken};
	const char *equals = one.n ? memchr(one.p, '=', one.n) : NULL;
	*name = (struct span){one.p, equals ? (size_t)(equals - one.p) : one.n};
	*value = equals ? (struct span){equals + 1, one.n - name->n - 1} : (struct span){0};
	return true;
}
