#include "codec/json.h"

#include <endian.h>
#include <errno.h>

/* One pass, left to right. The caller of a scan_ function has looked at its first byte, unless the
 * function does. Each returns false once the text is refused; fault and offset then say why, and
 * the reader stays there. */

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

/* The next byte, -1 at the end. */
static int peek(const struct json_object_reader *r)
{
	return r->at < r->end ? (unsigned char)*r->at : -1;
}

static void skip_spaces(struct json_object_reader *r)
{
	const char *at = r->at;

	for (; at < r->end; at++) {
		if (*at == '\n' || *at == '\r')
			r->newline = true;
		else if (*at != ' ' && *at != '\t')
			break;
	}
	r->at = at;
}

/* Between most tokens there is none. */
static inline void skip_space(struct json_object_reader *r)
{
	if (r->at < r->end && (unsigned char)*r->at <= ' ')
		skip_spaces(r);
}

/* --- strings --- */

#define EACH_BYTE(byte) (UINT64_C(0x0101010101010101) * (byte))

/* Sets the top bit of each of eight bytes that is less than n (up to 128). Marks above the lowest
 * may be wrong, since a subtraction borrows from the next byte; the lowest is right. */
static uint64_t mark_below(uint64_t eight, unsigned n)
{
	return (eight - EACH_BYTE(n)) & ~eight;
}

static bool is_plain(unsigned char c)
{
	return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

/* The compiler makes of it what the processor has. A comparison sets all bits of a byte, or none.
 */
typedef signed char sixteen __attribute__((vector_size(16)));

/* The index of the first of sixteen bytes that is not plain; 16: all are. As a signed number a byte
 * beyond ASCII is less than 0x20 as well. */
static inline unsigned plain_of_sixteen(const char *p)
{
	sixteen c;
	uint64_t half[2];

	memcpy(&c, p, sizeof(c));
	sixteen special = (c < 0x20) | (c == '"') | (c == '\\');
	memcpy(half, &special, sizeof(half));
	if (half[0])
		return (unsigned)__builtin_ctzll(le64toh(half[0])) / 8;
	if (half[1])
		return 8 + (unsigned)__builtin_ctzll(le64toh(half[1])) / 8;
	return 16;
}

/* The first byte from at on that is not an ordinary ASCII character of a string. Most bytes of most
 * lines pass here, so it reads sixteen at a time, and eight behind them, the first in the lowest
 * byte. */
static const char *skip_plain(const char *at, const char *end)
{
	for (; end - at >= 16; at += 16) {
		unsigned n = plain_of_sixteen(at);
		if (n < 16)
			return at + n;
	}
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

/* The length of the UTF-8 character of two or more bytes at p; 0: it is none. Table 3-7 of the
 * Unicode standard: only the range of the second byte depends on the first, which excludes overlong
 * forms, surrogates and everything beyond U+10FFFF. */
static size_t utf8_length(const char *p, size_t n)
{
	unsigned char first = (unsigned char)*p;
	unsigned low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
	unsigned high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
	size_t length = 2u + (first >= 0xe0) + (first >= 0xf0);

	if (first < 0xc2 || first > 0xf4 || n < length || !is_between(p + 1, low, high))
		return 0;
	for (size_t i = 2; i < length; i++) {
		if (!is_between(p + i, 0x80, 0xbf))
			return 0;
	}
	return length;
}

static bool is_hex_digit(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
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
			if (!is_hex_digit(r->at[i]))
				return refuse(r, r->at + i,
					      "a \\u without four hexadecimal digits");
		}
		r->at += 6;
		return true;
	default:
		return refuse(r, r->at + 1, "an unknown escape in a string");
	}
}

/* At a byte of a string that is neither plain nor its end. */
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

/* One bit for each open bracket: is it an object's? A stack of calls could be exhausted by a line
 * of brackets. */
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

/* At the begin of a value: enters a container, passes anything else. */
static bool scan_element(struct json_object_reader *r, struct nest *nest)
{
	struct json_value ignored;

	if (nest_in_object(nest) && !scan_name(r, &ignored))
		return false;
	if (peek(r) != '[' && peek(r) != '{')
		return scan_scalar(r, &ignored);
	/* The object that is walked is a level as well. */
	if (nest->depth + 1 >= JSON_DEPTH_MAX)
		return refuse(r, r->at, "too deep a nesting of arrays and objects");
	nest_enter(nest, *r->at == '{');
	r->at++;
	return true;
}

/* Passes the end of the innermost container. False: it does not end here. */
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

/* Scans an array or object from its first bracket to its last. */
static bool scan_nest(struct json_object_reader *r, struct nest *nest)
{
	bool fresh = true; /* a bracket was just opened: an end may follow, but no comma */

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
	if (!scan_nest(r, &nest))
		return false;
	*v = (struct json_value){.text = {start, (size_t)(r->at - start)},
				 .type = *start == '{' ? JSON_OBJECT : JSON_ARRAY};
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
	if (!scan_name(r, &m->name) || !scan_value(r, &m->value))
		return -EBADMSG;
	/* A number has no end of its own: 12 may be the beginning of 123 in a truncated text. */
	if (m->value.type == JSON_NUMBER && r->at == r->end) {
		refuse(r, r->end, "the end of the text behind a number");
		return -EBADMSG;
	}
	m->whole = (struct span){m->name.text.p, (size_t)(r->at - m->name.text.p)};
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

	/* The array is valid, so commas are skipped like white space. */
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

/* --- making strings --- */

/* The letter of the short escape of a character; 0: it has none. */
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

static size_t write_unicode(unsigned unit, char *out)
{
	static const char digits[] = "0123456789abcdef";

	out[0] = '\\';
	out[1] = 'u';
	for (unsigned i = 0; i < 4; i++)
		out[2 + i] = digits[unit >> (12 - 4 * i) & 15];
	return 6;
}

/* A quote, a backslash, or a control character. */
static size_t write_escape(unsigned char c, char *out)
{
	char letter = short_escape(c);

	if (!letter)
		return write_unicode(c, out);
	out[0] = '\\';
	out[1] = letter;
	return 2;
}

/* Are these the three bytes of a lone surrogate (WTF-8)? */
static bool is_surrogate(const char *p, size_t n)
{
	return n >= 3 && (unsigned char)*p == 0xed && is_between(p + 1, 0xa0, 0xbf) &&
	       is_between(p + 2, 0x80, 0xbf);
}

/* Writes the character at p, which is not plain, as it is in a string. Returns the bytes written;
 * *taken: its bytes in the text. */
static size_t write_special(const char *p, size_t n, char *out, size_t *taken)
{
	*taken = 1;
	if ((unsigned char)*p < 0x80)
		return write_escape((unsigned char)*p, out);
	size_t length = utf8_length(p, n);
	if (length > 0) {
		memcpy(out, p, length);
		*taken = length;
		return length;
	}
	if (is_surrogate(p, n)) {
		*taken = 3;
		return write_unicode(
			0xd000u | (unsigned)(p[1] & 0x3f) << 6 | (unsigned)(p[2] & 0x3f), out);
	}
	memcpy(out, "\xef\xbf\xbd", 3);
	return 3;
}

static size_t valid(struct span text, bool surrogates)
{
	const char *at = text.n ? text.p : "", *end = at + text.n;

	while ((at = skip_plain(at, end)) < end) {
		size_t left = (size_t)(end - at), n = 1;
		if ((unsigned char)*at >= 0x80)
			n = surrogates && is_surrogate(at, left) ? 3 : utf8_length(at, left);
		if (n == 0)
			break;
		at += n;
	}
	return text.n - (size_t)(end - at);
}

size_t json_escapable(struct span text)
{
	return valid(text, true);
}

bool json_is_utf8(struct span text)
{
	return valid(text, false) == text.n;
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
		size_t taken;
		to += write_special(at, (size_t)(end - at), to, &taken);
		at += taken;
	}
	return (size_t)(to - out);
}
