#include "clients/refusals.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/timer.h"
#include "codec/reply.h"
#include "gateway/http.h"

enum {
	FIRST_BYTE_MS = 20,  /* for the first byte to come */
	LAST_LINE_MS = 1000, /* for the last line to be read */
	WHY_MAX = 200,       /* bytes */
};

struct refusal {
	int fd;
	enum refusal_speech speech;
	bool told;
	int64_t until;
	char why[WHY_MAX]; /* "": max_clients is reached */
};

struct refusals {
	struct refusal list[REFUSALS_MAX]; /* the oldest first */
	unsigned n;
	struct event *due; /* when the next is told or closed */
};

/* As far as it has said so. */
static bool speaks_http(const struct refusal *r)
{
	char first;

	if (r->speech != REFUSAL_LINES_OR_HTTP)
		return r->speech == REFUSAL_HTTP;
	return recv(r->fd, &first, 1, MSG_PEEK | MSG_DONTWAIT) == 1 && http_begins(first);
}

static void tell(struct refusal *r)
{
	const char *why = r->why[0] ? r->why : NULL;
	struct buf line = {0};

	if (r->told)
		return;
	r->told = true;
	if (speaks_http(r))
		http_refusal(&line, REPLY_TOO_MANY_CLIENTS, why, clock_wall_ms());
	else
		reply_error(&line, REPLY_TOO_MANY_CLIENTS, (struct span){0}, why, -1);
	send(r->fd, buf_span(&line).p, buf_len(&line), MSG_NOSIGNAL | MSG_DONTWAIT);
	buf_release(&line);
	shutdown(r->fd, SHUT_WR);
}

static void close_oldest(struct refusals *rs, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		tell(&rs->list[i]);
		close(rs->list[i].fd);
	}
	rs->n -= n;
	memmove(rs->list, rs->list + n, rs->n * sizeof(rs->list[0]));
}

static int64_t due_at(const struct refusal *r)
{
	return r->told ? r->until : r->until - LAST_LINE_MS;
}

static void await_next(struct refusals *rs, int64_t now)
{
	int64_t next = INT64_MAX;

	for (unsigned i = 0; i < rs->n; i++) {
		int64_t at = due_at(&rs->list[i]);
		if (at < next)
			next = at;
	}
	if (rs->n)
		timer_start(rs->due, next - now);
}

static void on_due(evutil_socket_t fd, short what, void *arg)
{
	struct refusals *rs = arg;
	int64_t now = clock_mono_ms();
	unsigned over = 0;

	(void)fd;
	(void)what;
	for (unsigned i = 0; i < rs->n; i++) {
		if (due_at(&rs->list[i]) <= now)
			tell(&rs->list[i]);
		over += rs->list[i].until <= now;
	}
	close_oldest(rs, over);
	await_next(rs, now);
}

struct refusals *refusals_new(struct event_base *base)
{
	struct refusals *rs = mem_zalloc(sizeof(*rs));

	rs->due = timer_new(base, on_due, rs);
	return rs;
}

void refusals_free(struct refusals *rs)
{
	close_oldest(rs, rs->n);
	event_free(rs->due);
	free(rs);
}

void refusals_add(struct refusals *rs, int fd, enum refusal_speech speech, const char *why)
{
	int64_t now = clock_mono_ms();

	if (rs->n == REFUSALS_MAX)
		close_oldest(rs, 1);
	struct refusal *r = &rs->list[rs->n++];
	*r = (struct refusal){
		.fd = fd, .speech = speech, .until = now + FIRST_BYTE_MS + LAST_LINE_MS};
	snprintf(r->why, sizeof(r->why), "%s", why ? why : "");
	await_next(rs, now);
}
