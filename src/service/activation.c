#include "service/activation.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "clients/tcpsocket.h"
#include "service/listen_fds.h"

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
	if (!listen_fds_is_unix_listener(fd))
		return refuse("something else");
	a->socket = fd;
	return 0;
}
_Static_assert(ACTIVATION_HTTP_MAX == 8, "the sentence above says so");

int activation_take(struct activation *out)
{
	struct listen_fds passed;
	int n = listen_fds_take(&passed), err = 0;

	*out = (struct activation){.socket = -1};
	if (n < 0) {
		log_error("the service manager's sockets can't be taken over: %s", strerror(-n));
		return n;
	}
	for (int i = 0; err == 0 && i < n; i++)
		err = take(LISTEN_FDS_START + i, passed.names[i], out);
	return err;
}

char *activation_own_socket(void)
{
	const char *text = getenv("HPKVD_OWN_SOCKET");
	char *copy = text ? mem_strdup(text) : NULL;

	unsetenv("HPKVD_OWN_SOCKET");
	return copy;
}
