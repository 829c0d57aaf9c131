/* http.h - HTTP/1.1 on a client's connection: requests in, responses out, in their order.
 *
 * A request becomes a line of the local protocol (rest.h), and its answer a response. Each has an
 * exchange in a queue; a response leaves when it is ready and those before it have left. What is
 * known without the core (a path that does not exist, a key that is wrong) is an exchange as well.
 *
 *          head refused, or answered here          +--- READY: the response is there
 *   head ------------------------------------------+
 *     |   becomes a line                           +--- ASKED: its line is with the core
 *     +--------------------------------------------+
 *         a wrong key                              +--- DELAYED: READY in HTTP_DELAY_MS
 *         another key than the last one's          +--- held until no exchange is left
 *
 * /hpkvd/watch turns the connection into a stream of events once its subscription is live, and an
 * upgrade makes it another speech's (struct http_offer). Both take no further HTTP request.
 *
 * Who may ask: on the Unix socket whoever may open it, as with lines. On TCP a local key decides,
 * for each request; one with another key than the last waits until that one's requests are
 * answered, so that a peer never has the rights of two. */
#pragma once

#include <stdint.h>

#include "base/buf.h"
#include "gateway/http_message.h"
#include "gateway/origin.h"
#include "gateway/speech.h"

enum {
	HTTP_HEAD_MS = 10000,    /* for a head to come, from its first byte */
	HTTP_DELAY_MS = 100,     /* until a wrong key is told so */
	HTTP_COMMENT_MS = 15000, /* between comments in a stream of events */
};

/* What becomes of a request for an upgrade to WebSocket. */
struct http_offer {
	int status;        /* 101: it may be done. Else the status of the response, ... */
	const char *error; /* ... and its sentence; static, or valid until the next upgrade() */
	/* Header lines of the 101 beside Upgrade and Connection, each with its CR LF. Released by
	 * http. */
	struct buf headers;
	/* A line of the local protocol without messageId: the 101 leaves when it was answered with
	 * code 200; any other answer is the response, and the connection ends behind it. Empty:
	 * none. Released by http. */
	struct buf subscribe;
	/* Takes the connection over when the 101 leaves, together with the bytes that came behind
	 * the request. Freed by http (speech_free()) if it does not come to that. */
	struct speech *next;
	/* Called when this request is the only one of the connection that is unanswered, before the
	 * line: sets whose rights the peer has from now on. NULL: they stay. */
	void (*admit)(void *owner, struct peer *peer, struct speech *next);
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
	struct stats *stats;
};

/* Does a connection whose first byte this is speak HTTP? */
static inline bool http_begins(char first)
{
	return first >= 'A' && first <= 'Z';
}

/* Appends a response to a connection whose request is not read, after which it is closed. */
void http_refusal(struct buf *out, enum reply_error why);

/* settings stay where they are; they may change between calls. */
struct speech *http_new(const struct http_settings *settings, bool tcp, int64_t now);
