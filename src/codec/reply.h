/* reply.h - the daemon's own answers: a table of errors, and the lines made from it.
 *
 * Source: the table of errors in doc/protocol.md. Answers of the service are passed on by wire.h.
 */
#pragma once

#include "base/buf.h"
#include "base/span.h"

enum reply_error {
	REPLY_BAD_JSON,
	REPLY_BAD_REQUEST,
	REPLY_UNKNOWN_OP,
	REPLY_FORBIDDEN,
	REPLY_TOO_LARGE,
	REPLY_RATE_LIMITED,
	REPLY_UPSTREAM_DOWN,
	REPLY_QUEUE_FULL,
	REPLY_TOO_MANY_CLIENTS,
	REPLY_SLOW_CLIENT,
	REPLY_SHUTTING_DOWN,
	REPLY_TIMEOUT,
	REPLY_OUTCOME_UNKNOWN,
	REPLY_BAD_UPSTREAM,
	REPLY_N
};

int reply_error_code(enum reply_error error);
const char *reply_error_reason(enum reply_error error); /* "bad_json" … */
const char *reply_error_text(enum reply_error error);   /* the sentence in the table */

/* Appends {"code":…,"error":…,"reason":…,"executed":…,"messageId":…} and a newline. text: a
 * sentence, which is escaped here; NULL: the one in the table. id: a messageId as written, or
 * empty. retry_after_ms < 0: unknown. */
void reply_error(struct buf *out, enum reply_error error, struct span id, const char *text,
		 long retry_after_ms);

/* Appends {"code":200,"message":"pong","messageId":…} and a newline. */
void reply_pong(struct buf *out, struct span id);
/* Appends {"code":200,"messageId":…} and a newline: the answer to subscribe and unsubscribe. */
void reply_ok(struct buf *out, struct span id);

/* Appends a JSON object with the messageId as a further last member, and a newline. object: one
 * line with at least one member. */
void reply_object(struct buf *out, struct span object, struct span id);
