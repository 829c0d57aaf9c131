/* place.h - where connections to the service lead to: its address, perhaps a proxy before it, whose
 * certificates are believed, and how patient to be.
 *
 * There is a present place, which connections are made for; new settings make another one. The
 * former goes with the last connection that uses it, but not at once: the link that has just
 * ended may be among the callers. Places whose trust anchors are the same share the context
 * that these are kept in.
 *
 * Owns the places, their texts and contexts. Which place is the present one, and when a connection
 * leaves for another, is decided above (upstream.h). */
#pragma once

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "conn.h"
#include "stats.h"

enum { CA_DIGEST_SIZE = 32 };

struct place_settings {
	const char *shown; /* the URL, for those who ask; strings are copied */
	struct conn_way way;
	const char *ca_file;            /* or NULL */
	const unsigned char *ca_digest; /* CA_DIGEST_SIZE bytes: what the file holds */
};

struct anchors;

struct place {
	struct conn_place conn; /* its strings are these */
	struct anchors *anchors;
	struct dial_memory memory;
	char *shown, *host, *proxy_host, *proxy_login; /* the last one: secret */
	unsigned lanes;                                /* that lead there */
	LIST_ENTRY(place) of_retired;                  /* places::retired, once nobody needs it */
};

struct places {
	struct event_base *base;
	struct stats *stats;
	struct place *present; /* that lanes are made for; NULL before places_set() */
	LIST_HEAD(, place) retired;
	struct event *bury; /* frees them, from a fresh stack */
};

void places_init(struct places *p, struct event_base *base, struct stats *stats);
void places_fini(struct places *p); /* no connection leads anywhere any more */

/* A place that is not the present one yet. NULL, with a reason, when the CA file can't be used. */
struct place *place_new(struct places *p, const struct place_settings *s, const char **why);
void places_set(struct places *p, struct place *place); /* from now on it is */
/* Other times and limits; also for a former one that connections still use. */
void place_set_times(struct place *place, const struct conn_way *way);

/* One connection more leads to the present place, or one less to this one. */
struct place *place_take(struct places *p);
void place_leave(struct places *p, struct place *place);
