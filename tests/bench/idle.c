/* bench-idle - what a client costs the process that it is connected to, while it does nothing.
 *
 * Opens many connections and reads how far the process's resident heap has grown: first with
 * clients that have never said a word, then once each of them has had a request answered. What the
 * kernel keeps for a socket is not in it. */
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "bench.h"
#include "conn.h"
#include "base/mem.h"
#include "speech.h"

enum { PATIENCE_MS = 10000 };

static void ask(const struct speech *speech, struct conn *c)
{
	struct pollfd p = {.fd = c->fd, .events = POLLIN};
	struct talker t;
	struct answer a;
	int got = 0;

	talker_init(&t, 0, false);
	speech->request(&t, &c->out, 0);
	if (!conn_flush(c))
		bench_die("the peer has closed the connection");
	while (!got) {
		if (poll(&p, 1, PATIENCE_MS) <= 0)
			bench_die("no answer within ten seconds");
		if (!conn_fill(c))
			bench_die("the peer has closed the connection");
		got = buf_len(&c->in) ? speech->answer(&t, &c->in, &a) : 0;
	}
	if (got < 0 || !a.success)
		bench_die("a request has failed");
	buf_release(&c->in);
	buf_release(&c->out);
}

static void measure(const struct speech *speech, const char *to, pid_t pid, size_t n)
{
	struct conn *c = mem_zalloc(n * sizeof *c), first;

	/* What the process allocates once, for the first client that comes, is not what a client
	 * costs. */
	speech->connect(&first, to, NULL);
	ask(speech, &first);
	int64_t before = bench_memory(pid);
	for (size_t i = 0; i < n; i++)
		speech->connect(&c[i], to, NULL);
	ask(speech, &c[n - 1]); /* the last in the queue: all others have been accepted before */
	int64_t silent = bench_memory(pid);
	for (size_t i = 0; i < n; i++)
		ask(speech, &c[i]);
	int64_t spoken = bench_memory(pid);
	printf("{\"clients\":%zu,\"bytesSilent\":%lld,\"bytesServed\":%lld}\n", n,
	       (long long)(silent - before) / (long long)n,
	       (long long)(spoken - before) / (long long)n);
	free(c); /* their sockets close with the process */
}

int main(int argc, char **argv)
{
	static const char usage[] = "usage: bench-idle lines|redis SOCKET|PORT PID CLIENTS";

	if (argc != 5)
		bench_die("%s", usage);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	signal(SIGPIPE, SIG_IGN);
	bench_raise_descriptor_limit();
	alarm(120); /* whatever hangs, this ends */
	measure(speech_named(argv[1]), argv[2], (pid_t)bench_number("pid", argv[3], 1, INT32_MAX),
		(size_t)bench_number("clients", argv[4], 1, 100000));
	return 0;
}
