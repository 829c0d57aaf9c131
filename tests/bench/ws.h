/* ws.h - as much of WebSocket (RFC 6455) as two of our own tools need to talk: the upgrade, and
 * whole frames.
 *
 * Not for strangers: extensions, fragments and the answer to the handshake's challenge are not
 * looked at. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "conn.h"

enum ws_opcode { WS_TEXT = 1, WS_CLOSE = 8, WS_PING = 9, WS_PONG = 10 };

struct ws_frame {
	int opcode;
	char *p; /* the payload, unmasked where it lies */
	size_t n;
	size_t whole; /* bytes of the frame, its head included */
};

/* 1: *f is the frame that lies at p. 0: it is not whole yet. -1: this can't be served. */
int ws_frame_at(char *p, size_t n, struct ws_frame *f);

/* Appends a frame; clients mask theirs. The text is two parts joined. */
void ws_append(struct buf *out, enum ws_opcode opcode, bool mask, struct span head,
	       struct span body);

/* The request for an upgrade lies in in: 1: it was taken and its answer appended to out; 0: not
 * whole yet; -1: no. */
int ws_serve_upgrade(struct buf *in, struct buf *out);

/* Connects to PORT as a client, through the upgrade; waits for that, then stops blocking. */
void ws_connect(struct conn *c, const char *port, SSL_CTX *tls);
