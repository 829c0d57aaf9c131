/* resolver.h - a host name into its addresses, without blocking.
 *
 * Numeric addresses are answered, also with a scope (fe80::1%eth0). localhost and all names below
 * it are this machine and never leave it (RFC 6761). Then the hosts file is read, then DNS is asked
 * through c-ares: it knows several name servers and moves on from one that has no route, refuses,
 * fails or is silent; it asks truncated answers again over TCP, and it knows EDNS, search lists and
 * ndots. Each question has a DNS client of its own, so that a changed /etc/resolv.conf or
 * /etc/hosts counts at once and nothing wakes up between questions. Other sources of nsswitch.conf
 * (mDNS, LDAP) are not asked.
 *
 * A question holds at most RESOLVER_SOCKETS_MAX descriptors. */
#pragma once

#include <event2/event.h>
#include <stddef.h>

enum {
	RESOLVER_ADDRESS_MAX = 64, /* with a scope and the NUL */
	RESOLVER_ADDRESSES_MAX = 64,
	RESOLVER_SERVERS_MAX = 3, /* of those in resolv.conf, the first; as the C library does */
	RESOLVER_SOCKETS_MAX = 2 * RESOLVER_SERVERS_MAX, /* UDP and TCP */
};

struct resolver_answer {
	size_t n; /* 0: failed, why says */
	char address[RESOLVER_ADDRESSES_MAX]
		    [RESOLVER_ADDRESS_MAX]; /* numeric, IPv4 and IPv6 interleaved, IPv4 first */
	const char *why;                    /* a phrase, static */
};

struct resolver; /* one question */
typedef void resolver_done(void *owner, const struct resolver_answer *answer);

/* Never calls back from within. After done was called the question is gone; before,
 * resolver_cancel() ends it and done is not called. */
struct resolver *resolver_ask(struct event_base *base, const char *host, int timeout_ms,
			      resolver_done *done, void *owner);
void resolver_cancel(struct resolver *r);

/* The same with other files than the system's. */
struct resolver_files {
	const char *resolv_conf, *hosts;
};
struct resolver *resolver_ask_with(struct event_base *base, const struct resolver_files *files,
				   const char *host, int timeout_ms, resolver_done *done,
				   void *owner);
