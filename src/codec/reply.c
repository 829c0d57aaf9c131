#include "codec/reply.h"

#include <string.h>

#include "codec/json.h"

static const struct {
	int code;
	const char *reason;
	const char *executed;
	const char *text; /* the sentence, unless the caller has a better one */
} errors[] = {
	[REPLY_BAD_JSON] = {400, "bad_json", "no", "the line is not a JSON object"},
	[REPLY_BAD_REQUEST] = {400, "bad_request", "no", "a member of the request is wrong"},
	[REPLY_UNKNOWN_OP] = {400, "unknown_op", "no", "unknown op"},
	[REPLY_FORBIDDEN] = {403, "forbidden", "no", "the access rules forbid it"},
	[REPLY_TOO_LARGE] = {413, "too_large", "no", "the line or its frame is too long"},
	[REPLY_RATE_LIMITED] = {429, "rate_limited", "no",
				"not executed within its time: the rate limit left no room for it"},
	[REPLY_UPSTREAM_DOWN] = {503, "upstream_down", "no",
				 "not sent within its time: no connection to the service"},
	[REPLY_QUEUE_FULL] = {503, "queue_full", "no", "too many requests are waiting"},
	[REPLY_TOO_MANY_CLIENTS] = {503, "too_many_clients", "no",
				    "too many clients are connected"},
	[REPLY_SLOW_CLIENT] = {503, "slow_client", "no", "the client does not read its answers"},
	[REPLY_SHUTTING_DOWN] = {503, "shutting_down", "no", "the daemon is shutting down"},
	[REPLY_TIMEOUT] = {504, "timeout", "unknown", "sent, but no answer came in time"},
	[REPLY_OUTCOME_UNKNOWN] = {504, "outcome_unknown", "unknown",
				   "sent, but the connection was lost before an answer came"},
	[REPLY_BAD_UPSTREAM] = {502, "bad_upstream", "unknown",
				"the service answered something unusable"},
};
_Static_assert(sizeof(errors) / sizeof(errors[0]) == REPLY_N, "a row for each error");

int reply_error_code(enum reply_error error)
{
	return errors[error].code;
}

const char *reply_error_reason(enum reply_error error)
{
	return errors[error].reason;
}

const char *reply_error_text(enum reply_error error)
{
	return errors[error].text;
}

/* Appends the end of a line: the id if there is one, the brace, the newline. */
static void finish(struct buf *out, struct span id)
{
	if (id.n) {
		buf_add(out, ",\"messageId\":", strlen(",\"messageId\":"));
		buf_add(out, id.p, id.n);
	}
	buf_add(out, "}\n", 2);
}

static void add_escaped(struct buf *out, const char *text)
{
	struct span plain = {text, strlen(text)};

	buf_grew(out, json_escape(plain, buf_room(out, 6 * plain.n)));
}

void reply_error(struct buf *out, enum reply_error error, struct span id, const char *text,
		 long retry_after_ms)
{
	buf_addf(out, "{\"code\":%d,\"error\":\"", errors[error].code);
	add_escaped(out, text ? text : errors[error].text);
	buf_addf(out, "\",\"reason\":\"%s\",\"executed\":\"%s\"", errors[error].reason,
		 errors[error].executed);
	if (retry_after_ms >= 0)
		buf_addf(out, ",\"retryAfterMs\":%ld", retry_after_ms);
	finish(out, id);
}

void reply_pong(struct buf *out, struct span id)
{
	reply_object(out, SPAN("{\"code\":200,\"message\":\"pong\"}"), id);
}

void reply_ok(struct buf *out, struct span id)
{
	reply_object(out, SPAN("{\"code\":200}"), id);
}

void reply_object(struct buf *out, struct span object, struct span id)
{
	buf_add(out, object.p, object.n - 1);
	finish(out, id);
}
