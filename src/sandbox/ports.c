#include "ports.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TRIES = 50 };

/* Binds a socket. Returns it, or a negative errno. *port is the bound port. */
static int hold(struct sockaddr *address, socklen_t n, in_port_t *port)
{
	int yes = 1, fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	if (address->sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &yes, sizeof(yes));
	if (bind(fd, address, n) < 0 || getsockname(fd, address, &n) < 0) {
		int error = errno;
		close(fd);
		return -error;
	}
	*port = address->sa_family == AF_INET6 ? ((struct sockaddr_in6 *)address)->sin6_port
					       : ((struct sockaddr_in *)address)->sin_port;
	return fd;
}

static int hold_both(struct ports *p, int want)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET,
				 .sin_port = htons((in_port_t)want),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
	in_port_t port;

	*p = (struct ports){.v4_fd = -1, .v6_fd = -1};
	p->v4_fd = hold((struct sockaddr *)&v4, sizeof(v4), &port);
	if (p->v4_fd < 0)
		return p->v4_fd;
	p->port = ntohs(port);
	v6.sin6_port = port;
	p->v6_fd = hold((struct sockaddr *)&v6, sizeof(v6), &port);
	p->has_v6 = p->v6_fd >= 0;
	/* A machine without IPv6 is fine; a port that is taken on IPv6 is not. */
	return p->v6_fd == -EADDRINUSE ? -EADDRINUSE : 0;
}

int ports_hold(struct ports *p, int want)
{
	int result = -EADDRINUSE;

	for (int i = 0; i < (want ? 1 : TRIES) && result == -EADDRINUSE; i++) {
		result = hold_both(p, want);
		if (result < 0)
			ports_release(p);
	}
	return result;
}

void ports_release(struct ports *p)
{
	if (p->v4_fd >= 0)
		close(p->v4_fd);
	if (p->v6_fd >= 0)
		close(p->v6_fd);
	p->v4_fd = p->v6_fd = -1;
}
