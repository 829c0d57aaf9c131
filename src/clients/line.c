#include "clients/line.h"

/* Lines that lie whole in the input are passed on in place, without a copy. Unless paused, kept
 * holds the beginning of one line without an LF. A line in a thousand pieces is therefore searched
 * once, and kept never exceeds the limit and one input. */

void line_init(struct line_reader *r, const struct line_receiver *to)
{
	*r = (struct line_reader){.to = to};
}

void line_fini(struct line_reader *r)
{
	buf_release(&r->kept);
}

/* Removes the CR of a CR LF. The CR at the end of an unfinished line may be half of one. */
static struct span without_cr(struct span line)
{
	if (line.n && line.p[line.n - 1] == '\r')
		line.n--;
	return line;
}

/* After LINE_GONE the reader is freed, so callers check the verdict before they touch r. */
static enum line_verdict hand_on(struct line_reader *r, struct span line)
{
	line = without_cr(line);
	enum line_verdict verdict =
		line.n > r->to->limit ? r->to->too_long(r, line) : r->to->line(r, line);
	if (verdict == LINE_PAUSE)
		r->paused = true;
	return verdict;
}

/* The rest has no LF. It is dropped if it is too long or being skipped, else it stays. */
static enum line_verdict unfinished(struct line_reader *r, struct span *rest)
{
	struct span line = *rest;

	if (!r->skipping && without_cr(line).n <= r->to->limit)
		return LINE_MORE;
	rest->n = 0;
	if (r->skipping)
		return LINE_MORE;
	r->skipping = true;
	return hand_on(r, line);
}

/* Passes on the whole lines at the front of *rest, which becomes the rest to keep. The first
 * `searched` bytes are known to hold no LF. */
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

/* The same for the kept bytes. */
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
	r->searched = verdict == LINE_MORE ? (uint32_t)rest.n : 0;
	return verdict;
}

/* Moves the bytes up to the first LF, or all if there is none, to the end of kept. */
static void complete_kept(struct line_reader *r, struct span *bytes)
{
	const char *lf = memchr(bytes->p, '\n', bytes->n);
	size_t n = lf ? (size_t)(lf - bytes->p) + 1 : bytes->n;

	buf_add(&r->kept, bytes->p, n);
	bytes->p += n;
	bytes->n -= n;
	if (!lf)
		r->searched = (uint32_t)line_kept(r);
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
		r->searched = verdict == LINE_MORE ? (uint32_t)bytes.n : r->searched;
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
	/* Moved out of the reader, which the receiver may free. */
	struct buf last = r->kept;
	r->kept = (struct buf){0};
	r->searched = 0;
	enum line_verdict verdict = hand_on(r, buf_span(&last));
	buf_release(&last);
	return verdict;
}
