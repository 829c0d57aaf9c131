/* resolver.h - resolves a host name to addresses, without blocking.
 *
 * Numeric addresses are answered, also with a scope (fe80::1%eth0). localhost and all names below
 * it are this machine and never leave it (RFC 6761). Then the hosts file is read, then DNS is asked
 * through c-ares: it knows several name servers, moves on from one that has no route, refuses,
 * fails or is silent, repeats truncated answers over TCP, and supports EDNS, search lists and
 * ndots. Each query has a DNS client of its own, so that a changed /etc/resolv.conf or /etc/hosts
 * counts at once and nothing wakes up between queries. Other sources of nsswitch.conf (mDNS, LDAP)
 * are not asked.
 *
 * A query holds at most RESOLVER_SOCKETS_MAX descriptors. */
#pragma once

#include <event2/event.h>
#include <stddef.h>

enum {
	RESOLVER_ADDRESS_MAX = 64, /* with a scope and the NUL */
	RESOLVER_ADDRESSES_MAX = 64,
	RESOLVER_SERVERS_MAX = 3, /* the first ones of resolv.conf are used, as by the C library */
	RESOLVER_SOCKETS_MAX = 2 * RESOLVER_SERVERS_MAX, /* UDP and TCP */
};

struct resolver_answer {
	size_t n; /* 0: the query failed, see why */
	char address[RESOLVER_ADDRESSES_MAX]
		    [RESOLVER_ADDRESS_MAX]; /* numeric, IPv4 and IPv6 interleaved, IPv4 first */
	const char *why;                    /* a phrase, static */
};

struct resolver; /* one query */
typedef void resolver_done(void *owner, const struct resolver_answer *answer);

/* Never calls back from within. Once done was called the query is gone; before that,
 * resolver_cancel() ends it without a call. */
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
