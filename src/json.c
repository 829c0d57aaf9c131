#include "json.h"

#include <endian.h>
#include <errno.h>

/* One pass, left to right: whoever calls a scan_ function has looked at the byte it starts with, or
 * lets it look. Each returns false once the text is refused; then fault and its offset say why, and
 * the reader stays where it is. */

static bool refuse(struct json_object_reader *r, const char *at, const char *fault)
{
	r->fault = fault;
	r->fault_offset = (size_t)(at - r->start);
	return false;
}

static size_t left(const struct json_object_reader *r)
{
	return (size_t)(r->end - r->at);
}

/* The byte that comes next, -1 at the end. */
static int peek(const struct json_object_reader *r)
{
	return r->at < r->end ? (unsigned char)*r->at : -1;
}

static void skip_space(struct json_object_reader *r)
{
	const char *at = r->at;

	for (; at < r->end; at++) {
		if (*at == '\n' || *at == '\r')
			r->newline = true;
		else if (*at != ' ' && *at != '\t')
			break;
	}
	r->spaced |= at != r->at;
	r->at = at;
}

/* --- strings --- */

#define EACH_BYTE(byte) (UINT64_C(0x0101010101010101) * (byte))

/* Marks the bytes of eight that are less than n (up to 128) with their top bits. Above the lowest
 * mark there may be wrong ones, as a subtraction borrows from the byte above; the lowest is always
 * right. */
static uint64_t mark_below(uint64_t eight, unsigned n)
{
	return (eight - EACH_BYTE(n)) & ~eight;
}

static bool is_plain(unsigned char c)
{
	return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

/* The first byte from at on that is not an ordinary ASCII character of a string. Most bytes of most
 * lines pass through here, hence eight at a time, the first of them in the lowest place. */
static const char *skip_plain(const char *at, const char *end)
{
	for (; end - at >= 8; at += 8) {
		uint64_t eight;
		memcpy(&eight, at, 8);
		eight = le64toh(eight);
		uint64_t special = eight | mark_below(eight, 0x20) |
				   mark_below(eight ^ EACH_BYTE('"'), 1) |
				   mark_below(eight ^ EACH_BYTE('\\'), 1);
		special &= EACH_BYTE(0x80);
		if (special)
			return at + __builtin_ctzll(special) / 8;
	}
	while (at < end && is_plain((unsigned char)*at))
		at++;
	return at;
}

static bool is_between(const char *p, unsigned low, unsigned high)
{
	return (unsigned char)*p >= low && (unsigned char)*p <= high;
}

/* The length of the UTF-8 character of two or more bytes that p begins with, 0 if it is none. Table
 * 3-7 of the Unicode standard: only the second byte's range depends on the first; that keeps out
 * overlong forms, surrogates and what is beyond U+10FFFF. */
static size_t utf8_length(const char *p, size_t n)
{
	unsigned char first = (unsigned char)*p;
	unsigned low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
	unsigned high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
	size_t length = first < 0xc2   ? 0
			: first < 0xe0 ? 2
			: first < 0xf0 ? 3
			: first < 0xf5 ? 4
				       : 0;

	if (length == 0 || n < length || !is_between(p + 1, low, high))
		return 0;
	for (size_t i = 2; i < length; i++) {
		if (!is_between(p + i, 0x80, 0xbf))
			return 0;
	}
	return length;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

static bool scan_escape(struct json_object_reader *r)
{
	if (left(r) < 2)
		return refuse(r, r->end, "the end of the text within a string");
	switch (r->at[1]) {
	case '"':
	case '\\':
	case '/':
	case 'b':
	case 'f':
	case 'n':
	case 'r':
	case 't':
		r->at += 2;
		return true;
	case 'u':
		for (size_t i = 2; i < 6; i++) {
			if (i >= left(r))
				return refuse(r, r->end, "the end of the text within a string");
			if (hex_digit(r->at[i]) < 0)
				return refuse(r, r->at + i,
					      "a \\u without four hexadecimal digits");
		}
		r->at += 6;
		return true;
	default:
		return refuse(r, r->at + 1, "an unknown escape in a string");
	}
}

/* Within a string, at a byte that is not plain and does not end it. */
static bool scan_special(struct json_object_reader *r)
{
	unsigned char c = (unsigned char)*r->at;

	if (c == '\\')
		return scan_escape(r);
	if (c < 0x20)
		return refuse(r, r->at, "a control character in a string");
	size_t n = utf8_length(r->at, left(r));
	if (n == 0)
		return refuse(r, r->at, "bytes that are not UTF-8 in a string");
	r->at += n;
	return true;
}

static bool scan_string(struct json_object_reader *r, struct json_value *v)
{
	const char *start = r->at++;
	bool escaped = false;

	for (;;) {
		r->at = skip_plain(r->at, r->end);
		if (r->at == r->end)
			return refuse(r, r->end, "the end of the text within a string");
		if (*r->at == '"')
			break;
		escaped |= *r->at == '\\';
		if (!scan_special(r))
			return false;
	}
	r->at++;
	*v = (struct json_value){
		.text = {start, (size_t)(r->at - start)}, .type = JSON_STRING, .escaped = escaped};
	return true;
}

/* --- numbers and words --- */

static bool is_digit(int c)
{
	return c >= '0' && c <= '9';
}

static bool scan_digits(struct json_object_reader *r)
{
	if (!is_digit(peek(r)))
		return refuse(r, r->at, "a number that lacks a digit");
	while (is_digit(peek(r)))
		r->at++;
	return true;
}

static bool scan_number(struct json_object_reader *r, struct json_value *v)
{
	const char *start = r->at;

	if (peek(r) == '-')
		r->at++;
	const char *whole = r->at;
	if (!scan_digits(r))
		return false;
	if (*whole == '0' && r->at - whole > 1)
		return refuse(r, whole, "a number with a leading zero");
	if (peek(r) == '.') {
		r->at++;
		if (!scan_digits(r))
			return false;
	}
	if (peek(r) == 'e' || peek(r) == 'E') {
		r->at++;
		if (peek(r) == '+' || peek(r) == '-')
			r->at++;
		if (!scan_digits(r))
			return false;
	}
	*v = (struct json_value){.text = {start, (size_t)(r->at - start)}, .type = JSON_NUMBER};
	return true;
}

static bool scan_word(struct json_object_reader *r, struct json_value *v, struct span word,
		      enum json_type type)
{
	if (left(r) < word.n || memcmp(r->at, word.p, word.n) != 0)
		return refuse(r, r->at, "a word that is not true, false or null");
	*v = (struct json_value){.text = {r->at, word.n}, .type = type};
	r->at += word.n;
	return true;
}

/* Any value but an array or object. */
static bool scan_scalar(struct json_object_reader *r, struct json_value *v)
{
	int c = peek(r);

	switch (c) {
	case '"':
		return scan_string(r, v);
	case 't':
		return scan_word(r, v, SPAN("true"), JSON_TRUE);
	case 'f':
		return scan_word(r, v, SPAN("false"), JSON_FALSE);
	case 'n':
		return scan_word(r, v, SPAN("null"), JSON_NULL);
	case -1:
		return refuse(r, r->at, "the end of the text in place of a value");
	default:
		if (c == '-' || is_digit(c))
			return scan_number(r, v);
		return refuse(r, r->at, "an unexpected character in place of a value");
	}
}

/* --- arrays and objects --- */

/* Which of the brackets that are open are those of objects: a bit each, so that a line of brackets
 * cannot exhaust the stack as recursion would let it. */
struct nest {
	unsigned depth;
	uint64_t objects[JSON_DEPTH_MAX / 64];
};

static void nest_enter(struct nest *nest, bool object)
{
	uint64_t bit = UINT64_C(1) << (nest->depth % 64);
	uint64_t *word = &nest->objects[nest->depth / 64];

	*word = object ? *word | bit : *word & ~bit;
	nest->depth++;
}

/* Is the innermost open bracket an object's? */
static bool nest_in_object(const struct nest *nest)
{
	unsigned top = nest->depth - 1;

	return nest->objects[top / 64] >> (top % 64) & 1;
}

/* "name" : and the white space around it. */
static bool scan_name(struct json_object_reader *r, struct json_value *name)
{
	if (peek(r) != '"')
		return refuse(r, r->at,
			      peek(r) < 0 ? "the end of the text within an object"
					  : "no name in quotes where a member begins");
	if (!scan_string(r, name))
		return false;
	skip_space(r);
	if (peek(r) != ':')
		return refuse(r, r->at, "no colon after the name of a member");
	r->at++;
	skip_space(r);
	return true;
}

/* Where an element or member begins: enters it if it is a container, else passes it. */
static bool scan_element(struct json_object_reader *r, struct nest *nest)
{
	struct json_value ignored;

	if (nest_in_object(nest) && !scan_name(r, &ignored))
		return false;
	if (peek(r) != '[' && peek(r) != '{')
		return scan_scalar(r, &ignored);
	/* The object whose members the reader walks is a level as well. */
	if (nest->depth + 1 >= JSON_DEPTH_MAX)
		return refuse(r, r->at, "too deep a nesting of arrays and objects");
	nest_enter(nest, *r->at == '{');
	r->at++;
	return true;
}

/* Does the innermost bracket close here? Then it is passed. */
static bool scan_close(struct json_object_reader *r, struct nest *nest)
{
	if (peek(r) != (nest_in_object(nest) ? '}' : ']'))
		return false;
	r->at++;
	nest->depth--;
	return true;
}

static bool scan_comma(struct json_object_reader *r, const struct nest *nest)
{
	if (peek(r) != ',') {
		if (peek(r) < 0)
			return refuse(r, r->at,
				      nest_in_object(nest) ? "the end of the text within an object"
							   : "the end of the text within an array");
		return refuse(r, r->at,
			      nest_in_object(nest) ? "neither a comma nor } after a member"
						   : "neither a comma nor ] after an element");
	}
	r->at++;
	skip_space(r);
	return true;
}

/* The insides of an array or object, from behind its first bracket to behind its last. */
static bool scan_nest(struct json_object_reader *r, struct nest *nest)
{
	bool fresh = true; /* a bracket was just opened: it may close at once, and no comma comes */

	while (nest->depth > 0) {
		skip_space(r);
		if (scan_close(r, nest)) {
			fresh = false;
			continue;
		}
		if (!fresh && !scan_comma(r, nest))
			return false;
		unsigned depth = nest->depth;
		if (!scan_element(r, nest))
			return false;
		fresh = nest->depth > depth;
	}
	return true;
}

static bool scan_container(struct json_object_reader *r, struct json_value *v)
{
	const char *start = r->at++;
	struct nest nest = {0};

	nest_enter(&nest, *start == '{');
	r->spaced = false;
	if (!scan_nest(r, &nest))
		return false;
	*v = (struct json_value){.text = {start, (size_t)(r->at - start)},
				 .type = *start == '{' ? JSON_OBJECT : JSON_ARRAY,
				 .spaced = r->spaced};
	return true;
}

static bool scan_value(struct json_object_reader *r, struct json_value *v)
{
	int c = peek(r);

	return c == '{' || c == '[' ? scan_container(r, v) : scan_scalar(r, v);
}

/* --- the members of an object --- */

void json_object_begin(struct json_object_reader *r, struct span text)
{
	const char *start = text.p ? text.p : "";

	*r = (struct json_object_reader){.start = start, .at = start, .end = start + text.n};
}

static bool object_open(struct json_object_reader *r)
{
	if (left(r) >= 3 && memcmp(r->at, "\xef\xbb\xbf", 3) == 0)
		return refuse(r, r->at, "a byte order mark");
	skip_space(r);
	if (peek(r) != '{')
		return refuse(r, r->at,
			      peek(r) < 0 ? "no object" : "something that is not an object");
	r->at++;
	r->opened = true;
	return true;
}

static bool object_close(struct json_object_reader *r)
{
	r->at++;
	skip_space(r);
	if (r->at < r->end)
		return refuse(r, r->at, "something after the object");
	r->ended = true;
	return true;
}

static int object_member(struct json_object_reader *r, struct json_member *m)
{
	struct json_value name, value;

	if (!scan_name(r, &name) || !scan_value(r, &value))
		return -EBADMSG;
	*m = (struct json_member){.name = name,
				  .value = value,
				  .whole = {name.text.p, (size_t)(r->at - name.text.p)}};
	return 1;
}

int json_object_next(struct json_object_reader *r, struct json_member *m)
{
	static const struct nest object = {.depth = 1, .objects = {1}};
	bool first = !r->opened;

	if (r->fault)
		return -EBADMSG;
	if (r->ended)
		return 0;
	if (first && !object_open(r))
		return -EBADMSG;
	skip_space(r);
	if (peek(r) == '}')
		return object_close(r) ? 0 : -EBADMSG;
	if (!first && !scan_comma(r, &object))
		return -EBADMSG;
	return object_member(r, m);
}

/* --- the elements of an array --- */

void json_array_begin(struct json_array_reader *r, const struct json_value *array)
{
	r->at = array->text.p + 1;
	r->end = array->text.p + array->text.n - 1;
}

int json_array_next(struct json_array_reader *r, struct json_value *v)
{
	struct json_object_reader text = {.start = r->at, .at = r->at, .end = r->end};

	/* The array is known to be valid, so commas need no check: they are passed like white
	 * space. */
	skip_space(&text);
	if (peek(&text) == ',') {
		text.at++;
		skip_space(&text);
	}
	if (text.at == text.end || !scan_value(&text, v))
		return 0;
	r->at = text.at;
	return 1;
}

/* --- what a string means --- */

struct span json_string_raw(const struct json_value *string)
{
	return (struct span){string->text.p + 1, string->text.n - 2};
}

/* The decoded bytes of a valid string, one after the other. */
struct decoder {
	const char *at, *end;
	unsigned char pending[4]; /* what is left of a character that was escaped */
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

	for (int i = 0; i < 4; i++)
		value = value << 4 | (unsigned)hex_digit(p[i]);
	return value;
}

/* The code point of the \uXXXX that d stands on, a pair of surrogates taken together. */
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

/* Writes the UTF-8 form of c, surrogates like others; returns its length. */
static unsigned utf8_write(unsigned char out[4], uint32_t c)
{
	static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
	unsigned n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;

	for (unsigned i = n - 1; i > 0; i--) {
		out[i] = (unsigned char)(0x80 | (c & 0x3f));
		c >>= 6;
	}
	out[0] = (unsigned char)((n > 1 ? lead[n] : 0) | c);
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

	/* Nobody escapes a member's name, and most differ by their length already. */
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

/* SipHash-1-3 (Aumasson and Bernstein), the variant that hash tables of several languages use: it
 * is made for short input from people who would like collisions. Its key of 128 bits is our 64 bits
 * and their complement. */
struct sip {
	uint64_t v[4];
	uint64_t word; /* bytes that do not make eight yet */
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

uint64_t json_string_hash(const struct json_value *string, uint64_t seed)
{
	struct sip s = {
		.v = {UINT64_C(0x736f6d6570736575) ^ seed, UINT64_C(0x646f72616e646f6d) ^ ~seed,
		      UINT64_C(0x6c7967656e657261) ^ seed, UINT64_C(0x7465646279746573) ^ ~seed}};

	if (string->escaped) {
		struct decoder d = decode_begin(string);
		for (int c; (c = decode_byte(&d)) >= 0;)
			sip_byte(&s, (unsigned char)c);
		return sip_end(&s);
	}
	struct span raw = json_string_raw(string);
	for (; raw.n - s.n >= 8; s.n += 8) {
		uint64_t word;
		memcpy(&word, raw.p + s.n, 8);
		sip_word(&s, le64toh(word));
	}
	while (s.n < raw.n)
		sip_byte(&s, (unsigned char)raw.p[s.n]);
	return sip_end(&s);
}

/* --- what a number means --- */

/* A number taken apart: ±digits × 10^exponent, in which the digits stand around a point perhaps. */
struct decimal {
	const char *digits, *end;
	int64_t exponent;
	bool negative;
};

/* An exponent beyond this is as good as infinite: no text is long enough to make up for it. */
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
	/* Zeros at the end belong to the exponent, so that 1.50e1 is seen to be whole. */
	for (; d.end > d.digits && (d.end[-1] == '0' || d.end[-1] == '.'); d.end--)
		d.exponent += d.end[-1] == '0';
	return d;
}

bool json_number_integer(const struct json_value *number, int64_t min, int64_t max, int64_t *out)
{
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
	/* INT64_MIN has no positive twin: the negation is done where it cannot overflow. */
	int64_t result = d.negative ? (int64_t)(0 - value) : (int64_t)value;
	if (result < min || result > max)
		return false;
	*out = result;
	return true;
}

/* --- making strings --- */

/* The letter after the backslash of a control character that has a short escape, 0 if it has none.
 */
static char short_escape(unsigned char c)
{
	switch (c) {
	case '"':
	case '\\':
		return (char)c;
	case '\b':
		return 'b';
	case '\f':
		return 'f';
	case '\n':
		return 'n';
	case '\r':
		return 'r';
	case '\t':
		return 't';
	default:
		return 0;
	}
}

static size_t escape_byte(unsigned char c, char *out)
{
	static const char digits[] = "0123456789abcdef";
	char letter = short_escape(c);

	if (letter) {
		out[0] = '\\';
		out[1] = letter;
		return 2;
	}
	memcpy(out, "\\u00", 4);
	out[4] = digits[c >> 4];
	out[5] = digits[c & 15];
	return 6;
}

size_t json_escape(struct span text, char *out)
{
	const char *at = text.n ? text.p : "", *end = at + text.n;
	char *to = out;

	while (at < end) {
		const char *plain = at;
		at = skip_plain(at, end);
		memcpy(to, plain, (size_t)(at - plain));
		to += at - plain;
		if (at == end)
			break;
		size_t n = 1;
		if ((unsigned char)*at < 0x80) {
			to += escape_byte((unsigned char)*at, to);
		} else if ((n = utf8_length(at, (size_t)(end - at))) > 0) {
			memcpy(to, at, n);
			to += n;
		} else {
			n = 1;
			memcpy(to, "\xef\xbf\xbd", 3);
			to += 3;
		}
		at += n;
	}
	return (size_t)(to - out);
}
