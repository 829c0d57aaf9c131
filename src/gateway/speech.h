/* speech.h - the protocol of a client that does not speak lines: HTTP or WebSocket.
 *
 * The room that owns the socket (client.h) passes the client's bytes to a speech, which makes lines
 * of the local protocol of them. The core answers these as any other lines, into the peer's queue.
 * The speech makes bytes of its protocol of the answers. So requests and outcomes have one path. A
 * speech has no descriptor and no clock.
 *
 * A speech is made by the host when a connection's first byte has come (http.h), or by an upgrade
 * (http.h, struct http_offer), and freed by the host when the connection is gone or another speech
 * has taken its place.
 *
 * A speech can rely on this:
 * - None of its functions is called from within one of them, and it is never freed from within.
 * - The host calls fill() after each feed(), resume(), finish() and wake(), and whenever lines were
 *   put into the peer's queue, before it writes.
 * - Lines lie whole in the peer's queue (peer->out), each with its line end: speech_line().
 * - Answers to lines without a messageId come in the order of the lines, one to each. A line
 *   without "code" is one that nobody has asked for (events.h). */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "access/local_keys.h"
#include "base/heap.h"
#include "base/outq.h"
#include "base/span.h"
#include "codec/reply.h"
#include "codec/stats.h"
#include "requests/peer.h"

struct speech;

/* What a speech asks of the room that owns the socket. owner is speech::owner. */
struct speech_host {
	/* A line for the core, as if it had been read from a socket; valid during the call. Its
	 * answer may be in the peer's queue when this returns. */
	void (*line)(void *owner, struct span line, int64_t now);
	/* A message that is longer than max_line; prefix is its beginning. */
	void (*too_long)(void *owner, struct span prefix);
	/* May further requests be handed on? After each line: no more lines until resume(). */
	bool (*may_read)(void *owner);
	/* Is this one of the local keys? */
	bool (*knows)(void *owner, const struct local_key *key);
	/* The peer's rights are those of speech::key from now on. Only while nothing of the peer's
	 * is unanswered. Returns why there is no room for it, a sentence; NULL: there is. */
	const char *(*admit)(void *owner);
};

struct speech_ops {
	/* Bytes of the client. Those that are not handed on are kept. False: not to be fed before
	 * resume() has returned true; what is fed all the same is kept without a limit. */
	bool (*feed)(struct speech *s, struct span bytes, int64_t now);
	/* There may be room for more requests. As feed(). */
	bool (*resume)(struct speech *s, int64_t now);
	/* The client will send nothing more. Not while feed() or resume() has returned false, and
	 * not because the daemon ends. */
	void (*finish)(struct speech *s, int64_t now);
	/* Turns lines of the peer's queue into bytes in speech::out, until that holds
	 * SPEECH_FILL_MAX: what is left in the queue counts as unread, and is conflated. */
	void (*fill)(struct speech *s, int64_t now);
	/* speech::wake_at has come. */
	void (*wake)(struct speech *s, int64_t now);
	/* Memory: what was received and not handed on; answers that wait for those before them. */
	size_t (*kept_in)(const struct speech *s);
	size_t (*kept_out)(const struct speech *s);
	/* Is anything unanswered, that the peer's own count does not know of? */
	bool (*is_busy)(const struct speech *s);
	/* The client is dropped for this reason: last words into speech::out, if the protocol has
	 * any. The peer has left the core. */
	void (*farewell)(struct speech *s, enum reply_error why);
	void (*free)(struct speech *s);
	const char *name; /* "http", for the log, the status and the metrics */
	enum stats_door door;
};

enum { SPEECH_FILL_MAX = 65536 };

/* Embedded in each kind of speech as its first member. */
struct speech {
	const struct speech_ops *ops;
	const struct speech_host *host; /* these two are set by the host */
	void *owner;
	struct peer *peer;    /* set by the host */
	struct outq out;      /* bytes for the socket; goes on to the next speech */
	int64_t wake_at;      /* when the host is to call wake(); 0: never */
	struct heap_node due; /* the host's */
	bool over;            /* nothing more is read; the connection ends once out is empty */
	struct speech *next;  /* takes the connection over now; the host frees this one. Owned. */
	struct buf rest;      /* ... and what it is fed with first. Owned. */
	bool tcp;             /* the kernel does not know whose the connection is, ... */
	bool known;    /* ... but the client has shown a local key, or a token that is good */
	bool stranger; /* of_strangers is linked; the host's */
	TAILQ_ENTRY(speech) of_strangers; /* the host's */
	bool has_key;                     /* ... but the client has presented this local key */
	struct local_key key;             /* the last that it has presented */
	const struct peer_identity *who;  /* the client is taken for this one, whoever has opened
					     the connection; NULL: it is not */
};

/* The line that is first in the queue, its line end included; empty: there is none. It stays until
 * outq_take(). */
struct span speech_line(const struct speech *s);

void speech_free(struct speech *s); /* NULL: nothing */
