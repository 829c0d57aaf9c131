/* pending.h - one request between its line and its answer, and the client it belongs to as the core
 * sees it.
 *
 * The two structures that the rooms of the core share; each field says which room writes it. A
 * pending is made for the router when a request can't be answered at once, and freed when its one
 * answer was handed on. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/heap.h"
#include "base/outq.h"
#include "codec/request.h"
#include "base/span.h"

enum pending_state {
	PENDING_NEW,      /* just made: in no queue */
	PENDING_WAITING,  /* in sched's queue of its peer: not sent, or to be sent again */
	PENDING_SENT,     /* in inflight's table: on its way, executed or not */
	PENDING_HELD,     /* a subscribe or token: waits for feed or issuer to do it */
	PENDING_ANSWERED, /* its answer is kept until the answers before it are out */
	PENDING_STATE_N
};

struct pending {
	enum pending_state state; /* router; answers: PENDING_ANSWERED */
	enum request_op op;       /* router */
	struct peer *peer;        /* router; NULL: the client has left, an answer is for nobody */
	TAILQ_ENTRY(pending) of_peer;  /* peer::pendings */
	TAILQ_ENTRY(pending) in_order; /* peer::ordered, when it has no id */
	TAILQ_ENTRY(pending) waiting;  /* peer::waiting, while PENDING_WAITING */
	struct heap_node deadline;     /* router::deadlines, until it is answered */

	union {
		void *holder; /* feed or issuer: its own of this request, while PENDING_HELD */
		uid_t uid;    /* router: of a client that has left */
	};
	void *reading; /* reread: its own of this read, which is the daemon's and no client's; or
			  NULL */

	uint32_t connection; /* router: the connection that it was sent on, while PENDING_SENT */
	uint32_t since;      /* router: when it began to wait to be sent, or was sent; low bits */
	uint64_t wire_id;    /* inflight: the id of its frame, while PENDING_SENT */
	uint64_t sequence;   /* inflight: later ones were sent later */
	uint64_t key_hash; /* router: of peer and key together; 0 for operations without one key */
	TAILQ_ENTRY(pending) of_key; /* inflight: chain of those with a similar key_hash */
	bool overtaken;    /* inflight: a later request for its key took effect, or may have */
	bool follows;      /* inflight: an earlier request for its key was on its way */
	bool followed;     /* inflight: a later request for its key, sent while this one was on its
			      way, took effect, or may have */
	bool refused;      /* router: by the rate limit of the service, so it was not executed */
	bool had_turn : 1; /* answers: while PENDING_HELD, its holder knows that it is the next */
	bool sent_before : 1; /* router: on a connection that was lost; so even a waiting one may
			     have been executed */
	bool in_doubt : 1; /* router: the rules have changed since it was sent, so it is judged anew
			     before it is sent again */
	bool secret : 1;   /* answers: its answer is wiped once it was handed on */
	bool tried : 1;    /* router: it was sent while its client was on trial */
	uint8_t losses;    /* blame: of connections that it is a suspect of, by their weight */
	uint8_t late;      /* holder: the reply_error when its time is up, while PENDING_HELD */

	struct buf answer; /* answers: the line, while PENDING_ANSWERED */
	uint32_t size;     /* answers: of the whole block */
	uint32_t order;    /* answers: later ones were asked later; see pending_is_before() */
	uint32_t id_len, body_len;
	char text[]; /* the client's messageId, then the frame's body */
};

TAILQ_HEAD(pending_list, pending);

/* The process that connected to a client's socket, as it was then: the kernel says so. */
struct peer_identity {
	bool known; /* else nothing else is */
	pid_t pid;  /* 0: of another namespace */
	uid_t uid;  /* -1: of somebody without a number here (overflow_ids.h); no rule names that */
	gid_t gid;  /* the same */
	const gid_t *groups; /* the supplementary ones */
	size_t n_groups;
};

struct access_view;

/* What is held against a client: see blame.h. */
struct blame_record {
	uint8_t weight;   /* of the connections that were lost, maybe over a request of its */
	uint8_t repeated; /* reads of it that are sent again after the last of them */
	uint16_t trial;   /* requests that have to be answered until it is off trial; 0: it is */
	uint64_t round;   /* blame::round of the last loss */
	int64_t at;       /* when that was */
};

/* A local client: embedded in the room that owns its socket, which sets the first four fields. */
struct peer {
	struct outq *out; /* lines for the client are appended here */
	uint64_t number;  /* never used again for another client; not 0 */
	pid_t pid;        /* for the log; 0: unknown */
	uid_t uid;        /* ... -1: unknown */

	struct access_view *access; /* access: what the rules let it do; NULL: there are none */
	int64_t refusals_at;        /* access: its bucket of refusals that are logged */

	struct pending_list pendings; /* answers: all unanswered ones, oldest first */
	struct pending_list ordered;  /* answers: those without an id, answered in this order */
	struct pending_list waiting;  /* sched */
	uint32_t n_waiting;           /* sched: its length */
	TAILQ_ENTRY(peer) turn;       /* sched::turns, while something is waiting */
	bool blocked;                 /* sched: gets no turn, whatever is waiting */
	bool on_trial;                /* sched: gets its turns in another queue */
	struct blame_record blame;    /* blame */
	bool flushing;                /* answers: answers are being handed on */
	bool last;                    /* router: gets a turn when nobody else has one */
	uint32_t unanswered;          /* answers: the length of pendings */
	uint32_t asked;               /* answers: how many there were; low bits */
	uint32_t unsent_bytes;        /* sched: memory of those that wait to be sent */
	size_t kept_bytes;            /* answers: of answers that wait for those before them */

	LIST_HEAD(, sub) topics;       /* subs */
	uint32_t n_subs;               /* subs: the length of subs */
	uint32_t n_globs;              /* subs: those of them that are costly, topic_is_glob() */
	TAILQ_HEAD(, join) joins;      /* feed: subscribe requests that are not live yet */
	uint32_t joining;              /* feed: keys and patterns that they wait for */
	uint32_t joining_globs;        /* feed: ... that are costly */
	LIST_ENTRY(peer) of_audience;  /* fanout: those with subs */
	bool suspect;                  /* feed: the service has refused a name of its */
	bool in_audience;              /* fanout */
	uint32_t asking;               /* issuer: token requests that wait or are under way */
	uint64_t token_round;          /* issuer: the turn of the last of them */
	uint64_t change;               /* fanout: the last one that it has got */
	uint32_t read_round;           /* reread: the next in which it may have an initial value */
	struct conflation *conflation; /* fanout: what it is told once it reads again; or NULL */
	size_t lag_bytes;              /* fanout: the bytes of that */
};

/* All that the client has not taken yet. */
static inline size_t peer_unread(const struct peer *peer)
{
	return outq_len(peer->out) + peer->kept_bytes + peer->lag_bytes;
}

/* Of one client: did it ask for p before q? No client has so many unanswered that this is wrong. */
static inline bool pending_is_before(const struct pending *p, const struct pending *q)
{
	return (int32_t)(p->order - q->order) < 0;
}

static inline struct span pending_id(const struct pending *p)
{
	return (struct span){p->text, p->id_len};
}

static inline struct span pending_body(const struct pending *p)
{
	return (struct span){p->text + p->id_len, p->body_len};
}
