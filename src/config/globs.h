/* globs.h - the globs of [cache]: lists of words, and which of them make sense. */
#pragma once

#include <stddef.h>

#include "config/draft.h"

/* Splits keys and mirror of [cache] into lists. Each fault is in the draft's report. */
void globs_resolve(struct draft *d);
