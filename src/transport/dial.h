/* dial.h - the only way to a connected socket: from a name to TCP, and through a proxy's tunnel if
 * there is one. The WebSocket and the token requests both start here.
 *
 * The addresses of the name (or of the proxy) are raced as RFC 8305 describes: the next address is
 * tried DIAL_STAGGER_MS after the one before, or as soon as that has failed, and the first to
 * connect wins. At most DIAL_AT_ONCE are connecting at a time; beyond that, the oldest is given up
 * for an address that was not tried yet. Each address has its time. The reasons of all failures are
 * kept, since the last one is rarely the one that matters.
 *
 * A socket proves good only in use: dial_good() says so, and its address is tried first the next
 * time, if it is still among the answers. dial_next() goes on with the other addresses; the one
 * that failed in use is tried last the next time.
 *
 * Owns the name query, the sockets until one is handed over, and the timers. It holds at most
 * DIAL_DESCRIPTORS_MAX descriptors at a time. */
#pragma once

#include <event2/event.h>
#include <stdint.h>

#include "transport/resolver.h"

enum {
	DIAL_STAGGER_MS = 250,
	DIAL_AT_ONCE = 4,
	/* The query's first; then the sockets; then one of them and libcurl's for the dialogue with
	 * a proxy. */
	DIAL_DESCRIPTORS_MAX = RESOLVER_SOCKETS_MAX,
	DIAL_WHY_MAX = 500,
};

struct dial_target {
	const char *host; /* a name or an address; strings are copied */
	uint16_t port;
	const char *proxy_host; /* an HTTP proxy to go through, whose addresses are looked up
				   instead; or NULL */
	uint16_t proxy_port;
	const char *proxy_login; /* "user:password", secret; or NULL */
	int address_ms;          /* for each address, its use until dial_good() included */
	int total_ms;            /* for all of them, and the name; 0: unlimited */
	const struct resolver_files *files; /* NULL: the system's */
};

/* The addresses that worked and failed the last time; outlives its users. All zero at first. */
struct dial_memory {
	char address[RESOLVER_ADDRESS_MAX];
	char useless[RESOLVER_ADDRESS_MAX]; /* it connected, and failed in use */
};

struct dial_ops {
	/* A connected socket: non-blocking, and the owner's from now on. left_ms: what is left of
	 * its time. */
	void (*connected)(void *owner, int fd, int left_ms);
	/* There is no (other) address. why: the reasons of all, without secrets; valid during the
	 * call, even if the dial is freed within. */
	void (*failed)(void *owner, const char *why);
};

struct dial;

/* None of these functions calls back from within. */
struct dial *dial_new(struct event_base *base, const struct dial_target *target,
		      struct dial_memory *memory, const struct dial_ops *ops, void *owner);
void dial_free(struct dial *d); /* also from within a callback */

/* The socket has proved good: its address goes first the next time. */
void dial_good(struct dial *d);
/* The socket failed in use, and no other is wanted now: nothing follows. */
void dial_bad(struct dial *d);
/* The socket failed in use: connected() or failed() follows. */
void dial_next(struct dial *d, const char *why);
/* The same, but the peer has answered for all its addresses: failed() follows. */
void dial_give_up(struct dial *d, const char *why);
