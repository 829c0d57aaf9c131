/* range_filter.h - the records of a range that an access pattern lets pass. */
#pragma once

#include "access/access_pattern.h"
#include "base/buf.h"

/* Is the line an answer with records? Then appends it with those whose keys match, and their
 * number as its count. */
bool range_filter(struct span line, struct access_pattern *pattern, struct buf *out);
