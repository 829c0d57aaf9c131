/* upstream.h - the connection to the service: when to connect, with what, and for how long to
 * believe in it.
 *
 * There is one connection that counts (a connection): requests go out on it, its notifications are
 * believed. Its states are those of the status answer; set_state() in upstream.c is the only door
 * between them and logs each change with its cause. It reconnects for ever with doubling, fully
 * jittered pauses.
 *
 * While anything is subscribed to, the connection is opened with a token (credentials.h), else with
 * the API key. A changed set, an ageing token, another key or service need another connection. It
 * is made beside the present one, which works on; then it takes over, unnoticed (connections.h). If
 * the new one fails on the way, nothing has changed, and it is tried again with pauses of its own.
 * Should the old one fail after it has brought all that only it could, the new one takes over at
 * once and nothing is lost; before that, it is a loss like any other.
 *
 * Owns the connections, the endpoints that they lead to, and the ticket. What messages mean is
 * decided above (struct upstream_ops). */
#pragma once

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "codec/notification.h"
#include "upstream/handover.h"
#include "upstream/endpoint.h"
#include "base/span.h"
#include "codec/stats.h"
#include "codec/wire.h"

enum upstream_state {
	UPSTREAM_CONNECTING, /* minting, asking for addresses, connecting, upgrading, proving */
	UPSTREAM_CONNECTED,
	UPSTREAM_BACKOFF,      /* waiting for the next attempt */
	UPSTREAM_UNAUTHORIZED, /* the key was refused: waiting longer */
	UPSTREAM_STOPPED,      /* closed on purpose; the daemon is about to end */
	UPSTREAM_STATE_N
};

struct upstream;

struct upstream_settings {
	struct endpoint_settings endpoint; /* where to */
	const char *path_prefix;           /* before /ws; strings are copied */
	const char *api_key;               /* secret.h's: is shared */
	const char *key_hint; /* where the key is from, for the message that it was refused */
	int64_t backoff_min_ms, backoff_max_ms;
	unsigned subscribe_fields;  /* enum token_client_fields */
	const char *access_pattern; /* of its tokens; "": none */
	int64_t token_lifetime_ms;
	int64_t subscribe_batch_ms;
	struct handover_limits held; /* of what connections that are compared bring */
	uint64_t seed;               /* of notification.h's hashes */
};

struct router;
struct subscriptions;

/* The rooms that the connection serves. It knows their functions from struct upstream_ops alone, so
 * tests bring rooms of their own. */
struct upstream_users {
	struct router *router;
	struct subscriptions *subscriptions;
	void *owner;
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
	/* The connection is gone: the one that requests went out on, or one that it was before.
	 * close_code: of the service's close frame; 0: none came. dropped: it has ended by itself,
	 * without one. true: one request was at fault, so the pauses do not grow by this loss. */
	bool (*down)(struct router *r, uint32_t connection, int close_code, bool dropped,
		     int64_t now);
	void (*drained)(struct router *r, int64_t now); /* upstream_sendable() says yes again */
	void (*frame)(struct router *r, const struct wire_frame *frame,
		      int64_t now); /* no notification */

	/* ---- notifications and the list of the token, as subscriptions.h has them ---- */

	/* A notification, once for each change. */
	void (*change)(struct subscriptions *s, const struct wire_frame *frame,
		       const struct notification *change);
	/* A change that can't be told in order any more. */
	void (*straggler)(struct subscriptions *s, const struct wire_frame *frame,
			  const struct notification *change);
	/* A notification can't be used, said at once; and that such have come since this time of
	 * clock_boot_ms(), said not too often. */
	void (*unreadable)(struct subscriptions *s);
	void (*missed)(struct subscriptions *s, int64_t since_ms);
	/* Is anything subscribed to, or asked for? Something that the present list has not? */
	bool (*wants)(const struct subscriptions *s);
	bool (*stale)(const struct subscriptions *s);
	/* As credentials_ops::make_list(). Of each list is told how it ended: */
	size_t (*make_list)(struct subscriptions *s, size_t budget, struct buf *list);
	void (*live)(struct subscriptions *s);    /* the connection that counts has it */
	void (*without)(struct subscriptions *s); /* ... has no token, since nothing was wanted */
	void (*list_failed)(struct subscriptions *s);
	bool (*list_refused)(struct subscriptions *s,
			     const char *why); /* true: try another at once */
	void (*refuse_all)(struct subscriptions *s, const char *why, long retry_ms);
	/* The connection with the token was lost; it was heard of last at this time of
	 * clock_boot_ms(), or a while later. The next live() ends that, with the same list if no
	 * other was made. */
	void (*lost)(struct subscriptions *s, int64_t heard_ms);
};

/* NULL, logged, when the settings can't be used (the CA file). Connects from the next turn of the
 * loop on. */
struct upstream *upstream_new(struct event_base *base, const struct upstream_settings *settings,
			      const struct upstream_ops *ops, const struct upstream_users *users,
			      struct stats *stats);
void upstream_free(struct upstream *u);

/* Other settings, all of them but the seed. another: they name another service, or another key or
 * kind of token for it, so another connection takes over from the present one, which works on until
 * that has succeeded; else they are only times. Whatever waits for its pause to end is tried at
 * once. -EINVAL, logged, when they can't be used: then the former ones stay. */
int upstream_reload(struct upstream *u, const struct upstream_settings *settings, bool another);

void upstream_send(struct upstream *u, struct span head,
		   struct span body); /* only between up and down */
bool upstream_sendable(struct upstream *u);

/* More is subscribed to than the present list has: makes another, together with what else is asked
 * for within subscribe_batch. */
void upstream_want(struct upstream *u);
/* Nothing is on its way on this connection any more, which another has replaced. */
void upstream_lane_idle(struct upstream *u, uint32_t connection);

/* Sends close frames and connects no more. down() is not called for them. */
void upstream_stop(struct upstream *u);
/* Have all connections ended since upstream_stop()? */
bool upstream_closed(const struct upstream *u);

/* What the status answer tells. */
enum upstream_state upstream_state(const struct upstream *u);
const char *upstream_state_name(enum upstream_state state);
bool upstream_has_token(
	const struct upstream *u); /* the connection that counts, or the one to come */
const char *
upstream_url(const struct upstream *u); /* of the connection that counts, or the one to come */
int64_t upstream_since_ms(const struct upstream *u); /* how long in this state */
uint64_t upstream_reconnects(const struct upstream *u);
const char *upstream_last_error(const struct upstream *u); /* NULL: none so far */
const char *
upstream_token_error(const struct upstream *u); /* why there is no newer token; or NULL */
/* Why subscriptions are not live: there is no token, or no connection. NULL: no reason is known. */
const char *upstream_why_not_live(const struct upstream *u);
int64_t upstream_token_expires_ms(const struct upstream *u); /* from now; -1: no token */
size_t upstream_unsent(const struct upstream *u); /* bytes that the kernel has not taken yet */
long upstream_retry_ms(
	const struct upstream *u); /* until the next attempt to connect; -1: can't tell */
