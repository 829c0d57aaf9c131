/* glob.h - patterns in which * stands for any run of bytes, the empty one included, and everything
 * else for itself.
 *
 * They work on bytes: keys are UTF-8, whose characters match as their bytes do, and a NUL is a byte
 * like any other. */
#pragma once

#include <stdbool.h>

#include "base/span.h"

/* The time is at worst proportional to the two lengths together. */
bool glob_matches(struct span glob, struct span key);

/* What every match begins with: the bytes before the first *. */
struct span glob_literal(struct span glob);

/* Is it a literal and one * behind it, so that it matches whatever begins with the literal? */
bool glob_is_prefix(struct span glob);
