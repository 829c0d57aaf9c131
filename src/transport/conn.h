/* conn.h - one connection to the service, from its name to its end.
 *
 * Asks for a connected socket (dial.h), which it hands to a link; if the service does not answer
 * there, to the next address. Each address has connect_timeout.
 * Once open, it treats a silent service as gone: after keepalive_ms without a word, also while we
 * are sending, a ping goes out; after half of that again without a word the connection has ended.
 * Parts of a message are words as well, for a while.
 *
 * Owns the dial, the link and the timer. Whether and when to connect again is
 * decided above (upstream.h). */
#pragma once

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "transport/dial.h"
#include "transport/websocket.h"
#include "base/span.h"
#include "codec/stats.h"

/* Where to, and how patiently. */
struct conn_way {
	const char *host;
	uint16_t port;
	bool tls;
	const char *proxy_host; /* an HTTP proxy to go through, whose addresses are asked for
				   instead; or NULL */
	uint16_t proxy_port;
	const char *proxy_login; /* "user:password", secret; or NULL */
	int connect_timeout_ms;
	int64_t keepalive_ms;
	size_t max_message; /* bytes; of connections that are made from now on */
};

/* What connections have in common; outlives them. */
struct conn_place {
	struct event_base *base;
	struct websocket_context *links;
	struct conn_way way;
	struct stats *stats;
	struct dial_memory *memory; /* which address was good */
};

struct conn;

struct conn_end {
	bool was_open;
	const char *why;   /* a sentence without secrets, valid during the call, even if the
			      connection is freed within */
	int http_status;   /* of a refused upgrade; 0: none came */
	int retry_after_s; /* -1: none given */
	int close_code;    /* of the service's close frame; 0: none came */
	bool dropped;      /* it was open, and has ended by itself without a close frame */
	int64_t heard_ms;  /* clock_boot_ms(): when it was heard of last, if it was open. Of sleep
			      at about that time it is taken to be before it */
};

struct conn_ops {
	void (*open)(void *owner);
	/* As websocket_ops::message(). */
	void (*message)(void *owner, struct span text, unsigned flags);
	/* The ping of this number was answered, and so were those before it. */
	void (*pong)(void *owner, uint32_t number);
	void (*drained)(void *owner); /* conn_sendable() says yes again */
	/* Exactly once, unless conn_free() came first; then conn_free() it, from within if you
	 * like. */
	void (*ended)(void *owner, const struct conn_end *end);
};

/* Never calls back from within. path holds a secret: its copy is wiped. */
struct conn *conn_new(const struct conn_place *place, const char *path, const struct conn_ops *ops,
		      void *owner);
void conn_free(struct conn *c); /* at once; no callback any more */

/* The place's keepalive has changed: it counts from now on, and no sooner than the next turn. */
void conn_retime(struct conn *c);
/* The machine has slept, say: is the peer still there? A ping goes out now, unless one is. */
void conn_check(struct conn *c);
int64_t conn_heard_ms(const struct conn *c); /* as conn_end::heard_ms */
void conn_send(struct conn *c, struct span head,
	       struct span body); /* as websocket_send(), while open */
/* Is there room for more? If not, drained() follows. */
bool conn_sendable(struct conn *c);
size_t conn_unsent(const struct conn *c); /* bytes that the kernel has not taken yet */
uint32_t conn_ping(struct conn *c);       /* its number, for pong(); numbers grow */
/* A close frame behind what is queued; ended() follows. Only while open. */
void conn_close(struct conn *c, int code);
