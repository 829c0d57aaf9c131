/* glob.h - patterns in which * stands for any run of bytes, the empty one included, and every other
 * byte for itself.
 *
 * Globs work on bytes: keys are UTF-8, whose characters match as their bytes do, and a NUL is a
 * byte like any other. */
#pragma once

#include <stdbool.h>

#include "base/span.h"

/* Takes time proportional to the two lengths together, at worst. */
bool glob_matches(struct span glob, struct span key);

/* The bytes before the first *: every match begins with them. */
struct span glob_literal(struct span glob);

/* Is it a literal with one * at the end, so that it matches every text that begins with the
 * literal? */
bool glob_is_prefix(struct span glob);
