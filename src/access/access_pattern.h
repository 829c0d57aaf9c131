/* access_pattern.h - the access pattern of a token: a regular expression over the keys that its
 * holder may get, set, patch, delete, increment, and read ranges of.
 *
 * It means what it means to JavaScript, where such patterns are written: it may match anywhere in
 * the key unless ^ and $ say otherwise, \d and its like are ASCII, $ is the very end, and a dot is
 * any character but a line's end. PCRE2 does the matching; what it has beyond JavaScript ((?i),
 * (*VERBS), \A, possessive quantifiers, {,5}, [:classes:] and the like) is refused, and so are \p
 * and \P, which differ with a flag that nobody can set. Unlike JavaScript's, a dot is one character
 * of more than 16 bits, not a half of it.
 *
 * A pattern comes from a client, and so does the key: matching has bounds for its steps, depth and
 * memory. A pattern that has run into them forbids every key from then on, so that it costs that
 * time once. */
#pragma once

#include <stdbool.h>

#include "base/span.h"

enum {
	ACCESS_PATTERN_MAX = 8192,     /* bytes of a pattern */
	ACCESS_PATTERN_STEPS = 100000, /* of one match */
	ACCESS_PATTERN_DEPTH = 10000,  /* of one match's backtracking */
	ACCESS_PATTERN_HEAP_KB = 1024, /* for one match */
	ACCESS_PATTERN_WHY_MAX = 160,
};

struct access_pattern;

/* NULL: the text is no such pattern, and why is a phrase. */
struct access_pattern *access_pattern_new(struct span text, char why[ACCESS_PATTERN_WHY_MAX]);
void access_pattern_free(struct access_pattern *p); /* NULL: nothing */

enum access_match {
	ACCESS_MATCH_NO,
	ACCESS_MATCH_YES,
	ACCESS_MATCH_BEYOND, /* it has run into the bounds, now or before */
};

enum access_match access_pattern_match(struct access_pattern *p, struct span key);

/* True the first time: a match has run into the bounds, and that was not told yet. */
bool access_pattern_tell(struct access_pattern *p);
