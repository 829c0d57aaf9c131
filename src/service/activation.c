#include "service/activation.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"

#ifdef HAVE_SYSTEMD
#include <systemd/sd-daemon.h>

static int refuse(const char *object)
{
	log_error("the service manager passes %s: hpkvd takes one listening Unix stream socket "
		  "(one ListenStream= with a path)",
		  object);
	return -EINVAL;
}

int activation_take(void)
{
	int n = sd_listen_fds(1);

	if (n < 0) {
		log_error("the service manager's sockets can't be taken over: %s", strerror(-n));
		return n;
	}
	if (n == 0)
		return -ENOENT;
	if (n > 1)
		return refuse("more than one socket");
	if (sd_is_socket_unix(SD_LISTEN_FDS_START, SOCK_STREAM, 1, NULL, 0) <= 0)
		return refuse("something else");
	return SD_LISTEN_FDS_START;
}

#else

int activation_take(void)
{
	const char *pid = getenv("LISTEN_PID"), *n = getenv("LISTEN_FDS");

	if (!pid || !n || strtoll(pid, NULL, 10) != getpid() || strtoll(n, NULL, 10) <= 0)
		return -ENOENT;
	log_error("the service manager passes a socket, but this hpkvd was built without "
		  "libsystemd and can't take it over");
	return -ENOTSUP;
}

#endif

char *activation_own_path(void)
{
	const char *path = getenv("HPKVD_OWN_SOCKET");
	char *copy = path ? mem_strdup(path) : NULL;

	unsetenv("HPKVD_OWN_SOCKET");
	return copy;
}
