/* bench-fanout - many subscribers of one key, and how fast its changes reach them.
 *
 * One thread plays all subscribers. It orders a burst of changes from a publisher (burst.h), reads
 * until every subscriber has been told all of it, and orders the next. What each is told is
 * checked: every change, once, in order, as it was worded; one that is missing, doubled, out of
 * order or replaced by a later one ends the run with an error, as does a subscription that is
 * refused. Afterwards a line of JSON tells the rate of lines over all subscribers, the quantiles of
 * the delay from the publisher's write to the subscriber's having read, and the CPU time that the
 * processes named by --cpu-of have spent on each line.
 *
 * After --warmup it measures for --seconds, or --count bursts. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "bench.h"
#include "burst.h"
#include "conn.h"
#include "cpu.h"
#include "hist.h"
#include "base/mem.h"
#include "pubsub.h"

enum { EVENTS = 256, PATIENCE_MS = 10000 };

struct subscriber {
	struct conn conn;
	uint64_t next; /* the number of the change that is due */
};

struct fan {
	const struct pubsub *speech;
	size_t n_subscribers;
	unsigned burst;
	int64_t warmup_ns, measure_ns;
	uint64_t count; /* of bursts; 0: as many as the time allows */

	int epoll, orders;
	struct subscriber *subscribers;
	struct buf spare; /* what the next subscriber reads into, while none has half a line */
	uint64_t due;     /* lines of this burst that have not been read */

	uint64_t bursts; /* measured */
	int64_t measured_ns;
	struct hist delays;
	struct cpu cpu;
};

/* --- one subscriber --- */

static void take_change(struct fan *f, struct subscriber *s, struct span text, int64_t now)
{
	uint64_t number;
	int64_t written;

	if (!burst_read(text, &number, &written))
		pubsub_die(f->speech, text);
	if (number != s->next)
		bench_die("subscriber %td is told change %llu where %llu is due",
			  s - f->subscribers, (unsigned long long)number,
			  (unsigned long long)s->next);
	s->next++;
	f->due--;
	hist_add(&f->delays, (uint64_t)(now - written));
}

static void swap(struct buf *a, struct buf *b)
{
	struct buf was = *a;

	*a = *b;
	*b = was;
}

/* All read into the same memory, which so stays in the CPU's cache. Only who has got half a line
 * keeps it, and the next one gets new. */
static void subscriber_turn(struct fan *f, struct subscriber *s)
{
	struct buf *in = &s->conn.in;
	struct heard h;
	int got = 0;

	if (!in->memory)
		swap(in, &f->spare);
	if (!conn_fill(&s->conn))
		bench_die("the peer has closed a subscriber's connection");
	int64_t now = bench_now_ns();
	while (buf_len(in) && (got = f->speech->hear(in, &h)) > 0 && h.change.p)
		take_change(f, s, h.change, now);
	if (got < 0)
		pubsub_die(f->speech, buf_span(in));
	if (got > 0 && !h.change.p)
		bench_die("a subscriber is answered what it has not asked");
	if (!buf_len(in)) {
		swap(in, &f->spare);
		buf_release(in);
	}
}

static void open_subscribers(struct fan *f, const char *to)
{
	f->subscribers = mem_zalloc(f->n_subscribers * sizeof *f->subscribers);
	for (size_t i = 0; i < f->n_subscribers; i++) {
		struct conn *c = &f->subscribers[i].conn;
		conn_client(c, bench_connect(to), NULL);
		buf_add(&c->out, f->speech->hello.p, f->speech->hello.n);
		pubsub_subscribe(f->speech, c, 0, 1);
		pubsub_flush(c);
		pubsub_await(f->speech, c, 0);
		pubsub_await(f->speech, c, 1);
		conn_watch(c, f->epoll, &f->subscribers[i]);
	}
}

/* --- bursts --- */

static void open_orders(struct fan *f, const char *at)
{
	struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL};

	f->orders = bench_connect(at);
	if (epoll_ctl(f->epoll, EPOLL_CTL_ADD, f->orders, &e) < 0)
		bench_die("epoll: %s", strerror(errno));
}

static void one_burst(struct fan *f)
{
	struct epoll_event events[EVENTS];

	f->due = (uint64_t)f->n_subscribers * f->burst;
	burst_order(f->orders, f->burst);
	while (f->due) {
		int n = epoll_wait(f->epoll, events, EVENTS, PATIENCE_MS);
		if (n == 0)
			bench_die("%llu of %llu lines are missing after ten seconds",
				  (unsigned long long)f->due,
				  (unsigned long long)f->n_subscribers * f->burst);
		for (int i = 0; i < n; i++) {
			if (!events[i].data.ptr)
				bench_die("the publisher takes no orders: nobody listens to it");
			subscriber_turn(f, events[i].data.ptr);
		}
	}
}

static void run(struct fan *f)
{
	int64_t began = bench_now_ns();

	while (bench_now_ns() - began < f->warmup_ns)
		one_burst(f);
	f->delays = (struct hist){.n = 0};
	cpu_begin(&f->cpu);
	began = bench_now_ns();
	do {
		one_burst(f);
		f->bursts++;
		f->measured_ns = bench_now_ns() - began;
	} while (f->count ? f->bursts < f->count : f->measured_ns < f->measure_ns);
	cpu_end(&f->cpu);
}

static void report(const struct fan *f)
{
	double seconds = (double)f->measured_ns / 1e9, lines = (double)f->delays.n;

	printf("{\"subscribers\":%zu,\"burst\":%u,\"lines\":%llu,\"seconds\":%.3f,\"perSecond\":%."
	       "0f,",
	       f->n_subscribers, f->burst, (unsigned long long)f->delays.n, seconds,
	       lines / seconds);
	printf("\"p50us\":%.1f,\"p99us\":%.1f,\"maxUs\":%.1f,\"cpuUs\":",
	       (double)hist_quantile(&f->delays, 0.5) / 1e3,
	       (double)hist_quantile(&f->delays, 0.99) / 1e3, (double)f->delays.max / 1e3);
	cpu_print(&f->cpu, lines);
	printf("}\n");
}

/* --- command line --- */

static const char usage[] =
	"usage: bench-fanout --speech lines|redis|mqtt --to SOCKET|PORT --orders SOCKET\n"
	"       [--subscribers N] [--burst N] [--warmup MS] [--seconds N | --count BURSTS] "
	"[--cpu-of NAME=PID]...";

struct target {
	const char *to, *orders;
};

static const struct option options[] = {
	{"speech", required_argument, NULL, 'k'},  {"to", required_argument, NULL, 't'},
	{"orders", required_argument, NULL, 'o'},  {"subscribers", required_argument, NULL, 'n'},
	{"burst", required_argument, NULL, 'b'},   {"warmup", required_argument, NULL, 'w'},
	{"seconds", required_argument, NULL, 's'}, {"count", required_argument, NULL, 'c'},
	{"cpu-of", required_argument, NULL, 'u'},  {NULL, 0, NULL, 0},
};

static void set_option(struct fan *f, struct target *t, int option, char *argument)
{
	switch (option) {
	case 'k':
		f->speech = pubsub_named(argument);
		break;
	case 't':
		t->to = argument;
		break;
	case 'o':
		t->orders = argument;
		break;
	case 'n':
		f->n_subscribers = (size_t)bench_number("subscribers", argument, 1, 20000);
		break;
	case 'b':
		f->burst = (unsigned)bench_number("burst", argument, 1, BURST_MAX);
		break;
	case 'w':
		f->warmup_ns = bench_number("warmup", argument, 0, 60000) * INT64_C(1000000);
		break;
	case 's':
		f->measure_ns = bench_number("seconds", argument, 1, 600) * INT64_C(1000000000);
		break;
	case 'c':
		f->count = (uint64_t)bench_number("count", argument, 1, INT32_MAX);
		break;
	case 'u':
		if (!cpu_watch(&f->cpu, argument))
			bench_die("%s", usage);
		break;
	default:
		bench_die("%s", usage);
	}
}

int main(int argc, char **argv)
{
	static struct fan f = {.n_subscribers = 1, .burst = 1, .measure_ns = INT64_C(1000000000)};
	struct target t = {NULL, NULL};

	for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;)
		set_option(&f, &t, c, optarg);
	if (optind < argc || !f.speech || !t.to || !t.orders)
		bench_die("%s", usage);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	signal(SIGPIPE, SIG_IGN);
	bench_raise_descriptor_limit();
	/* Whatever hangs, this ends. */
	alarm((unsigned)((f.warmup_ns + f.measure_ns) / 1000000000) + 60);
	f.epoll = epoll_create1(EPOLL_CLOEXEC);
	if (f.epoll < 0)
		bench_die("epoll: %s", strerror(errno));
	open_subscribers(&f, t.to);
	open_orders(&f, t.orders);
	run(&f);
	report(&f);
	/* What came twice at the end of the last burst is found by one more, which does not count.
	 */
	one_burst(&f);
	return 0;
}
