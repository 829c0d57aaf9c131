#include "clients/tcpsocket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"

enum { BACKLOG = 1024 };

static socklen_t fill_in(const char *address, uint16_t port, struct sockaddr_storage *at)
{
	struct sockaddr_in *four = (void *)at;
	struct sockaddr_in6 *six = (void *)at;

	memset(at, 0, sizeof(*at));
	if (inet_pton(AF_INET, address, &four->sin_addr) == 1) {
		four->sin_family = AF_INET;
		four->sin_port = htons(port);
		return sizeof(*four);
	}
	if (inet_pton(AF_INET6, address, &six->sin6_addr) == 1) {
		six->sin6_family = AF_INET6;
		six->sin6_port = htons(port);
		return sizeof(*six);
	}
	return 0;
}

static int open_at(const struct sockaddr_storage *at, socklen_t n)
{
	int one = 1, err = 0;
	int fd = socket(at->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
	    (at->ss_family == AF_INET6 &&
	     setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one)) < 0) ||
	    bind(fd, (const struct sockaddr *)at, n) < 0 || listen(fd, BACKLOG) < 0)
		err = -errno;
	if (!err)
		return fd;
	close(fd);
	return err;
}

static const char *advice(int error)
{
	switch (error) {
	case -EADDRINUSE:
		return "another program uses this port";
	case -EADDRNOTAVAIL:
		return "this machine does not have this address";
	case -EACCES:
		return "ports below 1024 need a privilege";
	default:
		return NULL;
	}
}

int tcpsocket_open(const char *address, uint16_t port, const char *setting)
{
	struct sockaddr_storage at;
	socklen_t n = fill_in(address, port, &at);
	int fd = n ? open_at(&at, n) : -EINVAL;
	char where[INET6_ADDRSTRLEN + 16];
	bool six = strchr(address, ':') != NULL;

	if (fd >= 0)
		return fd;
	snprintf(where, sizeof(where), "%s%s%s:%u", six ? "[" : "", address, six ? "]" : "", port);
	log_error("%s: can't listen on %s: %s", setting, where,
		  advice(fd) ? advice(fd) : strerror(-fd));
	return fd;
}

bool tcpsocket_address(int fd, char address[TCPSOCKET_ADDRESS_MAX], uint16_t *port)
{
	struct sockaddr_storage at;
	socklen_t n = sizeof(at);
	const struct sockaddr_in *four = (const void *)&at;
	const struct sockaddr_in6 *six = (const void *)&at;

	_Static_assert(TCPSOCKET_ADDRESS_MAX == INET6_ADDRSTRLEN, "room for each address");
	if (getsockname(fd, (struct sockaddr *)&at, &n) < 0)
		return false;
	*port = ntohs(at.ss_family == AF_INET ? four->sin_port : six->sin6_port);
	return inet_ntop(at.ss_family,
			 at.ss_family == AF_INET ? (const void *)&four->sin_addr
						 : (const void *)&six->sin6_addr,
			 address, TCPSOCKET_ADDRESS_MAX) != NULL;
}

bool tcpsocket_is_loopback(int fd)
{
	struct sockaddr_storage at;
	socklen_t n = sizeof(at), size = sizeof(int);
	const struct sockaddr_in *four = (const void *)&at;
	const struct sockaddr_in6 *six = (const void *)&at;
	int listens = 0;

	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) < 0 || !listens ||
	    getsockname(fd, (struct sockaddr *)&at, &n) < 0)
		return false;
	if (at.ss_family == AF_INET)
		return ntohl(four->sin_addr.s_addr) >> 24 == 127;
	return at.ss_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&six->sin6_addr);
}

void tcpsocket_prepare(int fd)
{
	int one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}
