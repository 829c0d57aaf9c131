#include "service/activation.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "clients/tcpsocket.h"

#ifdef HAVE_SYSTEMD
#include <systemd/sd-daemon.h>

static int refuse(const char *object)
{
	log_error("the service manager passes %s: hpkvd takes one listening Unix stream socket "
		  "(one ListenStream= with a path), and with FileDescriptorName=http listening TCP "
		  "sockets on loopback addresses",
		  object);
	return -EINVAL;
}

static int take(int fd, const char *name, struct activation *a)
{
	if (strcmp(name, "http-own") == 0 && a->n_own_http < ACTIVATION_HTTP_MAX) {
		a->own_http[a->n_own_http++] = fd;
		return 0;
	}
	if (strcmp(name, "http") == 0) {
		if (a->n_http == ACTIVATION_HTTP_MAX)
			return refuse("more than 8 sockets for HTTP");
		if (!tcpsocket_is_loopback(fd))
			return refuse("something else by the name http");
		a->http[a->n_http++] = fd;
		return 0;
	}
	if (a->socket >= 0)
		return refuse("more than one socket");
	if (sd_is_socket_unix(fd, SOCK_STREAM, 1, NULL, 0) <= 0)
		return refuse("something else");
	a->socket = fd;
	return 0;
}
_Static_assert(ACTIVATION_HTTP_MAX == 8, "the sentence above says so");

static void free_names(char **names, int n)
{
	for (int i = 0; names && i < n; i++)
		free(names[i]);
	free(names);
}

int activation_take(struct activation *out)
{
	char **names = NULL;
	int n = sd_listen_fds_with_names(1, &names), err = 0;

	*out = (struct activation){.socket = -1};
	if (n < 0) {
		log_error("the service manager's sockets can't be taken over: %s", strerror(-n));
		return n;
	}
	for (int i = 0; err == 0 && i < n; i++)
		err = take(SD_LISTEN_FDS_START + i, names ? names[i] : "", out);
	free_names(names, n);
	return err;
}

#else

int activation_take(struct activation *out)
{
	const char *pid = getenv("LISTEN_PID"), *n = getenv("LISTEN_FDS");

	*out = (struct activation){.socket = -1};
	if (!pid || !n || strtoll(pid, NULL, 10) != getpid() || strtoll(n, NULL, 10) <= 0)
		return 0;
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
