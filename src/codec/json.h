/* json.h - a strict RFC 8259 reader that finds the members of one object and decodes nothing.
 *
 * For the hot path: each member comes back as spans of the original text, so that values pass
 * through byte for byte. It refuses all that the RFC's grammar refuses (trailing commas, single
 * quotes, leading zeros, control characters in strings, bytes that are not UTF-8, a byte order
 * mark, anything after the object). It accepts what the grammar accepts, escaped lone surrogates
 * and numbers of any length included. Nesting deeper than JSON_DEPTH_MAX is refused. It allocates
 * nothing and never recurses. Documents of our own (tokens, status) are cJSON's work instead. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/span.h"

enum { JSON_DEPTH_MAX = 1024 };

enum json_type {
	JSON_NULL,
	JSON_FALSE,
	JSON_TRUE,
	JSON_NUMBER,
	JSON_STRING,
	JSON_ARRAY,
	JSON_OBJECT,
	JSON_TYPE_N
};

struct json_value {
	struct span text; /* as written: quotes of a string and brackets included */
	enum json_type type;
	bool escaped; /* a string: has a backslash in it */
};

struct json_member {
	struct json_value name; /* always a JSON_STRING */
	struct json_value value;
	struct span whole; /* from the name's first quote to the value's last byte */
};

/* One walk over the members of an object, set up by json_object_begin(). The fields are the
 * reader's own, but for fault, fault_offset and newline, which may be read once json_object_next()
 * has returned less than 1. */
struct json_object_reader {
	const char *start, *at, *end;
	const char
		*fault; /* why the text is refused, a phrase: "a control character in a string" */
	size_t fault_offset; /* byte offset of the fault in the text */
	bool newline;        /* a raw CR or LF stands between tokens, so the text is not one line */
	bool opened, ended;  /* its { was read; the object and the text have ended */
};

void json_object_begin(struct json_object_reader *r, struct span text);

/* 1: *m is the next member. 0: the object and the text have ended properly. -EBADMSG: see fault.
 * Members that stand before a fault are handed out first: from a broken text one may still learn
 * whose it was. */
int json_object_next(struct json_object_reader *r, struct json_member *m);

/* The elements of an array that json_object_next() found valid. 1: *v is the next element; 0: no
 * more. */
struct json_array_reader {
	const char *at, *end;
};
void json_array_begin(struct json_array_reader *r, const struct json_value *array);
int json_array_next(struct json_array_reader *r, struct json_value *v);

/* What is between the quotes, still with its escapes. */
struct span json_string_raw(const struct json_value *string);

/* Decodes a string to out, which has room for string->text.n bytes; returns the length. A lone
 * surrogate becomes its three-byte (WTF-8) form, so that different strings stay different. */
size_t json_string_decode(const struct json_value *string, char *out);

/* The string's bytes, decoded into *room if it has escapes; valid until the string or *room
 * changes. */
struct span json_string_text(const struct json_value *string, struct buf *room);

/* Do two strings, or a string and plain bytes, mean the same, whatever their escapes? */
bool json_string_same(const struct json_value *a, const struct json_value *b);
bool json_string_is(const struct json_value *string, struct span plain);

/* Which of n plain names is it? n: none of them. */
size_t json_string_find(const struct json_value *string, const struct span *names, size_t n);

/* A 64-bit hash of the decoded string: equal for equal strings however they are escaped. Keyed by
 * seed, so that a peer who does not know it cannot aim for collisions. */
uint64_t json_string_hash(const struct json_value *string, uint64_t seed);
uint64_t json_bytes_hash(struct span bytes, uint64_t seed); /* the same, of decoded bytes */

/* Reads a number as an integer in [min, max]. false when it is not whole or out of range; 1e3
 * and 5.0 are whole. */
bool json_number_integer(const struct json_value *number, int64_t min, int64_t max, int64_t *out);

/* Appends plain bytes as a JSON string's inside (no quotes): escapes what must be. Returns the
 * bytes written; out has room for 6 * text.n. It is the reverse of json_string_decode(): what that
 * makes of a lone surrogate becomes its escape again (two halves that came together since then are
 * a pair). Other bytes that are not UTF-8 become U+FFFD. */
size_t json_escape(struct span text, char *out);

/* How many bytes, from the first on, json_escape() carries faithfully: all of them, or those before
 * the first that is not UTF-8. */
size_t json_escapable(struct span text);

/* Appends plain bytes as a whole JSON string, quotes included. */
void json_add_string(struct buf *out, struct span plain);
