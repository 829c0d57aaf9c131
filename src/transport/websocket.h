/* websocket.h - one WebSocket to the service, from the connected socket to its close.
 *
 * It shakes hands (TLS, the upgrade), moves whole messages, and holds no policy: when to connect,
 * whom to believe and what a message means is decided above. It never connects (the caller brings a
 * connected socket, dial.h; the host name serves SNI, Host and the certificate check), never
 * blocks, never follows a redirect, and always checks certificate and host name.
 *
 * Sending: messages queued within one turn of the loop leave in as few TLS records and writes as
 * possible; the kernel is given little more than it can send, so that a ping overtakes
 * the rest. Receiving: messages are handed on where they lie; beyond a share per turn,
 * local clients get theirs first. */
#pragma once

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"
#include "transport/target.h"

struct websocket_context; /* TLS settings; outlives its links */
struct websocket;

/* ca_file: an extra trust anchor (PEM) or NULL. NULL with *why set (a sentence, static or owned by
 * the context maker until the next call) when the file can't be used. */
struct websocket_context *websocket_context_new(struct event_base *base, const char *ca_file,
						const char **why);
void websocket_context_free(struct websocket_context *ctx); /* no link of it may be alive */

/* Why a link ended. Strings are valid during the call. */
struct websocket_end {
	bool was_open;
	/* A phrase without secrets. When the service has refused the upgrade or closed the
	 * connection it tells the service's own words, escaped and cut. */
	const char *why;
	int http_status;   /* of a refused upgrade; 0: none came */
	int retry_after_s; /* -1: none given */
	int close_code;    /* of the service's close frame, 1005 for one without a code; 0: none
			      came, or one with a code that must not be sent, or the answer to
			      ours */
};

enum websocket_message_flags { WEBSOCKET_BINARY = 1, WEBSOCKET_TRUNCATED = 2 };

struct websocket_ops {
	void (*open)(void *owner);
	/* A whole message, valid until it returns. TRUNCATED: it was longer than max_message, these
	 * are its first bytes. The receiver may call websocket_send(), websocket_ping(),
	 * websocket_close() and websocket_free() on this link from within. */
	void (*message)(void *owner, struct span text, unsigned flags);
	/* Bytes have come, if only a part of a message: the peer is alive. Calls as above. */
	void (*heard)(void *owner);
	/* The ping of this number was answered, and so were those before it, behind all that came
	 * before the answer, a message whose parts it came between included; 0: a pong that is the
	 * answer to none of ours. */
	void (*pong)(void *owner, uint32_t number);
	/* The kernel has taken all that was queued: each time, however little it was. */
	void (*drained)(void *owner);
	/* The link is down: exactly once for each link that websocket_connect() returned, unless
	 * websocket_free() came first. The owner then calls websocket_free(), from within if it
	 * likes. */
	void (*closed)(void *owner, const struct websocket_end *end);
};

/* fd: connected to the service, perhaps through a proxy's tunnel, and non-blocking. It is the
 * link's from now on, also when NULL is returned: the target can't be connected to (a path that is
 * too long, say), *why says. The owner is not called from within. */
struct websocket *websocket_connect(struct websocket_context *ctx, int fd,
				    const struct websocket_target *target,
				    const struct websocket_ops *ops, void *owner, const char **why);

void websocket_send(struct websocket *l, struct span head,
		    struct span body); /* one text message, the two joined */
/* Sent before anything queued; pong() follows. number: not 0. */
void websocket_ping(struct websocket *l, uint32_t number);
/* False before it is open, and once a close frame was sent or received: what is sent then is lost.
 */
bool websocket_is_open(const struct websocket *l);
size_t
websocket_unsent(const struct websocket *l); /* bytes queued and not yet taken by the kernel */
void websocket_close(struct websocket *l,
		     int code);           /* close frame after what is queued; closed() follows */
void websocket_free(struct websocket *l); /* at once; no callback any more */
