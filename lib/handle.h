/* handle.h - a handle's insides: the life of a request, and of the connection.
 *
 *   the connection     DOWN ── needed, or retry_at ──▶ UP ── end of file, error ──▶ DOWN
 *
 *   a request          WAITING ── UP ──▶ SENT ── its answer ──▶ told
 *                        ▲  │              │
 *                        │  └─ its time ───┼── its time and GRACE_MS more ──▶ told: it failed
 *                        └── DOWN, and it may be repeated, or had not left
 *                                          └── DOWN otherwise ──▶ told: HPKV_UNKNOWN
 *
 * A request that is made while DOWN connects at once, and fails at once if that fails: only those
 * that had a connection, or that a busy daemon keeps at the door, wait for one. The connection is
 * made anew while there is something to do with it: subscriptions, or requests that wait.
 *
 * Each request is told exactly once, by settle(). */
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
	bool sent;         /* handed to the present connection */
	uint64_t complete; /* then: it can be read by the daemon once so many bytes have left */
	int64_t deadline;
	int64_t away;      /* hpkv::away when it began: what has been added since is not its time */
	unsigned n_topics; /* the library's own, to subscribe again to so many; 0: a user's */
	hpkv_answer_fn *done;
	void *arg;
	bool *finished; /* a blocking call waits for it; its answer goes to hpkv::last */
	size_t n, id_n; /* of text: the line with its LF, and the user's messageId behind it */
	char text[];
};

TAILQ_HEAD(pending_list, pending);

enum { HANDLE_BUCKETS = 256, HANDLE_ERROR_MAX = 600 };

struct hpkv {
	char *given;               /* the socket's path, or NULL: wherever it is */
	char *path;                /* of the last attempt */
	int epoll, timer;          /* what hpkv_fd() is made of */
	int64_t timer_at;          /* INT64_MAX: not set */
	struct channel channel;    /* the connection: UP while its fd is there */
	bool proven;               /* the daemon has said something on it */
	int64_t since;             /* when it came UP */
	bool told_lost;            /* HPKV_EVENT_LOST was told, HPKV_EVENT_BACK not yet */
	bool door_closed;          /* the last connection ended with "too many clients" */
	bool explained;            /* why is what the daemon said last on this connection */
	char why[CHANNEL_WHY_MAX]; /* why it is DOWN */
	int backoff_ms;
	int64_t retry_at; /* INT64_MAX: when it is needed */

	struct pending_list pendings;
	struct pending *buckets[HANDLE_BUCKETS];
	size_t pending_bytes; /* of all their lines */
	uint64_t last_id;
	int64_t check_at; /* no deadline is over before this */
	int64_t seen_at;  /* the program was here last */
	int64_t away;     /* ms that it was elsewhere, in all, while it was to look */
	int timeout_ms;

	struct topics topics;
	unsigned resubscribing; /* requests of the library's own under way */
	int64_t resubscribe_at; /* when to try again; INT64_MAX */

	hpkv_event_fn *event;
	void *event_arg;
	unsigned depth;  /* within callbacks */
	bool running;    /* within handle_step() */
	bool freed;      /* hpkv_free() was called within one */
	unsigned called; /* callbacks made in this step */
	struct decode_store scratch, last;
	char error[HANDLE_ERROR_MAX];
};

/* Sends a request. HPKV_OK, or why not, with h->error set; then nobody will be told. */
int handle_start(struct hpkv *h, const struct hpkv_request *q, hpkv_answer_fn *done, void *arg,
		 bool *finished);

/* Does what can be done without waiting. */
void handle_step(struct hpkv *h);

/* Waits until hpkv_fd() is readable. false: a signal came. */
bool handle_poll(const struct hpkv *h, int timeout_ms);

/* Where the socket is. false: no memory. */
bool handle_find_socket(struct hpkv *h);

/* Really frees it. */
void handle_destroy(struct hpkv *h);
