/* ws.h - WebSocket connections: requests, answers, and notifications to connections with a token.
 *
 * Output that is ready leaves in as few TLS records as possible. A connection with too much unsent
 * output is not read, and is dropped when notifications exceed a second bound. */
#pragma once

#include <libwebsockets.h>

#include "base/buf.h"
#include "service.h"

/* Zeroed by libwebsockets before ws_open(). */
struct ws {
	struct subscriber subscriber; /* first; in the service's list if there is a grant */
	struct lws *wsi;
	struct service *service;
	struct api_key *key;
	struct grant *grant; /* NULL: connected with an API key, no restrictions */
	struct buf in;       /* the first fragments of a message */
	struct buf out;      /* whole frames, unsent */
	size_t ready;        /* bytes of out that may be sent; the rest is delayed (--delay-ms) */
	struct buf held;     /* a struct held for each delayed frame */
	bool paused;         /* not read, because out is full */
	bool doomed;         /* too slow: about to be dropped */
	bool expired;
	lws_sorted_usec_list_t release, expiry;
};

/* 0: the upgrade is accepted. Else the HTTP status of the refusal. */
int ws_admit(struct service *sv, struct lws *wsi);

/* Events of a connection. They return the result of the libwebsockets callback: 0, or -1 to close.
 */
int ws_open(struct ws *ws, struct service *sv, struct lws *wsi);
int ws_receive(struct ws *ws, struct span piece);
int ws_writable(struct ws *ws);

void ws_close(struct ws *ws); /* frees what ws owns; may be called twice */
