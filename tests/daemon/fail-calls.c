/* fail-calls.c - lets system calls of a program that it is preloaded into (LD_PRELOAD) fail, one at
 * a time.
 *
 * FAIL_CALLS names those that fail, separated by commas: "accept4:3:24" is the third accept4(),
 * which fails with errno 24; "accept4:3-5:24" the third to the fifth; "accept4:3-:24" all from the
 * third on. In the place of errno, "/path" lets the call wait until there is a file of that name.
 * FAIL_CALLS_COUNT names a file into which is written, when the program ends, how often each was
 * called: lines of a name and a number.
 *
 * Calls that read and write are counted by what they are called for: "read" and "write" are of a
 * socket, "read/other" of anything else, "write/log" of stderr, whatever else it may be. Calls
 * within the C library (fopen(), say) are not seen. Nothing is done by the next library's function,
 * so that it does not matter which one that would be. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <unistd.h>

enum call {
	ACCEPT4,
	EPOLL_CREATE1,
	EPOLL_CTL,
	SOCKET,
	SOCKETPAIR,
	PIPE2,
	EVENTFD,
	TIMERFD_CREATE,
	TIMERFD_SETTIME,
	CONNECT,
	BIND,
	LISTEN,
	FCNTL,
	SETSOCKOPT,
	GETSOCKOPT,
	GETSOCKNAME,
	GETRLIMIT,
	SETRLIMIT,
	OPEN,
	SHUTDOWN,
	FLOCK,
	CHMOD,
	UNLINK,
	READ,
	READ_OTHER,
	WRITE,
	WRITE_LOG,
	CALL_N
};

static const char *const names[] = {
	"accept4",    "epoll_create1",  "epoll_ctl",       "socket",      "socketpair", "pipe2",
	"eventfd",    "timerfd_create", "timerfd_settime", "connect",     "bind",       "listen",
	"fcntl",      "setsockopt",     "getsockopt",      "getsockname", "getrlimit",  "setrlimit",
	"open",       "shutdown",       "flock",           "chmod",       "unlink",     "read",
	"read/other", "write",          "write/log",
};
_Static_assert(sizeof(names) / sizeof(names[0]) == CALL_N, "a name for each call");

static unsigned long count[CALL_N];

/* ---- what is to fail ---- */

static void wait_for_file(const char *path, size_t n)
{
	char name[PATH_MAX];

	snprintf(name, sizeof(name), "%.*s", (int)n, path);
	while (syscall(SYS_faccessat, AT_FDCWD, name, F_OK) < 0)
		poll(NULL, 0, 2);
}

/* One that was named: "name:first-last:errno". Does it fail? */
static bool is_named(const char *plan, enum call call)
{
	size_t n = strlen(names[call]);
	char *end;

	if (strncmp(plan, names[call], n) != 0 || plan[n] != ':')
		return false;
	unsigned long first = strtoul(plan + n + 1, &end, 10), last = first;
	if (*end == '-')
		last = end[1] == ':' ? (++end, ULONG_MAX) : strtoul(end + 1, &end, 10);
	if (*end != ':' || count[call] < first || count[call] > last)
		return false;
	if (end[1] == '/') {
		wait_for_file(end + 1, strcspn(end + 1, ","));
		return false;
	}
	errno = (int)strtol(end + 1, NULL, 10);
	return true;
}

static bool fails(enum call call)
{
	const char *plan = call < CALL_N ? getenv("FAIL_CALLS") : NULL;

	if (call < CALL_N)
		count[call]++;
	while (plan && *plan) {
		if (is_named(plan, call))
			return true;
		plan += strcspn(plan, ",");
		plan += *plan == ',';
	}
	return false;
}

static bool is_log(const struct stat *st)
{
	struct stat log;

	return syscall(SYS_fstat, STDERR_FILENO, &log) == 0 && log.st_dev == st->st_dev &&
	       log.st_ino == st->st_ino;
}

/* CALL_N: one that does not fail. Libevent's signals go through a pipe, where each write counts. */
static enum call of_file(int fd, enum call call)
{
	struct stat st;

	if (syscall(SYS_fstat, fd, &st) < 0)
		return CALL_N;
	if (S_ISSOCK(st.st_mode))
		return call;
	if (call == READ)
		return READ_OTHER;
	return is_log(&st) ? WRITE_LOG : CALL_N;
}

__attribute__((destructor)) static void tell_counts(void)
{
	const char *path = getenv("FAIL_CALLS_COUNT");
	FILE *f = path ? fopen(path, "w") : NULL;

	if (!f)
		return;
	for (int i = 0; i < CALL_N; i++)
		fprintf(f, "%s %lu\n", names[i], count[i]);
	fclose(f);
}

/* ---- the calls ---- */

#define CALL(call, number, ...) (fails(call) ? -1 : (int)syscall(number, __VA_ARGS__))
#define CALL_IO(call, fd, number, ...)                                                             \
	(fails(of_file(fd, call)) ? -1 : (ssize_t)syscall(number, fd, __VA_ARGS__))

int accept4(int fd, struct sockaddr *at, socklen_t *n, int flags)
{
	return CALL(ACCEPT4, SYS_accept4, fd, at, n, flags);
}

int epoll_create1(int flags)
{
	return CALL(EPOLL_CREATE1, SYS_epoll_create1, flags);
}

/* What is watched no longer always succeeds. */
int epoll_ctl(int epoll, int op, int fd, struct epoll_event *event)
{
	if (op == EPOLL_CTL_DEL)
		return (int)syscall(SYS_epoll_ctl, epoll, op, fd, event);
	return CALL(EPOLL_CTL, SYS_epoll_ctl, epoll, op, fd, event);
}

int socket(int family, int type, int protocol)
{
	return CALL(SOCKET, SYS_socket, family, type, protocol);
}

int socketpair(int family, int type, int protocol, int fds[2])
{
	return CALL(SOCKETPAIR, SYS_socketpair, family, type, protocol, fds);
}

int pipe2(int fds[2], int flags)
{
	return CALL(PIPE2, SYS_pipe2, fds, flags);
}

int eventfd(unsigned value, int flags)
{
	return CALL(EVENTFD, SYS_eventfd2, value, flags);
}

int timerfd_create(int clock, int flags)
{
	return CALL(TIMERFD_CREATE, SYS_timerfd_create, clock, flags);
}

int timerfd_settime(int fd, int flags, const struct itimerspec *wanted, struct itimerspec *old)
{
	return CALL(TIMERFD_SETTIME, SYS_timerfd_settime, fd, flags, wanted, old);
}

int connect(int fd, const struct sockaddr *at, socklen_t n)
{
	return CALL(CONNECT, SYS_connect, fd, at, n);
}

int bind(int fd, const struct sockaddr *at, socklen_t n)
{
	return CALL(BIND, SYS_bind, fd, at, n);
}

int listen(int fd, int backlog)
{
	return CALL(LISTEN, SYS_listen, fd, backlog);
}

int fcntl(int fd, int command, ...)
{
	va_list args;

	va_start(args, command);
	long argument = va_arg(args, long);
	va_end(args);
	return CALL(FCNTL, SYS_fcntl, fd, command, argument);
}

int fcntl64(int fd, int command, ...)
{
	va_list args;

	va_start(args, command);
	long argument = va_arg(args, long);
	va_end(args);
	return CALL(FCNTL, SYS_fcntl, fd, command, argument);
}

int setsockopt(int fd, int level, int name, const void *value, socklen_t n)
{
	return CALL(SETSOCKOPT, SYS_setsockopt, fd, level, name, value, n);
}

int getsockopt(int fd, int level, int name, void *value, socklen_t *n)
{
	return CALL(GETSOCKOPT, SYS_getsockopt, fd, level, name, value, n);
}

int getsockname(int fd, struct sockaddr *at, socklen_t *n)
{
	return CALL(GETSOCKNAME, SYS_getsockname, fd, at, n);
}

int getrlimit(__rlimit_resource_t resource, struct rlimit *limit)
{
	return CALL(GETRLIMIT, SYS_prlimit64, 0, resource, NULL, limit);
}

int setrlimit(__rlimit_resource_t resource, const struct rlimit *limit)
{
	return CALL(SETRLIMIT, SYS_prlimit64, 0, resource, limit, NULL);
}

int open(const char *path, int flags, ...)
{
	va_list args;

	va_start(args, flags);
	unsigned mode = va_arg(args, unsigned);
	va_end(args);
	return CALL(OPEN, SYS_openat, AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
	va_list args;

	va_start(args, flags);
	unsigned mode = va_arg(args, unsigned);
	va_end(args);
	return CALL(OPEN, SYS_openat, AT_FDCWD, path, flags, mode);
}

int shutdown(int fd, int how)
{
	return CALL(SHUTDOWN, SYS_shutdown, fd, how);
}

int flock(int fd, int how)
{
	return CALL(FLOCK, SYS_flock, fd, how);
}

int chmod(const char *path, mode_t mode)
{
	return CALL(CHMOD, SYS_fchmodat, AT_FDCWD, path, mode);
}

int unlink(const char *path)
{
	return CALL(UNLINK, SYS_unlinkat, AT_FDCWD, path, 0);
}

ssize_t read(int fd, void *to, size_t n)
{
	return CALL_IO(READ, fd, SYS_read, to, n);
}

ssize_t readv(int fd, const struct iovec *iov, int n)
{
	return CALL_IO(READ, fd, SYS_readv, iov, n);
}

ssize_t recv(int fd, void *to, size_t n, int flags)
{
	return CALL_IO(READ, fd, SYS_recvfrom, to, n, flags, NULL, NULL);
}

ssize_t recvfrom(int fd, void *restrict to, size_t n, int flags, struct sockaddr *restrict at,
		 socklen_t *restrict at_n)
{
	return CALL_IO(READ, fd, SYS_recvfrom, to, n, flags, at, at_n);
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
	return CALL_IO(READ, fd, SYS_recvmsg, message, flags);
}

/* Where the compiler has been told to check sizes. */
ssize_t __read_chk(int fd, void *to, size_t n, size_t room);
ssize_t __read_chk(int fd, void *to, size_t n, size_t room)
{
	return n > room ? (abort(), -1) : read(fd, to, n);
}

ssize_t __recv_chk(int fd, void *to, size_t n, size_t room, int flags);
ssize_t __recv_chk(int fd, void *to, size_t n, size_t room, int flags)
{
	return n > room ? (abort(), -1) : recv(fd, to, n, flags);
}

ssize_t write(int fd, const void *from, size_t n)
{
	return CALL_IO(WRITE, fd, SYS_write, from, n);
}

ssize_t writev(int fd, const struct iovec *iov, int n)
{
	return CALL_IO(WRITE, fd, SYS_writev, iov, n);
}

ssize_t send(int fd, const void *from, size_t n, int flags)
{
	return CALL_IO(WRITE, fd, SYS_sendto, from, n, flags, NULL, 0);
}

ssize_t sendto(int fd, const void *from, size_t n, int flags, const struct sockaddr *at,
	       socklen_t at_n)
{
	return CALL_IO(WRITE, fd, SYS_sendto, from, n, flags, at, at_n);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	return CALL_IO(WRITE, fd, SYS_sendmsg, message, flags);
}
