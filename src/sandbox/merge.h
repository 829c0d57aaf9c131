/* merge.h - JSON merge patch (RFC 7396) on the text of two objects.
 *
 * Members that the patch does not touch keep the bytes that they were written with, so that numbers
 * of any length and \u0000 survive. */
#pragma once

#include "base/buf.h"
#include "base/span.h"

/* Appends the merged object and returns true if both texts are JSON objects; else returns false and
 * appends nothing. */
bool merge_objects(struct span target, struct span patch, struct buf *out);
