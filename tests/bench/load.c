/* bench-load - clients that keep a number of requests in flight each, and what they see of it.
 *
 * One thread plays all clients. Each answer is checked (does it answer a request that is out, once,
 * with success?) and replaced by the next request; all requests that the answers of one read allow
 * leave in one write. Afterwards a line of JSON tells the rate, the round trip's quantiles, and the
 * CPU time that the processes named by --cpu-of have spent on each request.
 *
 * After --warmup it measures for --seconds, or for --count requests, then waits for what is out: a
 * request that never is answered is counted as lost, and is a failure. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "bench.h"
#include "conn.h"
#include "cpu.h"
#include "hist.h"
#include "base/mem.h"
#include "speech.h"

enum { EVENTS = 64, TICK_MS = 100, DRAIN_SECONDS = 5 };

struct slot {
	uint64_t id;  /* of the request that is out, or of the next one here: slot number + k * in
			 flight */
	int64_t sent; /* when; 0: none is out */
};

struct client {
	struct conn conn;
	struct talker talker;
	struct slot *slots;
};

enum phase { WARMING, MEASURING, DRAINING, DONE };

struct load {
	const struct speech *speech;
	size_t n_clients, in_flight;
	bool writes;
	int64_t warmup_ns, measure_ns;
	uint64_t count; /* 0: as many as the time allows */
	struct client *clients;
	struct cpu cpu;

	int epoll;
	enum phase phase;
	int64_t phase_began;
	int64_t measured_ns;
	uint64_t sent, out;     /* since the start; not answered yet */
	uint64_t failed, stray; /* answers without success; answers to nothing */
	struct hist trips;      /* of the measuring phase */
};

/* --- one client --- */

static void send_next(struct load *l, struct client *c, struct slot *s, int64_t now)
{
	if (l->phase >= DRAINING || (l->count && l->sent == l->count))
		return;
	l->speech->request(&c->talker, &c->conn.out, s->id);
	s->sent = now;
	l->sent++;
	l->out++;
}

static void take_answer(struct load *l, struct client *c, const struct answer *a, int64_t now)
{
	struct slot *s = &c->slots[a->id % l->in_flight];

	if (!s->sent || s->id != a->id) {
		l->stray++;
		return;
	}
	if (!a->success)
		l->failed++;
	if (l->phase == MEASURING)
		hist_add(&l->trips, (uint64_t)(now - s->sent));
	l->out--;
	s->sent = 0;
	s->id += l->in_flight;
	send_next(l, c, s, now);
}

static void client_turn(struct load *l, struct client *c)
{
	struct answer a;
	int got = 0;

	if (!conn_fill(&c->conn))
		bench_die("the peer has closed a connection");
	int64_t now = bench_now_ns();
	while (buf_len(&c->conn.in) && (got = l->speech->answer(&c->talker, &c->conn.in, &a)) > 0)
		take_answer(l, c, &a, now);
	if (got < 0 || !conn_flush(&c->conn))
		bench_die("the peer says what this tool does not understand");
	conn_watch(&c->conn, l->epoll, c);
}

static void open_clients(struct load *l, const char *to, SSL_CTX *tls)
{
	l->clients = mem_zalloc(l->n_clients * sizeof *l->clients);
	for (size_t i = 0; i < l->n_clients; i++) {
		struct client *c = &l->clients[i];
		l->speech->connect(&c->conn, to, tls);
		talker_init(&c->talker, i, l->writes);
		c->slots = mem_zalloc(l->in_flight * sizeof *c->slots);
		for (size_t k = 0; k < l->in_flight; k++)
			c->slots[k].id = k;
	}
}

static void send_first(struct load *l)
{
	for (size_t i = 0; i < l->n_clients; i++) {
		struct client *c = &l->clients[i];
		int64_t now = bench_now_ns();
		for (size_t k = 0; k < l->in_flight; k++)
			send_next(l, c, &c->slots[k], now);
		if (!conn_flush(&c->conn))
			bench_die("the peer has closed a connection");
		conn_watch(&c->conn, l->epoll, c);
	}
}

/* --- phases --- */

static void enter(struct load *l, enum phase phase, int64_t now)
{
	if (phase == MEASURING)
		cpu_begin(&l->cpu);
	if (l->phase == MEASURING) {
		l->measured_ns = now - l->phase_began;
		cpu_end(&l->cpu);
	}
	l->phase = phase;
	l->phase_began = now;
}

static void advance(struct load *l)
{
	int64_t now = bench_now_ns(), spent = now - l->phase_began;
	bool all = l->count && l->sent == l->count && !l->out;

	if (l->phase == WARMING && spent >= l->warmup_ns)
		enter(l, MEASURING, now);
	else if (l->phase == MEASURING && (all || (!l->count && spent >= l->measure_ns)))
		enter(l, DRAINING, now);
	if (l->phase == DRAINING && (!l->out || spent >= DRAIN_SECONDS * INT64_C(1000000000)))
		enter(l, DONE, now);
}

static void run(struct load *l)
{
	struct epoll_event events[EVENTS];

	l->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (l->epoll < 0)
		bench_die("epoll: %s", strerror(errno));
	enter(l, l->count ? MEASURING : WARMING, bench_now_ns());
	send_first(l);
	while (l->phase != DONE) {
		int n = epoll_wait(l->epoll, events, EVENTS, TICK_MS);
		for (int i = 0; i < n; i++)
			client_turn(l, events[i].data.ptr);
		advance(l);
	}
}

static void report(const struct load *l)
{
	double seconds = (double)l->measured_ns / 1e9, n = (double)l->trips.n;

	printf("{\"clients\":%zu,\"inFlight\":%zu,\"requests\":%llu,\"seconds\":%.3f,\"perSecond\":"
	       "%.0f,",
	       l->n_clients, l->in_flight, (unsigned long long)l->trips.n, seconds, n / seconds);
	printf("\"p50us\":%.1f,\"p99us\":%.1f,\"maxUs\":%.1f,",
	       (double)hist_quantile(&l->trips, 0.5) / 1e3,
	       (double)hist_quantile(&l->trips, 0.99) / 1e3, (double)l->trips.max / 1e3);
	printf("\"failed\":%llu,\"stray\":%llu,\"lost\":%llu,\"cpuUs\":",
	       (unsigned long long)l->failed, (unsigned long long)l->stray,
	       (unsigned long long)l->out);
	cpu_print(&l->cpu, n);
	printf("}\n");
}

/* --- command line --- */

static const char usage[] =
	"usage: bench-load --speech lines|http|websocket|redis --to SOCKET|PORT [--ca FILE] "
	"[--clients "
	"N]\n"
	"       [--in-flight N] [--warmup MS] [--seconds N | --count N] [--set] [--cpu-of "
	"NAME=PID]...";

struct target {
	const char *to, *ca;
};

static const struct option options[] = {
	{"speech", required_argument, NULL, 'k'},
	{"to", required_argument, NULL, 't'},
	{"ca", required_argument, NULL, 'a'},
	{"clients", required_argument, NULL, 'n'},
	{"in-flight", required_argument, NULL, 'p'},
	{"warmup", required_argument, NULL, 'w'},
	{"seconds", required_argument, NULL, 's'},
	{"count", required_argument, NULL, 'c'},
	{"set", no_argument, NULL, 'e'},
	{"cpu-of", required_argument, NULL, 'u'},
	{NULL, 0, NULL, 0},
};

static void set_option(struct load *l, struct target *t, int option, char *argument)
{
	switch (option) {
	case 'k':
		l->speech = speech_named(argument);
		break;
	case 't':
		t->to = argument;
		break;
	case 'a':
		t->ca = argument;
		break;
	case 'n':
		l->n_clients = (size_t)bench_number("clients", argument, 1, 20000);
		break;
	case 'p':
		l->in_flight = (size_t)bench_number("in-flight", argument, 1, 1024);
		break;
	case 'w':
		l->warmup_ns = bench_number("warmup", argument, 0, 60000) * INT64_C(1000000);
		break;
	case 's':
		l->measure_ns = bench_number("seconds", argument, 1, 600) * INT64_C(1000000000);
		break;
	case 'c':
		l->count = (uint64_t)bench_number("count", argument, 1, INT32_MAX);
		break;
	case 'e':
		l->writes = true;
		break;
	case 'u':
		if (!cpu_watch(&l->cpu, argument))
			bench_die("%s", usage);
		break;
	default:
		bench_die("%s", usage);
	}
}

int main(int argc, char **argv)
{
	static struct load l = {.n_clients = 1, .in_flight = 1, .measure_ns = INT64_C(1000000000)};
	struct target t = {NULL, NULL};

	for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;)
		set_option(&l, &t, c, optarg);
	if (optind < argc || !l.speech || !t.to)
		bench_die("%s", usage);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	signal(SIGPIPE, SIG_IGN);
	bench_raise_descriptor_limit();
	/* Whatever hangs, this ends. */
	alarm((unsigned)((l.warmup_ns + l.measure_ns) / 1000000000) + 60);
	open_clients(&l, t.to, t.ca ? conn_client_tls(t.ca) : NULL);
	run(&l);
	report(&l);
	return l.failed || l.stray || l.out || !l.trips.n;
}
