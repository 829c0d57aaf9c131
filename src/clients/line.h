/* line.h - a byte stream into lines.
 *
 * Lines are passed on where they lie in the input; only the unfinished last line is copied. A line
 * ends with LF or CR LF and is passed on without it. A line longer than the limit is reported once,
 * as soon as it is known to be too long, and skipped to its end; the stream goes on behind it.
 * Empty lines are passed on like others.
 *
 * The receiver can pause the reader: line_feed() then stops and keeps the rest, whole lines
 * included, for line_resume(). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/span.h"

enum line_verdict { LINE_MORE, LINE_PAUSE, LINE_GONE };

struct line_reader;

/* The receiver of the lines; many readers may share one. */
struct line_receiver {
	/* A line, valid until this returns or the reader is freed. LINE_PAUSE: this line is taken;
	 * pass on no further one before line_resume(). LINE_GONE: the reader was freed. */
	enum line_verdict (*line)(struct line_reader *r, struct span line);
	/* A line is longer than the limit; prefix is its beginning, at least as long as the
	 * limit. */
	enum line_verdict (*too_long)(struct line_reader *r, struct span prefix);
	size_t limit; /* bytes of a line without its end; may change between calls */
};

/* A part of its owner's structure, and small: each client has one. */
struct line_reader {
	const struct line_receiver *to; /* must outlive the reader */
	struct buf kept;                /* bytes received and not passed on */
	uint32_t searched;              /* length of the beginning of kept that holds no LF */
	bool skipping;                  /* within a line that was too long */
	bool paused;                    /* by LINE_PAUSE; line_feed() only keeps its input */
};

void line_init(struct line_reader *r, const struct line_receiver *to);
void line_fini(struct line_reader *r);

/* Both return the verdict of the last call of the receiver; LINE_MORE if there was none, LINE_PAUSE
 * while paused. The input of a paused reader is kept without a limit, so stop reading soon. */
enum line_verdict line_feed(struct line_reader *r, struct span bytes);
enum line_verdict line_resume(struct line_reader *r);

/* End of stream: a last line without an end counts as one. Of a paused reader it only returns
 * LINE_PAUSE: resume it first, and call this after that has returned LINE_MORE. */
enum line_verdict line_finish(struct line_reader *r);

/* Bytes received and not passed on. */
static inline size_t line_kept(const struct line_reader *r)
{
	return buf_len(&r->kept);
}
