/* upstream.h - the connection to the service: its state, and what the rest of the daemon learns
 * from it.
 *
 * One connection is the main one: requests go out on it, and its notifications are passed on. The
 * states are those of the status answer; set_state() in upstream.c is the only function that
 * changes them, and logs each change with its cause. A lost connection is made again, for ever.
 *
 * attempts.h decides when a connection is made, and whether with a token or the API key. While the
 * main connection works, another one may be made and take its place (connections.h): because other
 * keys are subscribed to, the token ages, or the settings name another service or key. If the new
 * connection fails on the way, nothing has changed. If the main one fails after it has brought
 * everything that the new one can't bring, the new one takes over at once and nothing is lost;
 * before that, it is a loss.
 *
 * Owns the connections, the endpoints that they lead to, and the attempts. The users decide what
 * messages mean (struct upstream_ops). */
#pragma once

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"
#include "codec/notification.h"
#include "codec/stats.h"
#include "codec/wire.h"
#include "upstream/attempts.h"
#include "upstream/endpoint.h"
#include "upstream/handover.h"

enum upstream_state {
	UPSTREAM_CONNECTING, /* minting a token, resolving, connecting, upgrading, first ping */
	UPSTREAM_CONNECTED,
	UPSTREAM_BACKOFF,      /* waiting for the next attempt */
	UPSTREAM_UNAUTHORIZED, /* waiting longer: the key was refused */
	UPSTREAM_STOPPED,      /* closed on purpose; the daemon is about to end */
	UPSTREAM_STATE_N
};

struct upstream;

struct upstream_settings {
	struct endpoint_settings endpoint;
	struct attempts_settings attempts;
	size_t compared_bytes; /* of notifications during a handover */
	uint64_t seed;         /* of notification.h's hashes */
};

struct cache;
struct router;
struct subscriptions;

/* The rooms that the connection serves. It knows their functions from struct upstream_ops alone, so
 * tests bring rooms of their own. */
struct upstream_users {
	struct router *router;
	struct subscriptions *subscriptions;
	struct cache *cache;
	void *owner;
};

/* What is remembered of the service, as cache.h has it. Each is called before the functions of
 * struct upstream_ops, but live(), which comes behind them. */
struct upstream_cache_ops {
	void (*up)(struct cache *c); /* up() or moved() follows */
	/* The main connection is told of changes now (token), or is not. */
	void (*live)(struct cache *c, bool token);
	void (*lost)(struct cache *c, int64_t heard_ms);
	/* A notification has arrived, on whichever connection; it is told to subscribers now. */
	void (*arrived)(struct cache *c, const struct wire_frame *frame);
	void (*change)(struct cache *c, const struct wire_frame *frame,
		       const struct notification *change);
	void (*missed)(struct cache *c);
};

struct upstream_ops {
	/* The state has changed. */
	void (*changed)(void *owner);

	/* ---- requests, as router.h has them ---- */

	/* Requests go out on this connection from now on. up: there was none. moved: requests in
	 * flight on another stay there; true: writes that were given up there may take effect yet.
	 */
	void (*up)(struct router *r, uint32_t connection, int64_t now);
	bool (*moved)(struct router *r, uint32_t connection, int64_t now);
	/* The connection is gone: the main one, or a former one. close_code: of the service's close
	 * frame; 0: none came. dropped: it has ended without one. True: one request was at fault,
	 * so the pauses do not grow by this loss. */
	bool (*down)(struct router *r, uint32_t connection, int close_code, bool dropped,
		     int64_t now);
	/* A token will be asked for: ms until it may be. */
	int64_t (*spend)(struct router *r, int64_t now);
	/* The service's rate limit has refused it. */
	void (*spend_refused)(struct router *r, int64_t now);
	void (*drained)(struct router *r, int64_t now); /* upstream_sendable() is true again */
	void (*frame)(struct router *r, const struct wire_frame *frame,
		      int64_t now); /* no notification */

	/* ---- notifications and the list of the token, as subscriptions.h has them ---- */

	/* A notification, once for each change. */
	void (*change)(struct subscriptions *s, const struct wire_frame *frame,
		       const struct notification *change);
	/* A change that is too late to be told in order. */
	void (*straggler)(struct subscriptions *s, const struct wire_frame *frame,
			  const struct notification *change);
	/* unreadable: a notification can't be used; called for each. missed: some can't be used
	 * since this time of clock_boot_ms(); called at once, then at intervals. */
	void (*unreadable)(struct subscriptions *s);
	void (*missed)(struct subscriptions *s, int64_t since_ms);
	struct token_list_ops list;
	struct upstream_cache_ops cache;
};

/* NULL, logged, when the settings can't be used (the CA file). Connects from the next turn of the
 * loop on. */
struct upstream *upstream_new(struct event_base *base, const struct upstream_settings *settings,
			      const struct upstream_ops *ops, const struct upstream_users *users,
			      struct stats *stats);
void upstream_free(struct upstream *u);

/* Other settings, all of them but the seed. another: they name another service, key or kind of
 * token, so a new connection takes over from the main one, which works until then; else only times
 * and limits differ. A pause between attempts ends at once. -EINVAL, logged, when they can't be
 * used: then the former settings stay. Not after upstream_stop(). */
int upstream_reload(struct upstream *u, const struct upstream_settings *settings, bool another);

/* Sends a frame, head and body joined; only between up() and down(). */
void upstream_send(struct upstream *u, struct span head, struct span body);
/* Is there a main connection that takes more? Else up() or drained() follows. */
bool upstream_sendable(struct upstream *u);

/* Something is subscribed to that the present list lacks: a connection with a new list is made,
 * after subscribe_batch. */
void upstream_want(struct upstream *u);
/* No request is in flight any more on this former connection. */
void upstream_connection_idle(struct upstream *u, uint32_t connection);

/* Sends close frames and connects no more. down() is not called for them. */
void upstream_stop(struct upstream *u);
/* Have all connections ended since upstream_stop()? */
bool upstream_closed(const struct upstream *u);

/* ---- for the status answer and the metrics ---- */

enum upstream_state upstream_state(const struct upstream *u);
const char *upstream_state_name(enum upstream_state state);
/* Of the main connection, or of the next attempt if there is none. */
bool upstream_has_token(const struct upstream *u);
const char *upstream_url(const struct upstream *u);
int64_t upstream_since_ms(const struct upstream *u); /* how long in this state */
uint64_t upstream_reconnects(const struct upstream *u);
/* Why there was no connection the last time, and why there is no newer token. NULL: no reason. */
const char *upstream_last_error(const struct upstream *u);
const char *upstream_token_error(const struct upstream *u);
/* Why subscriptions are not live: there is no token, or no connection. NULL: no reason is known. */
const char *upstream_why_not_live(const struct upstream *u);
int64_t upstream_token_expires_ms(const struct upstream *u); /* from now; -1: no token */
size_t upstream_unsent(const struct upstream *u);            /* bytes not taken by the kernel yet */
long upstream_handover_ms(const struct upstream *u);         /* that is due; -1: none is */
/* Until the next attempt, or handover if there is a connection; -1: unknown, or none is due. */
long upstream_retry_ms(const struct upstream *u);
