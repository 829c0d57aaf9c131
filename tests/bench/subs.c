/* bench-subs - what a subscription costs the process that holds it.
 *
 * Opens clients that have said hello, then lets each of them subscribe to a number of keys (all to
 * the same, or each to its own) and reads how far the process's resident heap has grown. What the
 * kernel keeps for a socket is not in it. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "bench.h"
#include "conn.h"
#include "base/mem.h"
#include "pubsub.h"

static void greet(const struct pubsub *speech, struct conn *c, const char *to)
{
	conn_client(c, bench_connect(to), NULL);
	buf_add(&c->out, speech->hello.p, speech->hello.n);
	pubsub_flush(c);
	pubsub_await(speech, c, 0);
}

static void subscribe(const struct pubsub *speech, struct conn *c, size_t first, size_t n)
{
	pubsub_subscribe(speech, c, first, n);
	pubsub_flush(c);
}

static void measure(const struct pubsub *speech, const char *to, pid_t pid, size_t n, size_t keys,
		    bool own)
{
	struct conn *c = mem_zalloc(n * sizeof *c), first;

	/* What the process allocates once, for the first subscription of all, is not what one
	 * costs. Key 0 is the first's; of the same keys that all others take it is one. */
	greet(speech, &first, to);
	subscribe(speech, &first, 0, 1);
	pubsub_await(speech, &first, 1);
	int64_t before = bench_memory(pid);
	for (size_t i = 0; i < n; i++)
		greet(speech, &c[i], to);
	int64_t greeted = bench_memory(pid);
	/* All ask before any is answered, so that who gathers new keys can gather them. */
	for (size_t i = 0; i < n; i++)
		subscribe(speech, &c[i], own ? 1 + i * keys : 0, keys);
	for (size_t i = 0; i < n; i++)
		pubsub_await(speech, &c[i], keys);
	int64_t subscribed = bench_memory(pid);
	printf("{\"clients\":%zu,\"keys\":%zu,\"bytesClient\":%.0f,\"bytesSubscription\":%.1f}\n",
	       n, keys, (double)(greeted - before) / (double)n,
	       (double)(subscribed - greeted) / (double)(n * keys));
	free(c); /* their sockets close with the process */
}

int main(int argc, char **argv)
{
	static const char usage[] =
		"usage: bench-subs lines|redis|mqtt SOCKET|PORT PID CLIENTS KEYS same|own";

	if (argc != 7)
		bench_die("%s", usage);
	bool own = strcmp(argv[6], "own") == 0;
	if (!own && strcmp(argv[6], "same") != 0)
		bench_die("%s", usage);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	signal(SIGPIPE, SIG_IGN);
	bench_raise_descriptor_limit();
	alarm(120); /* whatever hangs, this ends */
	measure(pubsub_named(argv[1]), argv[2], (pid_t)bench_number("pid", argv[3], 1, INT32_MAX),
		(size_t)bench_number("clients", argv[4], 1, 10000),
		(size_t)bench_number("keys", argv[5], 1, 10000), own);
	return 0;
}
