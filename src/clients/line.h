/* line.h - a byte stream into lines, each handed on where it lies.
 *
 * Owns only the unfinished last line of a stream, copied aside when a read ended within it. Ends of
 * line are LF or CRLF; the line is handed on without them. A line longer than the limit is reported
 * once, as soon as it is known to be too long, and skipped to its end: the stream goes on behind
 * it. Empty lines are handed on like others.
 *
 * It can be paused: line_feed() stops as soon as the receiver says so and keeps what it has not
 * handed on, whole lines included, for line_resume(). */
#pragma once

#include <stdbool.h>

#include "base/buf.h"
#include "base/span.h"

enum line_verdict { LINE_MORE, LINE_PAUSE, LINE_GONE };

struct line_ops {
	/* A line; valid until it returns or the reader is freed. LINE_PAUSE: this one is taken,
	 * hand on no further one before line_resume(). LINE_GONE: the reader was freed within,
	 * touch it no more. */
	enum line_verdict (*line)(void *owner, struct span line);
	/* A line is longer than the limit; prefix is what is known of it (at least the limit's
	 * bytes). */
	enum line_verdict (*too_long)(void *owner, struct span prefix);
};

struct line_reader {
	const struct line_ops *ops;
	void *owner;
	size_t limit;    /* bytes of a line, its end not counted; may change between calls */
	struct buf kept; /* bytes received and not handed on */
	size_t searched; /* of kept, how many are known to hold no LF */
	bool skipping;   /* within a line that was too long */
	bool paused;     /* the receiver said LINE_PAUSE; what is fed meanwhile is only kept */
};

void line_init(struct line_reader *r, const struct line_ops *ops, void *owner, size_t limit);
void line_fini(struct line_reader *r);

/* Both return the verdict of the last call into ops, LINE_MORE if there was none, LINE_PAUSE while
 * paused. Whoever holds stops feeding soon: what comes meanwhile is kept without a limit. */
enum line_verdict line_feed(struct line_reader *r, struct span bytes);
enum line_verdict line_resume(struct line_reader *r);

/* End of stream: a last line without an end counts as one. While paused it only returns LINE_PAUSE:
 * resume first, and finish once that returns LINE_MORE. */
enum line_verdict line_finish(struct line_reader *r);

/* Bytes that were received and wait here. */
static inline size_t line_kept(const struct line_reader *r)
{
	return buf_len(&r->kept);
}
