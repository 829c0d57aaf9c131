/* handle.h - the state of a handle: the life of its connection and of its requests.
 *
 *   the connection     DOWN ── needed, or retry_at ──▶ UP ── end of file, error ──▶ DOWN
 *
 *   a request          WAITING ── UP ──▶ SENT ── answer ──▶ settled
 *                        ▲  │              │
 *                        │  └─ deadline ───┼── deadline and GRACE_MS ──▶ settled: failed
 *                        └── DOWN, and it may be repeated or was not sent whole
 *                                          └── DOWN otherwise ──▶ settled: HPKV_UNKNOWN
 *
 * The handle connects again while it has subscriptions or waiting requests. A request made while
 * DOWN makes an attempt to connect at once. If that fails it waits, provided that the handle has
 * reached a daemon before (known), or that the daemon is too busy to accept; else it fails at once.
 *
 * A daemon that is ending says so: by refusing requests, or by a last line. From then on
 * (hpkv::ending) nothing is sent on this connection, and refused requests are WAITING again. The
 * connection goes DOWN at end of file, or before that once all sent requests are answered.
 *
 * With hpkv::reconnect off nothing waits: the end of the connection settles all requests.
 *
 * Each request is settled exactly once, by settle(). */
#pragma once

#include <sys/queue.h>

#include "channel.h"
#include "decode.h"
#include "hpkv.h"
#include "topics.h"

struct pending {
	TAILQ_ENTRY(pending) link; /* hpkv::pendings, oldest first */
	struct pending *chain;     /* hpkv::buckets */
	uint64_t id;
	enum hpkv_op op;
	bool repeatable, remote;
	bool sent;         /* queued on the current connection */
	bool delayed;      /* it has waited: the daemon gets what is left of its time */
	uint64_t complete; /* if sent: the daemon can read it once this many bytes have left */
	int64_t deadline;
	int64_t away;      /* hpkv::away at its start: later additions extend its deadline */
	unsigned n_topics; /* topics of one of the library's own subscribes; 0: a user's request */
	hpkv_answer_fn *done;
	void *arg;
	bool *finished;           /* set for a blocking call; its answer goes to hpkv::last */
	size_t limit_at, limit_n; /* of text: the digits of the daemon's time limit; 0: none */
	size_t n, id_n; /* of text: the line with its LF; the user's messageId behind it */
	char text[];
};

TAILQ_HEAD(pending_list, pending);

enum { HANDLE_BUCKETS = 256, HANDLE_ERROR_MAX = 600 };

struct hpkv {
	char *given;               /* the socket's path; NULL: the default one */
	char *path;                /* the path of the last attempt to connect */
	int epoll, timer;          /* the parts of hpkv_fd() */
	int64_t timer_at;          /* INT64_MAX: not set */
	struct channel channel;    /* the connection: UP while its fd is open */
	bool proven;               /* the daemon has sent a line on it */
	int64_t since;             /* when it came UP */
	bool reconnect;            /* as of hpkv_set_reconnect() */
	bool known;                /* a daemon was reached before */
	bool useful;               /* the daemon has said something else than that it is ending */
	bool ending;               /* the daemon is ending: nothing is sent on this connection */
	bool told_lost;            /* HPKV_EVENT_LOST was reported, HPKV_EVENT_BACK not yet */
	bool told_upstream_lost;   /* the same of HPKV_EVENT_UPSTREAM_LOST and _BACK */
	int64_t live_at;           /* wall clock, ms: the connection was known to live */
	int64_t lost_at;           /* wall clock, ms: changes may have been missed since */
	bool door_closed;          /* the last connection ended with "too many clients" */
	bool explained;            /* why holds the daemon's own explanation for this connection */
	char why[CHANNEL_WHY_MAX]; /* why it is DOWN */
	int backoff_ms;
	int64_t retry_at; /* when to connect again; INT64_MAX: once needed */

	struct pending_list pendings;
	struct pending *buckets[HANDLE_BUCKETS];
	size_t pending_bytes; /* of all lines */
	uint64_t last_id;
	int64_t check_at; /* no deadline is earlier */
	int64_t seen_at;  /* when the program last ran a step */
	int64_t away;     /* ms in all during which the program ran no step though one was due */
	int timeout_ms;

	struct topics topics;
	unsigned resubscribing; /* the library's own subscribes in flight */
	int64_t resubscribe_at; /* when to repeat them; INT64_MAX: none failed */

	hpkv_event_fn *event;
	void *event_arg;
	unsigned depth;  /* depth of running callbacks */
	bool running;    /* handle_step() runs */
	bool freed;      /* hpkv_free() was called in a callback */
	unsigned called; /* callbacks run in this step */
	struct decode_store scratch, last;
	char error[HANDLE_ERROR_MAX];
};

/* Sends a request. HPKV_OK, or an error with h->error set; done is not called then. */
int handle_start(struct hpkv *h, const struct hpkv_request *q, hpkv_answer_fn *done, void *arg,
		 bool *finished);

/* Does all that can be done without waiting. */
void handle_step(struct hpkv *h);

/* Waits until hpkv_fd() is readable. false: interrupted by a signal. */
bool handle_poll(const struct hpkv *h, int timeout_ms);

/* Sets h->path to the socket's path. false: no memory. */
bool handle_find_socket(struct hpkv *h);

/* Cancels all requests and frees the handle. */
void handle_destroy(struct hpkv *h);
