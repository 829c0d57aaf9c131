/* The library is lenient, as Debian builds it: it takes a bare LF for a line's end, joins folded
 * lines, lets names of headers have spaces, and does not look at the line ends around chunks.
 * Others on a request's way may take the same bytes for other requests. So every line of a head, of
 * a chunk's size and of a trailer is looked at here first (struct line_scan); the library is fed
 * with what has passed. */
#include "gateway/http_message.h"

#include <stdlib.h>
#include <strings.h>

#include <http_parser.h>

#include "base/mem.h"

enum { CHUNK_LINE_MAX = 256 /* the line before a chunk: its size, and extensions */ };

enum part {
	PART_HEAD,
	PART_BODY,       /* of a known length */
	PART_CHUNK_SIZE, /* a body in chunks: the line before a chunk's data, */
	PART_CHUNK_DATA, /* ... the data, */
	PART_CHUNK_END,  /* ... its line end, */
	PART_TRAILERS,   /* ... and what follows the last chunk */
	PART_STOPPED,    /* nothing more is read */
	PART_N
};

/* Looks at bytes one after another, however they are cut. */
struct line_scan {
	char last;
	bool at_start; /* of a line */
	bool first;    /* the line is the first one */
	bool ended;    /* an empty line has come */
};

struct http_message {
	const struct http_message_ops *ops;
	void *owner;
	size_t body_max; /* of the next body ... */
	size_t limit;    /* ... and of the present one */
	enum part part;
	bool held;       /* behind a request: no further one for now */
	bool dropping;   /* PART_STOPPED, and nobody wants what comes */
	bool whole;      /* the library has come to the request's end */
	bool in_value;   /* the library has told of a header's value, not of its name */
	bool header_max; /* it has told of more headers than there may be */
	struct buf in;   /* what has come and was not taken */
	struct line_scan scan;
	size_t scanned;  /* bytes of in */
	struct buf head; /* of the request whose body is to come: its spans point into it */
	struct buf body;
	uint64_t chunk_left;          /* bytes of the chunk that have not come */
	struct http_request *request; /* from its head to its end */
	http_parser parser;
};

static const struct line_scan scan_anew = {.at_start = true, .first = true};

static const struct {
	const char *name;
	enum http_verb verb;
} verbs[] = {
	{"GET", HTTP_VERB_GET},         {"HEAD", HTTP_VERB_HEAD},   {"POST", HTTP_VERB_POST},
	{"PUT", HTTP_VERB_PUT},         {"PATCH", HTTP_VERB_PATCH}, {"DELETE", HTTP_VERB_DELETE},
	{"OPTIONS", HTTP_VERB_OPTIONS},
};
_Static_assert(sizeof(verbs) / sizeof(verbs[0]) == HTTP_VERB_N, "a name for each verb");

/* ---- life ---- */

struct http_message *http_message_new(const struct http_message_ops *ops, void *owner,
				      size_t body_max)
{
	struct http_message *m = mem_zalloc(sizeof(*m));

	m->ops = ops;
	m->owner = owner;
	m->body_max = body_max;
	m->scan = scan_anew;
	return m;
}

/* A head and a body may hold keys and tokens: they leave no copies, neither here nor where a buffer
 * has grown. */
static void add(struct buf *b, struct span bytes)
{
	struct span before = buf_span(b);
	struct buf grown = {0};

	if (!buf_has_room(b, bytes.n)) {
		buf_room(&grown, 2 * before.n + bytes.n);
		buf_add(&grown, before.p, before.n);
		buf_wipe(b);
		*b = grown;
	}
	buf_add(b, bytes.p, bytes.n);
}

static void end_request(struct http_message *m)
{
	buf_wipe(&m->head);
	buf_wipe(&m->body);
	free(m->request);
	m->request = NULL;
}

void http_message_free(struct http_message *m)
{
	end_request(m);
	buf_wipe(&m->in);
	free(m);
}

void http_message_set(struct http_message *m, size_t body_max)
{
	m->body_max = body_max;
}

/* What has come is of no use, and neither is what follows. */
static void drop_all(struct http_message *m)
{
	m->part = PART_STOPPED;
	m->dropping = true;
	end_request(m);
	buf_wipe(&m->in);
}

static enum http_verdict fail(struct http_message *m, int status, const char *why)
{
	drop_all(m);
	m->ops->fault(m->owner, status, why);
	return HTTP_STOP;
}

/* ---- lines ---- */

/* Why the next byte of a line is refused; NULL: it is not. */
static const char *scan_byte(struct line_scan *s, char c)
{
	char last = s->last;

	s->last = c;
	if (last == '\r') {
		if (c != '\n')
			return "a CR is not followed by LF";
		s->ended = s->at_start && !s->first;
		s->first = false;
		s->at_start = true;
		return NULL;
	}
	if (c == '\n')
		return "a line ends with a bare LF";
	if (c == '\r')
		return NULL;
	if ((c == ' ' || c == '\t') && s->at_start)
		return s->first ? "the request line begins with white space"
				: "a header is folded over two lines";
	if (((unsigned char)c < ' ' && c != '\t') || c == 0x7f)
		return "there is a control character";
	s->at_start = false;
	return NULL;
}

static bool is_token_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool is_token(struct span s)
{
	for (size_t i = 0; i < s.n; i++) {
		if (!is_token_char(s.p[i]))
			return false;
	}
	return s.n > 0;
}

/* The part of s before the byte c, which is taken off with it; all of s if there is none. */
static struct span cut(struct span *s, char c)
{
	const char *at = s->n ? memchr(s->p, c, s->n) : NULL;
	struct span part = {s->p, at ? (size_t)(at - s->p) : s->n};
	size_t taken = part.n + (at != NULL);

	*s = (struct span){s->p + taken, s->n - taken};
	return part;
}

static struct span cut_line(struct span *head)
{
	struct span line = cut(head, '\n');

	line.n -= line.n > 0;
	return line;
}

/* The target as a whole URL, as clients send it to proxies. */
static const char *read_url(struct http_request *r, struct span target)
{
	struct http_parser_url url;

	http_parser_url_init(&url);
	if (http_parser_parse_url(target.p, target.n, 0, &url) != 0)
		return "the target of the request is no path and no URL";
	if (url.field_set & (1 << UF_USERINFO | 1 << UF_FRAGMENT))
		return "the URL in the request has a user name or a fragment";
	const char *path = target.p + url.field_data[UF_HOST].off + url.field_data[UF_HOST].len;
	struct span authority = {target.p + url.field_data[UF_HOST].off, 0};
	if (authority.p > target.p && authority.p[-1] == '[') /* brackets are not part of it */
		authority.p--, path++;
	if (url.field_set & (1 << UF_PORT))
		path = target.p + url.field_data[UF_PORT].off + url.field_data[UF_PORT].len;
	authority.n = (size_t)(path - authority.p);
	r->authority = authority;
	r->path = SPAN("/");
	if (url.field_set & (1 << UF_PATH))
		r->path = (struct span){target.p + url.field_data[UF_PATH].off,
					url.field_data[UF_PATH].len};
	if (url.field_set & (1 << UF_QUERY))
		r->query = (struct span){target.p + url.field_data[UF_QUERY].off,
					 url.field_data[UF_QUERY].len};
	return NULL;
}

static const char *read_target(struct http_request *r, struct span target)
{
	if (memchr(target.p, '#', target.n))
		return "the target of the request has a fragment";
	if (target.p[0] == '/') {
		r->path = cut(&target, '?');
		r->query = target;
		return NULL;
	}
	if (span_equal(target, SPAN("*"))) {
		r->path = target;
		return r->verb == HTTP_VERB_OPTIONS ? NULL : "the target * is for OPTIONS only";
	}
	return read_url(r, target);
}

/* "GET /record/a HTTP/1.1", with one space between each. 0, or the status with *why. */
static int read_request_line(struct http_request *r, struct span line, const char **why)
{
	struct span method = cut(&line, ' '), target = cut(&line, ' ');
	size_t i = 0;

	*why = "the request line is not METHOD TARGET HTTP/1.1";
	if (!is_token(method) || !target.n || line.n != strlen("HTTP/1.1") ||
	    memcmp(line.p, "HTTP/", 5) != 0 || line.p[6] != '.')
		return 400;
	if (line.p[5] != '1' || (line.p[7] != '0' && line.p[7] != '1')) {
		*why = "this is HTTP/1.1";
		return 505;
	}
	while (i < HTTP_VERB_N &&
	       !span_equal(method, (struct span){verbs[i].name, strlen(verbs[i].name)}))
		i++;
	if (i == HTTP_VERB_N) {
		*why = "this method is not known here";
		return 501;
	}
	r->verb = verbs[i].verb;
	r->http_1_0 = line.p[7] == '0';
	*why = read_target(r, target);
	return *why ? 400 : 0;
}

/* ---- a head ---- */

struct span http_request_header(const struct http_request *r, const char *name, size_t *n)
{
	struct span value = {0};
	size_t length = strlen(name);

	*n = 0;
	for (size_t i = 0; i < r->n_headers; i++) {
		const struct http_header *h = &r->headers[i];
		if (h->name.n != length || strncasecmp(h->name.p, name, length) != 0)
			continue;
		if ((*n)++ == 0)
			value = h->value;
	}
	return value;
}

static struct span trimmed(struct span s)
{
	while (s.n && (s.p[0] == ' ' || s.p[0] == '\t'))
		s = (struct span){s.p + 1, s.n - 1};
	while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
		s.n--;
	return s;
}

static bool is_word(struct span s, const char *word)
{
	return s.n == strlen(word) && strncasecmp(s.p, word, s.n) == 0;
}

bool http_request_lists(const struct http_request *r, const char *name, const char *word)
{
	for (size_t i = 0; i < r->n_headers; i++) {
		const struct http_header *h = &r->headers[i];
		struct span rest = h->value;
		if (!is_word(h->name, name))
			continue;
		while (rest.n) {
			if (is_word(trimmed(cut(&rest, ',')), word))
				return true;
		}
	}
	return false;
}

/* 0, or the status with *why: of headers that say how long the request is and whom it is for. */
static int check_headers(const struct http_request *r, const char **why)
{
	size_t hosts, codings, lengths, n;
	struct span coding = http_request_header(r, "Transfer-Encoding", &codings);
	struct span expected = http_request_header(r, "Expect", &n);

	http_request_header(r, "Host", &hosts);
	http_request_header(r, "Content-Length", &lengths);
	*why = "there is more than one Host";
	if (hosts > 1)
		return 400;
	*why = "there is no Host";
	if (hosts == 0 && !r->http_1_0)
		return 400;
	*why = "Transfer-Encoding is there twice, together with Content-Length, or in HTTP/1.0";
	if (codings && (codings > 1 || lengths || r->http_1_0))
		return 400;
	*why = "Content-Length is there twice";
	if (lengths > 1)
		return 400;
	*why = "the only transfer coding known here is chunked";
	if (codings && !is_word(coding, "chunked"))
		return 501;
	*why = "the only expectation known here is 100-continue";
	if (n > 1 || (n && !is_word(expected, "100-continue")))
		return 417;
	return 0;
}

static struct http_message *message_of(http_parser *p)
{
	return p->data;
}

/* In a head that is fed whole each name and value comes in one piece; an extension of the last one
 * is joined to it all the same. */
static int on_name(http_parser *p, const char *at, size_t n)
{
	struct http_message *m = message_of(p);
	struct http_request *r = m->request;

	if (!r || m->part != PART_HEAD) /* a trailer: nobody asks for it */
		return 0;
	if (r->n_headers && !m->in_value) {
		r->headers[r->n_headers - 1].name.n += n;
		return 0;
	}
	m->in_value = false;
	if (r->n_headers == HTTP_HEADERS_MAX) {
		m->header_max = true;
		return -1;
	}
	r->headers[r->n_headers++].name = (struct span){at, n};
	return 0;
}

static int on_value(http_parser *p, const char *at, size_t n)
{
	struct http_message *m = message_of(p);
	struct http_request *r = m->request;

	if (!r || m->part != PART_HEAD || !r->n_headers)
		return 0;
	struct span *value = &r->headers[r->n_headers - 1].value;
	if (m->in_value)
		value->n += n;
	else
		*value = (struct span){at, n};
	m->in_value = true;
	return 0;
}

static int on_body(http_parser *p, const char *at, size_t n)
{
	struct http_message *m = message_of(p);

	if (buf_len(&m->body) + n > m->limit)
		return -1;
	buf_add(&m->body, at, n);
	return 0;
}

static int on_chunk_size(http_parser *p)
{
	message_of(p)->chunk_left = p->content_length;
	return 0;
}

static int on_whole(http_parser *p)
{
	message_of(p)->whole = true;
	http_parser_pause(p, 1);
	return 0;
}

static const http_parser_settings parser_settings = {
	.on_header_field = on_name,
	.on_header_value = on_value,
	.on_body = on_body,
	.on_chunk_header = on_chunk_size,
	.on_message_complete = on_whole,
};

/* Feeds the library with what it is to take to the last byte. False: it has found a fault. */
static bool parse(struct http_message *m, struct span bytes)
{
	size_t taken = http_parser_execute(&m->parser, &parser_settings, bytes.p, bytes.n);

	if (HTTP_PARSER_ERRNO(&m->parser) == HPE_PAUSED)
		http_parser_pause(&m->parser, 0);
	return HTTP_PARSER_ERRNO(&m->parser) == HPE_OK && taken == bytes.n;
}

static bool names_are_proper(struct span head)
{
	cut_line(&head);
	while (head.n) {
		struct span line = cut_line(&head);
		if (line.n && (!memchr(line.p, ':', line.n) || !is_token(cut(&line, ':'))))
			return false;
	}
	return true;
}

static void fill_in(struct http_message *m)
{
	struct http_request *r = m->request;

	for (size_t i = 0; i < r->n_headers; i++)
		r->headers[i].value = trimmed(r->headers[i].value);
	/* The library takes Proxy-Connection for Connection, and in HTTP/1.0 heeds no close. */
	r->keep_alive = http_should_keep_alive(&m->parser) &&
			!http_request_lists(r, "Connection", "close") &&
			(!r->http_1_0 || http_request_lists(r, "Connection", "keep-alive"));
	r->has_body = !m->whole;
	r->expects_100 =
		r->has_body && !r->http_1_0 && http_request_lists(r, "Expect", "100-continue");
	r->upgrade =
		m->parser.upgrade && !r->http_1_0 && http_request_lists(r, "Connection", "upgrade");
}

static void begin_part(struct http_message *m, enum part part)
{
	m->part = part;
	m->scan = scan_anew;
	m->scan.first = part != PART_TRAILERS; /* which may be empty */
	m->scanned = 0;
}

/* The words for what the library has found. */
static const char *parser_fault(const struct http_message *m)
{
	enum http_errno e = HTTP_PARSER_ERRNO(&m->parser);

	if (e == HPE_INVALID_CONTENT_LENGTH || e == HPE_UNEXPECTED_CONTENT_LENGTH)
		return "Content-Length is no number, or is there twice";
	if (e == HPE_INVALID_CHUNK_SIZE)
		return "the size of a chunk is no number";
	return "this is no HTTP request";
}

static enum http_verdict tell_request(struct http_message *m)
{
	m->request->body = buf_span(&m->body);
	enum http_verdict verdict = m->ops->request(m->owner, m->request);
	end_request(m);
	begin_part(m, verdict == HTTP_STOP ? PART_STOPPED : PART_HEAD);
	if (m->dropping) {
		drop_all(m);
		return HTTP_STOP;
	}
	m->held = verdict == HTTP_HOLD;
	return verdict;
}

static enum http_verdict begin_body(struct http_message *m)
{
	bool chunked = m->parser.flags & F_CHUNKED;

	m->limit = m->body_max;
	if (!chunked && m->parser.content_length > m->limit)
		return fail(m, 413, "the body is longer than max_line");
	begin_part(m, chunked ? PART_CHUNK_SIZE : PART_BODY);
	enum http_verdict verdict = m->ops->head(m->owner, m->request);
	if (verdict == HTTP_STOP)
		drop_all(m);
	return verdict;
}

/* The head is whole: n bytes of what has come. */
static enum http_verdict read_head(struct http_message *m, size_t n)
{
	const char *why;

	m->request = mem_zalloc(sizeof(*m->request));
	add(&m->head, (struct span){buf_span(&m->in).p, n});
	buf_take(&m->in, n);
	struct span head = buf_span(&m->head), rest = head;
	int status = read_request_line(m->request, cut_line(&rest), &why);
	if (status)
		return fail(m, status, why);
	if (!names_are_proper(head))
		return fail(m, 400, "a line of the head is no header: NAME: VALUE");
	http_parser_init(&m->parser, HTTP_REQUEST);
	m->parser.data = m;
	m->whole = m->in_value = m->header_max = false;
	bool proper = parse(m, head);
	if (m->header_max)
		return fail(m, 431, "there are more than 100 headers");
	status = check_headers(m->request, &why);
	if (status)
		return fail(m, status, why);
	if (!proper)
		return fail(m, 400, parser_fault(m));
	fill_in(m);
	return m->whole ? tell_request(m) : begin_body(m);
}
_Static_assert(HTTP_HEADERS_MAX == 100, "the sentence above says so");

/* Some clients send a line end behind a body that does not count it. */
static void skip_line_ends(struct http_message *m)
{
	while (m->scanned == 0 && buf_len(&m->in) >= 2 &&
	       memcmp(buf_span(&m->in).p, "\r\n", 2) == 0)
		buf_take(&m->in, 2);
}

static enum http_verdict gather_head(struct http_message *m)
{
	skip_line_ends(m);
	struct span in = buf_span(&m->in);

	while (m->scanned < in.n && m->scanned < HTTP_HEAD_MAX) {
		if (m->scanned == 0 && in.n == 1 && in.p[0] == '\r')
			return HTTP_GO_ON; /* half of a line end to skip */
		const char *why = scan_byte(&m->scan, in.p[m->scanned++]);
		if (why)
			return fail(m, 400, why);
		if (m->scan.ended)
			return read_head(m, m->scanned);
	}
	if (m->scanned < HTTP_HEAD_MAX)
		return HTTP_GO_ON;
	return m->scan.first ? fail(m, 414, "the request line is longer than 16 KiB")
			     : fail(m, 431, "the head is longer than 16 KiB");
}

/* ---- a body ---- */

/* Takes n bytes off what has come, through the library. */
static bool take(struct http_message *m, size_t n)
{
	bool proper = parse(m, (struct span){buf_span(&m->in).p, n});

	buf_take(&m->in, n);
	return proper;
}

static enum http_verdict gather_body(struct http_message *m)
{
	uint64_t left = m->parser.content_length;
	size_t n = buf_len(&m->in);

	if (!take(m, n < left ? n : (size_t)left))
		return fail(m, 400, parser_fault(m));
	return m->whole ? tell_request(m) : HTTP_GO_ON;
}

/* Looks at what has come and was not looked at, up to max bytes; stops behind a line, or behind all
 * lines up to an empty one. True: it has come to that. */
static bool scan_in(struct http_message *m, bool one_line, size_t max, const char **why)
{
	struct span in = buf_span(&m->in);
	bool there = false;

	*why = NULL;
	while (!there && !*why && m->scanned < in.n && m->scanned < max) {
		*why = scan_byte(&m->scan, in.p[m->scanned++]);
		there = one_line ? m->scan.at_start && !m->scan.first : m->scan.ended;
	}
	return there && !*why;
}

static enum http_verdict gather_chunk_size(struct http_message *m)
{
	const char *why;

	if (!scan_in(m, true, CHUNK_LINE_MAX, &why))
		return why ? fail(m, 400, why)
		       : m->scanned == CHUNK_LINE_MAX
			       ? fail(m, 400, "the line before a chunk is longer than 256 bytes")
			       : HTTP_GO_ON;
	if (!take(m, m->scanned))
		return fail(m, 400, parser_fault(m));
	if (m->chunk_left > m->limit - buf_len(&m->body))
		return fail(m, 413, "the body is longer than max_line");
	begin_part(m, m->chunk_left ? PART_CHUNK_DATA : PART_TRAILERS);
	return HTTP_GO_ON;
}
_Static_assert(CHUNK_LINE_MAX == 256, "the sentence above says so");

static enum http_verdict gather_chunk_data(struct http_message *m)
{
	size_t n = buf_len(&m->in);

	n = n < m->chunk_left ? n : (size_t)m->chunk_left;
	if (!take(m, n))
		return fail(m, 400, parser_fault(m));
	m->chunk_left -= n;
	if (!m->chunk_left)
		begin_part(m, PART_CHUNK_END);
	return HTTP_GO_ON;
}

static enum http_verdict gather_chunk_end(struct http_message *m)
{
	struct span in = buf_span(&m->in);

	if (in.n < 2)
		return HTTP_GO_ON;
	if (memcmp(in.p, "\r\n", 2) != 0 || !take(m, 2))
		return fail(m, 400, "a chunk is longer than its size says");
	begin_part(m, PART_CHUNK_SIZE);
	return HTTP_GO_ON;
}

static enum http_verdict gather_trailers(struct http_message *m)
{
	const char *why;

	if (!scan_in(m, false, HTTP_HEAD_MAX, &why))
		return why ? fail(m, 400, why)
		       : m->scanned == HTTP_HEAD_MAX
			       ? fail(m, 431, "the trailers are longer than 16 KiB")
			       : HTTP_GO_ON;
	if (!take(m, m->scanned) || !m->whole)
		return fail(m, 400, parser_fault(m));
	return tell_request(m);
}

static enum http_verdict stay(struct http_message *m)
{
	(void)m;
	return HTTP_STOP;
}

/* ---- all of it ---- */

/* As far as what has come goes. */
static enum http_verdict go_on(struct http_message *m)
{
	static enum http_verdict (*const gather[])(struct http_message *) = {
		[PART_HEAD] = gather_head,
		[PART_BODY] = gather_body,
		[PART_CHUNK_SIZE] = gather_chunk_size,
		[PART_CHUNK_DATA] = gather_chunk_data,
		[PART_CHUNK_END] = gather_chunk_end,
		[PART_TRAILERS] = gather_trailers,
		[PART_STOPPED] = stay,
	};
	_Static_assert(sizeof(gather) / sizeof(gather[0]) == PART_N, "a function for each part");
	enum http_verdict verdict = HTTP_GO_ON;
	size_t before;
	enum part part;

	do {
		before = buf_len(&m->in);
		part = m->part;
		verdict = gather[part](m);
	} while (verdict == HTTP_GO_ON && buf_len(&m->in) &&
		 (buf_len(&m->in) != before || m->part != part));
	if (!buf_len(&m->in))
		buf_wipe(&m->in);
	return verdict;
}

enum http_verdict http_message_feed(struct http_message *m, struct span bytes)
{
	if (m->part == PART_STOPPED && m->dropping)
		return HTTP_STOP;
	add(&m->in, bytes);
	if (m->part == PART_STOPPED)
		return HTTP_STOP;
	return m->held ? HTTP_HOLD : go_on(m);
}

enum http_verdict http_message_resume(struct http_message *m)
{
	m->held = false;
	return buf_len(&m->in) ? go_on(m) : m->part == PART_STOPPED ? HTTP_STOP : HTTP_GO_ON;
}

bool http_message_is_in_head(const struct http_message *m)
{
	return m->part == PART_HEAD && !m->held && buf_len(&m->in);
}

bool http_message_is_in_body(const struct http_message *m)
{
	return m->part > PART_HEAD && m->part < PART_STOPPED;
}

size_t http_message_kept(const struct http_message *m)
{
	return buf_len(&m->in) + buf_len(&m->head) + buf_len(&m->body);
}

/* Within ops the request is still needed: it goes once they have returned. */
void http_message_stop(struct http_message *m)
{
	m->dropping = true;
	if (!m->request)
		drop_all(m);
}

void http_message_rest(struct http_message *m, struct buf *out)
{
	*out = m->in;
	m->in = (struct buf){0};
}
