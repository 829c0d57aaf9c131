/* A stream cut into any pieces, with any holds, gives the same lines as the whole of it looked at
 * once.
 *
 * The text's first bytes say the limit and how to cut and hold; the rest is the stream. */
#include "clients/line.h"

#include "base/buf.h"
#include "fuzz.h"

const struct span fuzz_seeds[] = {
	SPAN("\x08\x01\x00"
	     "a\nb\r\n\n12345678\r\n123456789\nc"),
	SPAN("\x03\x02\x01"
	     "abc\r\nabcd\r\nab\rc\nabcdefgh\n\nx"),
	SPAN("\x00\x07\x02"
	     "\n\r\na\n\r\r\n"),
};
const size_t fuzz_n_seeds = sizeof(fuzz_seeds) / sizeof(fuzz_seeds[0]);

/* What was seen: each line and a newline, or "!" and a newline. */
struct receiver {
	struct line_receiver to;
	struct buf seen;
	unsigned calls, hold_every;
};

static enum line_verdict answer(struct receiver *v)
{
	return v->hold_every && ++v->calls % v->hold_every == 0 ? LINE_PAUSE : LINE_MORE;
}

static struct receiver *receiver_of(const struct line_reader *r)
{
	return (struct receiver *)(void *)((const char *)r->to - offsetof(struct receiver, to));
}

static enum line_verdict on_line(struct line_reader *r, struct span line)
{
	struct receiver *v = receiver_of(r);

	buf_add(&v->seen, line.p, line.n);
	buf_add(&v->seen, "\n", 1);
	return answer(v);
}

static enum line_verdict on_too_long(struct line_reader *r, struct span prefix)
{
	struct receiver *v = receiver_of(r);

	(void)prefix;
	buf_add(&v->seen, "!\n", 2);
	return answer(v);
}

/* The same, by looking at the whole stream. */
static void expect(struct span stream, size_t limit, struct buf *out)
{
	while (stream.n) {
		const char *lf = memchr(stream.p, '\n', stream.n);
		size_t n = lf ? (size_t)(lf - stream.p) : stream.n;
		size_t line = n && stream.p[n - 1] == '\r' ? n - 1 : n;
		if (line > limit)
			buf_add(out, "!", 1);
		else
			buf_add(out, stream.p, line);
		buf_add(out, "\n", 1);
		n += lf != NULL;
		stream = (struct span){stream.p + n, stream.n - n};
	}
}

static void feed_piece(struct line_reader *r, struct span bytes, size_t limit)
{
	char *copy = fuzz_memory(bytes.n);

	memcpy(copy, bytes.p, bytes.n);
	enum line_verdict verdict = line_feed(r, (struct span){copy, bytes.n});
	free(copy);
	while (verdict == LINE_PAUSE)
		verdict = line_resume(r);
	must(line_kept(r) <= limit + 1);
	must(line_kept(r) || !r->kept.memory);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 3)
		return 0;
	size_t limit = data[0], piece = data[1] % 32 + 1u;
	struct receiver v = {.to = {.line = on_line, .too_long = on_too_long, .limit = limit},
			     .hold_every = data[2] % 4};
	struct span stream = {(const char *)data + 3, size - 3};
	struct line_reader r;
	struct buf want = {0};

	line_init(&r, &v.to);
	for (size_t at = 0; at < stream.n; at += piece) {
		size_t n = stream.n - at < piece ? stream.n - at : piece;
		feed_piece(&r, (struct span){stream.p + at, n}, limit);
	}
	line_finish(&r);
	must(line_kept(&r) == 0);
	line_fini(&r);
	expect(stream, limit, &want);
	must(span_equal(buf_span(&v.seen), buf_span(&want)));
	buf_release(&want);
	buf_release(&v.seen);
	return 0;
}
