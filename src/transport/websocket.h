/* websocket.h - one WebSocket to the service, from the connected socket to its close.
 *
 * Does the TLS handshake and the upgrade, and moves whole messages. It holds no policy: its users
 * decide when to connect, whom to trust and what a message means. It never connects (the caller
 * brings a connected socket, dial.h; the host name serves SNI, Host and the certificate check),
 * never blocks, never follows a redirect, and always checks certificate and host name.
 *
 * Sending: messages queued within one turn of the loop leave in as few TLS records and writes as
 * possible. When the kernel takes no more (EAGAIN), the rest stays queued until the socket is
 * writable. The kernel is given little more than the peer has room for, so that a ping overtakes
 * the rest. Receiving: messages are passed on from the receive buffer, without a copy. One turn
 * reads a bounded share, so that local clients get theirs. */
#pragma once

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"
#include "transport/target.h"

struct trust;
struct websocket_context; /* TLS settings; outlives its WebSockets */
struct websocket;

/* When the authorities can't be read: NULL with *why set (a sentence, static or valid until the
 * next call). */
struct websocket_context *websocket_context_new(struct event_base *base, struct trust *trust,
						const char **why);
void websocket_context_free(struct websocket_context *ctx); /* no WebSocket of it may be alive */

/* Why a WebSocket ended. Strings are valid during the call. */
struct websocket_end {
	bool was_open;
	/* A phrase without secrets. When the service refused the upgrade or closed the connection
	 * it contains the service's own words, escaped and cut. */
	const char *why;
	int http_status;   /* of a refused upgrade; 0: none came */
	int retry_after_s; /* -1: none given */
	int close_code;    /* of the service's close frame, 1005 for one without a code; 0: no close
			      frame came, or one with an invalid code, or only the answer to ours */
};

enum websocket_message_flags { WEBSOCKET_BINARY = 1, WEBSOCKET_TRUNCATED = 2 };

struct websocket_ops {
	void (*open)(void *owner);
	/* A whole message, valid until this returns. TRUNCATED: it was longer than max_message;
	 * these are its first bytes. The receiver may call websocket_send(), websocket_ping(),
	 * websocket_close() and websocket_free() on this WebSocket from within. */
	void (*message)(void *owner, struct span text, unsigned flags);
	/* Bytes have come, perhaps only a part of a message: the peer is alive. Allows the same
	 * calls. */
	void (*heard)(void *owner);
	/* The ping of this number was answered, and so were those before it. All messages that came
	 * before the answer were passed on, and so was the message whose parts it came between. 0:
	 * an unsolicited pong. */
	void (*pong)(void *owner, uint32_t number);
	/* The kernel has taken the whole queue: told each time, however short the queue was. */
	void (*drained)(void *owner);
	/* The WebSocket is down: exactly once for each that websocket_connect() returned, unless
	 * websocket_free() came first. The owner then calls websocket_free(), also from within. */
	void (*closed)(void *owner, const struct websocket_end *end);
};

/* fd: connected to the service, perhaps through a proxy's tunnel, and non-blocking. It belongs to
 * the WebSocket from now on, also when NULL is returned: the target is invalid (its path is too
 * long, say), *why says how. Never calls back from within. */
struct websocket *websocket_connect(struct websocket_context *ctx, int fd,
				    const struct websocket_target *target,
				    const struct websocket_ops *ops, void *owner, const char **why);

/* Queues one text message, head and body joined. */
void websocket_send(struct websocket *w, struct span head, struct span body);
/* Overtakes everything queued; pong() follows. number: not 0. */
void websocket_ping(struct websocket *w, uint32_t number);
/* False before it is open, and after a close frame was sent or received: what is sent then is lost.
 */
bool websocket_is_open(const struct websocket *w);
/* Bytes queued and not taken by the kernel yet. */
size_t websocket_unsent(const struct websocket *w);
/* Queues a close frame behind everything else; closed() follows. */
void websocket_close(struct websocket *w, int code);
void websocket_free(struct websocket *w); /* at once; no callback any more */
