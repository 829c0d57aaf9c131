/* dial.h - the one way to a connected socket: from a name to TCP, and through a proxy's tunnel if
 * there is one. The WebSocket and the token requests both begin here.
 *
 * The addresses of the name (or of the proxy) are raced as RFC 8305 describes: one is tried, after
 * DIAL_STAGGER_MS or a failure the next one beside it, and the first that is connected has won. At
 * most DIAL_AT_ONCE are on their way; the oldest of them gives its place to one that has not been
 * tried yet. Each has its time; what each had to say is kept, since it is rarely the last one that
 * matters.
 *
 * What the socket is good for shows only when it is used: dial_good() says so, and this address is
 * tried first next time, while it is among the answers; dial_next() goes on with the others. One
 * that was of no use is tried last next time.
 *
 * Owns the question, the sockets until one is handed over, and the timers. It holds at most
 * DIAL_DESCRIPTORS_MAX descriptors at a time. */
#pragma once

#include <event2/event.h>
#include <stdint.h>

#include "transport/resolver.h"

enum {
	DIAL_STAGGER_MS = 250,
	DIAL_AT_ONCE = 4,
	/* The question's, before; or the sockets; or one of them, and what libcurl has for the
	 * dialogue with a proxy. */
	DIAL_DESCRIPTORS_MAX = RESOLVER_SOCKETS_MAX,
	DIAL_WHY_MAX = 500,
};

struct dial_target {
	const char *host; /* a name or an address; strings are copied */
	uint16_t port;
	const char *proxy_host; /* an HTTP proxy to go through, whose addresses are asked for
				   instead; or NULL */
	uint16_t proxy_port;
	const char *proxy_login; /* "user:password", secret; or NULL */
	int address_ms;          /* for each address, its use until dial_good() included */
	int total_ms;            /* for all of them, and the name; 0: as long as it takes */
	const struct resolver_files *files; /* NULL: the system's */
};

/* The addresses that were good and of no use the last time; lives as long as its users. All zero at
 * first. */
struct dial_memory {
	char address[RESOLVER_ADDRESS_MAX];
	char useless[RESOLVER_ADDRESS_MAX]; /* connected, and then nothing came of it */
};

struct dial_ops {
	/* A socket that is connected: non-blocking, and the owner's from now on. left_ms: what is
	 * left of its time. */
	void (*connected)(void *owner, int fd, int left_ms);
	/* There is no (other) address. why: of all of them, without secrets; valid during the call,
	 * even if the dial is freed within. */
	void (*failed)(void *owner, const char *why);
};

struct dial;

/* Never calls back from within, nor do the others. */
struct dial *dial_new(struct event_base *base, const struct dial_target *target,
		      struct dial_memory *memory, const struct dial_ops *ops, void *owner);
void dial_free(struct dial *d); /* also from within a callback */

void dial_good(struct dial *d);
/* The socket was no good, but no other is wanted now: nothing follows. */
void dial_bad(struct dial *d);
/* The socket was no good: connected() or failed() follows. */
void dial_next(struct dial *d, const char *why);
/* The same, but the peer has spoken for all its addresses: failed() follows. */
void dial_give_up(struct dial *d, const char *why);
