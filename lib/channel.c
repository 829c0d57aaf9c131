#include "channel.h"

#include <errno.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "address.h"

enum { READ_SIZE = 65536, KEPT_SIZE = 1 << 20 };

void channel_init(struct channel *c, int epoll)
{
	*c = (struct channel){.fd = -1, .epoll = epoll};
}

/* ---- connecting ---- */

/* Advice for the user. */
static const char *hint(int error)
{
	switch (error) {
	case ENOENT:
	case ECONNREFUSED:
		return "; is hpkvd running?";
	case EACCES:
		return "; who may use the socket is decided by its group";
	default:
		return "";
	}
}

static int fail(struct channel *c, const char *path, int error)
{
	snprintf(c->why, sizeof(c->why), "no connection to hpkvd at %.200s: %s%s", path,
		 hpkv_address_fault(error), hint(error));
	return -error;
}

static int connect_to(const char *path)
{
	struct sockaddr_un address;
	socklen_t n;

	int error = hpkv_address_read(path, &address, &n);
	if (error)
		return error;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)&address, n) == 0)
		return fd;
	error = errno;
	close(fd);
	return -error;
}

static int watch(struct channel *c, int how)
{
	struct epoll_event event = {.events = EPOLLIN | (c->full ? (uint32_t)EPOLLOUT : 0)};

	return epoll_ctl(c->epoll, how, c->fd, &event) < 0 ? -errno : 0;
}

int channel_open(struct channel *c, const char *path)
{
	int fd = connect_to(path);

	if (fd < 0)
		return fail(c, path, -fd);
	c->fd = fd;
	c->sent = c->queued = 0;
	c->full = c->broken = false;
	int error = watch(c, EPOLL_CTL_ADD);
	if (error) {
		channel_close(c);
		return fail(c, path, -error);
	}
	return 0;
}

void channel_close(struct channel *c)
{
	/* close() removes the socket from the epoll set only if no other process, after a fork(),
	 * has it open. */
	if (c->fd >= 0 && c->epoll >= 0)
		epoll_ctl(c->epoll, EPOLL_CTL_DEL, c->fd, NULL);
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	text_free(&c->in);
	text_free(&c->out);
	c->in_head = c->searched = c->out_head = 0;
}

/* ---- out ---- */

int channel_queue(struct channel *c, struct span bytes)
{
	size_t waiting = c->out.n - c->out_head;

	if (waiting && waiting + bytes.n > CHANNEL_UNSENT_MAX)
		return -ENOBUFS;
	if (c->out_head > waiting) { /* moving costs less than what was sent since the last move */
		text_take(&c->out, c->out_head);
		c->out_head = 0;
	}
	text_add(&c->out, bytes.p, bytes.n);
	if (c->out.failed) {
		c->out.failed = false;
		return -ENOMEM;
	}
	c->queued += bytes.n;
	return 0;
}

static void set_full(struct channel *c, bool full)
{
	if (c->full == full)
		return;
	c->full = full;
	watch(c, EPOLL_CTL_MOD);
}

void channel_flush(struct channel *c)
{
	while (c->out_head < c->out.n && !c->broken) {
		ssize_t n =
			send(c->fd, c->out.p + c->out_head, c->out.n - c->out_head, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			set_full(c, true);
			return;
		}
		if (n < 0) {
			c->broken = true;
			break;
		}
		c->out_head += (size_t)n;
		c->sent += (uint64_t)n;
	}
	set_full(c, false);
	if (c->out_head == c->out.n) {
		c->out.n = c->out_head = 0;
		if (c->out.size > KEPT_SIZE)
			text_free(&c->out);
	}
}

/* ---- in ---- */

static int ended(struct channel *c, const char *why)
{
	snprintf(c->why, sizeof(c->why), "%s", why);
	return -1;
}

/* Drops lines that were handed on, before more is read behind the rest. */
static void tidy(struct channel *c)
{
	if (c->in_head) {
		text_take(&c->in, c->in_head);
		c->in_head = 0;
	}
	if (!c->in.n && c->in.size > KEPT_SIZE)
		text_free(&c->in);
}

/* 1: something was read. 0: nothing for now. -1: the end. */
static int read_more(struct channel *c)
{
	if (!c->budget)
		return 0;
	tidy(c);
	if (c->in.n > CHANNEL_LINE_MAX)
		return ended(c, "hpkvd has sent a line of more than 32 MiB");
	char *room = text_room(&c->in, READ_SIZE);
	if (!room)
		return ended(c, "no memory for what hpkvd sends");
	ssize_t n = recv(c->fd, room, READ_SIZE, 0);
	if (n > 0) {
		c->in.n += (size_t)n;
		c->budget -= (size_t)n < c->budget ? (size_t)n : c->budget;
		return 1;
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	return ended(c, n < 0 && errno != ECONNRESET ? strerror(errno)
						     : "hpkvd has closed the connection");
}

int channel_line(struct channel *c, struct span *line)
{
	for (;;) {
		char *start = c->in.p ? c->in.p + c->in_head : NULL;
		size_t n = c->in.n - c->in_head;
		char *lf =
			n > c->searched ? memchr(start + c->searched, '\n', n - c->searched) : NULL;
		if (lf) {
			*line = (struct span){start, (size_t)(lf - start)};
			c->in_head += line->n + 1;
			c->searched = 0;
			return 1;
		}
		c->searched = n;
		int more = read_more(c);
		if (more <= 0)
			return more;
	}
}
