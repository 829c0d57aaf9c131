/* router.h - the life of a request, from its checked line to its one answer.
 *
 * States: (waiting ->) sent -> answered. The router keeps the promises of the protocol: exactly one
 * answer to each request; no request that may have been executed is sent again, except get and
 * range; answers without a messageId in the order of their requests; deadlines. It owns every
 * pending. It has no descriptors and reads no clock: time is passed in, output goes to peer::out
 * and to struct router_ops.
 *
 * doc/architecture.md draws the states and lists what each failure does to a request in each. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "requests/blame.h"
#include "requests/combine.h"
#include "requests/pending.h"
#include "codec/reply.h"
#include "codec/request.h"
#include "codec/stats.h"
#include "codec/wire.h"

struct router;

struct router_settings {
	unsigned max_in_flight;
	size_t max_frame; /* bytes of a request as it is sent; 0: no limit */
	unsigned max_pipeline;
	int64_t request_timeout_ms;
	unsigned combine;         /* of enum combine_kinds */
	double rate_limit;        /* requests/s; 0: none */
	size_t max_waiting_bytes; /* memory of all waiting requests; beyond it, queue_full */
	/* Memory of the waiting requests of one client. A client beyond it, or beyond its share of
	 * what is left of max_waiting_bytes, is not read. */
	size_t max_peer_waiting_bytes;
};

/* After an error of a daemon that ends, a client may ask its successor; ms. */
enum { ROUTER_RESTART_MS = 100 };

/* How a read of the daemon's own ended. */
enum router_read_end {
	ROUTER_READ_ANSWERED,
	ROUTER_READ_ELSEWHERE, /* answered on a former connection; the main one may still bring
				  changes that the value includes */
	ROUTER_READ_UNSENT,    /* the connection was lost, or the rate limit refused it */
	ROUTER_READ_DOUBTED,   /* the connection was lost over it or because of the network */
	ROUTER_READ_BLAMED,    /* ... over it or over another request (blame.h) */
	ROUTER_READ_TOO_LONG,  /* longer than the service takes */
	ROUTER_READ_LATE,      /* not sent before its deadline */
	ROUTER_READ_FAILED,    /* sent, but no usable answer came */
	ROUTER_READ_END_N
};

/* Only deferred_turn() and read_end() may call back into the router. */
struct router_ops {
	/* Send head and body as one frame on the main connection. Only between router_up() and
	 * router_down(). */
	void (*send)(void *owner, struct span head, struct span body);
	/* Is there room for another frame? After a no, call router_pump() when there is. */
	bool (*sendable)(void *owner);
	/* Milliseconds until there may be a connection, for retryAfterMs; -1: unknown. */
	long (*reconnect_ms)(void *owner);
	/* peer::out or the number of unanswered requests has changed. */
	void (*changed)(void *owner, struct peer *peer);
	/* Call router_expire() at this time. It is earlier than the time asked for before. */
	void (*wake_at)(void *owner, int64_t at);
	/* A former connection has no request in flight any more. */
	void (*connection_idle)(void *owner, uint32_t connection);

	/* A deferred request is the next of its client to be answered. */
	void (*deferred_turn)(void *owner, struct pending *p);
	/* A deferred request is about to be answered with an error, or its client has left: forget
	 * it. Returns why it was not answered in time: a sentence, or NULL. */
	const char *(*deferred_end)(void *owner, struct pending *p);

	/* Why the access rules forbid the request: a sentence, valid until the next call; NULL:
	 * they allow it. */
	const char *(*forbids)(void *owner, struct peer *peer, const struct request *request);

	/* A read of router_read() was sent; it has ended, with the answer's frame or NULL. */
	void (*read_sent)(void *owner, void *reading);
	void (*read_end)(void *owner, void *reading, enum router_read_end end,
			 const struct wire_frame *answer);
};

/* For somebody who has to know what is read and written: the cache. None of these may call back
 * into the router. */
struct router_watch {
	/* A request (get ... increment) was taken; it is not sent yet, nor refused. */
	void (*taken)(void *owner, struct pending *p);
	/* It is the turn of this get, which has waited: appends its answer if that is known by now.
	 */
	bool (*serve)(void *owner, struct pending *p, struct buf *out,
		      enum request_outcome *outcome);
	/* A get or range is sent now, or goes along with one that is; maybe not for the first time.
	 */
	void (*sent)(void *owner, struct pending *p);
	/* The service's answer to a get or range, before anybody is told. here: it came on the
	 * connection that requests go out on. */
	void (*answered)(void *owner, struct pending *p, const struct wire_frame *frame, bool here);
	/* Of one with pending::watched: there will be no other answer. Before the client is
	 * told. */
	void (*over)(void *owner, struct pending *p);
};

struct router *router_new(const struct router_settings *settings, const struct router_ops *ops,
			  void *owner, struct stats *stats, uint64_t hash_seed);
void router_free(struct router *r); /* all peers have left */
/* Replaces the settings. Deadlines of present requests stay. */
void router_set(struct router *r, const struct router_settings *settings, int64_t now);

/* NULL: nobody watches. Each write that is under way is taken() anew. */
void router_watch(struct router *r, const struct router_watch *watch, void *owner);

void router_join(struct router *r, struct peer *peer); /* its number is set */
/* Drops the peer's waiting requests, and the answers to those in flight. */
void router_leave(struct router *r, struct peer *peer, int64_t now);

/* Takes a request for the service (get … increment). Copies what it keeps. */
void router_request(struct router *r, struct peer *peer, const struct request *request,
		    int64_t now);

/* Answers a request of the daemon's own at once. line includes its newline; with_id: it carries a
 * messageId. Without one it waits for earlier answers. */
void router_say(struct router *r, struct peer *peer, struct span line, bool with_id);

/* Defers a request that another room will have answered (a subscribe, a token). The router keeps
 * its deadline and its place in the order of answers. It ends by router_settle() or
 * router_refuse(), or at its deadline with deferred_pending::timeout_error, which the other room
 * may set. */
struct pending *router_defer(struct router *r, struct peer *peer, const struct request *request,
			     int64_t now);
/* May it be answered now? Without a messageId it waits for its turn (ops->deferred_turn). */
bool router_may_settle(const struct router *r, const struct pending *p);
void router_settle(struct router *r, struct pending *p); /* answers it with code 200 */
/* ... with an object that holds a secret: our memory of the line is wiped after it is written. */
void router_settle_secret(struct router *r, struct pending *p, struct span object);
void router_refuse(struct router *r, struct pending *p, enum reply_error error, const char *text,
		   long retry_ms);

/* Reads a key for the daemon itself. hurry: it takes turns with the clients, else it comes after
 * them. Ends by ops->read_end() with this reading, never from within the call. */
void router_read(struct router *r, void *reading, const struct json_value *key, bool hurry,
		 int64_t now);
/* Is a read of this key short enough for the service? */
bool router_takes_key(struct router *r, const struct json_value *key, int64_t now);
/* Reads a key that is suspect (blame.h): with nothing else in flight, as for a client on trial. */
void router_read_alone(struct router *r, void *reading, const struct json_value *key, int64_t now);

/* The access rules change. From router_hold() to router_release() nothing is sent, or answered from
 * memory, so that no request of a client that is not judged again yet goes by the former rules.
 * Between the two, router_restrict() refuses the waiting requests of a client that its new rules
 * forbid. Its requests in flight are answered, but not sent again if they are forbidden. */
void router_hold(struct router *r);
void router_restrict(struct router *r, struct peer *peer);
void router_release(struct router *r, int64_t now);

/* May more requests be read from this client? */
bool router_may_read(const struct router *r, const struct peer *peer);

/* A connection is a number that its owner does not use again. Requests are sent on the main
 * connection, that of the last router_up() or router_move(). Those in flight on a former one stay
 * there. router_move() returns true if timed-out writes on the former connection may still take
 * effect, so that later requests wait for their answers or its end (unsettled.h). router_down():
 * the connection, the main one or a former one, is gone. */
void router_up(struct router *r, uint32_t connection, int64_t now);
bool router_move(struct router *r, uint32_t connection, int64_t now);
void router_down(struct router *r, uint32_t connection, int64_t now);
/* The same, with how it ended (struct blame_end). True: the request at fault is known, so the loss
 * is no sign of a failing service. */
bool router_lost(struct router *r, uint32_t connection, int close_code, bool dropped, int64_t now);
/* The next connection leads to another service or account: forgets what blame.h learnt. */
void router_forget_blame(struct router *r);
/* Sends what can be sent now. */
void router_pump(struct router *r, int64_t now);
/* Something else than a request of the router's, a token, is asked of the service: counts it
 * against the rate limit. Returns after how many ms it may be asked for. */
int64_t router_spend(struct router *r, int64_t now);
/* The service's rate limit has refused what was counted last: the rate is lowered, as by the
 * refusal of a request. */
void router_spend_refused(struct router *r, int64_t now);
/* The rate, if refusals have lowered it, and the rate to which it grows; both in requests/s. */
bool router_learned_pace(const struct router *r, int64_t now, double *rate, double *goal);
void router_restore_pace(struct router *r, int64_t now, double rate, double goal);
/* A frame of the service. */
void router_frame(struct router *r, const struct wire_frame *frame, int64_t now);

/* Answers the requests whose deadline has passed, and sends what the rate allows by now. Returns
 * the time of the next call; -1: none is needed. */
int64_t router_expire(struct router *r, int64_t now);

/* Sends nothing from now on: refuses waiting, deferred and new requests with shutting_down. Those
 * in flight, and those that HPKV Nexus has, are answered as ever. */
void router_stop(struct router *r);
bool router_is_stopping(const struct router *r);
bool router_is_drained(const struct router *r); /* there are none of these any more */
/* Answers the requests in flight with outcome_unknown, and after router_stop() those of Nexus. */
void router_abandon(struct router *r);

/* The present rate in requests/s, 0: unlimited; and how long a new request of this client would
 * wait because of it. */
double router_pace(const struct router *r, int64_t now);
int64_t router_pace_wait_ms(const struct router *r, const struct peer *peer, int64_t now);

/* ... and because of the rates of its budgets (budget.h). */
int64_t router_budget_wait_ms(const struct router *r, const struct peer *peer, int64_t now);

unsigned router_in_flight(const struct router *r);
size_t router_waiting(const struct router *r);
size_t router_waiting_bytes(const struct router *r); /* memory of the waiting requests */
