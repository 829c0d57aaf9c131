#include "clients/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <event2/util.h>

#include "base/log.h"
#include "base/mem.h"
#include "clients/socketpath.h"
#include "base/timer.h"

enum {
	ACCEPTS_MAX = 64, /* connections accepted in a turn of the loop */
	PAUSE_MS = 1000,  /* a pause of accepting, unless listener_resume() ends it */
};

struct listener {
	int fd;
	struct socketpath path; /* if we have made it */
	char *adopted;          /* the name of an adopted socket; NULL: it is ours */
	struct event *readable, *retry;
	bool paused;
	const struct listener_ops *ops;
	void *owner;
	struct stats *stats;
};

/* ---- accepting ---- */

/* Stops accepting until listener_resume(). */
static void pause_accepting(struct listener *l, const char *why)
{
	if (l->stats->accept_pauses++ == 0)
		log_warning("accepting pauses: %s (raise LimitNOFILE= or ulimit -n, or lower "
			    "max_clients)",
			    why);
	l->paused = true;
	event_del(l->readable);
}

/* Another process may free the missing descriptor, so accepting is tried again after a while. */
static void out_of_descriptors(struct listener *l, int error)
{
	pause_accepting(l, strerror(error));
	timer_start(l->retry, PAUSE_MS);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct listener *l = arg;

	(void)what;
	for (int i = 0; i < ACCEPTS_MAX; i++) {
		if (!l->ops->has_room(l->owner)) {
			pause_accepting(l, "the limit of open files is near");
			return;
		}
		int client = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (client >= 0) {
			l->ops->accepted(l->owner, client);
			continue;
		}
		if (errno == EINTR || errno == ECONNABORTED)
			continue;
		if (errno != EAGAIN)
			out_of_descriptors(l, errno);
		return;
	}
}

static void on_retry(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	listener_resume(arg);
}

void listener_resume(struct listener *l)
{
	if (!l->paused)
		return;
	if (watch_start(l->readable) < 0) { /* the kernel can not watch it now */
		timer_start(l->retry, PAUSE_MS);
		return;
	}
	l->paused = false;
	event_del(l->retry);
}

/* The caller's socket, which is not bound as far as we know. */
static struct listener *make(struct event_base *base, int fd, const struct listener_ops *ops,
			     void *owner, struct stats *stats)
{
	struct listener *l = mem_zalloc(sizeof(*l));

	*l = (struct listener){
		.fd = fd,
		.ops = ops,
		.owner = owner,
		.stats = stats,
	};
	l->readable = watch_new(base, fd, EV_READ | EV_PERSIST, on_readable, l);
	l->retry = timer_new(base, on_retry, l);
	l->paused = true;
	listener_resume(l);
	return l;
}

int listener_new(struct event_base *base, const struct listener_settings *settings,
		 const struct listener_ops *ops, void *owner, struct stats *stats,
		 struct listener **out)
{
	struct socketpath_settings at = {
		.path = settings->path,
		.mode = settings->mode,
		.group = settings->group,
		.setting = "[listen] socket",
		.may_wait = settings->may_wait,
	};
	struct socketpath path;
	int fd = socketpath_open(&at, &path);

	if (fd < 0)
		return fd;
	struct listener *l = make(base, fd, ops, owner, stats);
	l->path = path;
	*out = l;
	return 0;
}

union address {
	struct sockaddr any;
	struct sockaddr_un path;
	struct sockaddr_in four;
	struct sockaddr_in6 six;
};

/* Where the socket was bound to; an abstract path with @ for its NUL, as others show it. */
static char *name_of(int fd)
{
	union address at;
	socklen_t n = sizeof(at);
	char host[INET6_ADDRSTRLEN], text[INET6_ADDRSTRLEN + 16];

	memset(&at, 0, sizeof(at));
	if (getsockname(fd, &at.any, &n) < 0)
		return mem_strdup("a socket without a name");
	if (at.any.sa_family == AF_INET) {
		inet_ntop(AF_INET, &at.four.sin_addr, host, sizeof(host));
		snprintf(text, sizeof(text), "%s:%u", host, ntohs(at.four.sin_port));
		return mem_strdup(text);
	}
	if (at.any.sa_family == AF_INET6) {
		inet_ntop(AF_INET6, &at.six.sin6_addr, host, sizeof(host));
		snprintf(text, sizeof(text), "[%s]:%u", host, ntohs(at.six.sin6_port));
		return mem_strdup(text);
	}
	if (n <= offsetof(struct sockaddr_un, sun_path))
		return mem_strdup("a socket without a name");
	if (at.path.sun_path[0] == '\0')
		at.path.sun_path[0] = '@';
	at.path.sun_path[sizeof(at.path.sun_path) - 1] = '\0';
	return mem_strdup(at.path.sun_path);
}

struct listener *listener_adopt(struct event_base *base, int fd, const struct listener_ops *ops,
				void *owner, struct stats *stats)
{
	evutil_make_socket_nonblocking(fd);
	evutil_make_socket_closeonexec(fd);
	struct listener *l = make(base, fd, ops, owner, stats);
	l->adopted = name_of(fd);
	return l;
}

struct listener *listener_inherit(struct event_base *base, int fd, const char *own,
				  const struct listener_ops *ops, void *owner, struct stats *stats)
{
	struct socketpath path;

	evutil_make_socket_nonblocking(fd);
	evutil_make_socket_closeonexec(fd);
	if (!socketpath_inherit(own, &path)) {
		close(fd);
		return NULL;
	}
	struct listener *l = make(base, fd, ops, owner, stats);
	l->path = path;
	return l;
}

const char *listener_path(const struct listener *l)
{
	return l->adopted ? l->adopted : l->path.path;
}

bool listener_is_adopted(const struct listener *l)
{
	return l->adopted != NULL;
}

bool listener_is_at(const struct listener *l, const char *path)
{
	return socketpath_is(&l->path, path);
}

void listener_step_aside(struct listener *l)
{
	socketpath_step_aside(&l->path);
}

void listener_step_back(struct listener *l)
{
	socketpath_step_back(&l->path);
}

int listener_set_access(struct listener *l, const struct listener_settings *s)
{
	return socketpath_set_access(&l->path, s->mode, s->group);
}

void listener_free(struct listener *l)
{
	if (!l)
		return;
	event_free(l->readable);
	event_free(l->retry);
	socketpath_remove(&l->path);
	close(l->fd);
	free(l->adopted);
	free(l);
}

int listener_hand_over(struct listener *l, char **own)
{
	int fd = l->fd;

	event_free(l->readable);
	event_free(l->retry);
	*own = l->path.path ? socketpath_hand_over(&l->path) : NULL;
	free(l->adopted);
	free(l);
	return fd;
}

void listener_retire(struct listener *l)
{
	bool more = true;

	if (!l)
		return;
	socketpath_remove(&l->path);
	/* Nobody else connects, but the number of accepts is limited all the same. */
	if (!l->adopted)
		shutdown(l->fd, SHUT_RD);
	for (int i = 0; more && i <= SOCKETPATH_BACKLOG && l->ops->has_room(l->owner); i++) {
		int client = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (client >= 0)
			l->ops->accepted(l->owner, client);
		else
			more = errno == EINTR || errno == ECONNABORTED;
	}
	listener_free(l);
}
