/* From the connected socket on: TLS (tls.h, stream.h), the request for the upgrade and its answer
 * (upgrade.h), incoming frames (receive.h), outgoing frames (frame.h).
 *
 * OpenSSL reads ahead, so that one read() brings many small TLS records. epoll does not see what
 * OpenSSL holds: so it is read until nothing is left, or a timer of zero reads the rest. The
 * upgrade request goes out first, all of it. Then frames leave in batches of whole frames; a
 * control frame may go out between two batches, and nowhere else. When pings come faster than they
 * can be answered, the last one is answered, as RFC 6455 allows.
 *
 * All events of this room call enter() first and leave() last. In between, an owner's function may
 * be on the stack, and may free any WebSocket, so nothing is destroyed there: a WebSocket that was
 * freed or went down is only marked, and leave() settles it. */
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
#include "base/turn.h"
#include "transport/tls.h"
#include "transport/upgrade.h"

enum {
	BATCH = 16384, /* bytes of frames in one write: a full TLS record */
	CHUNK = 65536, /* bytes asked for in one read */
	SHARE = 65536, /* bytes read in one turn of the loop, or a little more */
	KERNEL_UNSENT =
		131072,       /* bytes that the kernel is given beyond what the peer has room for */
	WRITE_SHARE = 262144, /* bytes written in one turn, however fast the kernel takes them */
	CLOSE_MS = 2000,      /* for a close frame to go out and be answered */
	BODY_MS = 250,        /* for the body of a refusal, which may say why */
	TOLD_MAX = 200,       /* bytes of the service's own words in a reason */
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

static const char *const state_name[] = {"starting", "handshake", "upgrade",
					 "open",     "closing",   "down"};
_Static_assert(sizeof(state_name) / sizeof(state_name[0]) == WEBSOCKET_STATE_N,
	       "a name for each state");

struct websocket_context {
	struct event_base *base;
	SSL_CTX *tls;
	LIST_HEAD(, websocket) websockets;
	unsigned inside; /* depth of calls between enter() and leave() */
};

struct websocket {
	LIST_ENTRY(websocket) entry; /* websocket_context::websockets */
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
	char *request;                   /* for the upgrade, secret; NULL once it was sent */
	size_t asked;                    /* bytes of it that were sent */
	char key[UPGRADE_KEY];

	struct stream stream;
	struct event *readable, *writable; /* of its socket */
	struct turn_step kick;             /* begins, or sends the queue */
	struct event *more;                /* runs in the next turn: reads on */
	struct event *deadline;            /* to be open, or to be closed */

	struct buf tx;      /* whole frames of messages */
	struct buf control; /* whole control frames, made when they are sent */
	struct buf *queue;  /* the one that holds the present batch, at its head */
	size_t batch;       /* bytes of it that were not written yet */
	bool ping_wanted, pong_wanted;
	uint32_t ping_number; /* of the ping to send */
	char pong[FRAME_CONTROL_MAX];
	size_t pong_size;
	int close_wanted; /* code of the close frame to send; 0: none */
	bool close_made;  /* nothing is queued behind it */
	bool peer_closed; /* its close frame has come: nothing behind it is read */
	int write_fault;  /* -errno */
	uint64_t body;    /* bytes that a refusal has announced */
	bool orderly;     /* the peer gets everything that was written, and the end of TLS */

	struct receive rx;
	uint32_t pong_between; /* the last pong that came within a message; or 0 */
	uint64_t heard;        /* bytes received, with TLS, at the last call of heard() */
};

static void enter(struct websocket_context *ctx)
{
	ctx->inside++;
}

/* --- how a WebSocket ends --- */

static void set_state(struct websocket *w, enum websocket_state state)
{
	log_debug("WebSocket to %s: %s -> %s", w->host, state_name[w->state], state_name[state]);
	w->state = state;
}

static void unwatch(struct websocket *w)
{
	event_del(w->readable);
	event_del(w->writable);
	turn_step_forgo(&w->kick);
	event_del(w->more);
	event_del(w->deadline);
}

/* The WebSocket is down, for the reason in why. settle() closes its socket. */
static void end_here(struct websocket *w)
{
	unwatch(w);
	set_state(w, WEBSOCKET_DOWN);
}

/* ... for this reason, unless it is down already. */
static void __attribute__((format(printf, 2, 3)))
go_down(struct websocket *w, const char *format, ...)
{
	va_list args;

	if (w->state == WEBSOCKET_DOWN)
		return;
	va_start(args, format);
	vsnprintf(w->why, sizeof(w->why), format, args);
	va_end(args);
	end_here(w);
}

/* Watches for one of the socket's events. */
static void want(struct websocket *w, struct event *watch)
{
	int err = watch_start(watch);

	if (err < 0)
		go_down(w, "the socket can't be watched: %s", strerror(-err));
}

static void destroy(struct websocket *w)
{
	LIST_REMOVE(w, entry);
	event_free(w->readable);
	event_free(w->writable);
	turn_step_fini(&w->kick);
	event_free(w->more);
	event_free(w->deadline);
	buf_release(&w->tx);
	buf_release(&w->control);
	receive_release(&w->rx);
	secret_free(&w->request);
	free(w->host);
	free(w);
}

static struct websocket *find_unsettled(const struct websocket_context *ctx)
{
	struct websocket *w;

	LIST_FOREACH (w, &ctx->websockets, entry) {
		if (w->freed || (w->state == WEBSOCKET_DOWN && !w->told))
			return w;
	}
	return NULL;
}

static void settle(struct websocket *w)
{
	unwatch(w);
	stream_close(&w->stream, w->orderly);
	if (w->freed) {
		destroy(w);
		return;
	}
	w->told = true;
	w->end.why = w->why;
	w->ops->closed(w->owner, &w->end);
}

/* When the outermost enter() is left no owner's function is on the stack, so everything may be
 * destroyed. Owners that are called from here may free any WebSocket: that is one more to settle.
 */
static void leave(struct websocket_context *ctx)
{
	struct websocket *w;

	while (ctx->inside == 1 && (w = find_unsettled(ctx)))
		settle(w);
	ctx->inside--;
}

/* --- sending --- */

/* The WebSocket runs once more behind the events of this turn. */
static void kick(struct websocket *w)
{
	if (!w->freed)
		turn_step_want(&w->kick);
}

static bool has_control(const struct websocket *w)
{
	return w->ping_wanted || w->pong_wanted || (w->close_wanted && !buf_len(&w->tx));
}

static bool wants_to_write(const struct websocket *w)
{
	if (w->state < WEBSOCKET_ASKING || w->state == WEBSOCKET_DOWN)
		return false;
	if (w->request || w->state == WEBSOCKET_ASKING)
		return w->request;
	return w->batch || buf_len(&w->control) ||
	       (!w->close_made && (buf_len(&w->tx) || has_control(w)));
}

static void make_ping(struct websocket *w)
{
	char number[12];
	int n = snprintf(number, sizeof(number), "%" PRIu32, w->ping_number);

	frame_append(&w->control, FRAME_PING, (struct span){number, (size_t)n}, SPAN(""));
}

static void make_close(struct websocket *w)
{
	char code[2] = {(char)(w->close_wanted >> 8), (char)w->close_wanted};
	size_t n = w->close_wanted == RECEIVE_NO_CODE ? 0 : sizeof(code);

	frame_append(&w->control, FRAME_CLOSE, (struct span){code, n}, SPAN(""));
	w->close_made = true;
	if (w->state == WEBSOCKET_OPEN)
		set_state(w, WEBSOCKET_CLOSING);
}

/* Control frames are made when they can go out, so that none waits behind another. */
static void make_control(struct websocket *w)
{
	if (w->close_made)
		return;
	if (w->ping_wanted)
		make_ping(w);
	if (w->pong_wanted)
		frame_append(&w->control, FRAME_PONG, (struct span){w->pong, w->pong_size},
			     SPAN(""));
	w->ping_wanted = w->pong_wanted = false;
	if (w->close_wanted && !buf_len(&w->tx))
		make_close(w);
}

/* The bytes to write next: w->batch of them at the head of w->queue. False: there are none. */
static bool next_batch(struct websocket *w)
{
	if (w->batch)
		return true;
	make_control(w);
	w->queue = buf_len(&w->control) ? &w->control : &w->tx;
	w->batch = frame_batch(w->queue, BATCH);
	return w->batch;
}

/* 0: the request was sent, all of it; or -errno. */
static int write_request(struct websocket *w)
{
	size_t size = w->request ? strlen(w->request) : 0;

	while (w->asked < size) {
		ssize_t n = stream_write(&w->stream, w->request + w->asked, size - w->asked);
		if (n < 0)
			return (int)n;
		w->asked += (size_t)n;
	}
	secret_free(&w->request);
	return 0;
}

/* Writes until the kernel takes no more (-EAGAIN) or the share of this turn is used up. 0, or
 * -errno. */
static int write_queued(struct websocket *w)
{
	size_t written = 0;
	int err = write_request(w);

	if (err || w->state == WEBSOCKET_ASKING)
		return err == -EAGAIN ? 0 : err;
	while (written < WRITE_SHARE && next_batch(w)) {
		ssize_t n = stream_write(&w->stream, buf_span(w->queue).p, w->batch);
		if (n < 0)
			return n == -EAGAIN ? 0 : (int)n;
		buf_take(w->queue, (size_t)n);
		w->batch -= (size_t)n;
		written += (size_t)n;
	}
	return 0;
}

/* --- the end of an open WebSocket --- */

/* Drops the queue, but for the rest of a batch that was begun. */
static void forget_queued(struct websocket *w)
{
	buf_cut(&w->tx, w->queue == &w->tx ? w->batch : 0);
	buf_cut(&w->control, w->queue == &w->control ? w->batch : 0);
	w->ping_wanted = w->pong_wanted = false;
}

/* The peer has broken the protocol: it is told so, if that can be sent at once. */
static void on_fault(struct websocket *w)
{
	if (!w->close_made) {
		forget_queued(w);
		w->close_wanted = w->rx.fault_code;
		w->orderly = write_queued(w) == 0 && !wants_to_write(w);
	}
	if (w->rx.fault_code == FRAME_CLOSE_TOO_BIG)
		go_down(w, "the service sent a frame that is far too long: %s", w->rx.fault);
	else
		go_down(w, "the service sent a frame that breaks the WebSocket protocol: %s",
			w->rx.fault);
}

/* The reason was noted when the close frame came. */
static void go_down_closed(struct websocket *w)
{
	w->orderly = !wants_to_write(w);
	end_here(w);
}

static void tell_close(struct websocket *w, const struct receive_item *item)
{
	const char *name = error_text_close_name(item->code);
	char text[TOLD_MAX];

	error_text_quote(text, sizeof(text), item->text, &w->secret);
	snprintf(w->why, sizeof(w->why), "the service closed the connection (%d%s%s)%s%s",
		 item->code, name ? ": " : "", name ? name : "", *text ? ": " : "", text);
}

/* A refusal may say why in its body, which may not have come yet. */
static void refused(struct websocket *w)
{
	struct span body = buf_span(&w->rx.bytes);
	char text[TOLD_MAX];

	error_text_quote(text, sizeof(text), body, &w->secret);
	if (*text == '<') /* a page for a browser */
		*text = '\0';
	go_down(w, "the upgrade was answered with HTTP status %d%s%s", w->end.http_status,
		*text ? ": " : "", text);
}

/* The stream has ended; err: 0 or -errno. */
static void on_stream_end(struct websocket *w, int err)
{
	const char *phrase;

	err = err ? err : w->write_fault;
	phrase = error_text_of_errno(-err);
	if (w->end.http_status && !w->end.was_open)
		refused(w);
	else if (w->peer_closed)
		go_down_closed(w);
	else if (w->close_made)
		go_down(w, "closed as asked");
	else if (err == -EPROTO)
		go_down(w, "the TLS connection broke: %s",
			w->stream.fault ? w->stream.fault : "unknown");
	else if (err)
		go_down(w, "%s", phrase ? phrase : strerror(-err));
	else if (w->state == WEBSOCKET_ASKING)
		go_down(w, "the connection was closed before the upgrade was answered");
	else
		go_down(w, "the service closed the connection without a close frame");
}

/* --- receiving --- */

static void on_message(struct websocket *w, const struct receive_item *item)
{
	uint32_t number;

	w->ops->message(w->owner, item->text,
			(item->binary ? WEBSOCKET_BINARY : 0) |
				(item->truncated ? WEBSOCKET_TRUNCATED : 0));
	/* A pong that came between the parts of a message is passed on behind it: it must follow
	 * everything that came before it. */
	number = w->pong_between;
	w->pong_between = 0;
	if (number && !w->freed && w->state == WEBSOCKET_OPEN)
		w->ops->pong(w->owner, number);
}

static void on_ping(struct websocket *w, const struct receive_item *item)
{
	memcpy(w->pong, item->text.p, item->text.n);
	w->pong_size = item->text.n;
	w->pong_wanted = true;
	kick(w);
}

/* A pong repeats the payload of the ping: a number. An unsolicited one may carry anything. */
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

static void on_pong(struct websocket *w, const struct receive_item *item)
{
	uint32_t number = pong_number(item->text);

	if (w->state != WEBSOCKET_OPEN)
		return;
	if (!number || !receive_is_within(&w->rx))
		w->ops->pong(w->owner, number);
	else
		w->pong_between = number;
}

/* A close frame is answered with its own code, and then the WebSocket is down; if it answers ours,
 * at once. */
static void on_peer_close(struct websocket *w, const struct receive_item *item)
{
	w->peer_closed = true;
	if (w->close_made) {
		snprintf(w->why, sizeof(w->why), "closed as asked");
		go_down_closed(w);
		return;
	}
	w->end.close_code = item->code;
	tell_close(w, item);
	forget_queued(w);
	w->close_wanted = item->code;
	timer_start(w->deadline, CLOSE_MS);
	set_state(w, WEBSOCKET_CLOSING);
	event_del(w->readable);
	event_del(w->more);
	kick(w);
}

static bool is_receiving(const struct websocket *w)
{
	return !w->freed && !w->peer_closed &&
	       (w->state == WEBSOCKET_OPEN || w->state == WEBSOCKET_CLOSING);
}

static void take_items(struct websocket *w)
{
	static void (*const takes[])(struct websocket * w, const struct receive_item *item) = {
		on_message, on_ping, on_pong, on_peer_close};
	struct receive_item item;
	int got = 1;

	while (is_receiving(w) && (got = receive_next(&w->rx, &item)) > 0)
		takes[item.kind](w, &item);
	if (got < 0)
		on_fault(w);
}

/* --- the answer to the upgrade --- */

static void on_established(struct websocket *w)
{
	event_del(w->deadline);
	w->end.was_open = true;
	set_state(w, WEBSOCKET_OPEN);
	w->ops->open(w->owner);
	kick(w); /* for the answers queued before */
}

static bool has_body(const struct websocket *w, uint64_t announced)
{
	size_t come = buf_len(&w->rx.bytes);

	return come >= announced || come >= TOLD_MAX;
}

static void read_refusal(struct websocket *w, const struct upgrade *answer)
{
	char text[64];

	w->end.http_status = answer->status;
	if (answer->retry_after.n && answer->retry_after.n < sizeof(text)) {
		snprintf(text, sizeof(text), "%.*s", (int)answer->retry_after.n,
			 answer->retry_after.p);
		w->end.retry_after_s = error_text_retry_after(text, time(NULL));
	}
	w->body = answer->body;
	buf_take(&w->rx.bytes, answer->head);
	timer_start(w->deadline, BODY_MS);
}

static void read_answer(struct websocket *w)
{
	struct upgrade answer;
	const char *why = NULL;
	int got;

	if (!w->end.http_status) {
		got = upgrade_read(buf_span(&w->rx.bytes), w->key, &answer, &why);
		if (got < 0)
			go_down(w, "%s", why);
		if (got <= 0)
			return;
		if (answer.status == 101) {
			buf_take(&w->rx.bytes, answer.head);
			on_established(w);
			take_items(w);
			return;
		}
		read_refusal(w, &answer);
	}
	if (has_body(w, w->body))
		refused(w);
}

/* --- events --- */

/* Reading goes on in the next turn, behind other events. The socket is not watched meanwhile: it
 * would wake us for the same bytes. */
static void read_later(struct websocket *w)
{
	event_del(w->readable);
	timer_start(w->more, 0);
}

static bool is_reading(const struct websocket *w)
{
	return is_receiving(w) || (w->state == WEBSOCKET_ASKING && !w->freed);
}

static void read_on(struct websocket *w)
{
	size_t share = 0;
	ssize_t n = 1;

	while (n > 0 && is_reading(w) && share < SHARE) {
		n = stream_read(&w->stream, receive_room(&w->rx, CHUNK), CHUNK);
		if (n <= 0)
			break;
		receive_grew(&w->rx, (size_t)n);
		share += (size_t)n;
		if (w->state == WEBSOCKET_ASKING)
			read_answer(w);
		else
			take_items(w);
		if (is_reading(w) && !stream_holds_more(&w->stream))
			n = -EAGAIN; /* epoll tells of more */
	}
	if (!is_reading(w))
		return;
	if (n > 0)
		read_later(w);
	else if (n != -EAGAIN)
		on_stream_end(w, (int)n);
	else if (w->stream.wants_write || wants_to_write(w))
		want(w, w->writable);
}

/* Writing fails when the peer has gone. Its last words may be readable. */
static void on_write_failed(struct websocket *w, int err)
{
	w->write_fault = err;
	if (is_reading(w))
		read_on(w);
	if (!w->freed && w->state != WEBSOCKET_DOWN)
		on_stream_end(w, err);
}

static void write_on(struct websocket *w)
{
	bool had_unsent = websocket_unsent(w);
	int err = write_queued(w);

	if (err) {
		on_write_failed(w, err);
		return;
	}
	if (wants_to_write(w))
		want(w, w->writable);
	else if (w->peer_closed)
		go_down_closed(w);
	if (had_unsent && !websocket_unsent(w) && w->state == WEBSOCKET_OPEN)
		w->ops->drained(w->owner);
}

/* --- the handshake --- */

static void on_shake_failed(struct websocket *w, int err)
{
	const char *refusal = w->stream.ssl ? tls_refusal(w->stream.ssl) : NULL;

	if (refusal)
		go_down(w, "the server's certificate is refused: %s", refusal);
	else if (err == -EPROTO)
		go_down(w, "the TLS handshake failed: %s",
			w->stream.fault ? w->stream.fault : "unknown");
	else if (err)
		go_down(w, "%s", strerror(-err));
	else
		go_down(w, "the TLS handshake failed: the connection was closed");
}

/* Bytes that came along with the end of the handshake are inside OpenSSL, where epoll does not see
 * them. */
static void ask(struct websocket *w)
{
	set_state(w, WEBSOCKET_ASKING);
	write_on(w);
	if (is_reading(w))
		read_on(w);
}

static void shake(struct websocket *w)
{
	int got = stream_shake(&w->stream);

	if (got > 0)
		ask(w);
	else if (got != -EAGAIN)
		on_shake_failed(w, got);
	else if (w->stream.wants_write)
		want(w, w->writable);
}

/* Bytes have come, perhaps only a part of a TLS record. */
static void tell_heard(struct websocket *w)
{
	uint64_t received = stream_received(&w->stream);

	if (w->freed || w->state != WEBSOCKET_OPEN || (w->stream.ssl && received == w->heard))
		return;
	w->heard = received;
	w->ops->heard(w->owner);
}

static void on_readable(struct websocket *w)
{
	if (w->state < WEBSOCKET_ASKING) {
		shake(w);
		return;
	}
	read_on(w);
	tell_heard(w);
}

static void on_writable(struct websocket *w)
{
	if (w->stream.wants_write)
		on_readable(w);
	else if (wants_to_write(w))
		write_on(w);
}

static void on_io(evutil_socket_t fd, short what, void *user)
{
	struct websocket *w = user;
	struct websocket_context *ctx = w->ctx;

	(void)fd;
	enter(ctx);
	if (what & EV_WRITE)
		on_writable(w);
	if ((what & EV_READ) && !w->freed && w->state != WEBSOCKET_DOWN)
		on_readable(w);
	leave(ctx);
}

static void on_more(evutil_socket_t fd, short what, void *user)
{
	struct websocket *w = user;
	struct websocket_context *ctx = w->ctx;

	(void)fd, (void)what;
	enter(ctx);
	want(w, w->readable);
	on_readable(w);
	leave(ctx);
}

static void begin(struct websocket *w)
{
	set_state(w, WEBSOCKET_SHAKING);
	want(w, w->readable);
	if (w->state == WEBSOCKET_SHAKING)
		shake(w);
}

static void on_kick(void *user)
{
	struct websocket *w = user;
	struct websocket_context *ctx = w->ctx;

	enter(ctx);
	if (w->close_wanted && w->state < WEBSOCKET_OPEN)
		go_down(w, "closed as asked before it was open");
	else if (w->state == WEBSOCKET_STARTING)
		begin(w);
	else if (wants_to_write(w) && !event_pending(w->writable, EV_WRITE, NULL))
		write_on(w);
	leave(ctx);
}

static void on_deadline(evutil_socket_t fd, short what, void *user)
{
	struct websocket *w = user;
	struct websocket_context *ctx = w->ctx;

	(void)fd, (void)what;
	enter(ctx);
	if (w->state == WEBSOCKET_ASKING && w->end.http_status)
		refused(w);
	else if (w->peer_closed)
		go_down_closed(w);
	else if (w->end.was_open)
		go_down(w, "closed, but the service did not answer the close frame in time");
	else if (w->stream.ssl && w->state < WEBSOCKET_ASKING)
		go_down(w, "timed out in the TLS handshake");
	else if (w->request)
		go_down(w, "timed out sending the request for the upgrade");
	else
		go_down(w, "timed out waiting for the upgrade to be answered");
	leave(ctx);
}

/* --- the context --- */

struct websocket_context *websocket_context_new(struct event_base *base, struct trust *trust,
						const char **why)
{
	struct websocket_context *ctx = mem_zalloc(sizeof(*ctx));

	ctx->base = base;
	LIST_INIT(&ctx->websockets);
	ctx->tls = tls_context(trust, why);
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

/* --- public functions --- */

/* Begins the stream of a new WebSocket; false, with a reason, after releasing everything. */
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
	/* Where the amount is unknown, pings wait for what the kernel holds. */
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

/* Begins when this turn of the loop ends, since the owner must not be called from within. */
struct websocket *websocket_connect(struct websocket_context *ctx, int fd,
				    const struct websocket_target *target,
				    const struct websocket_ops *ops, void *owner, const char **why)
{
	struct stream stream;

	if (!open_stream(ctx, fd, target, &stream, why))
		return NULL;
	struct websocket *w = mem_zalloc(sizeof(*w));
	*w = (struct websocket){
		.ctx = ctx,
		.ops = ops,
		.owner = owner,
		.end = {.retry_after_s = -1},
		.host = mem_strdup(target->host),
		.stream = stream,
		.readable = watch_new(ctx->base, fd, EV_READ | EV_PERSIST, on_io, w),
		.writable = watch_new(ctx->base, fd, EV_WRITE, on_io, w),
		.more = timer_new(ctx->base, on_more, w),
		.deadline = timer_new(ctx->base, on_deadline, w),
	};
	turn_step_init(&w->kick, ctx->base, on_kick, w);
	w->request = make_request(target, w->key);
	error_text_remember(&w->secret, target->path);
	receive_init(&w->rx, target->max_message);
	LIST_INSERT_HEAD(&ctx->websockets, w, entry);
	timer_start(w->deadline, target->timeout_ms);
	kick(w);
	return w;
}

void websocket_send(struct websocket *w, struct span head, struct span body)
{
	if (w->state >= WEBSOCKET_CLOSING || w->close_wanted)
		return;
	frame_append(&w->tx, FRAME_TEXT, head, body);
	if (w->state == WEBSOCKET_OPEN)
		kick(w);
}

void websocket_ping(struct websocket *w, uint32_t number)
{
	if (w->state != WEBSOCKET_OPEN || w->close_wanted)
		return;
	w->ping_wanted = true;
	w->ping_number = number;
	kick(w);
}

bool websocket_is_open(const struct websocket *w)
{
	return w->state == WEBSOCKET_OPEN && !w->close_wanted && !w->freed;
}

size_t websocket_unsent(const struct websocket *w)
{
	return buf_len(&w->tx);
}

void websocket_close(struct websocket *w, int code)
{
	if (w->state >= WEBSOCKET_CLOSING || w->close_wanted)
		return;
	w->close_wanted = code;
	if (w->state == WEBSOCKET_OPEN)
		timer_start(w->deadline, CLOSE_MS);
	kick(w);
}

void websocket_free(struct websocket *w)
{
	struct websocket_context *ctx = w->ctx;

	enter(ctx);
	w->freed = true;
	unwatch(w);
	leave(ctx);
}
