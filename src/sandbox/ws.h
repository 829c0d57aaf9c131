/* ws.h - the WebSocket connections: a message in, an answer out; notifications to those that came
 * with a token.
 *
 * All that is ready for a connection leaves in as few TLS records as it fits. A connection is not
 * read while it has too much untaken output, and one that lets notifications pile up beyond a bound
 * is dropped. */
#pragma once

#include <libwebsockets.h>

#include "base/buf.h"
#include "service.h"

/* Zeroed by libwebsockets before ws_open(). */
struct ws {
	struct subscriber subscriber; /* first; in the service's list if it has a grant */
	struct lws *wsi;
	struct service *service;
	struct api_key *key;
	struct grant *grant; /* NULL: came with an API key and may do everything */
	struct buf in;       /* the beginning of a message that comes in fragments */
	struct buf out;      /* whole frames */
	size_t ready; /* so many bytes of out may be sent now; the others are held back (--delay-ms)
		       */
	struct buf held; /* struct held of the others */
	bool paused;     /* not read, for want of room in out */
	bool doomed;     /* too slow: about to be dropped */
	bool expired;
	lws_sorted_usec_list_t release, expiry;
};

/* 0: the request for an upgrade may go on. Else the HTTP status to refuse it with. */
int ws_admit(struct service *sv, struct lws *wsi);

/* These return what the libwebsockets callback has to: 0, or -1 to close. */
int ws_open(struct ws *ws, struct service *sv, struct lws *wsi);
int ws_receive(struct ws *ws, struct span piece);
int ws_writable(struct ws *ws);

void ws_close(struct ws *ws); /* frees what it has; may be called twice */
