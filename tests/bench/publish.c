/* bench-publish - changes to order (burst.h), for what is measured beside hpkvd.
 *
 * In redis or mqtt it is a client of the server at SOCKET, which hands out what it publishes. In
 * lines there is no server to do that: subscribers connect to bench-publish itself, at SOCKET, and
 * it writes the lines of a burst to each of them by one bare write(). That is the floor: what the
 * kernel and the readers take, when nobody decides who is to be told what. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "bench.h"
#include "burst.h"
#include "conn.h"
#include "base/mem.h"
#include "pubsub.h"

enum { SUBSCRIBERS_MAX = 20000 };

struct publisher {
	const struct pubsub *speech;
	int listener; /* for subscribers; -1: a server has them */
	int *to;      /* whom it writes to: subscribers, or the server */
	size_t n_to;
	int desk;           /* where loads connect to order, one after the other */
	struct conn orders; /* of the present one; fd -1: there is none */
	struct burst burst;
	struct buf out;
};

static bool write_whole(int fd, struct span text)
{
	while (text.n) {
		ssize_t n = write(fd, text.p, text.n);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return false;
		text = (struct span){text.p + n, text.n - (size_t)n};
	}
	return true;
}

static void publish(struct publisher *p, unsigned n)
{
	char text[BURST_TEXT];

	burst_begin(&p->burst);
	for (; n; n--) {
		burst_next(&p->burst, text);
		p->speech->publish(&p->out, (struct span){text, sizeof text});
	}
	for (size_t i = 0; i < p->n_to;) {
		if (write_whole(p->to[i], buf_span(&p->out))) {
			i++;
			continue;
		}
		if (p->listener < 0)
			bench_die("the server has closed the connection");
		close(p->to[i]);
		p->to[i] = p->to[--p->n_to];
	}
	buf_take(&p->out, buf_len(&p->out));
}

/* Its subscribers are our own tool's: the hello and one request, for one key. */
static void accept_subscriber(struct publisher *p)
{
	char heard[512];
	size_t n = 0, lines = 0;
	int fd = bench_accept(p->listener);

	if (fd < 0)
		return;
	while (lines < 2) {
		ssize_t got = n < sizeof heard ? read(fd, heard + n, sizeof heard - n) : 0;
		if (got <= 0)
			bench_die("a subscriber that does not subscribe");
		for (; got; got--)
			lines += heard[n++] == '\n';
	}
	write_whole(fd, SPAN("{\"code\":200,\"messageId\":0}\n{\"code\":200,\"messageId\":1}\n"));
	if (p->n_to == SUBSCRIBERS_MAX)
		bench_die("more than %d subscribers", SUBSCRIBERS_MAX);
	p->to[p->n_to++] = fd;
}

static void accept_orders(struct publisher *p)
{
	int fd = bench_accept(p->desk);

	if (fd < 0)
		return;
	conn_accept(&p->orders, fd, NULL);
	p->burst = (struct burst){0};
}

static void take_orders(struct publisher *p)
{
	unsigned n;
	int got = -1;

	if (conn_fill(&p->orders))
		while ((got = burst_take_order(&p->orders.in, &n)) > 0 && p->n_to)
			publish(p, n);
	if (got) { /* what it orders is nonsense, or for nobody; or it has gone */
		conn_close(&p->orders);
		p->orders.fd = -1;
	}
}

static _Noreturn void run(struct publisher *p)
{
	for (;;) {
		bool open = p->orders.fd >= 0;
		struct pollfd wait[] = {{open ? p->orders.fd : p->desk, POLLIN, 0},
					{p->listener, POLLIN, 0}};
		if (poll(wait, 2, -1) < 0 && errno != EINTR)
			bench_die("poll: %s", strerror(errno));
		if (wait[1].revents)
			accept_subscriber(p);
		if (wait[0].revents && open)
			take_orders(p);
		else if (wait[0].revents)
			accept_orders(p);
	}
}

int main(int argc, char **argv)
{
	struct publisher p = {.listener = -1, .orders.fd = -1};

	if (argc != 4)
		bench_die("usage: bench-publish lines|redis|mqtt SOCKET ORDERS-SOCKET");
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	signal(SIGPIPE, SIG_IGN);
	bench_raise_descriptor_limit();
	p.speech = pubsub_named(argv[1]);
	p.to = mem_alloc(SUBSCRIBERS_MAX * sizeof *p.to);
	if (strcmp(argv[1], "lines") == 0) {
		p.listener = bench_listen(argv[2]);
	} else {
		p.to[p.n_to++] = bench_connect(argv[2]);
		write_whole(p.to[0], p.speech->publisher);
	}
	p.desk = bench_listen(argv[3]);
	printf("taking orders on %s\n", argv[3]);
	fflush(stdout);
	run(&p);
}
