#include "service/activation.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "service/listen_fds.h"

static int refuse(const char *object)
{
	log_error("the service manager passes %s: hpkvd takes one listening Unix stream socket "
		  "(one ListenStream= with a path)",
		  object);
	return -EINVAL;
}

int activation_take(void)
{
	struct listen_fds passed;
	int n = listen_fds_take(&passed);

	if (n < 0) {
		log_error("the service manager's sockets can't be taken over: %s", strerror(-n));
		return n;
	}
	if (n == 0)
		return -ENOENT;
	if (n > 1)
		return refuse("more than one socket");
	if (!listen_fds_is_unix_listener(LISTEN_FDS_START))
		return refuse("something else");
	return LISTEN_FDS_START;
}

char *activation_own_socket(void)
{
	const char *text = getenv("HPKVD_OWN_SOCKET");
	char *copy = text ? mem_strdup(text) : NULL;

	unsetenv("HPKVD_OWN_SOCKET");
	return copy;
}
