/* From the connected socket on: TLS (tls.h, stream.h), the request for the upgrade and its answer
 * (upgrade.h), frames that come (receive.h), frames that go (frame.h).
 *
 * OpenSSL reads ahead, so that one read() brings many small TLS records; what it holds is not seen
 * by epoll, so it is read until nothing is left, or the rest is left to a timer of zero. The
 * request goes first, all of it. Then frames leave in batches of whole frames; between two batches,
 * and nowhere else, a control frame may go first. Of pings that come faster than they are answered
 * the last one is answered, which is all that RFC 6455 asks for.
 *
 * All events of this room call enter() first and leave() last. In between an owner's function may
 * be on the stack, which may free any link, so nothing is destroyed there: a link that was freed or
 * went down is only marked, and leave() settles it. */
#include "transport/websocket.h"

#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <time.h>

#include "base/buf.h"
#include "transport/frame.h"
#include "base/log.h"
#include "base/mem.h"
#include "transport/error_text.h"
#include "transport/receive.h"
#include "base/secret.h"
#include "transport/stream.h"
#include "base/timer.h"
#include "transport/tls.h"
#include "transport/upgrade.h"

enum {
	BATCH = 16384,          /* bytes of frames in one write: a full TLS record */
	CHUNK = 65536,          /* bytes asked for in one read */
	SHARE = 65536,          /* bytes read in one turn of the loop; a little more may be */
	KERNEL_UNSENT = 131072, /* bytes that the kernel takes beyond what the peer has room for */
	WRITE_SHARE = 262144,   /* bytes written in one turn, however fast the kernel takes them */
	CLOSE_MS = 2000,        /* for a close frame to go out and be answered */
	BODY_MS = 250,          /* for a refusal to say more than its status */
	TOLD_MAX = 200,         /* bytes of the service's own words, in a reason */
};

enum websocket_state {
	WEBSOCKET_STARTING,
	WEBSOCKET_SHAKING,
	WEBSOCKET_ASKING, /* for the upgrade */
	WEBSOCKET_OPEN,
	WEBSOCKET_CLOSING,
	WEBSOCKET_DOWN,
	WEBSOCKET_STATE_N
};

static const char *const state_name[] = {"starting", "shaking hands", "asking",
					 "open",     "closing",       "down"};
_Static_assert(sizeof(state_name) / sizeof(state_name[0]) == WEBSOCKET_STATE_N,
	       "a name for each state");

struct websocket_context {
	struct event_base *base;
	SSL_CTX *tls;
	LIST_HEAD(, websocket) websockets;
	unsigned inside; /* how deep we are between enter() and leave() */
};

struct websocket {
	LIST_ENTRY(websocket) entry; /* websocket_context::links */
	struct websocket_context *ctx;
	const struct websocket_ops *ops;
	void *owner;

	enum websocket_state state;
	bool freed; /* by its owner: no callback any more */
	bool told;  /* closed() was called */
	struct websocket_end end;
	char why[400];

	char *host;
	struct error_text_secret secret; /* of the path: the service may repeat it */
	char *request;                   /* for the upgrade, secret; NULL once it has gone out */
	size_t asked;                    /* bytes of it that have */
	char key[UPGRADE_KEY];

	struct stream stream;
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

static void enter(struct websocket_context *ctx)
{
	ctx->inside++;
}

/* --- how a link ends --- */

static void set_state(struct websocket *l, enum websocket_state state)
{
	log_debug("link to %s: %s -> %s", l->host, state_name[l->state], state_name[state]);
	l->state = state;
}

static void unwatch(struct websocket *l)
{
	event_del(l->readable);
	event_del(l->writable);
	event_del(l->kick);
	event_del(l->more);
	event_del(l->deadline);
	l->kicked = false;
}

/* The link is down, for the reason in why. Its socket is closed by settle(). */
static void end_here(struct websocket *l)
{
	unwatch(l);
	set_state(l, WEBSOCKET_DOWN);
}

/* ... for this reason, unless it is down already. */
static void __attribute__((format(printf, 2, 3)))
go_down(struct websocket *l, const char *format, ...)
{
	va_list args;

	if (l->state == WEBSOCKET_DOWN)
		return;
	va_start(args, format);
	vsnprintf(l->why, sizeof(l->why), format, args);
	va_end(args);
	end_here(l);
}

/* Asks for one of the socket's events. */
static void want(struct websocket *l, struct event *watch)
{
	int err = watch_start(watch);

	if (err < 0)
		go_down(l, "the socket can't be watched: %s", strerror(-err));
}

static void destroy(struct websocket *l)
{
	LIST_REMOVE(l, entry);
	event_free(l->readable);
	event_free(l->writable);
	event_free(l->kick);
	event_free(l->more);
	event_free(l->deadline);
	buf_release(&l->tx);
	buf_release(&l->control);
	receive_release(&l->rx);
	secret_free(&l->request);
	free(l->host);
	free(l);
}

static struct websocket *find_unsettled(const struct websocket_context *ctx)
{
	struct websocket *l;

	LIST_FOREACH (l, &ctx->websockets, entry) {
		if (l->freed || (l->state == WEBSOCKET_DOWN && !l->told))
			return l;
	}
	return NULL;
}

static void settle(struct websocket *l)
{
	unwatch(l);
	stream_close(&l->stream, l->orderly);
	if (l->freed) {
		destroy(l);
		return;
	}
	l->told = true;
	l->end.why = l->why;
	l->ops->closed(l->owner, &l->end);
}

/* No owner's function is on the stack any more when the outermost one is left, so everything may be
 * destroyed. Owners who are called from here may free any link: that is only another one to settle.
 */
static void leave(struct websocket_context *ctx)
{
	struct websocket *l;

	while (ctx->inside == 1 && (l = find_unsettled(ctx)))
		settle(l);
	ctx->inside--;
}

/* --- sending --- */

/* The link gets a turn behind the events of this one. */
static void kick(struct websocket *l)
{
	if (l->kicked || l->freed)
		return;
	l->kicked = true;
	timer_next_turn(l->kick);
}

static bool has_control(const struct websocket *l)
{
	return l->ping_wanted || l->pong_wanted || (l->close_wanted && !buf_len(&l->tx));
}

static bool wants_to_write(const struct websocket *l)
{
	if (l->state < WEBSOCKET_ASKING || l->state == WEBSOCKET_DOWN)
		return false;
	if (l->request || l->state == WEBSOCKET_ASKING)
		return l->request;
	return l->batch || buf_len(&l->control) ||
	       (!l->close_made && (buf_len(&l->tx) || has_control(l)));
}

static void make_ping(struct websocket *l)
{
	char number[12];
	int n = snprintf(number, sizeof(number), "%" PRIu32, l->ping_number);

	frame_append(&l->control, FRAME_PING, (struct span){number, (size_t)n}, SPAN(""));
}

static void make_close(struct websocket *l)
{
	char code[2] = {(char)(l->close_wanted >> 8), (char)l->close_wanted};
	size_t n = l->close_wanted == RECEIVE_NO_CODE ? 0 : sizeof(code);

	frame_append(&l->control, FRAME_CLOSE, (struct span){code, n}, SPAN(""));
	l->close_made = true;
	if (l->state == WEBSOCKET_OPEN)
		set_state(l, WEBSOCKET_CLOSING);
}

/* Control frames are made when they can go out, so that none waits behind another. */
static void make_control(struct websocket *l)
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
static bool next_batch(struct websocket *l)
{
	if (l->batch)
		return true;
	make_control(l);
	l->queue = buf_len(&l->control) ? &l->control : &l->tx;
	l->batch = frame_batch(l->queue, BATCH);
	return l->batch;
}

/* 0: it has gone out, all of it; or -errno. */
static int write_request(struct websocket *l)
{
	size_t size = l->request ? strlen(l->request) : 0;

	while (l->asked < size) {
		ssize_t n = stream_write(&l->stream, l->request + l->asked, size - l->asked);
		if (n < 0)
			return (int)n;
		l->asked += (size_t)n;
	}
	secret_free(&l->request);
	return 0;
}

/* Writes until the kernel takes no more or it was enough for a turn. 0, or -errno. */
static int write_queued(struct websocket *l)
{
	size_t written = 0;
	int err = write_request(l);

	if (err || l->state == WEBSOCKET_ASKING)
		return err == -EAGAIN ? 0 : err;
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
static void forget_queued(struct websocket *l)
{
	buf_cut(&l->tx, l->queue == &l->tx ? l->batch : 0);
	buf_cut(&l->control, l->queue == &l->control ? l->batch : 0);
	l->ping_wanted = l->pong_wanted = false;
}

/* The peer has broken the protocol: it is told so, if that can be told at once. */
static void on_fault(struct websocket *l)
{
	if (!l->close_made) {
		forget_queued(l);
		l->close_wanted = l->rx.fault_code;
		l->orderly = write_queued(l) == 0 && !wants_to_write(l);
	}
	if (l->rx.fault_code == FRAME_CLOSE_TOO_BIG)
		go_down(l, "the service sent a frame that is far too long: %s", l->rx.fault);
	else
		go_down(l, "the service sent a frame that breaks the WebSocket protocol: %s",
			l->rx.fault);
}

/* The reason was written down when the close frame came. */
static void go_down_closed(struct websocket *l)
{
	l->orderly = !wants_to_write(l);
	end_here(l);
}

static void tell_close(struct websocket *l, const struct receive_item *item)
{
	const char *name = error_text_close_name(item->code);
	char text[TOLD_MAX];

	error_text_quote(text, sizeof(text), item->text, &l->secret);
	snprintf(l->why, sizeof(l->why), "the service closed the connection (%d%s%s)%s%s",
		 item->code, name ? ": " : "", name ? name : "", *text ? ": " : "", text);
}

/* A refusal may say why in its body, which may not have come yet. */
static void refused(struct websocket *l)
{
	struct span body = buf_span(&l->rx.bytes);
	char text[TOLD_MAX];

	error_text_quote(text, sizeof(text), body, &l->secret);
	if (*text == '<') /* a page for a browser */
		*text = '\0';
	go_down(l, "the upgrade was answered with HTTP status %d%s%s", l->end.http_status,
		*text ? ": " : "", text);
}

/* The stream is at its end, for this -errno if it is none. */
static void on_stream_end(struct websocket *l, int err)
{
	const char *phrase;

	err = err ? err : l->write_fault;
	phrase = error_text_of_errno(-err);
	if (l->end.http_status && !l->end.was_open)
		refused(l);
	else if (l->peer_closed)
		go_down_closed(l);
	else if (l->close_made)
		go_down(l, "closed as asked");
	else if (err == -EPROTO)
		go_down(l, "the TLS connection broke: %s",
			l->stream.fault ? l->stream.fault : "unknown");
	else if (err)
		go_down(l, "%s", phrase ? phrase : strerror(-err));
	else if (l->state == WEBSOCKET_ASKING)
		go_down(l, "the connection was closed before the upgrade was answered");
	else
		go_down(l, "the service closed the connection without a close frame");
}

/* --- what comes --- */

static void on_message(struct websocket *l, const struct receive_item *item)
{
	uint32_t number;

	l->ops->message(l->owner, item->text,
			(item->binary ? WEBSOCKET_BINARY : 0) |
				(item->truncated ? WEBSOCKET_TRUNCATED : 0));
	/* A pong that came between its parts is told behind it: whoever asked for it wants to know
	 * that what came before it is there. */
	number = l->pong_between;
	l->pong_between = 0;
	if (number && !l->freed && l->state == WEBSOCKET_OPEN)
		l->ops->pong(l->owner, number);
}

static void on_ping(struct websocket *l, const struct receive_item *item)
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

static void on_pong(struct websocket *l, const struct receive_item *item)
{
	uint32_t number = pong_number(item->text);

	if (l->state != WEBSOCKET_OPEN)
		return;
	if (!number || !receive_is_within(&l->rx))
		l->ops->pong(l->owner, number);
	else
		l->pong_between = number;
}

/* It is answered with its own code, and that is the end; if it is the answer to ours, at once. */
static void on_peer_close(struct websocket *l, const struct receive_item *item)
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
	set_state(l, WEBSOCKET_CLOSING);
	event_del(l->readable);
	event_del(l->more);
	kick(l);
}

static bool is_receiving(const struct websocket *l)
{
	return !l->freed && !l->peer_closed &&
	       (l->state == WEBSOCKET_OPEN || l->state == WEBSOCKET_CLOSING);
}

static void take_items(struct websocket *l)
{
	static void (*const takes[])(struct websocket * l, const struct receive_item *item) = {
		on_message, on_ping, on_pong, on_peer_close};
	struct receive_item item;
	int got = 1;

	while (is_receiving(l) && (got = receive_next(&l->rx, &item)) > 0)
		takes[item.kind](l, &item);
	if (got < 0)
		on_fault(l);
}

/* --- the answer to the upgrade --- */

static void on_established(struct websocket *l)
{
	event_del(l->deadline);
	l->end.was_open = true;
	set_state(l, WEBSOCKET_OPEN);
	l->ops->open(l->owner);
	kick(l); /* for what was queued before */
}

static bool has_body(const struct websocket *l, uint64_t announced)
{
	size_t come = buf_len(&l->rx.bytes);

	return come >= announced || come >= TOLD_MAX;
}

static void read_refusal(struct websocket *l, const struct upgrade *answer)
{
	char text[64];

	l->end.http_status = answer->status;
	if (answer->retry_after.n && answer->retry_after.n < sizeof(text)) {
		snprintf(text, sizeof(text), "%.*s", (int)answer->retry_after.n,
			 answer->retry_after.p);
		l->end.retry_after_s = error_text_retry_after(text, time(NULL));
	}
	l->body = answer->body;
	buf_take(&l->rx.bytes, answer->head);
	timer_start(l->deadline, BODY_MS);
}

static void read_answer(struct websocket *l)
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
static void read_later(struct websocket *l)
{
	event_del(l->readable);
	timer_start(l->more, 0);
}

static bool is_reading(const struct websocket *l)
{
	return is_receiving(l) || (l->state == WEBSOCKET_ASKING && !l->freed);
}

static void read_on(struct websocket *l)
{
	size_t share = 0;
	ssize_t n = 1;

	while (is_reading(l) && share < SHARE) {
		n = stream_read(&l->stream, receive_room(&l->rx, CHUNK), CHUNK);
		if (n <= 0)
			break;
		receive_grew(&l->rx, (size_t)n);
		share += (size_t)n;
		if (l->state == WEBSOCKET_ASKING)
			read_answer(l);
		else
			take_items(l);
	}
	if (!is_reading(l))
		return;
	if (n > 0)
		read_later(l);
	else if (n != -EAGAIN)
		on_stream_end(l, (int)n);
	else if (l->stream.wants_write || wants_to_write(l))
		want(l, l->writable);
}

/* Writing fails when the peer has gone. It may have said why, before. */
static void on_write_failed(struct websocket *l, int err)
{
	l->write_fault = err;
	if (is_reading(l))
		read_on(l);
	if (!l->freed && l->state != WEBSOCKET_DOWN)
		on_stream_end(l, err);
}

static void write_on(struct websocket *l)
{
	bool had_unsent = websocket_unsent(l);
	int err = write_queued(l);

	if (err) {
		on_write_failed(l, err);
		return;
	}
	if (wants_to_write(l))
		want(l, l->writable);
	else if (l->peer_closed)
		go_down_closed(l);
	if (had_unsent && !websocket_unsent(l) && l->state == WEBSOCKET_OPEN)
		l->ops->drained(l->owner);
}

/* --- the handshake --- */

static void on_shake_failed(struct websocket *l, int err)
{
	const char *refusal = l->stream.ssl ? tls_refusal(l->stream.ssl) : NULL;

	if (refusal)
		go_down(l, "the server's certificate is refused: %s", refusal);
	else if (err == -EPROTO)
		go_down(l, "the TLS handshake failed: %s",
			l->stream.fault ? l->stream.fault : "unknown");
	else if (err)
		go_down(l, "%s", strerror(-err));
	else
		go_down(l, "the TLS handshake failed: the connection was closed");
}

/* What came along with the end of the handshake is in OpenSSL's hands, where epoll does not see it.
 */
static void ask(struct websocket *l)
{
	set_state(l, WEBSOCKET_ASKING);
	write_on(l);
	if (is_reading(l))
		read_on(l);
}

static void shake(struct websocket *l)
{
	int got = stream_shake(&l->stream);

	if (got > 0)
		ask(l);
	else if (got != -EAGAIN)
		on_shake_failed(l, got);
	else if (l->stream.wants_write)
		want(l, l->writable);
}

/* Bytes have come, if only a part of a TLS record. */
static void tell_heard(struct websocket *l)
{
	uint64_t received = stream_received(&l->stream);

	if (l->freed || l->state != WEBSOCKET_OPEN || (l->stream.ssl && received == l->heard))
		return;
	l->heard = received;
	l->ops->heard(l->owner);
}

static void on_readable(struct websocket *l)
{
	if (l->state < WEBSOCKET_ASKING) {
		shake(l);
		return;
	}
	read_on(l);
	tell_heard(l);
}

static void on_writable(struct websocket *l)
{
	if (l->stream.wants_write)
		on_readable(l);
	else if (wants_to_write(l))
		write_on(l);
}

static void on_io(evutil_socket_t fd, short what, void *user)
{
	struct websocket *l = user;
	struct websocket_context *ctx = l->ctx;

	(void)fd;
	enter(ctx);
	if (what & EV_WRITE)
		on_writable(l);
	if ((what & EV_READ) && !l->freed && l->state != WEBSOCKET_DOWN)
		on_readable(l);
	leave(ctx);
}

static void on_more(evutil_socket_t fd, short what, void *user)
{
	struct websocket *l = user;
	struct websocket_context *ctx = l->ctx;

	(void)fd, (void)what;
	enter(ctx);
	want(l, l->readable);
	on_readable(l);
	leave(ctx);
}

static void begin(struct websocket *l)
{
	set_state(l, WEBSOCKET_SHAKING);
	want(l, l->readable);
	if (l->state == WEBSOCKET_SHAKING)
		shake(l);
}

static void on_kick(evutil_socket_t fd, short what, void *user)
{
	struct websocket *l = user;
	struct websocket_context *ctx = l->ctx;

	(void)fd, (void)what;
	enter(ctx);
	l->kicked = false;
	if (l->close_wanted && l->state < WEBSOCKET_OPEN)
		go_down(l, "closed as asked before it was open");
	else if (l->state == WEBSOCKET_STARTING)
		begin(l);
	else if (wants_to_write(l) && !event_pending(l->writable, EV_WRITE, NULL))
		write_on(l);
	leave(ctx);
}

static void on_deadline(evutil_socket_t fd, short what, void *user)
{
	struct websocket *l = user;
	struct websocket_context *ctx = l->ctx;

	(void)fd, (void)what;
	enter(ctx);
	if (l->state == WEBSOCKET_ASKING && l->end.http_status)
		refused(l);
	else if (l->peer_closed)
		go_down_closed(l);
	else if (l->end.was_open)
		go_down(l, "closed, but the service did not answer the close frame in time");
	else if (l->stream.ssl && l->state < WEBSOCKET_ASKING)
		go_down(l, "timed out in the TLS handshake");
	else if (l->request)
		go_down(l, "timed out sending the request for the upgrade");
	else
		go_down(l, "timed out waiting for the upgrade to be answered");
	leave(ctx);
}

/* --- the context --- */

struct websocket_context *websocket_context_new(struct event_base *base, const char *ca_file,
						const char **why)
{
	struct websocket_context *ctx = mem_zalloc(sizeof(*ctx));

	ctx->base = base;
	LIST_INIT(&ctx->websockets);
	ctx->tls = tls_context(ca_file, why);
	if (!ctx->tls) {
		free(ctx);
		return NULL;
	}
	return ctx;
}

void websocket_context_free(struct websocket_context *ctx)
{
	SSL_CTX_free(ctx->tls);
	free(ctx);
}

/* --- the public side of a link --- */

/* The stream of a new link; false, with a reason and all of it released: there is none. */
static bool open_stream(struct websocket_context *ctx, int fd,
			const struct websocket_target *target, struct stream *stream,
			const char **why)
{
	int unsent = KERNEL_UNSENT;
	SSL *ssl = NULL;

	*stream = (struct stream){.fd = fd};
	*why = target_objection(target);
	if (!*why && target->tls && !(ssl = tls_new(ctx->tls, target->host)))
		*why = "no memory";
	if (!*why && !stream_begin(stream, fd, ssl))
		*why = "no memory";
	if (*why) {
		stream_close(stream, false);
		return false;
	}
	/* Where that is unknown, pings are later by what the kernel holds. */
	setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof(unsent));
	return true;
}

static char *make_request(const struct websocket_target *target, char key[UPGRADE_KEY])
{
	char *host = target_host_port(target->host, target->port, target->tls ? 443 : 80);
	char *request = upgrade_request(host, target->path, key);

	free(host);
	return request;
}

/* It begins in the next turn of the loop, since its owner is not called from within. */
struct websocket *websocket_connect(struct websocket_context *ctx, int fd,
				    const struct websocket_target *target,
				    const struct websocket_ops *ops, void *owner, const char **why)
{
	struct stream stream;

	if (!open_stream(ctx, fd, target, &stream, why))
		return NULL;
	struct websocket *l = mem_zalloc(sizeof(*l));
	*l = (struct websocket){
		.ctx = ctx,
		.ops = ops,
		.owner = owner,
		.end = {.retry_after_s = -1},
		.host = mem_strdup(target->host),
		.stream = stream,
		.readable = watch_new(ctx->base, fd, EV_READ | EV_PERSIST, on_io, l),
		.writable = watch_new(ctx->base, fd, EV_WRITE, on_io, l),
		.kick = timer_new(ctx->base, on_kick, l),
		.more = timer_new(ctx->base, on_more, l),
		.deadline = timer_new(ctx->base, on_deadline, l),
	};
	l->request = make_request(target, l->key);
	error_text_remember(&l->secret, target->path);
	receive_init(&l->rx, target->max_message);
	LIST_INSERT_HEAD(&ctx->websockets, l, entry);
	timer_start(l->deadline, target->timeout_ms);
	kick(l);
	return l;
}

void websocket_send(struct websocket *l, struct span head, struct span body)
{
	if (l->state >= WEBSOCKET_CLOSING || l->close_wanted)
		return;
	frame_append(&l->tx, FRAME_TEXT, head, body);
	if (l->state == WEBSOCKET_OPEN)
		kick(l);
}

void websocket_ping(struct websocket *l, uint32_t number)
{
	if (l->state != WEBSOCKET_OPEN || l->close_wanted)
		return;
	l->ping_wanted = true;
	l->ping_number = number;
	kick(l);
}

bool websocket_is_open(const struct websocket *l)
{
	return l->state == WEBSOCKET_OPEN && !l->close_wanted && !l->freed;
}

size_t websocket_unsent(const struct websocket *l)
{
	return buf_len(&l->tx);
}

void websocket_close(struct websocket *l, int code)
{
	if (l->state >= WEBSOCKET_CLOSING || l->close_wanted)
		return;
	l->close_wanted = code;
	if (l->state == WEBSOCKET_OPEN)
		timer_start(l->deadline, CLOSE_MS);
	kick(l);
}

void websocket_free(struct websocket *l)
{
	struct websocket_context *ctx = l->ctx;

	enter(ctx);
	l->freed = true;
	unwatch(l);
	leave(ctx);
}
