/* channel.h - a connection to the daemon's socket that sends bytes and receives lines.
 *
 * Owns the socket, unsent bytes and lines that were not handed on. Never waits. It does not
 * interpret lines and does not reconnect: its owner does.
 *
 * A failed write does not close the channel: the daemon's last lines are still read, up to the end
 * of file. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "text.h"

/* The longest line. An answer holds at most the 16 MiB that hpkvd accepts from the service, and
 * little more of its own. */
#define CHANNEL_LINE_MAX ((size_t)32 << 20)

enum {
	CHANNEL_UNSENT_MAX = 16 << 20, /* unsent bytes */
	CHANNEL_WHY_MAX = 400,
};

struct channel {
	int fd;      /* -1: closed */
	int epoll;   /* the owner's; the open socket is registered in it; -1: not any more */
	bool full;   /* the socket's buffer is full */
	bool broken; /* sending has failed */
	struct text out;
	size_t out_head;       /* bytes of out that were sent */
	uint64_t sent, queued; /* bytes since it was opened */
	struct text in;
	size_t in_head, searched;  /* of in: bytes handed on; bytes after them without an LF */
	size_t budget;             /* bytes that may still be read in this turn */
	char why[CHANNEL_WHY_MAX]; /* the last failure, as a phrase */
};

void channel_init(struct channel *c, int epoll);

/* Connects. 0, or -errno with why set. */
int channel_open(struct channel *c, const char *path);
void channel_close(struct channel *c); /* drops unsent bytes and unread lines */

/* Queues bytes for channel_flush(). 0; -ENOBUFS: too many are unsent; -ENOMEM. */
int channel_queue(struct channel *c, struct span bytes);
void channel_flush(struct channel *c); /* sends what the socket takes */

/* Reads the next line. 1: *line is valid until the next call. 0: none for now. -1: the end, why is
 * set. */
int channel_line(struct channel *c, struct span *line);
