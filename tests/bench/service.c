/* bench-service - an echo of the HPKV service that is as fast as one thread with TLS and WebSocket
 * can be.
 *
 * It remembers nothing: each get is answered with the same 100 bytes, every other operation with
 * success. All answers to one read leave together; with --record-per-answer each is a TLS record
 * and a write of its own, as of a service that writes whenever it has something. Any number of
 * connections; it never closes one that behaves.
 *
 * Whoever asks for a token gets one, always the same. Every WebSocket that comes with a token is
 * told all changes, whatever the token was asked for; changes are made when they are ordered at the
 * socket that --orders names (burst.h). */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/queue.h>

#include "bench.h"
#include "burst.h"
#include "conn.h"
#include "base/mem.h"
#include "ws.h"

enum { EVENTS = 64, KEY_MAX = 1024, ID_MAX = 32, ANSWER_MAX = KEY_MAX + ID_MAX + 256 };
enum { HEAD_MAX = 16384, REQUEST_MAX = 64 << 20 }; /* of a token request: its keys may be many */

struct service {
	int epoll, listener;
	int desk; /* where a load connects to order changes; -1: nobody can */
	SSL_CTX *tls;
	bool record_per_answer;
	LIST_HEAD(, session) listening; /* those with a token */
};

enum stage { HTTP, FRAMES, ORDERS };

struct session {
	struct conn conn;
	enum stage stage;
	bool listens;
	LIST_ENTRY(session) entry; /* service::listening */
	struct burst burst;        /* of one that orders */
};

struct request {
	struct span op, key, id; /* as written, a string's quotes included */
};

/* The string or the word (a number, true …) at p, which ends where the text does if it has no end
 * of its own. */
static struct span token_at(const char *p, const char *end)
{
	const char *q = p;

	if (q < end && *q == '"') {
		do
			q = memchr(q + 1, '"', (size_t)(end - q - 1));
		while (q && q[-1] == '\\');
		q = q ? q + 1 : end;
	} else {
		while (q < end && *q != ',' && *q != '}')
			q++;
	}
	return (struct span){p, (size_t)(q - p)};
}

/* The three members that matter, of an object without nested ones and without a backslash at the
 * end of a string. */
static struct request read_request(struct span text)
{
	struct request r = {{"", 0}, {"", 0}, {"", 0}};
	const char *p = text.p, *end = p + text.n;

	while (p < end && (p = memchr(p, '"', (size_t)(end - p)))) {
		struct span name = token_at(p, end), value;
		for (p += name.n; p < end && (*p == ':' || *p == ' '); p++)
			;
		value = token_at(p, end);
		p += value.n;
		if (span_equal(name, SPAN("\"messageId\"")))
			r.id = value;
		else if (span_equal(name, SPAN("\"op\"")))
			r.op = value;
		else if (span_equal(name, SPAN("\"key\"")))
			r.key = value;
	}
	return r;
}

static char *put(char *p, struct span s)
{
	memcpy(p, s.p, s.n);
	return p + s.n;
}

/* Writes the answer to a request; returns its length, 0 when there is none to it. */
static size_t answer(struct span text, char out[ANSWER_MAX])
{
	struct request r = read_request(text);
	char *p = out;

	if (!r.id.n || r.id.n > ID_MAX || r.key.n > KEY_MAX)
		return 0;
	if (span_equal(r.op, SPAN("1")) || span_equal(r.op, SPAN("\"get\""))) {
		p = put(p, SPAN("{\"code\":200,\"key\":"));
		p = put(p, r.key);
		p = put(p, SPAN(",\"value\":\"" BENCH_VALUE "\",\"messageId\":"));
	} else {
		p = put(p, SPAN("{\"code\":200,\"success\":true,\"message\":\"Record "
				"inserted/updated successfully\","
				"\"messageId\":"));
	}
	p = put(p, r.id);
	*p++ = '}';
	return (size_t)(p - out);
}

static bool serve_frame(struct service *v, struct session *s, const struct ws_frame *f)
{
	char text[ANSWER_MAX];
	struct span payload = {f->p, f->n};
	size_t n;

	switch (f->opcode) {
	case WS_TEXT:
		n = answer(payload, text);
		if (n)
			ws_append(&s->conn.out, WS_TEXT, false, (struct span){text, n}, SPAN(""));
		return !v->record_per_answer || conn_flush(&s->conn);
	case WS_PING:
		ws_append(&s->conn.out, WS_PONG, false, payload, SPAN(""));
		return true;
	case WS_PONG:
		return true;
	case WS_CLOSE:
		ws_append(&s->conn.out, WS_CLOSE, false, payload, SPAN(""));
		conn_flush(&s->conn);
		return false;
	default:
		return false;
	}
}

/* --- HTTP: a token, or the upgrade to frames --- */

/* The request's first line holds this. */
static bool asks_for(struct span request, struct span what)
{
	const char *end = memchr(request.p, '\r', request.n);

	return end && memmem(request.p, (size_t)(end - request.p), what.p, what.n);
}

/* How long the request is, its body included; 0: its head is not whole yet. */
static size_t whole_request(struct span request)
{
	static const char name[] = "\r\nContent-Length:";
	char head[HEAD_MAX + 1];
	const char *end = memmem(request.p, request.n, "\r\n\r\n", 4);
	size_t n = end ? (size_t)(end + 4 - request.p) : 0;

	if (!n || n > HEAD_MAX)
		return 0;
	memcpy(head, request.p, n);
	head[n] = 0;
	const char *length = strcasestr(head, name);
	return n + (length ? strtoul(length + sizeof name - 1, NULL, 10) : 0);
}

/* Goes on until the whole request is read and answered, and then no longer. */
static bool serve_token(struct session *s)
{
	static const char body[] = "{\"token\":\"bench\"}";
	struct span request = buf_span(&s->conn.in);
	size_t whole = whole_request(request);

	if (!whole || request.n < whole)
		return request.n < REQUEST_MAX;
	buf_addf(&s->conn.out,
		 "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
		 "Connection: close\r\n\r\n%s",
		 sizeof body - 1, body);
	conn_flush(&s->conn);
	return false;
}

static bool serve_http(struct service *v, struct session *s)
{
	struct span request = buf_span(&s->conn.in);

	if (!request.n)
		return true;
	if (*request.p == 'P')
		return serve_token(s);
	bool listens = asks_for(request, SPAN(" /ws?token="));
	int got = ws_serve_upgrade(&s->conn.in, &s->conn.out);
	if (got > 0) {
		s->stage = FRAMES;
		s->listens = listens;
		if (listens)
			LIST_INSERT_HEAD(&v->listening, s, entry);
	}
	return got >= 0;
}

/* --- orders --- */

/* A connection that can't be written to ends in its own turn: here others may still be about to
 * have one. */
static void publish(struct service *v, struct burst *burst, unsigned n)
{
	char text[BURST_TEXT];
	struct session *s;

	burst_begin(burst);
	for (; n; n--) {
		burst_next(burst, text);
		LIST_FOREACH (s, &v->listening, entry) {
			ws_append(&s->conn.out, WS_TEXT, false, (struct span){text, sizeof text},
				  SPAN(""));
			if (v->record_per_answer)
				conn_flush(&s->conn);
		}
	}
	LIST_FOREACH (s, &v->listening, entry) {
		conn_flush(&s->conn);
		conn_watch(&s->conn, v->epoll, s);
	}
}

static bool serve_orders(struct service *v, struct session *s)
{
	unsigned n;
	int got;

	while ((got = burst_take_order(&s->conn.in, &n)) > 0) {
		if (LIST_EMPTY(&v->listening))
			return false; /* which tells the load that what it waits for won't come */
		publish(v, &s->burst, n);
	}
	return got == 0;
}

/* --- a session --- */

static bool serve_frames(struct service *v, struct session *s)
{
	struct ws_frame f;
	int got;

	while (buf_len(&s->conn.in)) {
		char *p = buf_start(&s->conn.in);
		got = ws_frame_at(p, buf_len(&s->conn.in), &f);
		if (got < 0 || (got > 0 && !serve_frame(v, s, &f)))
			return false;
		if (!got)
			break;
		buf_take(&s->conn.in, f.whole);
	}
	return true;
}

static bool serve(struct service *v, struct session *s)
{
	if (!conn_fill(&s->conn))
		return false;
	if (s->stage == ORDERS)
		return serve_orders(v, s);
	if (s->stage == HTTP && !serve_http(v, s))
		return false;
	return s->stage != FRAMES || serve_frames(v, s);
}

static void session_turn(struct service *v, struct session *s, uint32_t events)
{
	if (((events & ~(uint32_t)EPOLLOUT) && !serve(v, s)) || !conn_flush(&s->conn)) {
		if (s->listens)
			LIST_REMOVE(s, entry);
		conn_close(&s->conn);
		free(s);
		return;
	}
	conn_watch(&s->conn, v->epoll, s);
}

static void accept_session(struct service *v, int listener)
{
	int fd = bench_accept(listener);

	if (fd < 0)
		return;
	struct session *s = mem_zalloc(sizeof *s);
	bool orders = listener == v->desk;
	s->stage = orders ? ORDERS : HTTP;
	conn_accept(&s->conn, fd, orders ? NULL : v->tls);
	conn_watch(&s->conn, v->epoll, s);
}

static void listen_on(const struct service *v, int *listener)
{
	struct epoll_event e = {.events = EPOLLIN, .data.ptr = listener};

	if (*listener >= 0 && epoll_ctl(v->epoll, EPOLL_CTL_ADD, *listener, &e) < 0)
		bench_die("epoll: %s", strerror(errno));
}

static _Noreturn void run(struct service *v)
{
	struct epoll_event events[EVENTS];

	v->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (v->epoll < 0)
		bench_die("epoll: %s", strerror(errno));
	listen_on(v, &v->listener);
	listen_on(v, &v->desk);
	for (;;) {
		int n = epoll_wait(v->epoll, events, EVENTS, -1);
		for (int i = 0; i < n; i++) {
			void *owner = events[i].data.ptr;
			if (owner == &v->listener || owner == &v->desk)
				accept_session(v, *(int *)owner);
			else
				session_turn(v, owner, events[i].events);
		}
	}
}

static const char usage[] = "usage: bench-service (--cert FILE --key FILE | --plain) [--port N]\n"
			    "       [--orders SOCKET] [--record-per-answer]";

static const struct option options[] = {
	{"port", required_argument, NULL, 'p'},
	{"cert", required_argument, NULL, 'c'},
	{"key", required_argument, NULL, 'k'},
	{"plain", no_argument, NULL, 'n'},
	{"record-per-answer", no_argument, NULL, 'r'},
	{"orders", required_argument, NULL, 'o'},
	{NULL, 0, NULL, 0},
};

struct settings {
	const char *port, *certificate, *key, *orders;
	bool plain, record_per_answer;
};

static struct settings read_options(int argc, char **argv)
{
	struct settings s = {.port = "0"};

	for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		if (c == 'p')
			s.port = optarg;
		else if (c == 'c')
			s.certificate = optarg;
		else if (c == 'k')
			s.key = optarg;
		else if (c == 'n')
			s.plain = true;
		else if (c == 'r')
			s.record_per_answer = true;
		else if (c == 'o')
			s.orders = optarg;
		else
			bench_die("%s", usage);
	}
	if (optind < argc || (!s.plain && (!s.certificate || !s.key)))
		bench_die("%s", usage);
	return s;
}

int main(int argc, char **argv)
{
	struct settings s = read_options(argc, argv);
	struct service v = {.record_per_answer = s.record_per_answer};

	prctl(PR_SET_PDEATHSIG,
	      SIGTERM); /* whoever started the benchmark is gone: so are its tools */
	signal(SIGPIPE, SIG_IGN);
	bench_raise_descriptor_limit();
	v.tls = s.plain ? NULL : conn_server_tls(s.certificate, s.key);
	v.listener = bench_listen(s.port);
	v.desk = s.orders ? bench_listen(s.orders) : -1;
	printf("listening on %s://127.0.0.1:%u\n", s.plain ? "http" : "https",
	       bench_port(v.listener));
	fflush(stdout);
	run(&v);
}
