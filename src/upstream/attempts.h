/* attempts.h - attempts to make the next connection to the service: when, with what, and what
 * follows a failure.
 *
 * Without a main connection the next attempt follows a loss or a failure after a pause that
 * doubles (backoff.h). With one, an attempt is made when the main connection is to be replaced:
 * something is subscribed to that its token does not cover, the token is ageing (it is renewed
 * after three quarters of its life, credentials.h), or it leads to a former endpoint. Such an
 * attempt has pauses of its own; if it fails, the main connection stays. Attempts because of new
 * subscriptions keep a distance from each other (handover_pace.h). Requests for tokens count
 * against the rate limit.
 *
 * A connection is opened with a token while anything is subscribed to, else with the API key:
 *
 *     begin ── nothing wanted ──────────────────────────▶ connect with the key
 *       │
 *       ├── no main connection, and the last token ────▶ connect with that token
 *       │   still covers everything
 *       │
 *       └── ask for a token ── minted ─────────────────▶ connect with it
 *                  │
 *                  ├── none can be had ────────────────▶ main connection: it stays, pause
 *                  │                                     none: connect with the key meanwhile
 *                  └── the list is too long, ──────────▶ ask again with another list
 *                      or refused in part
 *
 * Without an API key (token_url) a token is always asked for, if nothing is wanted for an empty
 * list; while none can be had there is no connection, and a pause follows.
 *
 * Owns the credentials and the timers of the pauses. The connections, and what becomes of requests
 * when one is lost, belong to upstream.h. */
#pragma once

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/alarm.h"
#include "base/buf.h"
#include "codec/stats.h"
#include "transport/conn.h"
#include "upstream/connections.h"
#include "upstream/credentials.h"
#include "upstream/endpoint.h"
#include "upstream/handover_pace.h"

struct router;
struct subscriptions;

/* The list of what is subscribed to, as subscriptions.h has it. Each list that was made ends with
 * one of live(), without(), failed(), refused() and refuse_all(). */
struct token_list_ops {
	/* Is anything subscribed to, or asked for? Anything that the present list lacks? */
	bool (*wants)(const struct subscriptions *s);
	bool (*stale)(const struct subscriptions *s);
	/* As credentials_ops::make_list(). */
	size_t (*make)(struct subscriptions *s, size_t budget, struct buf *list);
	void (*live)(struct subscriptions *s);    /* the main connection has it */
	void (*without)(struct subscriptions *s); /* ... has no token: nothing was wanted */
	void (*failed)(struct subscriptions *s);
	/* The service refuses the list. True: try another one at once. */
	bool (*refused)(struct subscriptions *s, const char *why);
	/* The service refuses the key. The next attempt comes in retry_ms. */
	void (*refuse_all)(struct subscriptions *s, const char *why, long retry_ms);
	/* The main connection, which had a token, is lost. heard_ms: clock_boot_ms() of the last
	 * bytes received, or a time before. The next live() ends the loss, with the same list if no
	 * other was made. */
	void (*lost)(struct subscriptions *s, int64_t heard_ms);
};

/* What an attempt, or the lack of one, means for the state; without a main connection only. */
enum attempts_phase {
	ATTEMPTS_CONNECTING,
	ATTEMPTS_BACKOFF,      /* waiting for the next attempt */
	ATTEMPTS_UNAUTHORIZED, /* waiting longer: the key was refused */
	ATTEMPTS_PHASE_N
};

/* Objects that attempts work with; they outlive it. */
struct attempts_context {
	struct event_base *base;
	struct endpoints *endpoints;
	struct connections *connections;
	const struct token_list_ops *list;
	struct subscriptions *subscriptions;
	void (*phase_changed)(void *owner, enum attempts_phase phase, const char *cause);
	void *owner;
	/* As in struct upstream_ops. */
	struct router *router;
	int64_t (*spend)(struct router *r, int64_t now);
	void (*spend_refused)(struct router *r, int64_t now);
	struct stats *stats;
};

struct attempts_settings {
	const char *path_prefix;             /* before /ws; strings are copied */
	struct token_client_settings tokens; /* where they are asked for */
	const char *api_key;    /* of secret.h: is shared; NULL: only tokens open connections */
	const char *key_source; /* where the key, or the tokens, are from, for the message that it
				   is refused, or that there are none */
	int64_t backoff_min_ms, backoff_max_ms;
	unsigned subscribe_fields;  /* enum token_client_fields */
	const char *access_pattern; /* of the tokens; "": none */
	int64_t token_lifetime_ms;
	int64_t subscribe_batch_ms;
};

enum { ATTEMPTS_ERROR_MAX = 500 };

/* What the next connection is opened with. */
enum attempts_means {
	ATTEMPTS_NEW_TOKEN,
	ATTEMPTS_LAST_TOKEN, /* minted for an earlier connection */
	ATTEMPTS_KEY,        /* nothing is wanted */
	ATTEMPTS_FALLBACK,   /* the key, since no token can be had */
	ATTEMPTS_MEANS_N
};

/* The pauses before attempts, and the failures that make them grow. */
struct attempts_pauses {
	struct event *retry; /* the next attempt, after a pause */
	int64_t retry_at;
	unsigned failures;          /* to connect, and losses, in a row */
	unsigned handover_failures; /* to replace the main connection, in a row */
	unsigned futile_lists;      /* in a row */
	struct handover_pace handovers;
	int64_t batch_at; /* while attempts::batch is pending: when it is over */
	int64_t token_at; /* no token is asked for before, even for another connection */
};

/* The present attempt, or the last one. */
struct attempt {
	enum attempts_means means;
	bool fallback_refused; /* ATTEMPTS_FALLBACK: the service refused the key a token */
	int fallback_pause_s;  /* ... and asked for this pause; -1: it did not */
};

struct attempts {
	struct attempts_context context;
	char *key_source;
	bool keyless;
	int64_t backoff_min_ms, backoff_max_ms, batch_ms;
	struct credentials *credentials;
	struct attempt attempt;
	struct attempts_pauses pauses;
	struct event *turn;    /* an attempt begins, from a fresh stack */
	struct event *batch;   /* the wait of new subscriptions for others is over */
	struct event *ask;     /* a token may be asked for: the rate limit allows it */
	struct alarm *renewal; /* the token of the main connection is to be renewed */
	int64_t expires_at;    /* of that token, even if it is outdated; clock_boot_ms() */
	char last_error[ATTEMPTS_ERROR_MAX]; /* why there was no connection; "": no reason so far */
	char token_error[ATTEMPTS_ERROR_MAX]; /* why there is no newer token; "": no reason */
};

/* -errno when the kernel has no timer to give; then there is nothing to undo. */
int attempts_init(struct attempts *a, const struct attempts_context *context,
		  const struct attempts_settings *settings);
void attempts_fini(struct attempts *a);
void attempts_stop(struct attempts *a); /* for good: then only attempts_fini() */

/* ---- other settings ---- */

/* Gives up the present attempt, if there is one; its list is asked for anew. */
void attempts_give_up(struct attempts *a);
/* Tokens and connections are for this endpoint from now on, which is the present one, and for this
 * key. attempts_give_up() comes first. */
void attempts_set_endpoint(struct attempts *a, const struct attempts_settings *settings);
void attempts_set_times(struct attempts *a, const struct attempts_settings *settings,
			int64_t connect_timeout_ms);

/* ---- when ---- */

/* In the next turn of the loop; the pauses start anew. */
void attempts_begin(struct attempts *a);
/* Replaces the main connection, because the list is stale, after subscribe_batch or when its turn
 * comes. Does nothing while there is an attempt or a pause before one: that attempt will have the
 * new list. */
void attempts_want(struct attempts *a);
/* Replaces the main connection if there is a reason. */
void attempts_check(struct attempts *a);
/* The machine has slept: pauses went on meanwhile. */
void attempts_slept(struct attempts *a, int64_t slept_ms);
long attempts_retry_ms(const struct attempts *a); /* until the pause is over */
/* How long new subscriptions still wait for the next handover; -1: none is due. */
long attempts_handover_ms(const struct attempts *a);

/* ---- what became of a connection ---- */

/* The next connection is the main one: tells subscriptions so. */
void attempts_succeeded(struct attempts *a);
/* ... and there was no main one before: after attempts_succeeded(), as the last act. */
void attempts_after_first(struct attempts *a);
/* The next connection has ended. token: it had one. */
void attempts_next_ended(struct attempts *a, bool token, const struct conn_end *end);
/* The main connection has ended: before others are told of it. */
void attempts_main_ended(struct attempts *a, const char *why);
/* ... and after that: a proven next connection takes over, or the present attempt goes on, or a
 * pause begins. lasted_ms: how long the connection was there. excused: the loss says nothing of the
 * service, so the pauses do not grow by it. */
void attempts_after_loss(struct attempts *a, int64_t lasted_ms, bool excused);
