#include "daemon/tcp_doors.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include "base/mem.h"
#include "clients/tcpsocket.h"

struct door {
	TAILQ_ENTRY(door) entry;
	struct listener *listener;
	char *address; /* NULL: it was passed */
	uint16_t port;
	bool is_new, wanted; /* of the configuration that was prepared last */
};

struct tcp_doors {
	struct event_base *base;
	const struct listener_ops *ops;
	void *owner;
	struct stats *stats;
	TAILQ_HEAD(, door) doors;
	bool adopted;
};

struct tcp_doors *tcp_doors_new(struct event_base *base, const struct listener_ops *ops,
				void *owner, struct stats *stats)
{
	struct tcp_doors *t = mem_zalloc(sizeof(*t));

	*t = (struct tcp_doors){.base = base, .ops = ops, .owner = owner, .stats = stats};
	TAILQ_INIT(&t->doors);
	return t;
}

static struct door *add(struct tcp_doors *t, int fd)
{
	struct door *d = mem_zalloc(sizeof(*d));

	d->listener = listener_adopt(t->base, fd, t->ops, t->owner, t->stats);
	d->is_new = d->wanted = true;
	TAILQ_INSERT_TAIL(&t->doors, d, entry);
	return d;
}

/* Clients that wait to be accepted are, if the door is to close for good. */
static void close_door(struct tcp_doors *t, struct door *d, bool retire)
{
	TAILQ_REMOVE(&t->doors, d, entry);
	if (retire)
		listener_retire(d->listener);
	else
		listener_free(d->listener);
	free(d->address);
	free(d);
}

void tcp_doors_free(struct tcp_doors *t)
{
	struct door *d;

	while (t && (d = TAILQ_FIRST(&t->doors)))
		close_door(t, d, false);
	free(t);
}

void tcp_doors_adopt(struct tcp_doors *t, int fd)
{
	t->adopted = true;
	add(t, fd);
}

void tcp_doors_inherit(struct tcp_doors *t, int fd)
{
	char address[TCPSOCKET_ADDRESS_MAX];
	uint16_t port;

	if (!tcpsocket_is_loopback(fd) || !tcpsocket_address(fd, address, &port)) {
		close(fd);
		return;
	}
	struct door *d = add(t, fd);
	d->address = mem_strdup(address);
	d->port = port;
}

size_t tcp_doors_hand_over(struct tcp_doors *t, struct restart_socket *out, size_t n)
{
	struct door *d;
	size_t given = 0;
	char *own; /* NULL: a TCP socket has no path */

	while (given < n && (d = TAILQ_FIRST(&t->doors))) {
		out[given++] = (struct restart_socket){listener_hand_over(d->listener, &own),
						       d->address ? "http-own" : "http"};
		TAILQ_REMOVE(&t->doors, d, entry);
		free(d->address);
		free(d);
	}
	return given;
}

static struct door *find(struct tcp_doors *t, const struct config_address *at)
{
	struct door *d;

	TAILQ_FOREACH (d, &t->doors, entry) {
		if (d->address && d->port == at->port && strcmp(d->address, at->address) == 0)
			return d;
	}
	return NULL;
}

static int open_door(struct tcp_doors *t, const struct config_address *at)
{
	struct door *d = find(t, at);

	if (d) {
		d->wanted = true;
		return 0;
	}
	int fd = tcpsocket_open(at->address, at->port, "[listen] http_address");
	if (fd < 0)
		return fd;
	d = add(t, fd);
	d->address = mem_strdup(at->address);
	d->port = at->port;
	return 0;
}

int tcp_doors_prepare(struct tcp_doors *t, const struct config *config)
{
	struct door *d;
	int err = 0;

	if (t->adopted) /* theirs are the service manager's */
		return 0;
	TAILQ_FOREACH (d, &t->doors, entry)
		d->is_new = d->wanted = false;
	for (size_t i = 0; err == 0 && i < config->listen.n_http_addresses; i++)
		err = open_door(t, &config->listen.http_address[i]);
	if (err < 0)
		tcp_doors_undo(t);
	return err;
}

void tcp_doors_commit(struct tcp_doors *t)
{
	struct door *next;

	for (struct door *d = TAILQ_FIRST(&t->doors); d; d = next) {
		next = TAILQ_NEXT(d, entry);
		if (!d->wanted)
			close_door(t, d, true);
	}
}

void tcp_doors_undo(struct tcp_doors *t)
{
	struct door *next;

	for (struct door *d = TAILQ_FIRST(&t->doors); d && !t->adopted; d = next) {
		next = TAILQ_NEXT(d, entry);
		if (d->is_new)
			close_door(t, d, false);
	}
}

void tcp_doors_resume(struct tcp_doors *t)
{
	struct door *d;

	TAILQ_FOREACH (d, &t->doors, entry)
		listener_resume(d->listener);
}

void tcp_doors_names(const struct tcp_doors *t, struct buf *out)
{
	const struct door *d;

	TAILQ_FOREACH (d, &t->doors, entry)
		buf_addf(out, " and %s", listener_path(d->listener));
}
