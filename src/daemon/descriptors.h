/* descriptors.h - how many files this process may have open, and how many clients that leaves room
 * for.
 *
 * The daemon's own needs come first: clients get no descriptor that it may need itself, to connect
 * again after a loss, say, or to read its settings. Where the limit is low it makes do with a
 * fifth, DESCRIPTORS_OWN_MIN at least: then not all that it may do at once can be done at once, and
 * some of it has to be tried again. Below that and a few clients there is no daemon. */
#pragma once

#include <stdbool.h>

#include "clients/client.h"
#include "service/metrics_page.h"

enum {
	DESCRIPTORS_LOOP = 12,     /* the loop, its signals, alarms; the libraries' own */
	DESCRIPTORS_LISTENING = 6, /* the socket and the page, both twice while a reload moves
				      them, their folder, and the one that is being made */
	DESCRIPTORS_LINKS = 26,    /* connections to the service: the present one, the next one by
				      several addresses, 16 that finish, those that say goodbye */
	DESCRIPTORS_NAMES = 14,    /* questions to name servers */
	DESCRIPTORS_TOKENS = 14,   /* five token requests at once, by several addresses each */
	DESCRIPTORS_FILES = 8,     /* settings, key and trust anchors; user and host databases; the
				      figures; the service manager */

	/* All of them, beside those that are open when the daemon starts. */
	DESCRIPTORS_OWN = DESCRIPTORS_LOOP + DESCRIPTORS_LISTENING + DESCRIPTORS_LINKS +
			  DESCRIPTORS_NAMES + DESCRIPTORS_TOKENS + DESCRIPTORS_FILES +
			  METRICS_PAGE_CONNECTIONS_MAX + CLIENTS_REFUSED_MAX,
	/* One connection, its successor, one name, one token, a reload and a look at the figures.
	 */
	DESCRIPTORS_OWN_MIN = 28,
	DESCRIPTORS_CLIENTS_MIN = 4,
};

/* How many are open now, of those that a shell or supervisor could have passed. */
unsigned descriptors_open(void);

/* Raises the soft limit to what max_clients need, as far as the hard one allows. open: how many
 * were open at the start. Returns for how many clients there is room; UINT_MAX: for max_clients.
 * -1: there are too few even for DESCRIPTORS_OWN_MIN and DESCRIPTORS_CLIENTS_MIN, which it has
 * logged. */
long long descriptors_reserve(unsigned max_clients, unsigned open);
