/* resolver.h - a host name into its addresses, without blocking.
 *
 * libevent's DNS client, made anew for each question, so that a changed /etc/resolv.conf or
 * /etc/hosts counts at once and nothing wakes up between questions. Numeric addresses are answered
 * too, and localhost always is this machine. Sources other than the hosts file and DNS (mDNS, LDAP:
 * nsswitch.conf) are not asked. */
#pragma once

#include <event2/event.h>
#include <stddef.h>

enum { RESOLVER_ADDRESS_MAX = 46, RESOLVER_ADDRESSES_MAX = 16 };

struct resolver_answer {
	size_t n; /* 0: failed, why says */
	char address[RESOLVER_ADDRESSES_MAX]
		    [RESOLVER_ADDRESS_MAX]; /* numeric, IPv4 and IPv6 interleaved, IPv4 first */
	const char *why;                    /* a phrase, static */
};

struct resolver; /* one question */
typedef void resolver_done(void *owner, const struct resolver_answer *answer);

/* Never calls done from within. After done was called the question is gone; before,
 * resolver_cancel() ends it and done is not called. What the DNS client still holds then is
 * released by the loop's next turn. */
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
