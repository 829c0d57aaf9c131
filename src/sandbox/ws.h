/* ws.h - the WebSocket connections: a message in, an answer out; notifications to those that came
 * with a token.
 *
 * A connection is not read while it has too much untaken output, and one that lets notifications
 * pile up beyond a bound is dropped. */
#pragma once

#include <event2/event.h>

#include "base/buf.h"
#include "codec/ws_frames.h"
#include "http.h"
#include "service.h"

enum { WS_OUT_LOW = 512 * 1024 }; /* untaken output from which on a connection is read again */

struct conn;

/* Zeroed before ws_open(). */
struct ws {
	struct subscriber subscriber; /* first; in the service's list if it has a grant */
	struct conn *conn;            /* NULL: not open */
	struct service *service;
	struct api_key *key;
	struct grant *grant; /* NULL: came with an API key and may do everything */
	struct ws_reader *reader;
	struct buf out;  /* whole frames that are held back (--delay-ms) */
	struct buf held; /* struct held of them */
	struct event *release, *expiry;
	bool paused; /* not read, for want of room */
};

/* The upgrade that http's request asks for. 0: the 101 has been sent. Else the HTTP status to
 * refuse it with. */
int ws_open(struct ws *ws, struct conn *conn, const struct http *http);

size_t ws_receive(struct ws *ws, struct span data); /* how much of it it has taken */
void ws_writable(struct ws *ws);

void ws_close(struct ws *ws); /* frees what it has; may be called twice */
