/* Two lives of a connection
 *
 * libwebsockets shakes hands on the connected socket: TLS, and the request for the upgrade. As soon
 * as that request is written, the socket and its TLS are taken from the library (take_over()),
 * which then forgets the connection. From there on all bytes are read and written here: the answer
 * (upgrade.h), frames that come (receive.h), frames that go (frame.h), all of it over stream.h.
 *
 * Why so early: the library keeps what comes together with the answer to itself, and hands on only
 * what its own parser makes of it. That parser goes byte by byte, shows no header before its
 * payload has come, takes masked frames (version 4.1.6), and tells close codes that it does not
 * know as 1002.
 *
 * The first life. The library has a poll loop of its own, and we do not run it. libevent watches
 * the connection's descriptor; when it is ready the library is entered through lws_service_fd()
 * with a pollfd made up here, which is what the library's own event plugins do. What has to be
 * known about it, each learnt the hard way:
 * - Its wish to write cannot be seen from outside, so it is offered to write after each read.
 * - It connects its own socket and can't be given another. But it knows the socket by its number
 * alone, and takes "no error on the socket" for "connected". So it is told to connect to a Unix
 * socket that takes no more connections, which leaves it waiting and sends nothing; then the
 * connected socket is put under that number, before the library is entered again.
 * - A request is made in a buffer of its own, which the path is put into (library.h) and which is
 * overwritten once it has gone out.
 * - "Hung up" is the one event upon which it destroys a connection at once, without a word to the
 * peer and without touching its TLS.
 *
 * The second life. OpenSSL reads ahead, so that one read() brings many small TLS records; what it
 * holds is not seen by epoll, so it is read until nothing is left, or the rest is left to a timer
 * of zero. Frames leave in batches of whole frames; between two batches, and nowhere else, a
 * control frame may go first. Of pings that come faster than they are answered the last one is
 * answered, which is all that RFC 6455 asks for.
 *
 * All events of this room call enter() first and leave() last. In between the library or a caller's
 * function may be on the stack, so nothing is destroyed there: a link that was freed or went down
 * is only marked, and leave() settles it. */
#include "link.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <libwebsockets.h>

#include "buf.h"
#include "frame.h"
#include "library.h"
#include "log.h"
#include "mem.h"
#include "reasons.h"
#include "receive.h"
#include "secret.h"
#include "stream.h"
#include "timer.h"
#include "tls.h"
#include "upgrade.h"

enum {
	BATCH = 16384,          /* bytes of frames in one write: a full TLS record */
	CHUNK = 65536,          /* bytes asked for in one read */
	SHARE = 65536,          /* bytes read in one turn of the loop; a little more may be */
	KERNEL_UNSENT = 131072, /* bytes that the kernel takes beyond what the peer has room for */
	WRITE_SHARE = 262144,   /* bytes written in one turn, however fast the kernel takes them */
	CLOSE_MS = 2000,        /* for a close frame to go out and be answered */
	BODY_MS = 250,          /* for a refusal to say more than its status */
	TOLD_MAX = 200,         /* bytes of the service's own words, in a reason */
	TICK_BUSY_S = 1,        /* turns of the library's own loop while it makes a connection */
	TICK_IDLE_S = 10, /* ... and otherwise, for the route changes that version 4.3 follows */
};

enum link_state {
	LINK_STARTING,
	LINK_SHAKING,
	LINK_ASKING, /* the request has gone out; from here on the library knows nothing of it */
	LINK_OPEN,
	LINK_CLOSING,
	LINK_DOWN,
	LINK_STATE_N
};

static const char *const state_name[] = {"starting", "shaking hands", "asking",
					 "open",     "closing",       "down"};
_Static_assert(sizeof(state_name) / sizeof(state_name[0]) == LINK_STATE_N, "a name for each state");

struct link_context {
	struct event_base *base;
	struct tls tls;
	struct library library;
	struct event *tick;
	LIST_HEAD(, link) links;
	unsigned inside; /* how deep we are between enter() and leave() */
	bool tick_stale; /* a link changed its state */
	/* The request that was made last, in the library's buffer: it is not left there. */
	struct span request;
};

struct link {
	LIST_ENTRY(link) entry; /* link_context::links */
	struct link_context *ctx;
	const struct link_ops *ops;
	void *owner;

	enum link_state state;
	bool freed; /* by its owner: no callback any more */
	bool told;  /* closed() was called */
	struct link_end end;
	char why[400];

	char *host, *host_header, *path; /* path: NULL once the request was made */
	int fd;                          /* connected; -1 once the library has it */
	bool tls;
	char key[UPGRADE_KEY]; /* of the request */
	char *secret;          /* the path still: the service may repeat it */

	struct lws *wsi;                   /* the library's connection; NULL before and after */
	bool leaving;                      /* it is being taken from the library */
	struct stream stream;              /* from LINK_ASKING on */
	struct event *readable, *writable; /* of its socket */
	struct event *kick;     /* runs behind the events of this turn: begin, or send what
				   was queued */
	struct event *more;     /* runs in the next turn: read on */
	struct event *deadline; /* for being open, or for being closed */

	struct buf tx;      /* whole frames of messages */
	struct buf control; /* whole control frames, made when they are sent */
	struct buf *queue;  /* the one that the present batch is at the head of */
	size_t batch;       /* bytes of it that were not written yet */
	bool kicked, ping_wanted, pong_wanted;
	uint32_t ping_number; /* of the ping that is wanted */
	char pong[FRAME_CONTROL_MAX];
	size_t pong_size;
	int close_wanted; /* code of the close frame to send; 0: none */
	bool close_made;  /* nothing is queued behind it */
	bool peer_closed; /* its close frame has come: what follows is not read */
	int write_fault;  /* -errno */
	uint64_t body;    /* bytes that a refusal has announced */
	bool orderly;     /* the peer is to get what was written, and the end of TLS */

	struct receive rx;
	uint32_t pong_between; /* the last pong that came within a message; or 0 */
	uint64_t heard;        /* bytes that had come when heard() was called; with TLS */
};

static void enter(struct link_context *ctx)
{
	ctx->inside++;
}

/* --- how a link ends --- */

static void set_state(struct link *l, enum link_state state)
{
	log_debug("link to %s: %s -> %s", l->host, state_name[l->state], state_name[state]);
	l->state = state;
	l->ctx->tick_stale = true;
}

static void unwatch_socket(struct link *l)
{
	if (l->readable)
		event_free(l->readable);
	if (l->writable)
		event_free(l->writable);
	l->readable = l->writable = NULL;
}

static void unwatch(struct link *l)
{
	unwatch_socket(l);
	event_del(l->kick);
	event_del(l->more);
	event_del(l->deadline);
	l->kicked = false;
}

/* The link is down, for the reason in why. The library's connection may still be there. */
static void end_here(struct link *l)
{
	unwatch(l);
	set_state(l, LINK_DOWN);
}

/* ... for this reason, unless it is down already. */
static void __attribute__((format(printf, 2, 3))) go_down(struct link *l, const char *format, ...)
{
	va_list args;

	if (l->state == LINK_DOWN)
		return;
	va_start(args, format);
	vsnprintf(l->why, sizeof(l->why), format, args);
	va_end(args);
	end_here(l);
}

/* Asks for one of the socket's events. */
static void want(struct link *l, struct event *watch)
{
	int err = watch_start(watch);

	if (err < 0)
		go_down(l, "the socket can't be watched: %s", strerror(-err));
}

/* Lets the library do its work on this connection; false when the connection is gone. */
static bool serve(struct link *l, short revents)
{
	struct lws_pollfd p = {
		.fd = lws_get_socket_fd(l->wsi), .events = POLLIN | POLLOUT, .revents = revents};

	tls_forget_fault(&l->ctx->tls);
	errno = 0;
	lws_service_fd(l->ctx->library.lws, &p);
	return l->wsi;
}

/* What the kernel has not sent of a connection that is given up shall not go out later, when the
 * network is back: nobody waits for it any more, and what was asked for since would be overtaken.
 */
static void drop_unsent(int fd)
{
	struct linger at_once = {.l_onoff = 1};

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
}

/* Destroys the library's connection, whatever state it is in. "Hung up" is the one event upon which
 * the library does not try to be polite or to flush anything. */
static void leave_library(struct link *l)
{
	if (l->wsi && lws_get_socket_fd(l->wsi) >= 0)
		serve(l, POLLHUP);
	if (l->wsi)
		lws_set_timeout(l->wsi, PENDING_TIMEOUT_USER_OK, LWS_TO_KILL_SYNC);
	if (l->wsi) {
		lws_set_wsi_user(l->wsi, NULL); /* it may never call us again */
		l->wsi = NULL;
	}
}

static void kill_connection(struct link *l)
{
	unwatch(l);
	if (l->wsi && lws_get_socket_fd(l->wsi) >= 0)
		drop_unsent(lws_get_socket_fd(l->wsi));
	leave_library(l);
	stream_close(&l->stream, l->orderly);
}

static void destroy(struct link *l)
{
	LIST_REMOVE(l, entry);
	event_free(l->kick);
	event_free(l->more);
	event_free(l->deadline);
	buf_release(&l->tx);
	buf_release(&l->control);
	receive_release(&l->rx);
	secret_free(&l->path);
	secret_free(&l->secret);
	free(l->host);
	free(l->host_header);
	if (l->fd >= 0)
		close(l->fd);
	free(l);
}

static struct link *find_unsettled(const struct link_context *ctx)
{
	struct link *l;

	LIST_FOREACH (l, &ctx->links, entry) {
		if (l->freed || (l->state == LINK_DOWN && !l->told))
			return l;
	}
	return NULL;
}

static void settle(struct link *l)
{
	kill_connection(l);
	if (l->freed) {
		destroy(l);
		return;
	}
	l->told = true;
	l->end.why = l->why;
	l->ops->closed(l->owner, &l->end);
}

static void set_tick(struct link_context *ctx)
{
	struct timeval interval = {.tv_sec = TICK_IDLE_S};
	struct link *l;

	LIST_FOREACH (l, &ctx->links, entry) {
		if (l->state < LINK_ASKING)
			interval.tv_sec = TICK_BUSY_S;
	}
	event_add(ctx->tick, &interval);
	ctx->tick_stale = false;
}

/* It has been sent by now, or never will be: either way the buffer is the library's scratch space.
 */
static void wipe_request(struct link_context *ctx)
{
	mem_wipe((char *)ctx->request.p, ctx->request.n);
	ctx->request = (struct span){0};
}

/* The library is not on the stack any more when the outermost one is left, so everything may be
 * destroyed. Owners who are called from here may free any link: that is only another one to settle.
 */
static void leave(struct link_context *ctx)
{
	struct link *l;

	if (ctx->inside == 1) {
		wipe_request(ctx);
		while ((l = find_unsettled(ctx)))
			settle(l);
		if (ctx->tick_stale)
			set_tick(ctx);
	}
	ctx->inside--;
}

/* --- how the library tells that it failed --- */

static void on_failed(struct link *l, struct lws *wsi, const char *theirs, size_t n)
{
	int err = reasons_of_errno(errno) ? errno : l->ctx->tls.fault_errno;
	SSL *ssl = l->tls ? lws_get_ssl(wsi) : NULL;
	const char *refusal = ssl ? tls_refusal(ssl) : NULL;
	const char *ours = theirs ? reasons_translate(theirs, n) : NULL;

	if (l->state == LINK_DOWN || l->leaving)
		return;
	if (refusal)
		go_down(l, "the server's certificate is refused: %s", refusal);
	else if (reasons_of_errno(err))
		go_down(l, "%s", reasons_of_errno(err));
	else if (ours)
		go_down(l, "%s", ours);
	else if (l->tls && l->path)
		go_down(l, "the TLS handshake failed: %s", tls_fault_phrase(&l->ctx->tls));
	else
		go_down(l, "the upgrade failed: %.*s", theirs ? (int)n : 7,
			theirs ? theirs : "unknown");
}

static void on_gone(struct link *l)
{
	const char *phrase = reasons_of_errno(errno);

	l->wsi = NULL;
	if (!l->leaving)
		go_down(l, "%s",
			phrase ? phrase
			       : "the connection was closed before the upgrade was answered");
}

/* --- callbacks of the library --- */

/* The link gets a turn behind the events of this one. */
static void kick(struct link *l)
{
	if (l->kicked || l->freed)
		return;
	l->kicked = true;
	timer_next_turn(l->kick);
}

static int put_path(struct link *l, char **end, size_t room)
{
	const char *key;

	if (!library_put_path(l->path, end, room, &l->ctx->request) ||
	    !(key = library_find_key(l->ctx->request, UPGRADE_KEY))) {
		go_down(l, "this version of libwebsockets makes requests in an unknown way");
		return -1;
	}
	memcpy(l->key, key, UPGRADE_KEY);
	secret_free(&l->path);
	return 0;
}

/* A second opinion on whom the certificate is for. */
static bool check_certificate(const struct link *l, X509_STORE_CTX *store, bool verified)
{
	return l && verified && tls_is_for(store, l->host);
}

/* All that the library ever says. The user pointer is the link only where this passes it on as one:
 * for some reasons the library passes something else. */
static int on_library(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in,
		      size_t n)
{
	if (reason == LWS_CALLBACK_OPENSSL_PERFORM_SERVER_CERT_VERIFICATION)
		return check_certificate(lws_wsi_user(wsi), user, n) ? 0 : -1;
	if (!user)
		return 0;
	switch ((int)reason) {
	case LWS_CALLBACK_CLIENT_APPEND_HANDSHAKE_HEADER:
		return put_path(user, in, n);
	case LWS_CALLBACK_CLIENT_CONNECTION_ERROR:
		on_failed(user, wsi, in, n);
		return 0;
	case LWS_CALLBACK_WSI_DESTROY:
		on_gone(user);
		return 0;
	case LWS_CALLBACK_CLIENT_ESTABLISHED:
		return -1; /* never: it is ours before its answer comes */
	default:
		return 0;
	}
}

/* --- sending --- */

static bool has_control(const struct link *l)
{
	return l->ping_wanted || l->pong_wanted || (l->close_wanted && !buf_len(&l->tx));
}

static bool wants_to_write(const struct link *l)
{
	if (l->state != LINK_OPEN && l->state != LINK_CLOSING)
		return false;
	return l->batch || buf_len(&l->control) ||
	       (!l->close_made && (buf_len(&l->tx) || has_control(l)));
}

static void make_ping(struct link *l)
{
	char number[12];
	int n = snprintf(number, sizeof(number), "%" PRIu32, l->ping_number);

	frame_append(&l->control, FRAME_PING, (struct span){number, (size_t)n}, SPAN(""));
}

static void make_close(struct link *l)
{
	char code[2] = {(char)(l->close_wanted >> 8), (char)l->close_wanted};
	size_t n = l->close_wanted == RECEIVE_NO_CODE ? 0 : sizeof(code);

	frame_append(&l->control, FRAME_CLOSE, (struct span){code, n}, SPAN(""));
	l->close_made = true;
	if (l->state == LINK_OPEN)
		set_state(l, LINK_CLOSING);
}

/* Control frames are made when they can go out, so that none waits behind another. */
static void make_control(struct link *l)
{
	if (l->close_made)
		return;
	if (l->ping_wanted)
		make_ping(l);
	if (l->pong_wanted)
		frame_append(&l->control, FRAME_PONG, (struct span){l->pong, l->pong_size},
			     SPAN(""));
	l->ping_wanted = l->pong_wanted = false;
	if (l->close_wanted && !buf_len(&l->tx))
		make_close(l);
}

/* The bytes that go next, l->batch of them at the head of l->queue. False: there are none. */
static bool next_batch(struct link *l)
{
	if (l->batch)
		return true;
	make_control(l);
	l->queue = buf_len(&l->control) ? &l->control : &l->tx;
	l->batch = frame_batch(l->queue, BATCH);
	return l->batch;
}

/* Writes until the kernel takes no more or it was enough for a turn. 0, or -errno. */
static int write_batches(struct link *l)
{
	size_t written = 0;

	while (written < WRITE_SHARE && next_batch(l)) {
		ssize_t n = stream_write(&l->stream, buf_span(l->queue).p, l->batch);
		if (n < 0)
			return n == -EAGAIN ? 0 : (int)n;
		buf_take(l->queue, (size_t)n);
		l->batch -= (size_t)n;
		written += (size_t)n;
	}
	return 0;
}

/* --- the end of an open link --- */

/* What is queued can't be sent any more, but for the batch that the peer has a part of. */
static void forget_queued(struct link *l)
{
	buf_cut(&l->tx, l->queue == &l->tx ? l->batch : 0);
	buf_cut(&l->control, l->queue == &l->control ? l->batch : 0);
	l->ping_wanted = l->pong_wanted = false;
}

/* The peer has broken the protocol: it is told so, if that can be told at once. */
static void on_fault(struct link *l)
{
	if (!l->close_made) {
		forget_queued(l);
		l->close_wanted = l->rx.fault_code;
		l->orderly = write_batches(l) == 0 && !wants_to_write(l);
	}
	if (l->rx.fault_code == FRAME_CLOSE_TOO_BIG)
		go_down(l, "the service sent a frame that is far too long: %s", l->rx.fault);
	else
		go_down(l, "the service sent a frame that breaks the WebSocket protocol: %s",
			l->rx.fault);
}

/* The reason was written down when the close frame came. */
static void go_down_closed(struct link *l)
{
	l->orderly = !wants_to_write(l);
	end_here(l);
}

static void tell_close(struct link *l, const struct receive_item *item)
{
	const char *name = reasons_close_name(item->code);
	char text[TOLD_MAX];

	reasons_quote(text, sizeof(text), item->text, l->secret);
	snprintf(l->why, sizeof(l->why), "the service closed the connection (%d%s%s)%s%s",
		 item->code, name ? ": " : "", name ? name : "", *text ? ": " : "", text);
}

/* The stream is at its end, for this -errno if it is none. */
static void on_stream_end(struct link *l, int err)
{
	const char *phrase;

	err = err ? err : l->write_fault;
	phrase = reasons_of_errno(-err);
	if (l->state == LINK_ASKING)
		go_down(l, "%s",
			phrase ? phrase
			       : "the connection was closed before the upgrade was answered");
	else if (l->peer_closed)
		go_down_closed(l);
	else if (l->close_made)
		go_down(l, "closed as asked");
	else if (err == -EPROTO)
		go_down(l, "the TLS connection broke: %s",
			l->stream.fault ? l->stream.fault : "unknown");
	else if (err)
		go_down(l, "%s", phrase ? phrase : strerror(-err));
	else
		go_down(l, "the service closed the connection without a close frame");
}

/* --- what comes --- */

static void on_message(struct link *l, const struct receive_item *item)
{
	uint32_t number;

	l->ops->message(l->owner, item->text,
			(item->binary ? LINK_BINARY : 0) | (item->truncated ? LINK_TRUNCATED : 0));
	/* A pong that came between its parts is told behind it: whoever asked for it wants to know
	 * that what came before it is there. */
	number = l->pong_between;
	l->pong_between = 0;
	if (number && !l->freed && l->state == LINK_OPEN)
		l->ops->pong(l->owner, number);
}

static void on_ping(struct link *l, const struct receive_item *item)
{
	memcpy(l->pong, item->text.p, item->text.n);
	l->pong_size = item->text.n;
	l->pong_wanted = true;
	kick(l);
}

/* A pong carries what the ping did: a number. One that nobody has asked for may carry anything. */
static uint32_t pong_number(struct span text)
{
	uint64_t number = 0;

	for (size_t i = 0; i < text.n; i++) {
		if (text.p[i] < '0' || text.p[i] > '9' || number > UINT32_MAX)
			return 0;
		number = number * 10 + (uint64_t)(text.p[i] - '0');
	}
	return number > UINT32_MAX ? 0 : (uint32_t)number;
}

static void on_pong(struct link *l, const struct receive_item *item)
{
	uint32_t number = pong_number(item->text);

	if (l->state != LINK_OPEN)
		return;
	if (!number || !receive_is_within(&l->rx))
		l->ops->pong(l->owner, number);
	else
		l->pong_between = number;
}

/* It is answered with its own code, and that is the end; if it is the answer to ours, at once. */
static void on_peer_close(struct link *l, const struct receive_item *item)
{
	l->peer_closed = true;
	if (l->close_made) {
		snprintf(l->why, sizeof(l->why), "closed as asked");
		go_down_closed(l);
		return;
	}
	l->end.close_code = item->code;
	tell_close(l, item);
	forget_queued(l);
	l->close_wanted = item->code;
	timer_start(l->deadline, CLOSE_MS);
	set_state(l, LINK_CLOSING);
	event_del(l->readable);
	event_del(l->more);
	kick(l);
}

static bool is_receiving(const struct link *l)
{
	return !l->freed && !l->peer_closed && (l->state == LINK_OPEN || l->state == LINK_CLOSING);
}

static void take_items(struct link *l)
{
	static void (*const takes[])(struct link * l, const struct receive_item *item) = {
		on_message, on_ping, on_pong, on_peer_close};
	struct receive_item item;
	int got = 1;

	while (is_receiving(l) && (got = receive_next(&l->rx, &item)) > 0)
		takes[item.kind](l, &item);
	if (got < 0)
		on_fault(l);
}

/* --- the answer to the upgrade --- */

static void on_established(struct link *l)
{
	event_del(l->deadline);
	l->end.was_open = true;
	set_state(l, LINK_OPEN);
	l->ops->open(l->owner);
	kick(l); /* for what was queued before */
}

/* A refusal may say why in its body, which may not have come yet. */
static void refused(struct link *l)
{
	struct span body = buf_span(&l->rx.bytes);
	char text[TOLD_MAX];

	reasons_quote(text, sizeof(text), body, l->secret);
	if (*text == '<') /* a page for a browser */
		*text = '\0';
	go_down(l, "the upgrade was answered with HTTP status %d%s%s", l->end.http_status,
		*text ? ": " : "", text);
}

static bool has_body(const struct link *l, uint64_t announced)
{
	size_t come = buf_len(&l->rx.bytes);

	return come >= announced || come >= TOLD_MAX;
}

static void read_refusal(struct link *l, const struct upgrade *answer)
{
	char text[64];

	l->end.http_status = answer->status;
	if (answer->retry_after.n && answer->retry_after.n < sizeof(text)) {
		snprintf(text, sizeof(text), "%.*s", (int)answer->retry_after.n,
			 answer->retry_after.p);
		l->end.retry_after_s = reasons_retry_after(text, time(NULL));
	}
	l->body = answer->body;
	buf_take(&l->rx.bytes, answer->head);
	timer_start(l->deadline, BODY_MS);
}

static void read_answer(struct link *l)
{
	struct upgrade answer;
	const char *why = NULL;
	int got;

	if (!l->end.http_status) {
		got = upgrade_read(buf_span(&l->rx.bytes), l->key, &answer, &why);
		if (got < 0)
			go_down(l, "%s", why);
		if (got <= 0)
			return;
		if (answer.status == 101) {
			buf_take(&l->rx.bytes, answer.head);
			on_established(l);
			take_items(l);
			return;
		}
		read_refusal(l, &answer);
	}
	if (has_body(l, l->body))
		refused(l);
}

/* --- events of our loop --- */

/* Reading goes on in the next turn, behind whatever else is ready. The socket is not watched
 * meanwhile: it would wake us for the same bytes. */
static void read_later(struct link *l)
{
	event_del(l->readable);
	timer_start(l->more, 0);
}

static bool is_reading(const struct link *l)
{
	return is_receiving(l) || (l->state == LINK_ASKING && !l->freed);
}

static void read_on(struct link *l)
{
	size_t share = 0;
	ssize_t n = 1;

	while (is_reading(l) && share < SHARE) {
		n = stream_read(&l->stream, receive_room(&l->rx, CHUNK), CHUNK);
		if (n <= 0)
			break;
		receive_grew(&l->rx, (size_t)n);
		share += (size_t)n;
		if (l->state == LINK_ASKING)
			read_answer(l);
		else
			take_items(l);
	}
	if (!is_reading(l))
		return;
	if (n > 0)
		read_later(l);
	else if (n != -EAGAIN && l->end.http_status)
		refused(l);
	else if (n != -EAGAIN)
		on_stream_end(l, (int)n);
	else if (l->stream.read_wants_write || wants_to_write(l))
		want(l, l->writable);
}

/* Writing fails when the peer has gone. It may have said why, before. */
static void on_write_failed(struct link *l, int err)
{
	l->write_fault = err;
	if (is_receiving(l))
		read_on(l);
	if (!l->freed && l->state != LINK_DOWN)
		on_stream_end(l, err);
}

static void write_on(struct link *l)
{
	bool had_unsent = link_unsent(l);
	int err = write_batches(l);

	if (err) {
		on_write_failed(l, err);
		return;
	}
	if (wants_to_write(l))
		want(l, l->writable);
	else if (l->peer_closed)
		go_down_closed(l);
	if (had_unsent && !link_unsent(l) && l->state == LINK_OPEN)
		l->ops->drained(l->owner);
}

static void watch(struct link *l, int fd);

/* The request has gone out. The socket and its TLS are ours from now on. The descriptor is doubled,
 * since the library closes its own, which does not end the connection. */
static void take_over(struct link *l)
{
	int fd = fcntl(lws_get_socket_fd(l->wsi), F_DUPFD_CLOEXEC, 0);
	SSL *ssl = l->tls ? lws_get_ssl(l->wsi) : NULL;

	if (fd < 0) {
		go_down(l, "%s", strerror(errno));
		return;
	}
	if (ssl)
		SSL_up_ref(ssl);
	unwatch_socket(l);
	l->leaving = true;
	leave_library(l);
	if (ssl)
		tls_take(ssl);
	set_state(l, LINK_ASKING);
	if (!stream_begin(&l->stream, fd, ssl)) {
		go_down(l, "no memory");
		return;
	}
	watch(l, fd);
	want(l, l->readable);
}

/* Lets the library go on with what it does to connect; what it wants is not known. */
static void shake(struct link *l)
{
	static const short turns[] = {POLLIN, POLLOUT};

	for (int i = 0; i < 2 && l->wsi && l->path && !l->freed && l->state == LINK_SHAKING; i++)
		serve(l, turns[i]);
	if (l->wsi && !l->path && !l->freed && l->state == LINK_SHAKING)
		take_over(l);
}

/* One turn of the library's own loop, in which it may do what shake() does. */
static void run_library(struct link_context *ctx)
{
	struct link *l;

	tls_forget_fault(&ctx->tls);
	errno = 0; /* what it says of connections that end is about them */
	lws_service(ctx->library.lws, -1);
	LIST_FOREACH (l, &ctx->links, entry) {
		if (l->wsi && !l->path && !l->freed && l->state == LINK_SHAKING)
			take_over(l);
	}
}

/* Bytes have come, if only a part of a TLS record. */
static void tell_heard(struct link *l)
{
	uint64_t received = stream_received(&l->stream);

	if (l->freed || l->state != LINK_OPEN || (l->tls && received == l->heard))
		return;
	l->heard = received;
	l->ops->heard(l->owner);
}

static void on_readable(struct link *l)
{
	if (l->state < LINK_ASKING) {
		shake(l);
		return;
	}
	read_on(l);
	tell_heard(l);
}

static void on_writable(struct link *l)
{
	if (l->stream.read_wants_write)
		on_readable(l);
	else if (wants_to_write(l))
		write_on(l);
}

static void on_io(evutil_socket_t fd, short what, void *user)
{
	struct link *l = user;
	struct link_context *ctx = l->ctx;

	(void)fd;
	enter(ctx);
	if (what & EV_WRITE)
		on_writable(l);
	if ((what & EV_READ) && !l->freed && l->state != LINK_DOWN)
		on_readable(l);
	leave(ctx);
}

static void on_more(evutil_socket_t fd, short what, void *user)
{
	struct link *l = user;
	struct link_context *ctx = l->ctx;

	(void)fd, (void)what;
	enter(ctx);
	want(l, l->readable);
	on_readable(l);
	leave(ctx);
}

static void watch(struct link *l, int fd)
{
	int unsent = KERNEL_UNSENT;

	/* Where that is unknown, pings are later by what the kernel holds. */
	setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof(unsent));
	l->readable = watch_new(l->ctx->base, fd, EV_READ | EV_PERSIST, on_io, l);
	l->writable = watch_new(l->ctx->base, fd, EV_WRITE, on_io, l);
}

/* A Unix socket that takes no more connections: to connect to it is to wait. */
struct full {
	int listener, waiting;
	char address[16]; /* as the library wants it: "+@name" */
};

static void full_close(struct full *f)
{
	if (f->listener >= 0)
		close(f->listener);
	if (f->waiting >= 0)
		close(f->waiting);
}

static int full_open(struct full *f)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	socklen_t n = sizeof(sa_family_t); /* the kernel finds a name that is free */

	f->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	f->waiting = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (f->listener < 0 || f->waiting < 0 ||
	    bind(f->listener, (struct sockaddr *)&name, n) < 0 || listen(f->listener, 0) < 0)
		return -errno;
	n = sizeof(name);
	if (getsockname(f->listener, (struct sockaddr *)&name, &n) < 0)
		return -errno;
	/* One is let in, however short the queue is; or somebody else was. */
	if (connect(f->waiting, (struct sockaddr *)&name, n) < 0 && errno != EAGAIN)
		return -errno;
	snprintf(f->address, sizeof(f->address), "+@%.*s",
		 (int)(n - offsetof(struct sockaddr_un, sun_path) - 1), name.sun_path + 1);
	return 0;
}

/* Puts the connected socket in the place of the one that the library waits for. */
static bool hand_over(struct link *l)
{
	if (dup3(l->fd, lws_get_socket_fd(l->wsi), O_CLOEXEC) < 0)
		return false;
	close(l->fd);
	l->fd = -1;
	return true;
}

static void connect_library(struct link *l, const char *address)
{
	struct lws_client_connect_info info = {
		.context = l->ctx->library.lws,
		.vhost = l->ctx->library.vhost,
		.address = address,
		.host = l->host_header,
		.path = "/",
		.ssl_connection = (l->tls ? LCCSCF_USE_SSL : 0) | LCCSCF_HTTP_NO_FOLLOW_REDIRECT,
		.alpn = "http/1.1",
		.local_protocol_name = library_protocol,
		.userdata = l,
		.pwsi = &l->wsi,
	};

	errno = 0;
	if (!lws_client_connect_via_info(&info))
		l->wsi = NULL;
}

/* The library finds itself connected. */
static void greet(struct link *l)
{
	serve(l, POLLOUT);
	if (l->wsi && !l->path && !l->freed && l->state == LINK_SHAKING)
		take_over(l);
	else if (l->wsi && l->state != LINK_DOWN)
		want(l, l->readable);
}

static void begin(struct link *l)
{
	struct full full;
	int err = full_open(&full);

	set_state(l, LINK_SHAKING);
	if (!err)
		connect_library(l, full.address);
	if (err)
		go_down(l, "%s", strerror(-err));
	else if (!l->wsi)
		go_down(l, "libwebsockets could not begin to connect");
	else if (lws_get_socket_fd(l->wsi) < 0)
		go_down(l, "libwebsockets has no room for another connection");
	else if (l->state != LINK_DOWN && !hand_over(l))
		go_down(l, "%s", strerror(errno));
	full_close(&full);
	if (l->state == LINK_DOWN)
		return;
	watch(l, lws_get_socket_fd(l->wsi));
	greet(l);
}

static void on_kick(evutil_socket_t fd, short what, void *user)
{
	struct link *l = user;
	struct link_context *ctx = l->ctx;

	(void)fd, (void)what;
	enter(ctx);
	l->kicked = false;
	if (l->close_wanted && l->state < LINK_OPEN)
		go_down(l, "closed as asked before it was open");
	else if (l->state == LINK_STARTING)
		begin(l);
	else if (wants_to_write(l) && !event_pending(l->writable, EV_WRITE, NULL))
		write_on(l);
	leave(ctx);
}

static void on_deadline(evutil_socket_t fd, short what, void *user)
{
	struct link *l = user;
	struct link_context *ctx = l->ctx;

	(void)fd, (void)what;
	enter(ctx);
	if (l->state == LINK_ASKING && l->end.http_status)
		refused(l);
	else if (l->peer_closed)
		go_down_closed(l);
	else if (l->end.was_open)
		go_down(l, "closed, but the service did not answer the close frame in time");
	else if (l->tls && l->path)
		go_down(l, "timed out in the TLS handshake");
	else
		go_down(l, "timed out waiting for the upgrade to be answered");
	leave(ctx);
}

static void on_tick(evutil_socket_t fd, short what, void *user)
{
	struct link_context *ctx = user;

	(void)fd, (void)what;
	enter(ctx);
	run_library(ctx);
	leave(ctx);
}

/* --- the context --- */

struct link_context *link_context_new(struct event_base *base, const char *ca_file,
				      const char **why)
{
	struct link_context *ctx = mem_zalloc(sizeof(*ctx));

	ctx->base = base;
	LIST_INIT(&ctx->links);
	if (!tls_init(&ctx->tls, ca_file, why)) {
		free(ctx);
		return NULL;
	}
	ctx->tick = watch_new(base, -1, EV_PERSIST, on_tick, ctx);
	if (!library_init(&ctx->library, on_library, ctx->tls.ctx)) {
		*why = "libwebsockets can't be initialised";
		link_context_free(ctx);
		return NULL;
	}
	tls_settle(&ctx->tls);
	set_tick(ctx);
	return ctx;
}

void link_context_free(struct link_context *ctx)
{
	if (ctx->tick)
		event_free(ctx->tick);
	library_fini(&ctx->library);
	tls_fini(&ctx->tls);
	free(ctx);
}

/* --- the public side of a link --- */

/* The library is not entered here: we may be called from within it, and it uses one buffer for all.
 */
struct link *link_connect(struct link_context *ctx, int fd, const struct link_target *target,
			  const struct link_ops *ops, void *owner, const char **why)
{
	const char *no = target_objection(target, link_path_max());

	if (no) {
		*why = no;
		close(fd);
		return NULL;
	}
	struct link *l = mem_zalloc(sizeof(*l));
	*l = (struct link){
		.ctx = ctx,
		.ops = ops,
		.owner = owner,
		.end = {.retry_after_s = -1},
		.host = mem_strdup(target->host),
		.host_header = target_host_port(target->host, target->port, target->tls ? 443 : 80),
		.path = secret_dup(target->path),
		.fd = fd,
		.tls = target->tls,
		.stream = {.fd = -1},
		.kick = timer_new(ctx->base, on_kick, l),
		.more = timer_new(ctx->base, on_more, l),
		.deadline = timer_new(ctx->base, on_deadline, l),
	};
	l->secret = secret_share(l->path);
	receive_init(&l->rx, target->max_message);
	LIST_INSERT_HEAD(&ctx->links, l, entry);
	timer_start(l->deadline, target->timeout_ms);
	kick(l);
	return l;
}

void link_send(struct link *l, struct span head, struct span body)
{
	if (l->state >= LINK_CLOSING || l->close_wanted)
		return;
	frame_append(&l->tx, FRAME_TEXT, head, body);
	if (l->state == LINK_OPEN)
		kick(l);
}

void link_ping(struct link *l, uint32_t number)
{
	if (l->state != LINK_OPEN || l->close_wanted)
		return;
	l->ping_wanted = true;
	l->ping_number = number;
	kick(l);
}

bool link_is_open(const struct link *l)
{
	return l->state == LINK_OPEN && !l->close_wanted && !l->freed;
}

size_t link_unsent(const struct link *l)
{
	return buf_len(&l->tx);
}

void link_close(struct link *l, int code)
{
	if (l->state >= LINK_CLOSING || l->close_wanted)
		return;
	l->close_wanted = code;
	if (l->state == LINK_OPEN)
		timer_start(l->deadline, CLOSE_MS);
	kick(l);
}

void link_free(struct link *l)
{
	struct link_context *ctx = l->ctx;

	enter(ctx);
	l->freed = true;
	unwatch(l);
	leave(ctx);
}

size_t link_path_max(void)
{
	return LIBRARY_PATH_MAX;
}
