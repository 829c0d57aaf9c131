#include "bench.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

union address {
	struct sockaddr any;
	struct sockaddr_un un;
	struct sockaddr_in in;
};

void bench_die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fprintf(stderr, "%s: ", program_invocation_short_name);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	exit(1);
}

void bench_key(char name[BENCH_KEY + 1], size_t number)
{
	snprintf(name, BENCH_KEY + 1, "bench:%07zu", number % 10000000);
}

long bench_number(const char *option, const char *text, long min, long max)
{
	char *end;

	errno = 0;
	long n = strtol(text, &end, 10);
	if (errno || end == text || *end || n < min || n > max)
		bench_die("--%s: %s is not a number from %ld to %ld", option, text, min, max);
	return n;
}

static int64_t read_ns(clockid_t id)
{
	struct timespec t;

	if (clock_gettime(id, &t) < 0)
		bench_die("can't read a clock: %s", strerror(errno));
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t bench_now_ns(void)
{
	return read_ns(CLOCK_MONOTONIC);
}

int64_t bench_cpu_ns(pid_t pid)
{
	clockid_t id;
	int error = clock_getcpuclockid(pid, &id);

	if (error)
		bench_die("no CPU time of process %d: %s", (int)pid, strerror(error));
	return read_ns(id);
}

int64_t bench_memory(pid_t pid)
{
	char path[64], line[256];
	long long kilobytes = -1;

	snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
	FILE *f = fopen(path, "re");
	if (!f)
		bench_die("%s: %s", path, strerror(errno));
	while (kilobytes < 0 && fgets(line, sizeof line, f))
		if (sscanf(line, "RssAnon: %lld kB", &kilobytes) != 1)
			kilobytes = -1;
	fclose(f);
	if (kilobytes < 0)
		bench_die("%s names no RssAnon", path);
	return kilobytes * 1024;
}

void bench_raise_descriptor_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

static socklen_t address_of(const char *name, union address *a)
{
	memset(a, 0, sizeof *a);
	if (strchr(name, '/')) {
		a->un.sun_family = AF_UNIX;
		if (strlen(name) >= sizeof a->un.sun_path)
			bench_die("%s is too long for a socket's path", name);
		strcpy(a->un.sun_path, name);
		return sizeof a->un;
	}
	a->in.sin_family = AF_INET;
	a->in.sin_port = htons((uint16_t)bench_number("port", name, 0, 65535));
	a->in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return sizeof a->in;
}

int bench_listen(const char *name)
{
	union address a;
	socklen_t n = address_of(name, &a);
	int fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0 || bind(fd, &a.any, n) < 0 || listen(fd, 512) < 0)
		bench_die("can't listen on %s: %s", name, strerror(errno));
	return fd;
}

/* Small messages leave at once; on a Unix socket, where they do anyway, this fails without harm. */
static void send_at_once(int fd)
{
	int on = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

int bench_accept(int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

	if (fd >= 0)
		send_at_once(fd);
	else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
		bench_die("can't accept: %s", strerror(errno));
	return fd;
}

int bench_connect(const char *name)
{
	union address a;
	socklen_t n = address_of(name, &a);
	int fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || connect(fd, &a.any, n) < 0)
		bench_die("can't connect to %s: %s", name, strerror(errno));
	send_at_once(fd);
	return fd;
}

unsigned bench_port(int fd)
{
	union address a;
	socklen_t n = sizeof a;

	if (getsockname(fd, &a.any, &n) < 0 || a.any.sa_family != AF_INET)
		bench_die("a socket without a port");
	return ntohs(a.in.sin_port);
}
