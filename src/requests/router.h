/* router.h - a request's life, from its checked line to its one answer.
 *
 * Life: read -> (waiting ->) sent -> answered. The router keeps the promises of the protocol:
 * exactly one answer to each request, nothing that may have been executed sent again (but get and
 * range), answers without a messageId in the order of their requests, deadlines. It owns every
 * pending. It has no descriptors and reads no clock: time is passed in, output goes to the peers'
 * buffers and to the functions in struct router_ops, so its tests bring their own.
 *
 * doc/architecture.md draws the states and says what happens to a request in each on each failure.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "requests/blame.h"
#include "requests/pending.h"
#include "codec/reply.h"
#include "codec/request.h"
#include "codec/stats.h"
#include "codec/wire.h"

struct router;

struct router_settings {
	unsigned max_in_flight;
	size_t max_frame; /* bytes of a request as it is sent; 0: any */
	unsigned max_pipeline;
	int64_t request_timeout_ms;
	double rate_limit;        /* requests/s; 0: unpaced */
	size_t max_waiting_bytes; /* memory of all requests not yet sent; beyond it, queue_full */
	/* The same of one client; beyond it, or beyond its share of what is left of all, it is not
	 * read further. */
	size_t max_peer_waiting_bytes;
};

/* What became of a read of the daemon's own. */
enum router_read_end {
	ROUTER_READ_ANSWERED,
	ROUTER_READ_ELSEWHERE, /* answered on a connection that was left: of what this value has
				  seen, the present one may have more to bring */
	ROUTER_READ_UNSENT,   /* its connection was lost, or the rate limit refused it: try again */
	ROUTER_READ_DOUBTED,  /* its connection was lost, maybe because of it, or of the network */
	ROUTER_READ_BLAMED,   /* ... because of it, or of another request (blame.h) */
	ROUTER_READ_TOO_LONG, /* it is longer than the service takes */
	ROUTER_READ_LATE,     /* it got no turn in its time */
	ROUTER_READ_FAILED,   /* it was sent, and no usable answer came */
	ROUTER_READ_END_N
};

/* None of these may call back into the router, but for deferred_turn() and read_end(). */
struct router_ops {
	/* A frame for the service: head and body joined, for the connection that requests go out
	 * on. Only between router_up() and router_down(). */
	void (*send)(void *owner, struct span head, struct span body);
	/* Is there room for more? When it says no, router_pump() is called once there is. */
	bool (*sendable)(void *owner);
	/* Milliseconds until a connection may be there; -1: can't tell. For retryAfterMs. */
	long (*reconnect_ms)(void *owner);
	/* Lines were appended to the peer's output, or it has fewer unanswered requests now. */
	void (*changed)(void *owner, struct peer *peer);
	/* Call router_expire() at this time, sooner than was said before. */
	void (*wake_at)(void *owner, int64_t at);
	/* The last request that was on its way on a connection that router_move() has left is
	 * through. */
	void (*connection_idle)(void *owner, uint32_t connection);

	/* A request of router_defer() has become the next of its client to be answered. */
	void (*deferred_turn)(void *owner, struct pending *p);
	/* It is answered with an error now, or its client has left: forget it. Returns why it was
	 * not done in its time: a sentence, or NULL. */
	const char *(*deferred_end)(void *owner, struct pending *p);

	/* Why the rules forbid it now: a sentence, valid until the next call; NULL: they do not. */
	const char *(*forbids)(void *owner, struct peer *peer, const struct request *request);

	/* Of router_read(): it was sent; it has ended, with the answer's frame if there is one. */
	void (*read_sent)(void *owner, void *reading);
	void (*read_end)(void *owner, void *reading, enum router_read_end end,
			 const struct wire_frame *answer);
};

struct router *router_new(const struct router_settings *settings, const struct router_ops *ops,
			  void *owner, struct stats *stats, uint64_t hash_seed);
void router_free(struct router *r); /* all peers have left */
/* From now on; the deadlines of those who are there stay. */
void router_set(struct router *r, const struct router_settings *settings, int64_t now);

void router_join(struct router *r, struct peer *peer); /* out and number are set */
/* What it has not sent is dropped; answers to what it has sent are for nobody. */
void router_leave(struct router *r, struct peer *peer, int64_t now);

/* A remote request (get … increment). Its spans are copied where needed. */
void router_request(struct router *r, struct peer *peer, const struct request *request,
		    int64_t now);

/* An answer that is known at once: line is whole, newline included; with_id tells whether it
 * carries a messageId. Answers without one wait for those before them. */
void router_say(struct router *r, struct peer *peer, struct span line, bool with_id);

/* A request that somebody else answers (a subscribe, a token): the router keeps its deadline and
 * its place in the order of answers. It ends by router_settle(), or by ops->deferred_end(): if its
 * time is up with pending::late, which whoever holds it may set. */
struct pending *router_defer(struct router *r, struct peer *peer, const struct request *request,
			     int64_t now);
/* May it be answered now? One without a messageId waits for those before it: ops->deferred_turn().
 */
bool router_may_settle(const struct router *r, const struct pending *p);
void router_settle(struct router *r, struct pending *p); /* with code 200 */
/* ... with an object that holds a secret: what is ours of the line is wiped once it is out. */
void router_settle_secret(struct router *r, struct pending *p, struct span object);
void router_refuse(struct router *r, struct pending *p, enum reply_error error, const char *text,
		   long retry_ms);

/* The daemon reads a key for itself. Its turn comes among those of the clients, or behind them all
 * if it is in no hurry. reading is not touched, and comes back in ops->read_end(): never from
 * within this call. */
void router_read(struct router *r, void *reading, const struct json_value *key, bool hurry,
		 int64_t now);
/* Else router_read() is of no use: it is longer than the service takes. */
bool router_takes_key(struct router *r, const struct json_value *key, int64_t now);
/* The same of one that was blamed: with nothing else in flight, as of a client on trial. */
void router_read_alone(struct router *r, void *reading, const struct json_value *key, int64_t now);

/* What the client may do has changed: refuses what waits to be sent and is forbidden now. What is
 * on its way is answered as ever, but not sent again if it is forbidden by then. router_pump()
 * follows, once this was done for all whom it concerns. */
void router_restrict(struct router *r, struct peer *peer);

/* Shall this client be read further? */
bool router_may_read(const struct router *r, const struct peer *peer);

/* Connections are called connections here: numbers of the owner's that it does not use again.
 * Requests go out on one of them, the one of the last router_up() or router_move(); those on their
 * way stay where they are. router_move(): true: writes that were given up on the connection that is
 * left may take effect yet, so its end, or their answers, are waited for. router_down() says that a
 * connection is gone, which may be one that was left. */
void router_up(struct router *r, uint32_t connection, int64_t now);
bool router_move(struct router *r, uint32_t connection, int64_t now);
void router_down(struct router *r, uint32_t connection, int64_t now);
/* The same, with how it has ended (struct blame_end). True: it is known which
 * request was at fault, so the loss says nothing of the service. */
bool router_lost(struct router *r, uint32_t connection, int close_code, bool dropped, int64_t now);
/* The next connection leads to another service, or is another's there: what was learnt of this one
 * is forgotten. */
void router_forget_blame(struct router *r);
/* There is room for more to send. */
void router_pump(struct router *r, int64_t now);
void router_frame(struct router *r, const struct wire_frame *frame, int64_t now);

/* Answers those whose time is up, and sends what the pace allows by now. Returns the next time to
 * call it, or -1 when nothing waits for a time. */
int64_t router_expire(struct router *r, int64_t now);

/* From now on nothing is sent any more: what waits and what comes is refused with shutting_down. */
void router_stop(struct router *r);
bool router_is_stopping(const struct router *r);
/* Answers those still in flight with outcome_unknown. */
void router_abandon(struct router *r);

/* The pace in requests/s, 0 when unpaced, and how long a new request of this client would wait for
 * its turn in it. */
double router_pace(const struct router *r, int64_t now);
int64_t router_pace_wait_ms(const struct router *r, const struct peer *peer, int64_t now);

unsigned router_in_flight(const struct router *r);
size_t router_waiting(const struct router *r);
size_t router_waiting_bytes(const struct router *r); /* their memory */
