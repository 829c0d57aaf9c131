/* conn.h - one connection to the service, from its name to its end.
 *
 * Gets a connected socket from dial.h and opens a WebSocket on it; if the service does not answer
 * at that address, it goes on to the next. Each address has connect_timeout.
 *
 * Keepalive: after keepalive_ms without a byte from the service, also while requests go out, it
 * sends a ping; after half of that again without a byte it ends the connection. Bytes of an
 * unfinished message count as well, for a while.
 *
 * Owns the dial, the WebSocket and the timer. upstream.h decides when to connect again. */
#pragma once

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "transport/dial.h"
#include "transport/websocket.h"
#include "base/span.h"
#include "codec/stats.h"

/* Where to connect, and how long to wait. */
struct conn_settings {
	const char *host;
	uint16_t port;
	bool tls;
	const char *proxy_host; /* an HTTP proxy to go through, whose addresses are looked up
				   instead; or NULL */
	uint16_t proxy_port;
	const char *proxy_login; /* "user:password", secret; or NULL */
	int connect_timeout_ms;
	int64_t keepalive_ms;
	size_t max_message; /* bytes; of connections made from now on */
};

/* What the connections to one endpoint share; outlives them. */
struct conn_shared {
	struct event_base *base;
	struct websocket_context *websockets;
	struct conn_settings settings;
	struct stats *stats;
	struct dial_memory *memory; /* which addresses worked and failed last */
};

struct conn;

struct conn_end {
	const char *why;   /* a sentence without secrets, valid during the call, even if the
			      connection is freed within */
	int http_status;   /* of a refused upgrade; 0: none came */
	int retry_after_s; /* -1: none given */
	int close_code;    /* of the service's close frame; 0: none came */
	bool dropped;      /* it was open, and has ended without a close frame */
	int64_t heard_ms;  /* clock_boot_ms() of the last bytes received, if it was open. If the
			      machine slept around then: a time before the sleep */
};

struct conn_ops {
	void (*open)(void *owner);
	/* As websocket_ops::message(). */
	void (*message)(void *owner, struct span text, unsigned flags);
	/* The ping of this number was answered, and so were those before it. */
	void (*pong)(void *owner, uint32_t number);
	void (*drained)(void *owner); /* conn_sendable() is true again */
	/* Exactly once, unless conn_free() came first. The owner then calls conn_free(), also from
	 * within. */
	void (*ended)(void *owner, const struct conn_end *end);
};

/* Never calls back from within. path holds a secret: its copy is overwritten. */
struct conn *conn_new(const struct conn_shared *shared, const char *path,
		      const struct conn_ops *ops, void *owner);
void conn_free(struct conn *c); /* at once; no callback any more */

/* keepalive_ms has changed: the new value counts from the next turn of the loop on. */
void conn_retime(struct conn *c);
/* Is the peer still there, after a sleep say? Sends a ping now, unless one is unanswered. */
void conn_check(struct conn *c);
int64_t conn_heard_ms(const struct conn *c); /* as conn_end::heard_ms */
/* As websocket_send(), while open. */
void conn_send(struct conn *c, struct span head, struct span body);
/* Is there room for more? Else drained() follows. */
bool conn_sendable(struct conn *c);
size_t conn_unsent(const struct conn *c); /* bytes not taken by the kernel yet */
/* Returns the ping's number, for pong(); numbers grow. Without an answer in half of keepalive_ms
 * the connection ends, whatever else it brings. */
uint32_t conn_ping(struct conn *c);
/* Sends a close frame behind the queue; ended() follows. Only while open. */
void conn_close(struct conn *c, int code);
