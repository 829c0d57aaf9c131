/* resolver.h - a host name into its addresses, without blocking.
 *
 * libevent's resolver, made anew for each question, so that a changed /etc/resolv.conf or /etc/hosts counts at once and
 * nothing wakes up between questions. Numeric addresses are answered too. Sources other than the hosts file and DNS
 * (mDNS, LDAP: nsswitch.conf) are not asked. */
#pragma once

#include <event2/event.h>
#include <stddef.h>

enum { RESOLVER_ADDRESS_MAX = 46, RESOLVER_ADDRESSES_MAX = 16 };

struct resolver_answer {
	size_t n; /* 0: failed, why says */
	char address[RESOLVER_ADDRESSES_MAX][RESOLVER_ADDRESS_MAX]; /* numeric, IPv6 and IPv4 interleaved, first family first */
	const char *why;
};

struct resolver; /* one question */
typedef void resolver_done(void *owner, const struct resolver_answer *answer);

/* Never calls done from within. After done was called the question is gone; before, resolver_cancel() ends it and done
 * is not called. */
struct resolver *resolver_ask(struct event_base *base, const char *host, int timeout_ms, resolver_done *done, void *owner);
void resolver_cancel(struct resolver *r);
