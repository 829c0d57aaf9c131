#include "service/listen_fds.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* -errno: it is no number from 1 to most. */
static long number_of(const char *text, long most)
{
	char *end;

	errno = 0;
	long n = text[0] >= '0' && text[0] <= '9' ? strtol(text, &end, 10) : 0;
	if (errno == ERANGE || n > most)
		return -ERANGE;
	return n > 0 && !*end ? n : -EINVAL;
}

/* Names that are too long are cut: none of ours is. */
static void read_names(const char *names, struct listen_fds *out)
{
	for (int i = 0; names && i < out->n; i++) {
		size_t n = strcspn(names, ":");
		size_t kept = n < LISTEN_FDS_NAME_MAX ? n : LISTEN_FDS_NAME_MAX;
		memcpy(out->names[i], names, kept);
		names = names[n] ? names + n + 1 : NULL;
	}
}

static int keep_from_programs(int fd)
{
	int flags = fcntl(fd, F_GETFD);

	return flags < 0 || fcntl(fd, F_SETFD, flags | FD_CLOEXEC) < 0 ? -errno : 0;
}

static int take(const char *pid, const char *fds, struct listen_fds *out)
{
	long number = number_of(pid, 1L << 30), n = number_of(fds, LISTEN_FDS_MAX);

	if (number < 0)
		return (int)number;
	if (number != getpid() || strcmp(fds, "0") == 0)
		return 0;
	if (n < 0)
		return (int)n;
	for (int i = 0; i < n; i++) {
		int err = keep_from_programs(LISTEN_FDS_START + i);
		if (err < 0)
			return err;
	}
	out->n = (int)n;
	read_names(getenv("LISTEN_FDNAMES"), out);
	return out->n;
}

int listen_fds_take(struct listen_fds *out)
{
	const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");

	*out = (struct listen_fds){0};
	int n = pid && fds ? take(pid, fds, out) : 0;
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	return n;
}

static int option_of(int fd, int option)
{
	int value = -1;
	socklen_t n = sizeof(value);

	return getsockopt(fd, SOL_SOCKET, option, &value, &n) < 0 ? -1 : value;
}

bool listen_fds_is_unix_listener(int fd)
{
	return option_of(fd, SO_DOMAIN) == AF_UNIX && option_of(fd, SO_TYPE) == SOCK_STREAM &&
	       option_of(fd, SO_ACCEPTCONN) == 1;
}
