/* token_scope.h - what a token lists, so that the service tells all that is wanted and the token
 * still fits into a request line.
 *
 * A token carries its list in its own text, so the list has a budget. While it suffices each key
 * and pattern is listed as it is, but for those that a wanted "prefix*" covers already. Beyond it,
 * neighbours in the order of their bytes are replaced by the glob of their common beginning, the
 * longest beginning first, since each byte of it keeps out most of the keys that nobody wants; what
 * the service tells too much is filtered by whoever hands it on (topics.h). A common beginning has
 * at least one byte, and whole characters: the glob "*" is listed only for one who asked for it.
 * When nothing is left to merge and the list is still too long, strings of it are left out with all
 * that they stand for, those of the latest items first: one stays if there is room for it beside
 * those of earlier items, so a string that is too long by itself costs no other its place.
 *
 * Facts about the service (UPSTREAM: its documentation and SDK 1.4.1): a listed string is an exact
 * key, a glob with *, or a regular expression if it begins with ^. So a wanted key or pattern that
 * begins with ^ is listed as a regular expression that means the same, to JavaScript as to POSIX;
 * another key with a * in it is listed as it is and treated as the glob that it is to the service,
 * which brings a few keys more. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/span.h"

enum token_scope_how {
	TOKEN_SCOPE_LEFT_OUT, /* the list does not cover it: there was no room for it */
	TOKEN_SCOPE_BY_GLOB,  /* a "prefix*" of the list covers it */
	TOKEN_SCOPE_LISTED,   /* by itself */
	TOKEN_SCOPE_HOW_N
};

struct token_scope_item {
	/* Decoded: UTF-8, or what json_string_decode() makes of lone surrogates. */
	struct span text;
	bool pattern;             /* a glob; else one key */
	uint64_t sequence;        /* later ones are left out first */
	enum token_scope_how how; /* out */
};

/* The literals of the globs "literal*" that a list holds, wanted ones and merged ones: sorted, none
 * the beginning of another. A zeroed one is empty. */
struct token_scope {
	struct span *prefix;
	size_t n;
	char *memory; /* their bytes, its own */
};

/* Makes a list for the items: appends it to *list as a JSON array of at most budget bytes ("[]" at
 * least, whatever the budget), sets how of each item, and fills *cover, which was not initialised.
 * Returns how many strings the list has. The items stay where they are; their order makes no
 * difference to the list. The time is that of sorting them. */
size_t token_scope_make(struct token_scope_item *items, size_t n, size_t budget,
			struct token_scope *token_scope, struct buf *list);
void token_scope_fini(struct token_scope *c);

/* Does a glob of the list cover all that begins with this literal: a key, or the literal beginning
 * of a pattern? */
bool token_scope_has(const struct token_scope *c, struct span literal);
