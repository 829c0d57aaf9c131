/* bench-echo - the floor: a Unix socket that says back what it hears.
 *
 * What the two system calls and the two switches of a local round trip cost, before anybody has
 * done anything. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>

#include "bench.h"
#include "conn.h"
#include "base/mem.h"

enum { EVENTS = 64 };

static void echo(struct conn *c, int epoll)
{
	bool alive = conn_fill(c);

	if (!buf_len(&c->out)) {
		struct buf heard = c->in;
		c->in = c->out;
		c->out = heard;
	} else {
		buf_add(&c->out, buf_span(&c->in).p, buf_len(&c->in));
		buf_take(&c->in, buf_len(&c->in));
	}
	if (!alive || !conn_flush(c)) {
		conn_close(c);
		free(c);
		return;
	}
	conn_watch(c, epoll, c);
}

static void accept_client(int listener, int epoll)
{
	int fd = bench_accept(listener);

	if (fd < 0)
		return;
	struct conn *c = mem_zalloc(sizeof *c);
	conn_accept(c, fd, NULL);
	conn_watch(c, epoll, c);
}

int main(int argc, char **argv)
{
	struct epoll_event events[EVENTS], listening = {.events = EPOLLIN, .data.ptr = NULL};

	if (argc != 2)
		bench_die("usage: bench-echo SOCKET");
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	signal(SIGPIPE, SIG_IGN);
	bench_raise_descriptor_limit();
	int listener = bench_listen(argv[1]), epoll = epoll_create1(EPOLL_CLOEXEC);
	if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &listening) < 0)
		bench_die("epoll: %s", strerror(errno));
	printf("listening on %s\n", argv[1]);
	fflush(stdout);
	for (;;) {
		int n = epoll_wait(epoll, events, EVENTS, -1);
		for (int i = 0; i < n; i++) {
			if (events[i].data.ptr)
				echo(events[i].data.ptr, epoll);
			else
				accept_client(listener, epoll);
		}
	}
}
