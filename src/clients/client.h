/* client.h - the local connections: bytes in, lines up; lines down, bytes out.
 *
 * Owns each client's socket, its unfinished input line and its peer with the output. Lines are
 * passed up through struct client_ops; their meaning is not known here. Other rooms append to
 * peer::out and then call clients_changed(); the output of one turn of the loop leaves in one
 * write.
 *
 * Backpressure: a client is not read while it has too many unanswered requests (ops->may_read) or
 * more unread output than output_soft, so its own socket fills up. Beyond output_hard, not counting
 * the line that it is taking, it is dropped with a last line. A client that has shut down its
 * writing side first gets all its answers, and stays as long as it has subscriptions. The hangup of
 * a client is noticed even while it is not read.
 *
 * The first byte of a client on the Unix socket decides what it speaks: lines (line.h), or HTTP,
 * which is a speech (speech.h). Then its bytes go through that, and the connection's end is gentle:
 * what still comes is dropped for a moment, so that a response on its way is not destroyed.
 *
 * The credentials of a client are asked of the kernel, which keeps them for as long as the socket
 * is open, each time they are needed. Users and groups without a number of their own
 * (overflow_ids.h) become -1, which no rule can name. */
#pragma once

#include <event2/event.h>
#include <stdint.h>
#include <sys/types.h>

#include "requests/pending.h"
#include "codec/stats.h"

struct clients;

enum {
	/* Strangers, who have come over TCP and shown neither a key nor a token yet: the larger of
	 * these two. A listener accepts 64 in a turn of the loop, and their keys are read in the
	 * next, so none of many who come at once is taken for one who shows no key. */
	CLIENTS_STRANGERS_MIN = 256,
	CLIENTS_STRANGERS_PART = 4, /* one in so many of max_clients */
};

struct client_settings {
	unsigned max_clients;
	size_t max_line;
	size_t output_soft, output_hard;
	const struct http_settings *http; /* of those who speak HTTP */
	bool http_on_socket;              /* these may come by the Unix socket */
};

/* Called from the loop; joined() also from clients_adopt(), left() and closed() also from
 * clients_free(). */
struct client_ops {
	/* Why there is no room for another client with this identity: a sentence, valid until the
	 * next call; NULL: there is. */
	const char *(*lacks_room)(void *owner, const struct peer_identity *who);
	void (*joined)(void *owner, struct peer *peer, const struct peer_identity *who);
	/* On TCP, where the kernel does not know who has connected: is this a local key? The peer
	 * is whose key it is, from now on; or there is no room for it: why, as above. */
	bool (*knows)(void *owner, const struct local_key *key);
	const char *(*admit)(void *owner, struct peer *peer, const struct peer_identity *who);
	void (*line)(void *owner, struct peer *peer, struct span line, int64_t now);
	void (*too_long)(void *owner, struct peer *peer, struct span prefix);
	bool (*may_read)(void *owner, struct peer *peer);
	/* Its output is below output_soft again, and it has a conflation. */
	void (*has_room)(void *owner, struct peer *peer);
	/* No line will come from it and no answer will reach it: forget the peer. Its socket may
	 * stay open for its last bytes. */
	void (*left)(void *owner, struct peer *peer);
	void (*closed)(void *owner); /* a client's socket was closed */
};

struct clients *clients_new(struct event_base *base, const struct client_settings *settings,
			    const struct client_ops *ops, void *owner, struct stats *stats);
void clients_free(struct clients *cs); /* drops all clients */
/* Replaces the settings. Present clients stay, even if they are too many. */
void clients_set(struct clients *cs, const struct client_settings *settings);

/* Takes over a connected, non-blocking socket. Beyond max_clients, or without room, it gets a last
 * line and is closed after a second, or sooner when many others are refused. tcp: it speaks HTTP,
 * and shows keys; beyond the bound for strangers the one that has come first is dropped. */
void clients_adopt(struct clients *cs, int fd, bool tcp);

/* Ends the client's connection once this turn ends, whatever is unanswered. */
void clients_dismiss(struct clients *cs, struct peer *peer);

/* The peer's output has grown or requests were answered. It is written when this turn of the loop
 * ends. */
void clients_changed(struct clients *cs, struct peer *peer);

/* Writes what the peer's socket takes, before the turn ends. Never frees the peer. */
void clients_flush(struct clients *cs, struct peer *peer);

unsigned clients_count(const struct clients *cs);

/* Sums over all clients. */
struct clients_sums {
	unsigned door[STATS_DOOR_N]; /* by what they speak */
	unsigned tcp;                /* that have come over TCP */
	unsigned paused;             /* not read at present */
	unsigned slow;               /* that get conflated changes */
	size_t input_bytes;          /* received and not passed on */
	size_t output_bytes;         /* not taken yet */
};
struct clients_sums clients_sum_up(const struct clients *cs);

/* Calls each() with the identity of each client that has not left. */
void clients_each(struct clients *cs,
		  void (*each)(void *owner, struct peer *peer, const struct peer_identity *who));

/* Whom a client is taken for; valid until the next call here. */
struct peer_identity clients_identify(struct clients *cs, const struct peer *peer);

/* The daemon ends: those who speak a protocol in which one says so are told, behind all that is for
 * them. */
void clients_farewell(struct clients *cs);

/* The activity of a client, for a list of the busy ones. */
struct client_activity {
	uint64_t number;   /* never used again for another client */
	pid_t pid;         /* 0: unknown */
	uid_t uid;         /* -1: unknown */
	uint64_t requests; /* lines read since it connected */
	uint32_t unanswered;
	uint32_t subscriptions;
	size_t unread; /* bytes that it has not taken yet */
	enum stats_door door;
	bool tcp;
};

enum { CLIENTS_BUSIEST_MAX = 10 };

/* The busiest clients: by their requests since this was last called, at least a second ago, then by
 * their requests in all. Returns their number. Looks at every client, so it is not for the path of
 * a request. */
unsigned clients_busiest(struct clients *cs, struct client_activity top[CLIENTS_BUSIEST_MAX]);

/* The daemon is going to end: from now on it is watched who has an answer to read. */
void clients_will_end(struct clients *cs);

/* The daemon ends: a client can send nothing more, which fails on its side. What it has sent before
 * is still read and handed on. So a client knows of every request whether the daemon has read it.
 *
 * Many programs close their socket as soon as sending fails, and lose the answers in it that they
 * have not read. So a client that has yet to read an answer in its socket is left out. To
 * be called again for those; all: leaves none out. */
void clients_end_input(struct clients *cs, bool all);

/* Writes out what is there now, as far as the sockets take it. True when nothing is left to write
 * or, after clients_end_input(), to read, and each WebSocket that got its last words is closed. */
bool clients_flush_all(struct clients *cs);
