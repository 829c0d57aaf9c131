/* pending.h - one request, from its line until its answer was put out.
 *
 * The router makes a pending for each request that can't be answered at once, and frees it with its
 * one answer. As in a peer (peer.h), each room has a part of its own and writes no other; the
 * fields that are in no part are the router's. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/heap.h"
#include "base/span.h"
#include "codec/request.h"
#include "requests/peer.h"

enum pending_state {
	PENDING_NEW,      /* just made: in no queue */
	PENDING_WAITING,  /* in sched's queue of its peer: not sent, or to be sent again */
	PENDING_SENT,     /* in inflight's table: may have been executed */
	PENDING_DEFERRED, /* a subscribe or token request: another room will have it answered */
	PENDING_ANSWERED, /* its answer is kept until the answers before it are out */
	PENDING_STATE_N
};

struct answers_pending {
	TAILQ_ENTRY(pending) of_peer;  /* answers_peer::pendings */
	TAILQ_ENTRY(pending) in_order; /* answers_peer::ordered, if it has no messageId */
	struct buf line;               /* the answer, while PENDING_ANSWERED */
	uint32_t size;                 /* of the pending's memory */
	uint32_t order;                /* counts the client's requests; see pending_is_before() */
	bool had_turn; /* while PENDING_DEFERRED: its room knows that it is the next */
	bool secret;   /* its answer is wiped after it was written */
};

/* While PENDING_DEFERRED, of the room that will have it answered: subscriptions or token_requests.
 */
struct deferred_pending {
	void *request;         /* what that room keeps of it */
	uint8_t timeout_error; /* the reply_error that answers it if its time is up;
				  REPLY_TIMEOUT: it is under way, or was */
};

struct inflight_pending {
	uint32_t connection; /* that it was sent on */
	bool companion;      /* it goes along with another, and has no slot */
	bool lone;           /* its slot counts as that of a lone request */
	bool overtaken;      /* a later request for its key took effect, or may have */
	bool follows;        /* an earlier request for its key was in flight */
	bool followed;       /* a later request for its key, sent while this one was in flight, took
				effect, or may have */
	uint64_t wire_id;    /* the id of its frame, while PENDING_SENT */
	uint64_t sequence;   /* later ones were sent later */
	TAILQ_ENTRY(pending) of_key; /* chain of those with a similar key_hash */
};

struct blame_pending {
	uint8_t losses; /* of connections, perhaps over it, by their weight */
};

/* What the cache keeps of it: see struct router_watch. */
struct watch_pending {
	void *entry;   /* of its key; or NULL */
	uint64_t seen; /* of a read: what the cache knew when it was sent */
};

struct combined;

struct pending {
	enum pending_state state; /* answers sets PENDING_ANSWERED */
	enum request_op op;
	struct peer *peer; /* answers sets it; NULL: the client has left, the answer is dropped */
	uint32_t since;    /* when it began to wait or was sent, low 32 bits of ms */
	struct blame_pending blame;
	bool watched : 1;     /* router_watch::over() is to be called */
	bool fresh : 1;       /* it asks for the service's own answer */
	bool charged : 1;     /* its memory counts as waiting, though it is in flight */
	bool refused : 1;     /* by the service's rate limit, so it was not executed */
	bool sent_before : 1; /* on a connection that was lost, so it may have been executed */
	bool in_doubt : 1;    /* the access rules have changed since it was sent: it is judged again
				 before it is sent again */
	bool paid : 1;        /* in the budgets of its client; budget writes it */
	bool tried : 1;       /* it was sent while its client was on trial */
	struct watch_pending watch;
	struct combined *combined; /* combine's: while it may be combined, or is; or NULL */
	uint64_t key_hash;         /* of peer and key together; 0 for operations without one key */
	void *reading;             /* resync's, if this is a read of the daemon's own; else NULL */
	struct heap_node deadline; /* router::deadlines, until it is answered */

	union {
		TAILQ_ENTRY(pending) waiting;  /* sched_peer::waiting; sched's */
		TAILQ_ENTRY(pending) deferral; /* router::deferred */
		struct {                       /* of a request that was sent */
			uid_t uid;             /* of its client, if that has left */
			struct budgets *in;    /* in flight in these; NULL: in none */
		};
	};
	union { /* a request is deferred or sent, never both */
		struct deferred_pending deferred;
		struct inflight_pending inflight;
	};
	struct answers_pending answers;

	uint32_t id_len, body_len;
	char text[]; /* the client's messageId, then the frame's body */
};

/* Of one client: did it ask for p before q? No client has so many unanswered that this is wrong. */
static inline bool pending_is_before(const struct pending *p, const struct pending *q)
{
	return (int32_t)(p->answers.order - q->answers.order) < 0;
}

static inline struct span pending_id(const struct pending *p)
{
	return (struct span){p->text, p->id_len};
}

static inline struct span pending_body(const struct pending *p)
{
	return (struct span){p->text + p->id_len, p->body_len};
}
