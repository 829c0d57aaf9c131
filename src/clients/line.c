#include "clients/line.h"

/* Lines that lie whole in what was fed are handed on in place: a client that sends whole requests
 * never costs a copy. Unless paused, kept is one line's beginning without its LF, so that a line
 * fed in a thousand pieces is searched once and never holds more than the limit and one feed. */

void line_init(struct line_reader *r, const struct line_ops *ops, void *owner, size_t limit)
{
	*r = (struct line_reader){.ops = ops, .owner = owner, .limit = limit};
}

void line_fini(struct line_reader *r)
{
	buf_release(&r->kept);
}

/* A line that ends in CR LF has its CR taken off; of an unfinished one, the CR may be half of its
 * end. */
static struct span without_cr(struct span line)
{
	if (line.n && line.p[line.n - 1] == '\r')
		line.n--;
	return line;
}

/* The reader may be gone when this returns LINE_GONE, hence all that calls it touches r only after
 * looking. */
static enum line_verdict hand_on(struct line_reader *r, struct span line)
{
	line = without_cr(line);
	enum line_verdict verdict =
		line.n > r->limit ? r->ops->too_long(r->owner, line) : r->ops->line(r->owner, line);
	if (verdict == LINE_PAUSE)
		r->paused = true;
	return verdict;
}

/* What is left has no LF. Is it already too long, or being skipped, it is dropped; else it is left
 * where it is. */
static enum line_verdict unfinished(struct line_reader *r, struct span *rest)
{
	struct span line = *rest;

	if (!r->skipping && without_cr(line).n <= r->limit)
		return LINE_MORE;
	rest->n = 0;
	if (r->skipping)
		return LINE_MORE;
	r->skipping = true;
	return hand_on(r, line);
}

/* Hands on what is whole at the front of *rest, which ends up as what must be kept. Its first
 * bytes, as many as searched says, are known to hold no LF. */
static enum line_verdict walk(struct line_reader *r, struct span *rest, size_t searched)
{
	enum line_verdict verdict = LINE_MORE;

	while (verdict == LINE_MORE && rest->n) {
		const char *lf = memchr(rest->p + searched, '\n', rest->n - searched);
		if (!lf)
			return unfinished(r, rest);
		struct span line = {rest->p, (size_t)(lf - rest->p)};
		*rest = (struct span){lf + 1, rest->n - line.n - 1};
		searched = 0;
		if (r->skipping)
			r->skipping = false;
		else
			verdict = hand_on(r, line);
	}
	return verdict;
}

/* The same for what is kept. */
static enum line_verdict walk_kept(struct line_reader *r)
{
	struct span rest = buf_span(&r->kept);
	size_t before = rest.n;
	enum line_verdict verdict = walk(r, &rest, r->searched);

	if (verdict == LINE_GONE)
		return verdict;
	buf_take(&r->kept, before - rest.n);
	if (!line_kept(r))
		buf_release(&r->kept);
	r->searched = verdict == LINE_MORE ? rest.n : 0;
	return verdict;
}

/* Moves the bytes up to the first LF, or all if there is none, behind the line that is kept. */
static void complete_kept(struct line_reader *r, struct span *bytes)
{
	const char *lf = memchr(bytes->p, '\n', bytes->n);
	size_t n = lf ? (size_t)(lf - bytes->p) + 1 : bytes->n;

	buf_add(&r->kept, bytes->p, n);
	bytes->p += n;
	bytes->n -= n;
	if (!lf)
		r->searched = line_kept(r);
}

enum line_verdict line_feed(struct line_reader *r, struct span bytes)
{
	enum line_verdict verdict = r->paused ? LINE_PAUSE : LINE_MORE;

	if (!bytes.n)
		return verdict;
	if (!r->paused && line_kept(r)) {
		complete_kept(r, &bytes);
		verdict = walk_kept(r);
	}
	if (verdict == LINE_MORE)
		verdict = walk(r, &bytes, 0);
	if (verdict == LINE_GONE)
		return verdict;
	if (bytes.n) {
		buf_add(&r->kept, bytes.p, bytes.n);
		r->searched = verdict == LINE_MORE ? bytes.n : r->searched;
	}
	return verdict;
}

enum line_verdict line_resume(struct line_reader *r)
{
	r->paused = false;
	return walk_kept(r);
}

enum line_verdict line_finish(struct line_reader *r)
{
	if (r->paused)
		return LINE_PAUSE;
	if (!line_kept(r))
		return LINE_MORE;
	/* Moved out of the reader, so that it is free of it whatever the receiver does. */
	struct buf last = r->kept;
	r->kept = (struct buf){0};
	r->searched = 0;
	enum line_verdict verdict = hand_on(r, buf_span(&last));
	buf_release(&last);
	return verdict;
}
