/* channel.h - bytes to and from the daemon's socket, as lines.
 *
 * Owns the socket and what is on its way through it. Never waits. Knows nothing of what lines mean,
 * and does not connect again: its owner does.
 *
 * A write that fails closes nothing: what the daemon said last is still read, up to the end of
 * file.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "text.h"

/* An answer is never longer than the 16 MiB that hpkvd takes from the service, and little more of
 * its own; whoever sends a longer line is not hpkvd. */
#define CHANNEL_LINE_MAX ((size_t)32 << 20)

enum {
	CHANNEL_UNSENT_MAX = 16 << 20, /* bytes that wait for the socket to take them */
	CHANNEL_WHY_MAX = 400,
};

struct channel {
	int fd;      /* -1: closed */
	int epoll;   /* the owner's: the socket is registered there while it is open; -1: no more */
	bool full;   /* the socket takes nothing for now */
	bool broken; /* it takes nothing any more */
	struct text out;
	size_t out_head;       /* of out, the bytes that have been sent */
	uint64_t sent, queued; /* bytes since it was opened */
	struct text in;
	size_t in_head, searched;  /* of in: bytes handed on; bytes behind those that hold no LF */
	size_t budget;             /* bytes that may still be read in this turn */
	char why[CHANNEL_WHY_MAX]; /* the last failure, a phrase */
};

void channel_init(struct channel *c, int epoll);

/* 0 or -errno, with why set. */
int channel_open(struct channel *c, const char *path);
void channel_close(struct channel *c); /* also what was read and not handed on is dropped */

/* 0; -ENOBUFS: too much waits already; -ENOMEM. */
int channel_queue(struct channel *c, struct span bytes);
void channel_flush(struct channel *c);

/* 1: *line is the next one, valid until the next call. 0: none for now. -1: that was the last, why
 * is set. */
int channel_line(struct channel *c, struct span *line);
