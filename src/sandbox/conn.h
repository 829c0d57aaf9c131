/* conn.h - one connection to the sandbox: bytes in and out, in TLS or not; HTTP at first, and a
 * WebSocket once a request has asked for it.
 *
 * It belongs to the server, which hears of its end. Its end always takes one more turn of the loop,
 * so that whoever has asked for it can go on with what it has. */
#pragma once

#include <event2/bufferevent.h>
#include <openssl/ssl.h>

#include "http.h"
#include "rest.h"
#include "service.h"
#include "ws.h"

struct conn {
	struct conn *prev, *next; /* conn_list */
	struct conn_list *list;
	struct service *service;
	struct event_base *base;
	struct bufferevent *bev;
	struct event *end; /* frees it */
	struct http http;
	struct rest rest;
	struct ws ws;
	enum {
		CONN_HTTP,
		CONN_WEBSOCKET,
		CONN_FLUSHING,  /* ends once all has been sent, */
		CONN_LINGERING, /* and the other has read it */
		CONN_DEAD
	} state;
};

struct conn_list {
	struct conn *first;
};

/* Takes over fd. ctx NULL: no TLS. */
void conn_new(struct conn_list *list, struct service *sv, struct event_base *base, int fd,
	      SSL_CTX *ctx);
void conn_free(struct conn *c);

void conn_send(struct conn *c, struct span bytes);
size_t conn_unsent(const struct conn *c);

/* Stops reading, or goes on with it. */
void conn_pause(struct conn *c, bool pause);

void conn_finish(struct conn *c); /* ends it once all has been sent */
void conn_drop(struct conn *c);   /* ends it now */

/* The response to the request has been sent, and the connection is to serve the next. */
void conn_next_request(struct conn *c);
