/* client.h - the local connections: bytes in, lines up; lines down, bytes out.
 *
 * Owns each client's socket, the unfinished line it has sent and the output it has not taken yet.
 * Knows nothing of what lines mean: they go up through struct client_ops. Output is appended to
 * peer::out by whoever answers, and clients_changed() says so; all that gathers for a client within
 * one turn of the loop leaves in one write.
 *
 * Backpressure: a client is not read while it has too much unanswered (ops->may_read) or untaken
 * (output_soft), so it is its own socket that fills up. Beyond output_hard, not counted the line
 * that it is taking, it is dropped with a last line. A client that has shut down its writing side
 * gets all its answers first, and stays as long as it is subscribed to something; one that has gone
 * altogether is noticed even while nothing is read from it.
 *
 * It asks the kernel whom a socket belongs to. That is kept there for as long as the socket is
 * open, groups included, and asked for again when it is needed again. Users and groups without a
 * number of their own (overflow_ids.h) are told as -1, which no rule can name. */
#pragma once

#include <event2/event.h>
#include <stdint.h>
#include <sys/types.h>

#include "requests/pending.h"
#include "codec/stats.h"

struct clients;

enum {
	CLIENTS_REFUSED_MAX =
		16, /* connections that stay for their last line, beside the clients */
};

struct client_settings {
	unsigned max_clients;
	size_t max_line;
	size_t output_soft, output_hard;
};

/* Called from the loop; joined() from within clients_adopt(), left() and closed() from within
 * clients_free(). */
struct client_ops {
	void (*joined)(void *owner, struct peer *peer, const struct peer_identity *who);
	void (*line)(void *owner, struct peer *peer, struct span line, int64_t now);
	void (*too_long)(void *owner, struct peer *peer, struct span prefix);
	bool (*may_read)(void *owner, struct peer *peer);
	/* Its output is below output_soft again while peer::lag has more for it. */
	void (*has_room)(void *owner, struct peer *peer);
	/* No line of it will come, no answer reach it: forget the peer. Its socket may stay open
	 * for its last bytes. */
	void (*left)(void *owner, struct peer *peer);
	void (*closed)(void *owner); /* a socket was closed, there is room for another client */
};

struct clients *clients_new(struct event_base *base, const struct client_settings *settings,
			    const struct client_ops *ops, void *owner, struct stats *stats);
void clients_free(struct clients *cs); /* drops all that are left */
/* Those who are there stay, however many. Limits hold from now on. */
void clients_set(struct clients *cs, const struct client_settings *settings);

/* Takes over a connected, non-blocking socket; beyond max_clients it gets a last line, and is
 * closed a second later, or when too many others have come. */
void clients_adopt(struct clients *cs, int fd);

/* The peer's output has grown or its requests have been answered: looked at when this turn of the
 * loop ends. */
void clients_changed(struct clients *cs, struct peer *peer);

/* Writes out what the peer's socket takes now, before the turn ends. The peer stays, whatever comes
 * of it. */
void clients_flush(struct clients *cs, struct peer *peer);

unsigned clients_count(const struct clients *cs);

/* A look at all of them. */
struct clients_sums {
	unsigned held;       /* not read further at present */
	unsigned lagging;    /* have missed changes that they will be told the latest of */
	size_t input_bytes;  /* received and not handed on */
	size_t output_bytes; /* for them, and not taken yet */
};
struct clients_sums clients_sum_up(const struct clients *cs);

/* Tells whom each client belongs to once more, of those that have not left. */
void clients_each(struct clients *cs,
		  void (*each)(void *owner, struct peer *peer, const struct peer_identity *who));

/* What a client has done and left undone, for people who look for the busy ones. */
struct client_activity {
	uint64_t number;   /* never used again for another client */
	pid_t pid;         /* 0: unknown */
	uid_t uid;         /* -1: unknown */
	uint64_t requests; /* lines read since it connected */
	uint32_t unanswered;
	uint32_t subscriptions;
	size_t unread; /* bytes that it has not taken yet */
};

enum { CLIENTS_BUSIEST_MAX = 10 };

/* The busiest, first who has sent the most since this was last asked (and at least a second ago),
 * then who has sent the most at all. Returns how many. Looks at every client, so it is for
 * questions, not for the path of a request. */
unsigned clients_busiest(struct clients *cs, struct client_activity top[CLIENTS_BUSIEST_MAX]);

/* The daemon ends: a client can send nothing more, which fails on its side. What it has sent before
 * is still read and handed on. So a client knows of every request whether the daemon has read it.
 */
void clients_end_input(struct clients *cs);

/* Writes out what is there now, as far as the sockets take it. True when nothing is left to write
 * or, after clients_end_input(), to read. */
bool clients_flush_all(struct clients *cs);
