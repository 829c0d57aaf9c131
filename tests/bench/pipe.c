/* bench-pipe - the ceiling: the least that anything can do which joins local clients to one TLS
 * WebSocket.
 *
 * Lines of clients become frames, answers become lines of the client whose turn it is, as the
 * service answers in order. It reads no JSON, keeps no deadlines, refuses nothing and gives up when
 * the service does. What hpkvd takes longer than this is what its promises cost. */
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
#include "base/mem.h"
#include "ws.h"

enum { EVENTS = 64, TURNS = 1 << 17 };

struct client {
	struct conn conn;
	unsigned waiting; /* answers to come; they name it, so until then it stays */
	bool gone;
	bool dirty; /* in the list of those with something to flush */
	struct client *next_dirty;
};

struct pipe {
	int epoll, listener;
	struct conn service;
	struct client **turns; /* a ring: whose answer is next */
	size_t first, last;
	struct client *dirty;
};

static void client_leave(struct pipe *p, struct client *c)
{
	if (!c->gone)
		epoll_ctl(p->epoll, EPOLL_CTL_DEL, c->conn.fd, NULL);
	c->gone = true;
	if (c->waiting || c->dirty)
		return;
	conn_close(&c->conn);
	free(c);
}

static void send_line(struct pipe *p, struct client *c, struct span line)
{
	if (p->last - p->first == TURNS)
		bench_die("more than %d requests in flight", TURNS);
	ws_append(&p->service.out, WS_TEXT, true, line, SPAN(""));
	p->turns[p->last++ % TURNS] = c;
	c->waiting++;
}

static void client_turn(struct pipe *p, struct client *c)
{
	const char *end;

	if (!conn_fill(&c->conn)) {
		client_leave(p, c);
		return;
	}
	for (struct span in; (in = buf_span(&c->conn.in)).n && (end = memchr(in.p, '\n', in.n));) {
		size_t n = (size_t)(end - in.p);
		send_line(p, c, (struct span){in.p, n});
		buf_take(&c->conn.in, n + 1);
	}
	if (!c->dirty && !conn_flush(&c->conn))
		client_leave(p, c);
	else
		conn_watch(&c->conn, p->epoll, c);
}

static void take_answer(struct pipe *p, const struct ws_frame *f)
{
	if (f->opcode != WS_TEXT || p->first == p->last)
		bench_die("the service says what nobody has asked for");
	struct client *c = p->turns[p->first++ % TURNS];
	char *line = buf_room(&c->conn.out, f->n + 1);
	memcpy(line, f->p, f->n);
	line[f->n] = '\n';
	buf_grew(&c->conn.out, f->n + 1);
	c->waiting--;
	if (!c->dirty) {
		c->dirty = true;
		c->next_dirty = p->dirty;
		p->dirty = c;
	}
}

static void flush_dirty(struct pipe *p)
{
	while (p->dirty) {
		struct client *c = p->dirty;
		p->dirty = c->next_dirty;
		c->dirty = false;
		if (c->gone || !conn_flush(&c->conn))
			client_leave(p, c);
		else
			conn_watch(&c->conn, p->epoll, c);
	}
}

static void service_turn(struct pipe *p)
{
	struct conn *c = &p->service;
	struct ws_frame f;
	int got = 0;

	if (!conn_fill(c))
		bench_die("the service has closed the connection");
	while (buf_len(&c->in) && (got = ws_frame_at(buf_start(&c->in), buf_len(&c->in), &f)) > 0) {
		take_answer(p, &f);
		buf_take(&c->in, f.whole);
	}
	if (got < 0)
		bench_die("the service sends what is no frame");
}

static void accept_client(struct pipe *p)
{
	int fd = bench_accept(p->listener);

	if (fd < 0)
		return;
	struct client *c = mem_zalloc(sizeof *c);
	conn_accept(&c->conn, fd, NULL);
	conn_watch(&c->conn, p->epoll, c);
}

static _Noreturn void run(struct pipe *p)
{
	struct epoll_event events[EVENTS];

	for (;;) {
		int n = epoll_wait(p->epoll, events, EVENTS, -1);
		for (int i = 0; i < n; i++) {
			if (events[i].data.ptr == &p->listener)
				accept_client(p);
			else if (events[i].data.ptr == &p->service)
				service_turn(p);
			else
				client_turn(p, events[i].data.ptr);
		}
		/* Once for all events of a turn: this is where many small messages become few
		 * records. */
		if (!conn_flush(&p->service))
			bench_die("the service has closed the connection");
		conn_watch(&p->service, p->epoll, &p->service);
		flush_dirty(p);
	}
}

int main(int argc, char **argv)
{
	struct epoll_event listening = {.events = EPOLLIN};
	struct pipe p = {.epoll = epoll_create1(EPOLL_CLOEXEC)};

	if (argc != 3 && argc != 4)
		bench_die("usage: bench-pipe SOCKET PORT [CA-FILE]");
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	signal(SIGPIPE, SIG_IGN);
	bench_raise_descriptor_limit();
	p.turns = mem_zalloc(TURNS * sizeof *p.turns);
	ws_connect(&p.service, argv[2], argc == 4 ? conn_client_tls(argv[3]) : NULL);
	p.listener = bench_listen(argv[1]);
	listening.data.ptr = &p.listener;
	if (p.epoll < 0 || epoll_ctl(p.epoll, EPOLL_CTL_ADD, p.listener, &listening) < 0)
		bench_die("epoll: %s", strerror(errno));
	conn_watch(&p.service, p.epoll, &p.service);
	printf("listening on %s\n", argv[1]);
	fflush(stdout);
	run(&p);
}
