/* activation.h - the sockets that the service manager has opened for us, and keeps when we end
 * (socket activation: sd_listen_fds(3), systemd.socket(5)).
 *
 * Takes one listening Unix stream socket at most, and listening TCP sockets on loopback addresses,
 * each by the name "http" (FileDescriptorName=). Anything else that is passed is an error rather
 * than something to ignore: whoever wrote the socket unit expects it to be served. */
#pragma once

enum { ACTIVATION_HTTP_MAX = 8 };

struct activation {
	int socket; /* -1: none was passed */
	int http[ACTIVATION_HTTP_MAX];
	unsigned n_http;
	/* Those that a hpkvd in whose place we are has opened (restart.h), by the name "http-own".
	 */
	int own_http[ACTIVATION_HTTP_MAX];
	unsigned n_own_http;
};

/* 0: the descriptors are close-on-exec and the caller's from now on. Else -errno, which it has
 * logged. The environment forgets about them, so this answers once. */
int activation_take(struct activation *out);

/* The text that names that socket, if a hpkvd in whose place we are has made it (socketpath.h):
 * then it is not the service manager's, but ours. To be freed; NULL: it is not. Answers once. */
char *activation_own_socket(void);
