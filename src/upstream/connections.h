/* connections.h - the connections to the service that there are at a time, and how one of them
 * takes over from another.
 *
 * A connection is called a connection here. One connection counts (main): requests go out on it,
 * and what it brings is delivered. Another one may be made beside it (next). Where there is no main
 * connection, the next one takes its place once it has answered a ping, or, without a token, once
 * it is open: such a connection brings no notifications. Else:
 *
 *     connecting -> proving -> catching -> ops->moved()
 *                        |          |
 *                        |   the main connection answers a ping: it has brought all changes before
 * that the next connection answers a ping: it is subscribed for certain
 *
 * The main connection is then the former one. A connection that was left stays until its requests
 * are answered; the former one also stays for LINGER_MS if it and the main one bring notifications,
 * or writes that were given up may take effect there yet.
 *
 * The notifications of all connections become one stream, each change once (handover.h).
 *
 * Owns the connections, their timers and that stream. Why a connection is made, with what, and what
 * follows when one ends is decided above (upstream.h); nothing is tried again here. */
#pragma once

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "transport/conn.h"
#include "upstream/handover.h"
#include "upstream/endpoint.h"
#include "codec/stats.h"
#include "codec/wire.h"

/* How far the next connection is. */
enum connections_stage {
	CONNECTIONS_NONE, /* there is none */
	CONNECTIONS_CONNECTING,
	CONNECTIONS_PROVING,  /* it is open, and was sent a ping */
	CONNECTIONS_CATCHING, /* ... has answered it; the main one was sent a ping */
	CONNECTIONS_STAGE_N
};

struct connections;

struct connection {
	TAILQ_ENTRY(connection) of_all; /* connections::all */
	struct connections *connections;
	struct endpoint *endpoint;
	struct conn *conn;
	uint32_t number; /* not used again */
	bool token;      /* opened with one */
	bool busy;       /* it was left, and some of its requests are not answered */
	bool closing;
};

struct connections_ops {
	/* The next connection is the main one now. first: there was none. moved: what is in flight
	 * on the former one stays there; connections_idle() says when nothing is, also from within.
	 * True: writes that were given up there may take effect yet. */
	void (*first)(void *owner);
	bool (*moved)(void *owner);
	/* The main connection has ended, or is given up: connections_drop_main(), from within. */
	void (*main_ended)(void *owner, const struct conn_end *end);
	/* The next one has: connections_drop_next(), from within. */
	void (*next_ended)(void *owner, const struct conn_end *end);
	/* One that was left is gone. */
	void (*left_ended)(void *owner, uint32_t number, const struct conn_end *end);

	void (*drained)(void *owner); /* the main connection takes more again */
	void (*frame)(void *owner, const struct wire_frame *frame); /* no notification */
	struct handover_ops stream;                                 /* notifications */
};

struct connections {
	const struct connections_ops *ops;
	void *owner;
	struct stats *stats;
	struct endpoints *endpoints;

	TAILQ_HEAD(, connection) all;
	struct connection *main;   /* the one that counts; or NULL */
	struct connection *next;   /* the one that is being made; or NULL */
	struct connection *former; /* the one that was left last; or NULL: it has ended */
	enum connections_stage stage;
	uint32_t last_number;

	uint32_t ping;        /* that CONNECTIONS_PROVING or CATCHING waits for */
	struct event *grace;  /* the time to answer it is over */
	struct event *linger; /* the former one's time is over; while pending, it stays */

	struct handover handover; /* the stream */
	struct event *late;       /* LATE_STEP_MS are over */
	unsigned late_steps;      /* since a connection became the main one */
};

void connections_init(struct connections *cs, struct event_base *base, struct endpoints *endpoints,
		      uint64_t seed, const struct connections_ops *ops, void *owner,
		      struct stats *stats);
void connections_fini(struct connections *cs); /* after connections_stop() */

/* Makes the next connection, to the present place; there is none. token: path names one. */
void connections_connect(struct connections *cs, const char *path, bool token);
void connections_drop_next(struct connections *cs); /* or nothing, if there is none */
/* The main connection is gone, and dropped. A next one goes on to be made. */
void connections_drop_main(struct connections *cs);
/* There is no main connection any more, and the next one is CONNECTIONS_CATCHING: it takes over at
 * once. */
void connections_take_over(struct connections *cs);

/* Does it lead to where connections are not made for any more? */
bool connections_is_outdated(const struct connections *cs, const struct connection *c);
/* Have so many been left that the next one has to wait? */
bool connections_are_many(const struct connections *cs);
/* Nothing is in flight any more on this one, which was left. */
void connections_idle(struct connections *cs, uint32_t number);
/* The times have changed: for the present place and for those that connections lead to. */
void connections_set_times(struct connections *cs, const struct conn_settings *settings);
void connections_check(struct connections *cs); /* are they still there? See conn_check() */

/* Sends close frames and drops the next one. Of how the others end nothing is told. */
void connections_stop(struct connections *cs);
bool connections_are_gone(const struct connections *cs);
