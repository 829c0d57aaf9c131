/* merge.h - JSON merge patch (RFC 7396) on the texts of two objects.
 *
 * Members that the patch does not touch keep their bytes, so that numbers of any length and \u0000
 * survive. */
#pragma once

#include "base/buf.h"
#include "base/span.h"

/* Appends the merged object and returns true if both texts are JSON objects. Otherwise returns
 * false and appends nothing. */
bool merge_objects(struct span target, struct span patch, struct buf *out);
