/* The values of strings and numbers that json.c has found valid. Their grammar is not checked
 * again. */
#include "codec/json.h"

#include <endian.h>

enum { PLAIN_DIGITS = 18 }; /* digits that always fit an int64_t */

/* --- strings --- */

struct span json_string_raw(const struct json_value *string)
{
	return (struct span){string->text.p + 1, string->text.n - 2};
}

/* Decodes a valid string byte by byte. */
struct decoder {
	const char *at, *end;
	unsigned char pending[4]; /* the rest of an escaped character */
	unsigned n, taken;
};

static struct decoder decode_begin(const struct json_value *string)
{
	struct span raw = json_string_raw(string);

	return (struct decoder){.at = raw.p, .end = raw.p + raw.n};
}

static unsigned hex4(const char *p)
{
	unsigned value = 0;

	for (int i = 0; i < 4; i++) {
		char c = p[i];
		/* Bit 0x20 makes a letter lower case. */
		int digit = c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10;
		value = value << 4 | (unsigned)digit;
	}
	return value;
}

/* The code point of the \uXXXX at d; a pair of surrogates is one code point. */
static uint32_t decode_unicode(struct decoder *d)
{
	uint32_t c = hex4(d->at + 2);

	d->at += 6;
	if (c >= 0xd800 && c < 0xdc00 && d->end - d->at >= 6 && d->at[0] == '\\' &&
	    d->at[1] == 'u') {
		uint32_t low = hex4(d->at + 2);
		if (low >= 0xdc00 && low < 0xe000) {
			d->at += 6;
			c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
		}
	}
	return c;
}

static uint32_t decode_escape(struct decoder *d)
{
	char c = d->at[1];

	if (c == 'u')
		return decode_unicode(d);
	d->at += 2;
	switch (c) {
	case 'b':
		return '\b';
	case 'f':
		return '\f';
	case 'n':
		return '\n';
	case 'r':
		return '\r';
	case 't':
		return '\t';
	default:
		return (unsigned char)c;
	}
}

/* Writes c as UTF-8, surrogates included; returns the length. */
static unsigned utf8_write(unsigned char out[4], uint32_t c)
{
	static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
	unsigned n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;

	for (unsigned i = n - 1; i > 0; i--) {
		out[i] = (unsigned char)(0x80 | (c & 0x3f));
		c >>= 6;
	}
	out[0] = (unsigned char)(lead[n] | c);
	return n;
}

/* The next decoded byte, -1 at the end. */
static int decode_byte(struct decoder *d)
{
	if (d->taken < d->n)
		return d->pending[d->taken++];
	if (d->at == d->end)
		return -1;
	if (*d->at != '\\')
		return (unsigned char)*d->at++;
	d->n = utf8_write(d->pending, decode_escape(d));
	d->taken = 1;
	return d->pending[0];
}

size_t json_string_decode(const struct json_value *string, char *out)
{
	struct span raw = json_string_raw(string);

	if (!string->escaped) {
		memcpy(out, raw.p, raw.n);
		return raw.n;
	}
	struct decoder d = decode_begin(string);
	size_t n = 0;
	for (int c; (c = decode_byte(&d)) >= 0; n++)
		out[n] = (char)c;
	return n;
}

bool json_string_same(const struct json_value *a, const struct json_value *b)
{
	if (!a->escaped && !b->escaped)
		return span_equal(a->text, b->text);
	struct decoder da = decode_begin(a), db = decode_begin(b);
	for (;;) {
		int c = decode_byte(&da);
		if (c != decode_byte(&db))
			return false;
		if (c < 0)
			return true;
	}
}

bool json_string_is(const struct json_value *string, struct span plain)
{
	if (!string->escaped)
		return span_equal(json_string_raw(string), plain);
	struct decoder d = decode_begin(string);
	for (size_t i = 0; i < plain.n; i++) {
		if (decode_byte(&d) != (unsigned char)plain.p[i])
			return false;
	}
	return decode_byte(&d) < 0;
}

size_t json_string_find(const struct json_value *string, const struct span *names, size_t n)
{
	struct span raw = json_string_raw(string);
	size_t i = 0;

	/* Names are hardly ever escaped, and most differ in length. */
	if (!string->escaped) {
		while (i < n && !span_equal(raw, names[i]))
			i++;
	} else {
		while (i < n && !json_string_is(string, names[i]))
			i++;
	}
	return i;
}

/* --- hash --- */

/* SipHash-1-3 (Aumasson and Bernstein), used by the hash tables of several languages: made for
 * short keys from hostile peers. Its 128-bit key is our 64 bits and their complement. */
struct sip {
	uint64_t v[4];
	uint64_t word; /* bytes of an incomplete word */
	size_t n;
};

static uint64_t rotate(uint64_t x, unsigned bits)
{
	return x << bits | x >> (64 - bits);
}

static void sip_round(uint64_t v[4])
{
	v[0] += v[1];
	v[2] += v[3];
	v[1] = rotate(v[1], 13) ^ v[0];
	v[3] = rotate(v[3], 16) ^ v[2];
	v[0] = rotate(v[0], 32);
	v[2] += v[1];
	v[0] += v[3];
	v[1] = rotate(v[1], 17) ^ v[2];
	v[3] = rotate(v[3], 21) ^ v[0];
	v[2] = rotate(v[2], 32);
}

static void sip_word(struct sip *s, uint64_t word)
{
	s->v[3] ^= word;
	sip_round(s->v);
	s->v[0] ^= word;
}

static void sip_byte(struct sip *s, unsigned char c)
{
	s->word |= (uint64_t)c << (8 * (s->n % 8));
	if (++s->n % 8 == 0) {
		sip_word(s, s->word);
		s->word = 0;
	}
}

static uint64_t sip_end(struct sip *s)
{
	sip_word(s, s->word | (uint64_t)s->n << 56);
	s->v[2] ^= 0xff;
	for (int i = 0; i < 3; i++)
		sip_round(s->v);
	return s->v[0] ^ s->v[1] ^ s->v[2] ^ s->v[3];
}

static struct sip sip_begin(uint64_t seed)
{
	return (struct sip){
		.v = {UINT64_C(0x736f6d6570736575) ^ seed, UINT64_C(0x646f72616e646f6d) ^ ~seed,
		      UINT64_C(0x6c7967656e657261) ^ seed, UINT64_C(0x7465646279746573) ^ ~seed}};
}

uint64_t json_bytes_hash(struct span bytes, uint64_t seed)
{
	struct sip s = sip_begin(seed);

	for (; bytes.n - s.n >= 8; s.n += 8) {
		uint64_t word;
		memcpy(&word, bytes.p + s.n, 8);
		sip_word(&s, le64toh(word));
	}
	while (s.n < bytes.n)
		sip_byte(&s, (unsigned char)bytes.p[s.n]);
	return sip_end(&s);
}

uint64_t json_string_hash(const struct json_value *string, uint64_t seed)
{
	if (!string->escaped)
		return json_bytes_hash(json_string_raw(string), seed);
	struct sip s = sip_begin(seed);
	struct decoder d = decode_begin(string);
	for (int c; (c = decode_byte(&d)) >= 0;)
		sip_byte(&s, (unsigned char)c);
	return sip_end(&s);
}

/* --- numbers --- */

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* A number as ±digits × 10^exponent. The digits may contain a point. */
struct decimal {
	const char *digits, *end;
	int64_t exponent;
	bool negative;
};

/* Beyond this an exponent is infinite: no text is long enough to compensate it. */
#define EXPONENT_MAX (INT64_MAX / 4)

static int64_t read_exponent(const char *at, const char *end)
{
	bool negative = *at == '-';
	int64_t exponent = 0;

	if (*at == '-' || *at == '+')
		at++;
	for (; at < end; at++) {
		if (exponent < EXPONENT_MAX / 10)
			exponent = exponent * 10 + (*at - '0');
		else
			exponent = EXPONENT_MAX;
	}
	return negative ? -exponent : exponent;
}

static struct decimal take_apart(struct span text)
{
	const char *at = text.p, *end = text.p + text.n;
	struct decimal d = {.negative = *at == '-'};

	d.digits = at + d.negative;
	for (at = d.digits; at < end && is_digit(*at);)
		at++;
	const char *point = at;
	if (at < end && *at == '.')
		for (at++; at < end && is_digit(*at);)
			at++;
	d.end = at;
	if (at < end)
		d.exponent = read_exponent(at + 1, end);
	if (at > point)
		d.exponent -= at - point - 1;
	/* Final zeros are moved to the exponent, so that 1.50e1 is seen to be whole. */
	for (; d.end > d.digits && (d.end[-1] == '0' || d.end[-1] == '.'); d.end--)
		d.exponent += d.end[-1] == '0';
	return d;
}

/* The common case: a few digits and nothing else. */
static bool plain_integer(struct span text, int64_t *out)
{
	int64_t value = 0;

	if (text.n > PLAIN_DIGITS)
		return false;
	for (size_t i = 0; i < text.n; i++) {
		if (text.p[i] < '0' || text.p[i] > '9')
			return false;
		value = value * 10 + (text.p[i] - '0');
	}
	*out = value;
	return true;
}

bool json_number_integer(const struct json_value *number, int64_t min, int64_t max, int64_t *out)
{
	int64_t plain;

	if (plain_integer(number->text, &plain)) {
		if (plain < min || plain > max)
			return false;
		*out = plain;
		return true;
	}
	struct decimal d = take_apart(number->text);
	uint64_t value = 0;

	for (const char *at = d.digits; at < d.end; at++) {
		if (*at == '.')
			continue;
		if (value > (UINT64_MAX - 9) / 10)
			return false;
		value = value * 10 + (uint64_t)(*at - '0');
	}
	if (value != 0 && d.exponent < 0)
		return false;
	for (int64_t e = d.exponent; value != 0 && e > 0; e--) {
		if (value > UINT64_MAX / 10)
			return false;
		value *= 10;
	}
	if (value > (uint64_t)INT64_MAX + d.negative)
		return false;
	/* INT64_MIN has no positive counterpart; negating here can not overflow. */
	int64_t result = d.negative ? (int64_t)(0 - value) : (int64_t)value;
	if (result < min || result > max)
		return false;
	*out = result;
	return true;
}
