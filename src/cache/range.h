/* range.h - the answer to a range, taken apart.
 *
 * Source of its form: the service's documentation. Members: records, an array of objects with key
 * and value; truncated. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "codec/json.h"

struct range_reader {
	struct json_array_reader records;
	bool truncated;
	bool has_truncated; /* the answer has this member */
	size_t n;           /* records read */
	struct buf key;     /* of the last record, decoded */
	struct json_value value;
};

/* False: it has no records. range_end() follows in any case. */
bool range_begin(struct range_reader *r, struct span answer);
/* 1: key and value are set; 0: no more; -EBADMSG: not a record, or not behind the one before. */
int range_next(struct range_reader *r);
void range_end(struct range_reader *r);
