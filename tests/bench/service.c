/* bench-service - an echo of the HPKV service that is as fast as one thread with TLS and WebSocket
 * can be.
 *
 * It remembers nothing: each get is answered with the same 100 bytes, every other operation with
 * success. All answers to one read leave together; with --record-per-answer each is a TLS record
 * and a write of its own, as of a service that writes whenever it has something. Any number of
 * connections; it never closes one that behaves. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>

#include "bench.h"
#include "conn.h"
#include "mem.h"
#include "ws.h"

enum { EVENTS = 64, KEY_MAX = 1024, ID_MAX = 32, ANSWER_MAX = KEY_MAX + ID_MAX + 256 };

struct service {
	int epoll, listener;
	SSL_CTX *tls;
	bool record_per_answer;
};

struct session {
	struct conn conn;
	bool upgraded;
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

static bool serve(struct service *v, struct session *s)
{
	struct ws_frame f;
	int got;

	if (!conn_fill(&s->conn))
		return false;
	if (!s->upgraded) {
		got = buf_len(&s->conn.in) ? ws_serve_upgrade(&s->conn.in, &s->conn.out) : 0;
		if (got < 0)
			return false;
		s->upgraded = got > 0;
	}
	while (s->upgraded && buf_len(&s->conn.in)) {
		char *p = s->conn.in.p + s->conn.in.head;
		got = ws_frame_at(p, buf_len(&s->conn.in), &f);
		if (got < 0 || (got > 0 && !serve_frame(v, s, &f)))
			return false;
		if (!got)
			break;
		buf_take(&s->conn.in, f.whole);
	}
	return true;
}

static void session_turn(struct service *v, struct session *s, uint32_t events)
{
	if (((events & ~(uint32_t)EPOLLOUT) && !serve(v, s)) || !conn_flush(&s->conn)) {
		conn_close(&s->conn);
		free(s);
		return;
	}
	conn_watch(&s->conn, v->epoll, s);
}

static void accept_session(struct service *v)
{
	int fd = bench_accept(v->listener);

	if (fd < 0)
		return;
	struct session *s = mem_zalloc(sizeof *s);
	conn_accept(&s->conn, fd, v->tls);
	conn_watch(&s->conn, v->epoll, s);
}

static _Noreturn void run(struct service *v)
{
	struct epoll_event events[EVENTS], listening = {.events = EPOLLIN, .data.ptr = NULL};

	v->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (v->epoll < 0 || epoll_ctl(v->epoll, EPOLL_CTL_ADD, v->listener, &listening) < 0)
		bench_die("epoll: %s", strerror(errno));
	for (;;) {
		int n = epoll_wait(v->epoll, events, EVENTS, -1);
		for (int i = 0; i < n; i++) {
			if (events[i].data.ptr)
				session_turn(v, events[i].data.ptr, events[i].events);
			else
				accept_session(v);
		}
	}
}

static const char usage[] = "usage: bench-service (--cert FILE --key FILE | --plain) [--port N]\n"
			    "       [--record-per-answer]";

static const struct option options[] = {
	{"port", required_argument, NULL, 'p'},        {"cert", required_argument, NULL, 'c'},
	{"key", required_argument, NULL, 'k'},         {"plain", no_argument, NULL, 'n'},
	{"record-per-answer", no_argument, NULL, 'r'}, {NULL, 0, NULL, 0},
};

struct settings {
	const char *port, *certificate, *key;
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
	printf("listening on %s://127.0.0.1:%u\n", s.plain ? "http" : "https",
	       bench_port(v.listener));
	fflush(stdout);
	run(&v);
}
