/* wiring.h - the rooms of the daemon, and how they are joined.
 *
 * Each room knows those below it by their headers and those above it by a table of functions. The
 * tables are in wiring.c: a function there hands a call on to another room, adds the clock, or
 * chooses between two rooms. Where one room serves another directly, as the router and the
 * subscriptions serve the connection, the table names that room's own functions.
 *
 * Owns all rooms, but neither the event loop nor the configuration. */
#pragma once

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "clients/dispatch.h"
#include "codec/stats.h"
#include "config/config.h"
#include "daemon/tokens.h"
#include "gateway/http.h"
#include "gateway/ws_door.h"

struct listener_settings;
struct tcp_doors;

struct wiring {
	/* Set before wiring_start(). */
	struct event_base *base;
	struct config *config;       /* in force; the daemon's */
	unsigned descriptors_before; /* open when the daemon started */

	struct stats stats;
	int64_t started, started_wall;
	char no_room[200];         /* why a client is refused */
	bool misconfigured;        /* the last reload was refused */
	unsigned clients_possible; /* within the limit of open files; may be below max_clients */

	/* NULL until it is made, and after it was freed. */
	struct event *cache_due; /* cache_expire() */
	struct notify *notify;
	struct router *router;
	struct cache *cache;
	struct subscriptions *subscriptions;
	struct access *access;
	struct token_minter *minter;
	struct nexus *nexus;
	struct tokens tokens;
	struct dispatch dispatch;
	struct clients *clients;
	struct http_settings http;   /* of clients that speak HTTP */
	struct ws_door ws_door;      /* ... and of those that then speak WebSocket */
	struct tcp_doors *tcp_doors; /* NULL also while the daemon stops */
	struct listener *listener;   /* NULL also while the daemon stops */
	struct upstream *upstream;
	struct metrics_page *metrics_page; /* NULL also when no page is served */
	struct event *deadline;            /* router_expire() is due */
};

/* Makes the rooms. 0, or -errno, which is logged; wiring_stop() follows in both cases. */
int wiring_start(struct wiring *w);
void wiring_stop(struct wiring *w);

/* Raises the limit of open files for so many clients (descriptors.h). False, logged: the limit is
 * too low even for the daemon. */
bool wiring_reserve_descriptors(struct wiring *w, unsigned max_clients);

/* ---- for a reload ---- */

/* Puts these access rules into force, for connected clients as well. The former rules may be freed
 * afterwards. */
void wiring_set_access_rules(struct wiring *w, const struct config *config);
/* As listener_new(). */
int wiring_new_listener(struct wiring *w, const struct listener_settings *settings,
			struct listener **out);
/* Makes the metrics page, if the configuration has one; the former page is the caller's to free.
 * may_wait: as socketpath.h has it. 0, or -errno, which is logged. */
int wiring_start_metrics(struct wiring *w, const struct config *config, bool may_wait);
/* Goes on accepting clients, if there is room for another. */
void wiring_accept_more(struct wiring *w);
/* Tells the service manager how the connection is. */
void wiring_tell_state(struct wiring *w);
