/* descriptors.h - how many files the process may have open, and how many clients that leaves room
 * for.
 *
 * The daemon's own needs come first: a client never gets a descriptor that the daemon may need
 * itself, to reconnect after a loss or to read its settings. Where the limit is low, the daemon
 * keeps a fifth, but at least DESCRIPTORS_OWN_MIN: then it can't do everything at once, and has to
 * try some things again. With fewer than that and room for a few clients it does not start. */
#pragma once

#include <stdbool.h>

#include "clients/refusals.h"
#include "service/metrics_page.h"

enum {
	DESCRIPTORS_LOOP = 10,        /* epoll, the signals' pair, two alarms, the log; libcurl's
					 wake-up pairs, for two users of it */
	DESCRIPTORS_LISTENING = 6,    /* the socket and the page, both twice during a reload, with
					 their folder and the one that is being made */
	DESCRIPTORS_CONNECTIONS = 26, /* to the service: the present one, the next one by several
					 addresses, 16 that finish, some that close */
	DESCRIPTORS_NAMES = 14,       /* questions to name servers */
	DESCRIPTORS_TOKENS = 14,      /* five token requests at once, by several addresses each */
	DESCRIPTORS_HTTP = 16,        /* sockets of http_address: eight, twice during a reload */
	DESCRIPTORS_NEXUS = 12,       /* eight requests to HPKV Nexus at once, and more addresses */
	DESCRIPTORS_FILES = 8,        /* settings, key and trust anchors; user and host databases;
					 /proc for the figures; the service manager */

	/* All of them, in addition to descriptors that are open when the daemon starts. */
	DESCRIPTORS_OWN = DESCRIPTORS_LOOP + DESCRIPTORS_LISTENING + DESCRIPTORS_CONNECTIONS +
			  DESCRIPTORS_NAMES + DESCRIPTORS_TOKENS + DESCRIPTORS_HTTP +
			  DESCRIPTORS_NEXUS + DESCRIPTORS_FILES + METRICS_PAGE_CONNECTIONS_MAX +
			  REFUSALS_MAX,
	/* One connection, its successor, one name, one token, a reload and a look at the figures.
	 */
	DESCRIPTORS_OWN_MIN = 28,
	DESCRIPTORS_CLIENTS_MIN = 4,
};

/* How many are open now, of the numbers that a shell or supervisor could have passed. */
unsigned descriptors_open(void);

/* Raises the soft limit to the number that max_clients need, as far as the hard limit allows. open:
 * how many were open at the start. Returns how many clients there is room for; UINT_MAX: for
 * max_clients. -1, logged: there are too few even for DESCRIPTORS_OWN_MIN and
 * DESCRIPTORS_CLIENTS_MIN. */
long long descriptors_reserve(unsigned max_clients, unsigned open);
