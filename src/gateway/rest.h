/* rest.h - HPKV's REST interface, and the daemon's own, as lines of the local protocol.
 *
 * Source: the REST facts of HPKV's public documentation and published clients. A request becomes
 * one line without a messageId, and the line's answer the body of the response: the service's REST
 * object, which is its WebSocket object without "code" (and with "result" for an increment), or the
 * daemon's own error object as it is. Values pass as they were written. */
#pragma once

#include "base/buf.h"
#include "base/span.h"
#include "codec/reply.h"
#include "gateway/http_message.h"

enum rest_kind {
	REST_SET,
	REST_GET,
	REST_DELETE,
	REST_INCREMENT,
	REST_RANGE,
	REST_TOKEN,
	REST_SEARCH,
	REST_QUERY,
	REST_STATUS,
	REST_STATS,
	REST_READY,
	REST_WATCH,
	REST_SOCKET, /* /ws */
	REST_KIND_N
};

/* Why no line could be made. */
struct rest_fault {
	enum reply_error error; /* of rest_line(): REPLY_BAD_JSON or REPLY_BAD_REQUEST */
	char text[200];
};

/* What is asked for: 0 with *kind; 404; or 405 with the value of Allow appended. */
int rest_find(enum http_verb verb, struct span path, enum rest_kind *kind, struct buf *allow);
/* Appends the methods that a path has; nothing for one that does not exist. */
void rest_allow(struct span path, struct buf *allow);

bool rest_has_body(enum rest_kind kind);

/* Appends the line, without a line end; not for REST_READY and REST_SOCKET. False: *fault is set,
 * and what was appended is of no use. */
bool rest_line(enum rest_kind kind, const struct http_request *r, struct buf *line,
	       struct rest_fault *fault);

/* Appends timeoutMs of a query as a member of a line, with a comma before it; nothing if there is
 * none. As rest_line(). */
bool rest_timeout(struct span query, struct buf *member, struct rest_fault *fault);

struct rest_answer {
	int status;          /* of the response; 0: the line is no answer */
	long retry_after_ms; /* -1: none */
	struct span cache;   /* the header line that says whether it is from memory; or empty */
};

/* Reads an answer and appends the body that is made of it. */
struct rest_answer rest_answer(enum rest_kind kind, struct span line, struct buf *body);

/* Appends a line that nobody has asked for as a server-sent event. */
void rest_event(struct span line, struct buf *out);

/* The value of a parameter, decoded and appended; false if there is none, or it is not encoded
 * properly. */
bool rest_parameter(struct span query, struct span name, struct buf *out);
