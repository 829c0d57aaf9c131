/* token_scope.h - the list of keys and patterns in a token, within its budget.
 *
 * A token carries its list in its own text and must fit into a request line, so the list has a
 * budget. Within it, each key and pattern is listed as it is, except those that a wanted "prefix*"
 * covers. Beyond it, neighbours in byte order are replaced by the glob of their common prefix, the
 * longest prefix first, since a longer prefix matches fewer unwanted keys. Changes of unwanted keys
 * are dropped when they arrive (fanout.h). A common prefix has at least one byte and consists of
 * whole characters; the glob "*" is listed only if it was asked for. If nothing is left to merge
 * and the list is still too long, strings are left out with all that they stand for, the latest
 * items first. A string stays if there is room for it beside those of earlier items, so a string
 * that is too long by itself displaces no other.
 *
 * Facts about the service (its documentation and SDK 1.4.1): a listed string is a regular
 * expression if it begins with ^, else a glob if it contains *, else an exact key. A wanted name
 * that begins with ^ is therefore listed as an equivalent regular expression, valid in JavaScript
 * and POSIX. Another key with a * in it is listed as it is and treated as the glob that the service
 * takes it for, which brings a few more keys. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/span.h"

enum token_scope_how {
	TOKEN_SCOPE_LEFT_OUT, /* the list does not cover it: there was no room for it */
	TOKEN_SCOPE_BY_GLOB,  /* a "prefix*" of the list covers it */
	TOKEN_SCOPE_LISTED,   /* as a string of its own */
	TOKEN_SCOPE_HOW_N
};

struct token_scope_item {
	/* Decoded: UTF-8, or what json_string_decode() makes of lone surrogates. */
	struct span text;
	bool pattern;             /* a glob; else one key */
	uint64_t sequence;        /* later ones are left out first */
	enum token_scope_how how; /* out */
};

/* The literals of the globs "literal*" in a list, wanted and merged ones: sorted, none a prefix of
 * another. Zeroed it is empty. */
struct token_scope {
	struct span *prefix;
	size_t n;
	char *memory; /* owned; the bytes of prefix */
};

/* Makes a list for the items: appends it to *list as a JSON array of at most budget bytes ("[]" at
 * least), sets how of each item, and fills *scope, which was not initialised. Returns the number of
 * strings. The order of the items does not matter. Costs as much as sorting them. */
size_t token_scope_make(struct token_scope_item *items, size_t n, size_t budget,
			struct token_scope *scope, struct buf *list);
void token_scope_fini(struct token_scope *scope);

/* Does a glob of the list cover all keys with this prefix: a key, or the literal beginning of a
 * pattern? */
bool token_scope_has(const struct token_scope *scope, struct span literal);
