/* http.h - HTTP/1.1 on a client's connection: requests in, responses out, in their order.
 *
 * A request becomes a line of the local protocol (rest.h), and the line's answer a response. Each
 * request has an exchange in a queue, also one that is answered without the core (an unknown path,
 * a wrong key). The first exchange leaves the queue with its response:
 *
 *     READY    at once: the response is there
 *     ASKED    when the answer to its line is there
 *     DELAYED  HTTP_DELAY_MS after the request: it had a wrong key
 *     HELD     when it has become ASKED, which it does as soon as it is the first: it has another
 *              local key than the request before it, or is an upgrade
 *
 * /hpkvd/watch turns the connection into a stream of events once its subscription is live, and an
 * upgrade makes it another speech's (struct http_offer). Both take no further HTTP request.
 *
 * On the Unix socket every client may ask, as with lines. On TCP each request needs a local key. A
 * request with another key than the last one waits until all before it are answered, so a peer
 * never has the rights of two keys. */
#pragma once

#include <stdint.h>

#include "base/buf.h"
#include "gateway/http_message.h"
#include "gateway/origin.h"
#include "gateway/speech.h"

enum {
	HTTP_HEAD_MS = 10000,    /* for a head to come, from its first byte; on TCP, for a client
				    that has shown no local key to ask for something */
	HTTP_BODY_MS = 30000,    /* for a body to come, once there is leave to send it */
	HTTP_DELAY_MS = 100,     /* until a wrong key is told so */
	HTTP_COMMENT_MS = 15000, /* between comments in a stream of events ... */
	HTTP_LOOK_MS = 1000,     /* ... on TCP, once the client has shut its writing side */
};

/* What becomes of a request for an upgrade to WebSocket. */
struct http_offer {
	int status;        /* 101: it may be done. Else the status of the response, ... */
	const char *error; /* ... and its sentence; static, or valid until the next upgrade() */
	/* Header lines of the 101 beside Upgrade and Connection, or of the error, each with its CR
	 * LF. Released by http. */
	struct buf headers;
	/* A line of the local protocol without messageId: the 101 leaves when it was answered with
	 * code 200; any other answer is the response, and the connection ends behind it. Empty:
	 * none. Released by http. */
	struct buf subscribe;
	/* Takes the connection over when the 101 leaves, together with the bytes that came behind
	 * the request. Freed by http (speech_free()) if it does not come to that. */
	struct speech *next;
	/* Called when this request is the only one of the connection that is unanswered, before the
	 * line: the peer has the rights of next->who from now on. 0; or the status of the response
	 * with *why, a sentence, and the connection ends. NULL: its rights stay. */
	int (*admit)(void *owner, struct peer *peer, struct speech *next, const char **why);
};

struct http_ops {
	/* Is the service reachable? For /hpkvd/ready. */
	bool (*ready)(void *owner);
	/* A GET of /ws with an upgrade to WebSocket, from whom may ask: its Host, Origin and key
	 * are checked, but for a request with token= in its query, whose token is for the callee to
	 * check. *offer is zeroed. NULL: there is no WebSocket here (404). */
	void (*upgrade)(void *owner, const struct http_request *r, struct http_offer *offer);
};

struct http_settings {
	size_t max_line;               /* of a body */
	unsigned max_pipeline;         /* exchanges of a connection */
	const struct origins *origins; /* of web pages; on TCP only */
	bool nexus;                    /* /search and /query exist */
	const struct http_ops *ops;
	void *owner;
	int64_t (*wall_ms)(void); /* the clock on the wall, for the Date of responses */
	struct stats *stats;
};

/* Does a connection whose first byte this is speak HTTP? */
static inline bool http_begins(char first)
{
	return first >= 'A' && first <= 'Z';
}

/* Appends a response to a connection whose request is not read, after which it is closed. why: a
 * sentence; NULL: the usual one. */
void http_refusal(struct buf *out, enum reply_error error, const char *why, int64_t wall_ms);

/* settings stay where they are; they may change between calls. */
struct speech *http_new(const struct http_settings *settings, bool tcp, int64_t now);
