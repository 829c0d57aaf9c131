/* pattern.h - the key patterns of tokens: an exact key, a glob with *, or a regular expression.
 *
 * A subscription that begins with ^ is a regular expression; one with a * is a glob, in which *
 * stands for any run of bytes; any other is a key. An access pattern is always a regular
 * expression. Like JavaScript's test() it matches anywhere in the key unless ^ and $ anchor it.
 * Regular expressions are POSIX extended ones on bytes, with JavaScript's \d, \D, [\s\S], (?: and
 * dot, because users write these. */
#pragma once

#include <regex.h>

#include "base/span.h"

struct pattern {
	enum { PATTERN_EXACT, PATTERN_GLOB, PATTERN_REGEX } kind;
	char *text; /* of PATTERN_EXACT and PATTERN_GLOB */
	size_t n;
	regex_t regex;
};

/* Parse a subscription, and an access pattern. 0; or -EINVAL with *why set to a static phrase, and
 * nothing to free. */
int pattern_init(struct pattern *p, struct span text, const char **why);
int pattern_init_regex(struct pattern *p, struct span text, const char **why);
void pattern_fini(struct pattern *p);

/* Does the key match? An uncounted NUL must follow the key: sanitizers check that regexec() reads a
 * terminated string. */
bool pattern_matches(const struct pattern *p, struct span key);
