/* upstream.h - the one connection to the service: when to connect, where to, and for how long to
 * believe in it.
 *
 * Owns the resolver's question, the link and the timers between attempts. Its states are those of
 * the status answer; set_state() in upstream.c is the only door between them and logs each
 * change with its cause. It tries every address that the name has, in turn, reconnects for ever
 * with doubling, fully jittered pauses, and treats a silent service as gone. What messages mean is
 * decided above (struct upstream_ops). */
#pragma once

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "span.h"
#include "stats.h"
#include "wire.h"

enum upstream_state {
	UPSTREAM_CONNECTING, /* asking for addresses, connecting, upgrading */
	UPSTREAM_CONNECTED,
	UPSTREAM_BACKOFF,      /* waiting for the next attempt */
	UPSTREAM_UNAUTHORIZED, /* the key was refused: waiting longer */
	UPSTREAM_STOPPED,      /* closed on purpose; the daemon is about to end */
	UPSTREAM_STATE_N
};

struct upstream;

struct upstream_settings {
	const char *host; /* strings are copied */
	uint16_t port;
	bool tls;
	const char *path_prefix;
	const char *proxy_host; /* an HTTP proxy to go through, whose addresses are asked for
				   instead; or NULL */
	uint16_t proxy_port;
	const char *api_key;  /* secret */
	const char *key_hint; /* where the key is from, for the message that it was refused */
	const char *ca_file;  /* or NULL */
	int64_t connect_timeout_ms;
	int64_t keepalive_ms;
	int64_t backoff_min_ms, backoff_max_ms;
};

struct upstream_ops {
	void (*up)(void *owner);
	void (*down)(void *owner); /* after up, when the connection is lost */
	void (*frame)(void *owner, const struct wire_frame *frame);
	void (*drained)(void *owner); /* upstream_sendable() says yes again */
	void (*changed)(void *owner); /* the state has changed */
};

/* NULL, logged, when the settings can't be used (the CA file). Connects from the next turn of the
 * loop on. */
struct upstream *upstream_new(struct event_base *base, const struct upstream_settings *settings,
			      const struct upstream_ops *ops, void *owner, struct stats *stats);
void upstream_free(struct upstream *u);

void upstream_send(struct upstream *u, struct span head,
		   struct span body); /* only between up and down */
bool upstream_sendable(struct upstream *u);

/* Sends a close frame and connects no more. down() is not called for it. */
void upstream_stop(struct upstream *u);
/* Has the connection ended since upstream_stop()? */
bool upstream_closed(const struct upstream *u);

/* What the status answer tells. */
enum upstream_state upstream_state(const struct upstream *u);
const char *upstream_state_name(enum upstream_state state);
int64_t upstream_since_ms(const struct upstream *u); /* how long in this state */
uint64_t upstream_reconnects(const struct upstream *u);
const char *upstream_last_error(const struct upstream *u); /* NULL: none so far */
long upstream_retry_ms(
	const struct upstream *u); /* until the next attempt to connect; -1: can't tell */
