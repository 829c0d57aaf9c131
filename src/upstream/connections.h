/* connections.h - the connections to the service that exist at a time, and how one takes over from
 * another.
 *
 * The main connection carries new requests, and its notifications are delivered. Another one, the
 * next, may be made beside it. If there is no main connection, the next one takes its place once it
 * has answered a ping, or, without a token, once it is open (then it brings no notifications). Else
 * it takes over in steps:
 *
 *     open     the next connection is sent a ping; the answer shows that it is subscribed
 *     proven   the main one is sent a ping; the answer shows that it has brought every change that
 *              the next one can't bring
 *     moved()
 *
 * The main connection is then a replaced one, which stays until its requests are answered. The one
 * replaced last is the former connection. It also stays for some seconds if it and the main one
 * bring notifications, since its pong may have overtaken some, or if writes that were given up
 * there may take effect yet.
 *
 * The notifications of all connections become one stream, each change once (handover.h).
 *
 * Owns the connections, their timers and that stream. attempts.h decides why a connection is made
 * and what follows when one ends; nothing is tried again here. */
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

struct connections;

struct connection {
	TAILQ_ENTRY(connection) of_all; /* connections::all */
	struct connections *connections;
	struct endpoint *endpoint;
	struct conn *conn;
	uint32_t number; /* never used again */
	bool token;      /* opened with a token */
	bool busy;       /* replaced, with unanswered requests */
};

struct connections_ops {
	/* The next connection is the main one now. first: there was none. moved: requests in flight
	 * on the former one stay there; connections_idle() tells when none is left, also from
	 * within. True: writes that were given up there may take effect yet. */
	void (*first)(void *owner);
	bool (*moved)(void *owner);
	/* The main connection, or the next one, has ended and is freed. token: it had one. If a
	 * proven next one is left, first() follows. */
	void (*main_ended)(void *owner, uint32_t number, bool token, const struct conn_end *end);
	void (*next_ended)(void *owner, bool token, const struct conn_end *end);
	/* A replaced one has ended. */
	void (*replaced_ended)(void *owner, uint32_t number, const struct conn_end *end);

	void (*drained)(void *owner); /* the main connection takes more again */
	void (*frame)(void *owner, const struct wire_frame *frame); /* no notification */
	/* A notification, of any connection, before the stream has it. */
	void (*arrived)(void *owner, const struct wire_frame *frame);
	struct handover_ops stream; /* notifications */
};

struct connections {
	const struct connections_ops *ops;
	void *owner;
	struct stats *stats;
	struct endpoints *endpoints;

	TAILQ_HEAD(, connection) all;
	struct connection *main;   /* NULL: none */
	struct connection *next;   /* being made; NULL: none */
	struct connection *former; /* the one replaced last; NULL: none, or it has ended */
	uint32_t last_number;

	bool proven;      /* the next one has answered its ping */
	uint32_t ping;    /* that the next one is to answer, or, once it is proven, the main one; 0:
			     the next one is not open yet */
	unsigned lingers; /* ticks for which the former one stays even if it is idle */
	struct event *tick;
	struct handover handover; /* the stream */
};

/* There is no connection at first. The endpoints outlive them. */
void connections_init(struct connections *cs, struct event_base *base, struct endpoints *endpoints,
		      uint64_t seed, const struct connections_ops *ops, void *owner,
		      struct stats *stats);
void connections_fini(struct connections *cs); /* after connections_stop() */

/* Makes the next connection, to the present endpoint; there is none. token: path contains one. */
void connections_connect(struct connections *cs, const char *path, bool token);
void connections_drop_next(struct connections *cs); /* does nothing if there is none */
/* Are there so many replaced ones that the next one has to wait? */
bool connections_too_many(const struct connections *cs);
/* No request is in flight any more on this replaced connection. */
void connections_idle(struct connections *cs, uint32_t number);
/* Other times: for the present endpoint and for those of the connections. */
void connections_set_times(struct connections *cs, const struct conn_settings *settings);
void connections_check(struct connections *cs); /* Is each still there? See conn_check(). */

/* Sends close frames on all and drops the next one; there is no main connection any more. */
void connections_stop(struct connections *cs);
