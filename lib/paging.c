/* Keys as positions in the service's order, which is byte order: the first key after a key, and the
 * last key with a prefix. */
#include "hpkv.h"

enum { CHARACTER_MAX = 4, SURROGATES = 0xd800, LAST_SURROGATE = 0xdfff, LAST = 0x10ffff };

static size_t length_of(unsigned c)
{
	return c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
}

/* Writes a character as UTF-8. Returns its length. */
static size_t put_character(unsigned c, char *out)
{
	static const unsigned char marks[] = {0, 0, 0xc0, 0xe0, 0xf0};
	size_t n = length_of(c);

	for (size_t i = n; i-- > 1; c >>= 6)
		out[i] = (char)(0x80 | (c & 0x3f));
	out[0] = (char)(marks[n] | c);
	return n;
}

/* Decodes the character from p to end. */
static unsigned character_at(const char *p, const char *end)
{
	unsigned first = (unsigned char)*p;
	unsigned c = first < 0x80   ? first
		     : first < 0xe0 ? first & 0x1f
		     : first < 0xf0 ? first & 0x0f
				    : first & 0x07;

	while (++p < end)
		c = c << 6 | ((unsigned char)*p & 0x3f);
	return c;
}

static size_t start_of_last(const char *p, size_t n)
{
	size_t at = n - 1;

	while (at > 0 && n - at < CHARACTER_MAX && ((unsigned char)p[at] & 0xc0) == 0x80)
		at--;
	return at;
}

/* The next character that text may contain; LAST + 1: there is none. */
static unsigned behind(unsigned c)
{
	return c + 1 >= SURROGATES && c + 1 <= LAST_SURROGATE ? LAST_SURROGATE + 1 : c + 1;
}

size_t hpkv_key_after(struct hpkv_bytes key, size_t most, char *out)
{
	size_t end = key.n, at;

	if (key.n < most) {
		if (key.n)
			memcpy(out, key.p, key.n);
		out[key.n] = '\0';
		return key.n + 1;
	}
	/* A longer key is not allowed. So raise the last character that can be raised, and drop all
	 * behind it: no text with the same beginning follows this key. */
	for (; end > 0; end = at) {
		at = start_of_last(key.p, end);
		unsigned next = behind(character_at(key.p + at, key.p + end));
		if (next > LAST || at + length_of(next) > most)
			continue;
		memcpy(out, key.p, at);
		return at + put_character(next, out + at);
	}
	return 0;
}

size_t hpkv_key_last(struct hpkv_bytes prefix, size_t most, char *out)
{
	/* The greatest character of this many bytes. */
	static const unsigned greatest[] = {0, 0x7f, 0x7ff, 0xffff, LAST};
	size_t n = prefix.n < most ? prefix.n : most;

	if (prefix.n > most)
		return 0;
	if (n)
		memcpy(out, prefix.p, n);
	while (n < most) {
		size_t room = most - n;
		n += put_character(greatest[room < CHARACTER_MAX ? room : CHARACTER_MAX], out + n);
	}
	return n;
}
