/* decode.h - turns lines of the daemon into answers and events.
 *
 * decode_line() finds the members, as spans of the line. The other functions decode them into a
 * store, whose memory is used again for the next line. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "hpkv.h"
#include "codec/json.h"
#include "text.h"

enum decode_member {
	DECODE_ID,
	DECODE_CODE,
	DECODE_ERROR,
	DECODE_MESSAGE,
	DECODE_REASON,
	DECODE_EXECUTED,
	DECODE_RETRY,
	DECODE_KEY,
	DECODE_VALUE,
	DECODE_NEW_VALUE,
	DECODE_TOKEN,
	DECODE_RECORDS,
	DECODE_TRUNCATED,
	DECODE_TYPE,
	DECODE_PATTERN,
	DECODE_STATE,
	DECODE_TIMESTAMP,
	DECODE_SINCE,
	DECODE_UNTIL,
	DECODE_SKIPPED,
	DECODE_INITIAL,
	DECODE_RESYNC,
	DECODE_N
};

/* A line of the daemon and its known members; text.p is NULL for a missing one. */
struct decoded {
	struct span line;
	struct json_value members[DECODE_N];
	struct span id; /* the member messageId, name and value */
};

enum { DECODE_FAILURE_MAX = 600 };

/* An answer or an event as the user gets it. All its pointers lead into bytes, records and failure.
 */
struct decode_store {
	struct hpkv_answer answer;
	struct hpkv_event event;
	char *bytes;
	size_t n, size;
	struct hpkv_record *records;
	size_t n_records;
	char failure[DECODE_FAILURE_MAX];
};

/* Finds the members. false: the line is not a JSON object. */
bool decode_line(struct span line, struct decoded *d);

/* The messageId; 0 if it is not one of the library's. */
uint64_t decode_id(const struct decoded *d);

/* Is it an error of the daemon that answers no request? Such a line precedes the end of the
 * connection. */
bool decode_is_farewell(const struct decoded *d);

/* Sets s->answer from an answer. repeatable: the request may be repeated without harm. user_id
 * replaces the library's messageId in the answer's line; empty: nothing does. */
void decode_answer(struct decode_store *s, const struct decoded *d, bool repeatable,
		   struct span user_id);

/* Sets s->answer of a request that was not answered. */
void decode_failure(struct decode_store *s, enum hpkv_result result, const char *error);

/* Sets s->event from a line that answers no request. false: no memory. */
bool decode_event(struct decode_store *s, const struct decoded *d);

/* Is the outcome of the request unknown, because the daemon had no answer to it? */
bool decode_is_outcome_unknown(const struct decoded *d);

/* Does the daemon say that it is ending? Either it refuses a request, which was not executed, for
 * that reason, or this is its last line to a client with subscriptions. */
bool decode_is_shutting_down(const struct decoded *d);

void decode_free(struct decode_store *s);
