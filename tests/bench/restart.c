/* bench-restart - clients of libhpkv while the daemon restarts.
 *
 * bench-restart SOCKET CLIENTS RATE MS: so many handles ask for keys in turn, RATE requests/s
 * together, for MS milliseconds; then all that was asked is waited for. Prints "ready" once each
 * client was answered, and in the end "REQUESTS ERRORS LONGEST" with the longest wait in µs, from
 * hpkv_send() to the callback. Requests go out in time, however long answers take. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>

#include <hpkv.h>

enum { EVENTS_MAX = 256, TIMEOUT_MS = 30000 };

static struct {
	uint64_t asked, answered, errors;
	int64_t longest_us;
} sum;

static int64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void on_answer(void *at, const struct hpkv_answer *answer)
{
	int64_t waited = now_us() - (int64_t)(intptr_t)at;

	sum.answered++;
	if (waited > sum.longest_us)
		sum.longest_us = waited;
	if (answer->result == HPKV_OK || answer->result == HPKV_NOT_FOUND)
		return;
	if (sum.errors++ == 0)
		fprintf(stderr, "an error: %s\n", answer->error);
}

static void ask(struct hpkv *h, unsigned n)
{
	char key[32];

	snprintf(key, sizeof(key), "key:%u", n);
	struct hpkv_request request = {.op = HPKV_GET, .key = hpkv_str(key)};
	sum.asked++;
	if (hpkv_send(h, &request, on_answer, (void *)(intptr_t)now_us()) == HPKV_OK)
		return;
	sum.answered++;
	sum.errors++;
	fprintf(stderr, "can't send: %s\n", hpkv_error(h));
}

static void turn(int epoll, int ms)
{
	struct epoll_event events[EVENTS_MAX];
	int n = epoll_wait(epoll, events, EVENTS_MAX, ms);

	for (int i = 0; i < n; i++)
		hpkv_process(events[i].data.ptr);
}

static struct hpkv **make_clients(const char *path, unsigned n, int epoll)
{
	struct hpkv **clients = calloc(n, sizeof(*clients));

	for (unsigned i = 0; clients && i < n; i++) {
		struct epoll_event e = {.events = EPOLLIN};
		clients[i] = hpkv_new(path);
		e.data.ptr = clients[i];
		if (!clients[i] || epoll_ctl(epoll, EPOLL_CTL_ADD, hpkv_fd(clients[i]), &e) < 0) {
			fprintf(stderr, "can't make client %u: %s\n", i, hpkv_error(clients[i]));
			exit(1);
		}
		hpkv_set_timeout(clients[i], TIMEOUT_MS);
	}
	return clients;
}

static void run(struct hpkv **clients, unsigned n, int epoll, unsigned rate, int64_t ms)
{
	int64_t begin = now_us();
	uint64_t sent = 0, all = (uint64_t)rate * (uint64_t)ms / 1000;

	while (sent < all || sum.answered < sum.asked) {
		uint64_t due = (uint64_t)(now_us() - begin) * rate / 1000000;
		for (; sent < due && sent < all; sent++)
			ask(clients[sent % n], (unsigned)(sent % 1000));
		turn(epoll, 1);
	}
}

int main(int argc, char **argv)
{
	struct rlimit files = {0};

	if (argc != 5) {
		fprintf(stderr, "usage: bench-restart SOCKET CLIENTS RATE MS\n");
		return 2;
	}
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	unsigned n = (unsigned)atoi(argv[2]);
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	struct hpkv **clients = make_clients(argv[1], n, epoll);
	for (unsigned i = 0; i < n; i++)
		ask(clients[i], i);
	while (sum.answered < sum.asked)
		turn(epoll, 100);
	sum.longest_us = 0;
	printf("ready\n");
	fflush(stdout);
	run(clients, n, epoll, (unsigned)atoi(argv[3]), atol(argv[4]));
	printf("%llu %llu %lld\n", (unsigned long long)sum.asked, (unsigned long long)sum.errors,
	       (long long)sum.longest_us);
	for (unsigned i = 0; i < n; i++)
		hpkv_free(clients[i]);
	free(clients);
	return sum.errors > 0;
}
