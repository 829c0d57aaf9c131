/* pattern.h - which keys a token means: an exact key, one with * in it, or a regular expression.
 *
 * A subscription that begins with ^ is a regular expression, one with a * stands for any run of
 * bytes there, and any other is a key. An access pattern is always a regular expression; like
 * JavaScript's test() it need not match the whole key unless ^ and $ say so. They are POSIX
 * extended ones, bytewise, with \d, \D, [\s\S], (?: and JavaScript's dot because everybody writes
 * them. */
#pragma once

#include <regex.h>

#include "base/span.h"

struct pattern {
	enum { PATTERN_EXACT, PATTERN_GLOB, PATTERN_REGEX } kind;
	char *text; /* of the first two */
	size_t n;
	regex_t regex;
};

/* 0; or -EINVAL with *why set to a phrase (static), and nothing to free. */
int pattern_init(struct pattern *p, struct span text, const char **why);
int pattern_init_regex(struct pattern *p, struct span text, const char **why);
void pattern_fini(struct pattern *p);

/* A NUL that is not counted must follow the key: what checks memory reads up to it. */
bool pattern_matches(const struct pattern *p, struct span key);
