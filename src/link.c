/* How libwebsockets lives in our loop
 *
 * The library has a poll loop of its own, and we do not run it. libevent watches the connection's
 * descriptor; when it is ready the library is entered through lws_service_fd() with a pollfd made
 * up here, which is what the library's own event plugins do. All events of this room call enter()
 * first and leave() last. In between the library may be on the stack, so nothing is destroyed
 * there: a link that was freed or went down is only marked, and leave() settles it.
 *
 * What has to be known about the library, each learnt the hard way:
 * - Its wish to write (a pong, a close reply) cannot be seen from outside, so it is offered to
 * write after each read.
 * - While connecting it takes "no error on the socket" for "connected", so it must not be entered
 * before the socket is writable.
 * - OpenSSL reads ahead, so that one read() brings many small TLS records; what it holds is not
 * seen by epoll, so it is read until nothing is left, or the rest is left to a timer of zero.
 * - Bytes that came together with the answered upgrade are held by the library itself and only its
 * own loop hands them on. lws_service_adjust_timeout() tells that there are some, lws_service(-1)
 * is one turn of that loop.
 * - A request is made in a buffer of its own, which the path is put into (library.h) and which is
 * overwritten once it has gone out.
 * - Frames are made here (frame.c) and handed over as raw bytes, many at once: the library would
 * make a TLS record, a write() and a read of /dev/urandom of each. It puts its own control frames
 * between two such writes, therefore each write ends at the end of a frame. */
#include "link.h"

#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <time.h>

#include <libwebsockets.h>

#include "buf.h"
#include "frame.h"
#include "library.h"
#include "log.h"
#include "mem.h"
#include "reasons.h"
#include "secret.h"
#include "timer.h"
#include "tls.h"

enum {
	BATCH = 16384,          /* bytes of frames in one write: a full TLS record */
	SHARE = 65536,          /* bytes of messages handed on in one turn of the loop */
	READS = 8,              /* reads in one turn, should they bring no messages */
	WRITES = 4,             /* offers to write in one turn: control frames take one each */
	KERNEL_UNSENT = 131072, /* bytes that the kernel takes beyond what the peer has room for */
	WRITE_SHARE = 262144,   /* bytes written in one turn, however fast the kernel takes them */
	CLOSE_MS = 2000,        /* for a close frame to go out and be answered */
	TICK_BUSY_S = 1, /* turns of the library's own loop while a link is neither open nor down */
	TICK_IDLE_S = 10, /* ... and otherwise, for the route changes that version 4.3 follows */
};

enum link_state {
	LINK_STARTING,
	LINK_CONNECTING,
	LINK_SHAKING,
	LINK_OPEN,
	LINK_CLOSING,
	LINK_DOWN,
	LINK_STATE_N
};

static const char *const state_name[] = {"starting", "connecting", "shaking hands",
					 "open",     "closing",    "down"};
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
	char why[160];

	char *address, *host, *host_header, *path,
		*proxy; /* path: NULL once the request was made */
	uint16_t port;
	bool tls;
	size_t max_message;

	struct lws *wsi;                   /* the library's connection; NULL before and after */
	struct event *readable, *writable; /* of its socket */
	struct event *kick; /* runs behind the events of this turn: begin to connect, or send what
			       was queued */
	struct event *more; /* runs in the next turn: read on */
	struct event *deadline; /* for being open, or for being closed */

	struct buf tx;     /* whole frames */
	size_t written;    /* bytes in this turn */
	size_t in_library; /* bytes of the last write that the library still holds, or a little more
			    */
	bool kicked, ping_wanted;
	uint32_t ping_number; /* of the ping that is wanted */
	int close_wanted;     /* code of the close frame to send; 0: none */

	struct buf rx; /* a message in pieces */
	bool truncated;
	bool unfinished;       /* more pieces are to come */
	uint32_t pong_between; /* the last pong that came between them; or 0 */
	size_t share;          /* bytes handed on in this turn */
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

static void unwatch(struct link *l)
{
	if (l->readable)
		event_free(l->readable);
	if (l->writable)
		event_free(l->writable);
	l->readable = l->writable = NULL;
	event_del(l->kick);
	event_del(l->more);
	event_del(l->deadline);
	l->kicked = false;
}

/* The link is down, for this reason unless an earlier one is known. The library's connection may
 * still be there. */
static void __attribute__((format(printf, 2, 3))) go_down(struct link *l, const char *format, ...)
{
	va_list args;

	if (l->state == LINK_DOWN)
		return;
	va_start(args, format);
	vsnprintf(l->why, sizeof(l->why), format, args);
	va_end(args);
	unwatch(l);
	set_state(l, LINK_DOWN);
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
static void kill_connection(struct link *l)
{
	unwatch(l);
	if (l->wsi && lws_get_socket_fd(l->wsi) >= 0) {
		drop_unsent(lws_get_socket_fd(l->wsi));
		serve(l, POLLHUP);
	}
	if (l->wsi)
		lws_set_timeout(l->wsi, PENDING_TIMEOUT_USER_OK, LWS_TO_KILL_SYNC);
	if (l->wsi) {
		lws_set_wsi_user(l->wsi, NULL); /* it may never call us again */
		l->wsi = NULL;
	}
}

static void destroy(struct link *l)
{
	LIST_REMOVE(l, entry);
	event_free(l->kick);
	event_free(l->more);
	event_free(l->deadline);
	buf_release(&l->tx);
	buf_release(&l->rx);
	secret_free(&l->path);
	free(l->address);
	free(l->host);
	free(l->host_header);
	free(l->proxy);
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
		if (l->state != LINK_OPEN && l->state != LINK_DOWN)
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

/* --- why it ended --- */

static int retry_after(struct lws *wsi)
{
	char text[64];

	if (lws_hdr_copy(wsi, text, sizeof(text), WSI_TOKEN_HTTP_RETRY_AFTER) <= 0)
		return -1;
	return reasons_retry_after(text, time(NULL));
}

static void on_failed(struct link *l, struct lws *wsi, const char *theirs, size_t n)
{
	int err = reasons_of_errno(errno) ? errno : l->ctx->tls.fault_errno;
	SSL *ssl = l->tls ? lws_get_ssl(wsi) : NULL;
	const char *refusal = ssl ? tls_refusal(ssl) : NULL;
	int status = (int)lws_http_client_http_response(wsi);
	const char *ours = theirs ? reasons_translate(theirs, n) : NULL;

	if (l->state == LINK_DOWN)
		return;
	if (refusal) {
		go_down(l, "the server's certificate is refused: %s", refusal);
	} else if (status && status != 101) {
		l->end.http_status = status;
		l->end.retry_after_s = retry_after(wsi);
		go_down(l, "the upgrade was answered with HTTP status %d", status);
	} else if (reasons_of_errno(err)) {
		go_down(l, "%s", reasons_of_errno(err));
	} else if (ours) {
		go_down(l, "%s", ours);
	} else if (l->tls && l->path) {
		go_down(l, "the TLS handshake failed: %s", tls_fault_phrase(&l->ctx->tls));
	} else {
		go_down(l, "the upgrade failed: %.*s", theirs ? (int)n : 7,
			theirs ? theirs : "unknown");
	}
}

/* Did the stream end, or did the library end it because of what it read? TLS remembers; a plain
 * socket is asked. */
static bool stream_ended(struct link *l, struct lws *wsi)
{
	SSL *ssl = l->tls ? lws_get_ssl(wsi) : NULL;
	char c;

	if (ssl)
		return tls_has_ended(ssl);
	return recv(lws_get_socket_fd(wsi), &c, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

static void on_lost(struct link *l, struct lws *wsi)
{
	int err = errno;

	if (l->state == LINK_DOWN)
		return;
	if (l->end.close_code)
		go_down(l, "the service closed it with code %d", l->end.close_code);
	else if (l->state == LINK_CLOSING)
		go_down(l, "closed as asked");
	else if (reasons_of_errno(err))
		go_down(l, "%s", reasons_of_errno(err));
	else if (stream_ended(l, wsi))
		go_down(l, "the service closed the connection without a close frame");
	else
		go_down(l, "the service sent a frame that breaks the WebSocket protocol");
}

/* --- callbacks of the library --- */

/* The link gets a turn behind the events of this one. */
static void kick(struct link *l)
{
	if (l->kicked || l->freed)
		return;
	l->kicked = true;
	event_active(l->kick, EV_TIMEOUT, 1);
}

static int on_established(struct link *l, struct lws *wsi)
{
	SSL *ssl = l->tls ? lws_get_ssl(wsi) : NULL;

	if (l->freed || l->state == LINK_DOWN)
		return -1;
	if (ssl)
		tls_read_ahead(ssl);
	event_del(l->deadline);
	l->end.was_open = true;
	set_state(l, LINK_OPEN);
	l->ops->open(l->owner);
	kick(l); /* for what was queued before */
	return l->freed ? -1 : 0;
}

static int put_path(struct link *l, char **end, size_t room)
{
	if (!library_put_path(l->path, end, room, &l->ctx->request)) {
		go_down(l, "this version of libwebsockets makes requests in an unknown way");
		return -1;
	}
	secret_free(&l->path);
	return 0;
}

/* A second opinion on whom the certificate is for. */
static bool check_certificate(const struct link *l, X509_STORE_CTX *store, bool verified)
{
	return l && verified && tls_is_for(store, l->host);
}

static void keep_piece(struct link *l, const char *p, size_t n)
{
	size_t room = l->max_message - buf_len(&l->rx);

	l->truncated |= n > room;
	buf_add(&l->rx, p, n < room ? n : room);
}

/* A pong may come between the pieces of a message. It is told behind that: whoever asked for it
 * wants to know that what came before it is there. */
static void end_message(struct link *l)
{
	uint32_t number = l->pong_between;

	l->pong_between = 0;
	if (number && !l->freed && l->state == LINK_OPEN)
		l->ops->pong(l->owner, number);
}

static int on_receive(struct link *l, struct lws *wsi, const char *p, size_t n)
{
	bool first = lws_is_first_fragment(wsi), final = lws_is_final_fragment(wsi);
	unsigned flags = lws_frame_is_binary(wsi) ? LINK_BINARY : 0;
	struct span text = {p, n};

	if (l->freed || l->state == LINK_DOWN)
		return -1;
	l->share += n;
	if (first) {
		l->truncated = false;
		buf_take(&l->rx, buf_len(&l->rx));
	}
	if (first && final) {
		l->truncated = n > l->max_message;
		text.n = l->truncated ? l->max_message : n;
	} else {
		keep_piece(l, p, n);
		text = buf_span(&l->rx);
	}
	l->unfinished = !final;
	if (!final)
		return 0;
	l->ops->message(l->owner, text, flags | (l->truncated ? LINK_TRUNCATED : 0));
	if (l->rx.size > LIBRARY_BUFFER)
		buf_release(&l->rx);
	end_message(l);
	return l->freed ? -1 : 0;
}

static int write_batch(struct link *l, struct lws *wsi, struct buf *queue)
{
	size_t n = frame_batch(queue, BATCH);

	if (lws_write(wsi, (unsigned char *)buf_span(queue).p, n, LWS_WRITE_RAW) < 0)
		return -1;
	buf_take(queue, n);
	l->written += n;
	l->in_library = lws_partial_buffered(wsi) ? n : 0;
	return 0;
}

static int write_ping(struct link *l, struct lws *wsi)
{
	struct buf ping = {0};
	char number[12];
	int n = snprintf(number, sizeof(number), "%" PRIu32, l->ping_number);

	frame_append(&ping, FRAME_PING, (struct span){number, (size_t)n}, SPAN(""));
	int err = write_batch(l, wsi, &ping);
	buf_release(&ping);
	l->ping_wanted = false;
	return err;
}

/* The library may be written to: it holds nothing and has no control frame of its own to send. */
static int on_writable(struct link *l, struct lws *wsi)
{
	if (l->freed || l->state != LINK_OPEN)
		return l->freed ? -1 : 0;
	if (l->ping_wanted && write_ping(l, wsi) < 0)
		return -1;
	while (buf_len(&l->tx) && l->written < WRITE_SHARE && !lws_partial_buffered(wsi)) {
		if (write_batch(l, wsi, &l->tx) < 0)
			return -1;
	}
	if (l->close_wanted && !buf_len(&l->tx) && !lws_partial_buffered(wsi)) {
		lws_close_reason(wsi, (enum lws_close_status)l->close_wanted, NULL, 0);
		set_state(l, LINK_CLOSING);
		return -1; /* "close it": the frame goes out at the next offer to write */
	}
	return 0;
}

/* The library answers a close frame by itself. What is still queued can't be sent any more. */
static int on_peer_close(struct link *l, const unsigned char *p, size_t n)
{
	if (l->state != LINK_OPEN && l->state != LINK_CLOSING)
		return 0;
	l->end.close_code = n >= 2 ? p[0] << 8 | p[1] : LWS_CLOSE_STATUS_NO_STATUS;
	buf_release(&l->tx);
	if (l->state == LINK_OPEN) {
		timer_start(l->deadline, CLOSE_MS);
		set_state(l, LINK_CLOSING);
	}
	return 0;
}

/* A pong carries what the ping did: a number. One that nobody has asked for may carry anything. */
static uint32_t pong_number(const char *p, size_t n)
{
	uint64_t number = 0;

	for (size_t i = 0; i < n; i++) {
		if (p[i] < '0' || p[i] > '9' || number > UINT32_MAX)
			return 0;
		number = number * 10 + (uint64_t)(p[i] - '0');
	}
	return number > UINT32_MAX ? 0 : (uint32_t)number;
}

static int on_pong(struct link *l, const char *p, size_t n)
{
	if (l->freed || l->state != LINK_OPEN)
		return l->freed ? -1 : 0;
	uint32_t number = pong_number(p, n);
	if (!number || !l->unfinished)
		l->ops->pong(l->owner, number);
	else
		l->pong_between = number;
	return l->freed ? -1 : 0;
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
	case LWS_CALLBACK_CLIENT_ESTABLISHED:
		return on_established(user, wsi);
	case LWS_CALLBACK_CLIENT_RECEIVE:
		return on_receive(user, wsi, in, n);
	case LWS_CALLBACK_CLIENT_RECEIVE_PONG:
		return on_pong(user, in, n);
	case LWS_CALLBACK_CLIENT_WRITEABLE:
		return on_writable(user, wsi);
	case LWS_CALLBACK_WS_PEER_INITIATED_CLOSE:
		return on_peer_close(user, in, n);
	case LWS_CALLBACK_CLIENT_CONNECTION_ERROR:
		on_failed(user, wsi, in, n);
		return 0;
	case LWS_CALLBACK_CLIENT_CLOSED:
		on_lost(user, wsi);
		return 0;
	case LWS_CALLBACK_WSI_DESTROY:
		on_lost(user, wsi); /* mostly it is down by now */
		((struct link *)user)->wsi = NULL;
		return 0;
	default:
		return 0;
	}
}

/* --- events of our loop --- */

/* Reading goes on in the next turn, behind whatever else is ready. The socket is not watched
 * meanwhile: it would wake us for the same bytes. */
static void read_later(struct link *l)
{
	event_del(l->readable);
	timer_start(l->more, 0);
}

/* One turn of the library's own loop. It may read a record of an open link and leave more in
 * OpenSSL's hands, so each of them reads on. */
static void run_library(struct link_context *ctx)
{
	struct link *l;

	tls_forget_fault(&ctx->tls);
	errno = 0; /* what it says of connections that end is about them */
	lws_service(ctx->library.lws, -1);
	LIST_FOREACH (l, &ctx->links, entry) {
		if (l->state == LINK_OPEN && l->wsi && l->tls && !l->freed)
			read_later(l);
	}
}

static bool wants_to_write(const struct link *l)
{
	return l->state == LINK_CLOSING ||
	       (l->state == LINK_OPEN && (buf_len(&l->tx) || l->ping_wanted || l->close_wanted));
}

/* Offers the library to write, until it has nothing more to send, the kernel takes no more, or it
 * was enough for a turn. */
static void write_on(struct link *l)
{
	bool more = true, had_unsent = link_unsent(l);

	l->written = 0;
	for (int i = 0; more && i < WRITES; i++) {
		if (!serve(l, POLLOUT) || l->freed || l->state == LINK_DOWN)
			return;
		if (lws_partial_buffered(l->wsi) || l->written >= WRITE_SHARE)
			break;
		l->in_library = 0;
		more = wants_to_write(l);
	}
	if (more && l->state == LINK_OPEN)
		event_add(l->writable, NULL);
	if (had_unsent && !link_unsent(l) && l->state == LINK_OPEN)
		l->ops->drained(l->owner);
}

static void read_on(struct link *l)
{
	SSL *ssl;

	l->share = 0;
	for (int i = 0;; i++) {
		if (!serve(l, POLLIN) || l->freed || l->state == LINK_DOWN)
			return;
		ssl = l->tls && l->state == LINK_OPEN ? lws_get_ssl(l->wsi) : NULL;
		if (!ssl || !tls_holds_more(ssl))
			break;
		if (l->share > SHARE || i == READS) {
			read_later(l);
			break;
		}
	}
	if (!event_pending(l->writable, EV_WRITE, NULL))
		write_on(l);
	if (!l->freed && l->state != LINK_DOWN &&
	    !lws_service_adjust_timeout(l->ctx->library.lws, 1, 0))
		run_library(l->ctx);
}

/* The TCP connection is there, or it failed and the kernel says why. Asking takes the error off the
 * socket, so the library, which would ask next, is not entered in that case. */
static void connected(struct link *l)
{
	int err = 0;
	socklen_t n = sizeof(err);

	if (getsockopt(lws_get_socket_fd(l->wsi), SOL_SOCKET, SO_ERROR, &err, &n) < 0)
		err = errno;
	if (err) {
		go_down(l, "%s", strerror(err));
		return;
	}
	set_state(l, LINK_SHAKING);
	if (serve(l, POLLOUT) && l->state != LINK_DOWN)
		event_add(l->readable, NULL);
}

/* Bytes have come, if they have: a turn of the library's own loop makes each open link read on, and
 * it is none of the peer's words that another one begins. */
static void tell_heard(struct link *l)
{
	uint64_t received;

	if (l->freed || l->state != LINK_OPEN)
		return;
	if (l->tls) {
		received = tls_received(lws_get_ssl(l->wsi));
		if (received == l->heard)
			return;
		l->heard = received;
	}
	l->ops->heard(l->owner);
}

static void on_io(evutil_socket_t fd, short what, void *user)
{
	struct link *l = user;
	struct link_context *ctx = l->ctx;

	(void)fd;
	enter(ctx);
	if ((what & EV_WRITE) && l->state == LINK_CONNECTING)
		connected(l);
	else if (what & EV_WRITE)
		write_on(l);
	if ((what & EV_READ) && l->wsi && !l->freed && l->state != LINK_DOWN) {
		read_on(l);
		tell_heard(l);
	}
	leave(ctx);
}

static void on_more(evutil_socket_t fd, short what, void *user)
{
	struct link *l = user;
	struct link_context *ctx = l->ctx;

	(void)fd, (void)what;
	enter(ctx);
	event_add(l->readable, NULL);
	read_on(l);
	tell_heard(l);
	leave(ctx);
}

static void watch(struct link *l, int fd)
{
	int unsent = KERNEL_UNSENT;

	/* Where that is unknown, pings are later by what the kernel holds. */
	setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof(unsent));
	l->readable = event_new(l->ctx->base, fd, EV_READ | EV_PERSIST, on_io, l);
	l->writable = event_new(l->ctx->base, fd, EV_WRITE, on_io, l);
	if (!l->readable || !l->writable)
		go_down(l, "no memory");
	else
		event_add(l->writable, NULL);
}

/* Version 4.3 follows the routes of the machine and believes to know what can be reached: first let
 * it hear the news. */
static void begin(struct link *l)
{
	struct lws_client_connect_info info = {
		.context = l->ctx->library.lws,
		.vhost = l->proxy ? l->ctx->library.proxied : l->ctx->library.direct,
		.address = l->proxy ? l->host : l->address,
		.port = l->port,
		.host = l->host_header,
		.path = "/",
		.ssl_connection = (l->tls ? LCCSCF_USE_SSL : 0) | LCCSCF_HTTP_NO_FOLLOW_REDIRECT,
		.alpn = "http/1.1",
		.local_protocol_name = library_protocol,
		.userdata = l,
		.pwsi = &l->wsi,
	};

	run_library(l->ctx);
	set_state(l, LINK_CONNECTING);
	if (l->proxy && lws_set_proxy(l->ctx->library.proxied, l->proxy) < 0) {
		go_down(l, "libwebsockets refuses the proxy's address");
		return;
	}
	errno = 0;
	if (!lws_client_connect_via_info(&info)) {
		const char *phrase = reasons_of_errno(errno);
		l->wsi = NULL;
		go_down(l, "%s", phrase ? phrase : "libwebsockets could not begin to connect");
		return;
	}
	if (lws_get_socket_fd(l->wsi) < 0)
		go_down(l, "libwebsockets has no room for another connection");
	else if (l->state != LINK_DOWN)
		watch(l, lws_get_socket_fd(l->wsi));
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
	if (l->end.was_open)
		go_down(l, "closed, but the service did not answer the close frame in time");
	else if (l->state < LINK_SHAKING)
		go_down(l, "timed out while connecting");
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
	ctx->tick = event_new(base, -1, EV_PERSIST, on_tick, ctx);
	if (!ctx->tick || !library_init(&ctx->library, on_library, ctx->tls.ctx)) {
		*why = "libwebsockets can't be initialised";
		link_context_free(ctx);
		return NULL;
	}
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
struct link *link_connect(struct link_context *ctx, const struct link_target *target,
			  const struct link_ops *ops, void *owner, const char **why)
{
	const char *no = target_objection(target, link_path_max());

	if (no) {
		*why = no;
		return NULL;
	}
	struct link *l = mem_zalloc(sizeof(*l));
	*l = (struct link){
		.ctx = ctx,
		.ops = ops,
		.owner = owner,
		.end = {.retry_after_s = -1},
		.address = target->address ? mem_strdup(target->address) : NULL,
		.host = mem_strdup(target->host),
		.host_header = target_host_port(target->host, target->port, target->tls ? 443 : 80),
		.path = secret_dup(target->path),
		.proxy = target->proxy_address
				 ? target_host_port(target->proxy_address, target->proxy_port, 0)
				 : NULL,
		.port = target->port,
		.tls = target->tls,
		.max_message = target->max_message,
		.kick = timer_new(ctx->base, on_kick, l),
		.more = timer_new(ctx->base, on_more, l),
		.deadline = timer_new(ctx->base, on_deadline, l),
	};
	LIST_INSERT_HEAD(&ctx->links, l, entry);
	timer_start(l->deadline, target->connect_timeout_ms);
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
	return buf_len(&l->tx) + l->in_library;
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
