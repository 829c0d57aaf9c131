/* A client's bytes as HTTP, cut in two ways: the same requests and faults come of them, nothing is
 * kept beyond the bounds, and whatever is asked for becomes a line that the core can read.
 *
 * The first byte says how to cut; the rest is the stream. */
#include "codec/request.h"
#include "fuzz.h"
#include "gateway/http_message.h"
#include "gateway/rest.h"

#define FIFTY "a chunk's extension, which nobody sends in earnest"

const struct span fuzz_seeds[] = {
	SPAN("\x01GET /record/a%2Fb?timeoutMs=5 HTTP/1.1\r\nHost: h\r\n\r\n"),
	SPAN("\x07POST /record HTTP/1.1\r\nHost: h\r\nContent-Length: 23\r\n\r\n"
	     "{\"key\":\"a\",\"value\":\"b\"}GET / HTTP/1.0\r\n\r\n"),
	SPAN("\x03POST /record/atomic HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
	     "1b;x=y\r\n{\"key\":\"a\",\"increment\":12}\r\n0\r\nT: x\r\n\r\n"),
	SPAN("\x03POST /record/atomic HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
	     "2;" FIFTY FIFTY FIFTY FIFTY FIFTY FIFTY "\r\n{}\r\n0\r\n\r\n"),
	SPAN("\x05GET /records?startKey=a%2520b&endKey=%zz&limit=1 HTTP/1.1\r\nHost: h\r\n\r\n"),
	SPAN("\x02GET /hpkvd/watch?key=a&pattern=b*&initial=true HTTP/1.1\r\nHost: h\r\n\r\n"),
	SPAN("\x03GET /ws?timeoutMs=5&token=x HTTP/1.1\r\nHost: h\r\nProxy-Connection: upgrade\r\n"
	     "Upgrade: websocket\r\nAuthorization: Bearer   x\r\n\r\n"),
	SPAN("\x04GET /record/%ED%A0%80 HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\nGET "),
	SPAN("\x02GET http://u@h/x HTTP/1.1\nHost: h\r\n folded\r\n\r\n"),
	SPAN("\x02POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: "
	     "chunked\r\n\r\n"),
};
const size_t fuzz_n_seeds = sizeof(fuzz_seeds) / sizeof(fuzz_seeds[0]);

enum { BODY_MAX = 300 };

static void look_at_line(const struct http_request *r, enum rest_kind kind)
{
	struct buf line = {0};
	struct rest_fault fault;
	struct request request;
	struct request_fault wrong;

	if (kind == REST_READY || kind == REST_SOCKET)
		return;
	if (!rest_line(kind, r, &line, &fault)) {
		must(fault.error == REPLY_BAD_JSON || fault.error == REPLY_BAD_REQUEST);
	} else if (request_parse(buf_span(&line), &request, &wrong) < 0) {
		must(wrong.error == REPLY_BAD_REQUEST); /* a member, never the form of the line */
	}
	buf_release(&line);
}

static enum http_verdict on_head(void *owner, const struct http_request *r)
{
	struct buf *seen = owner;

	buf_addf(seen, "head %zu;", r->n_headers);
	return HTTP_GO_ON;
}

static enum http_verdict on_request(void *owner, const struct http_request *r)
{
	struct buf *seen = owner, allow = {0};
	enum rest_kind kind;

	must(r->path.n && r->body.n <= BODY_MAX && r->n_headers <= HTTP_HEADERS_MAX);
	buf_addf(seen, "%d %zu %zu %zu %d;", (int)r->verb, r->path.n, r->query.n, r->n_headers,
		 r->keep_alive);
	buf_add(seen, r->body.p, r->body.n);
	if (rest_find(r->verb, r->path, &kind, &allow) == 0)
		look_at_line(r, kind);
	buf_release(&allow);
	return HTTP_GO_ON;
}

static void on_fault(void *owner, int status, const char *why)
{
	must(status >= 400 && status < 600 && why[0]);
	buf_addf(owner, "fault %d;", status);
}

static const struct http_message_ops ops = {
	.head = on_head, .request = on_request, .fault = on_fault};

static void run(struct span stream, size_t piece, struct buf *seen)
{
	struct http_message *m = http_message_new(&ops, seen, BODY_MAX);

	while (stream.n) {
		size_t n = stream.n < piece ? stream.n : piece;
		char *copy = fuzz_memory(n);
		memcpy(copy, stream.p, n);
		http_message_feed(m, (struct span){copy, n});
		free(copy);
		must(http_message_kept(m) <= HTTP_HEAD_MAX + HTTP_HEAD_MAX + BODY_MAX + n);
		stream = (struct span){stream.p + n, stream.n - n};
	}
	http_message_free(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf whole = {0}, cut = {0};

	if (size < 1)
		return 0;
	struct span stream = {(const char *)data + 1, size - 1};
	run(stream, stream.n + 1, &whole);
	run(stream, data[0] % 32 + 1u, &cut);
	must(span_equal(buf_span(&whole), buf_span(&cut)));
	buf_release(&whole);
	buf_release(&cut);
	return 0;
}
