/* lines.h - the lines of stdin, as they come, without waiting for them. */
#pragma once

#include <stdint.h>

#include "base/buf.h"

enum { LINES_LONGEST = 16 << 20 };

struct lines {
	struct buf bytes;
	size_t searched; /* of them, without a line end */
	bool ended;      /* nothing more comes */
	long n;          /* lines handed out */
	int64_t taken;   /* bytes of these, ends included */
	uint64_t hash;   /* of these */
};

/* Reads once; waits if stdin has nothing. 0 or -errno; -EFBIG: a line is longer than
 * LINES_LONGEST. */
int lines_fill(struct lines *l);

/* The next line that is here, without its end, valid until the next call. false: there is none
 * (yet). One without an end is the last. */
bool lines_next(struct lines *l, struct span *line);

/* How much stdin holds, if that is known, from where it is read; or -1. */
int64_t lines_size(void);

void lines_free(struct lines *l);
