/* json.h - a strict RFC 8259 reader that finds the members of one object and decodes nothing.
 *
 * For the hot path: members are spans of the original text, so values pass through byte for byte.
 * Everything outside the grammar is refused (trailing commas, single quotes, leading zeros, control
 * characters in strings, bytes that are not UTF-8, a byte order mark, text after the object), and
 * everything inside is accepted, including escaped lone surrogates and numbers of any length; only
 * nesting deeper than JSON_DEPTH_MAX is refused. It allocates nothing and never recurses. Documents
 * off the hot path (tokens, status) are read with cJSON. */
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
	struct span text; /* as written, with quotes or brackets */
	enum json_type type;
	bool escaped; /* a string with a backslash in it */
};

struct json_member {
	struct json_value name; /* always a JSON_STRING */
	struct json_value value;
	struct span whole; /* from the name's first quote to the value's last byte */
};

/* One walk over the members of an object, begun by json_object_begin(). After json_object_next()
 * returned less than 1, fault, fault_offset and newline may be read; the other fields are
 * internal. */
struct json_object_reader {
	const char *start, *at, *end;
	const char *fault;   /* why the text was refused, a phrase */
	size_t fault_offset; /* byte offset of the fault in the text */
	bool newline; /* there is a raw CR or LF between tokens, so the text is not one line */
	bool opened, ended; /* the { was read; the end was reached */
};

void json_object_begin(struct json_object_reader *r, struct span text);

/* 1: *m is the next member. 0: end of the object and the text. -EBADMSG: see fault. Members before
 * a fault are returned first, since they may tell whose text it was. */
int json_object_next(struct json_object_reader *r, struct json_member *m);

/* A walk over an array that json_object_next() found valid. 1: *v is the next element; 0: end. */
struct json_array_reader {
	const char *at, *end;
};
void json_array_begin(struct json_array_reader *r, const struct json_value *array);
int json_array_next(struct json_array_reader *r, struct json_value *v);

/* The text between the quotes, escapes included. */
struct span json_string_raw(const struct json_value *string);

/* Decodes a string to out, which has room for string->text.n bytes; returns the length. A lone
 * surrogate becomes three bytes (WTF-8), so that different strings stay different. */
size_t json_string_decode(const struct json_value *string, char *out);

/* The string's bytes, decoded into *room if it has escapes; valid until the string or *room
 * changes. */
struct span json_string_text(const struct json_value *string, struct buf *room);

/* Are two strings, or a string and plain bytes, equal once decoded? */
bool json_string_same(const struct json_value *a, const struct json_value *b);
bool json_string_is(const struct json_value *string, struct span plain);

/* The index of the plain name that it equals; n: none. */
size_t json_string_find(const struct json_value *string, const struct span *names, size_t n);

/* A 64-bit hash of the decoded string, keyed by seed: peers that do not know the seed can not aim
 * for collisions. */
uint64_t json_string_hash(const struct json_value *string, uint64_t seed);
uint64_t json_bytes_hash(struct span bytes, uint64_t seed); /* the same for decoded bytes */

/* Reads a number as an integer in [min, max]. False: it is not whole or out of range. 1e3 and 5.0
 * are whole. */
bool json_number_integer(const struct json_value *number, int64_t min, int64_t max, int64_t *out);

/* Writes plain bytes as the inside of a JSON string (no quotes). Returns the bytes written; out has
 * room for 6 * text.n. The reverse of json_string_decode(): a lone surrogate becomes its escape
 * again (two halves that have come together are a pair). Other bytes that are not UTF-8 become
 * U+FFFD. */
size_t json_escape(struct span text, char *out);

/* The length of the beginning of text that json_escape() carries faithfully: up to the first byte
 * that is not UTF-8. */
size_t json_escapable(struct span text);

/* Is all of it UTF-8 (RFC 3629)? Lone surrogates are not. */
bool json_is_utf8(struct span text);

/* Appends plain bytes as a whole JSON string, quotes included. */
void json_add_string(struct buf *out, struct span plain);
