/* decode.h - lines of the daemon as answers and events.
 *
 * decode_line() finds the members, which are spans of the line; the others make of them what a user
 * is handed, in memory of the room's that is used again for the next. */
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

/* A line of the daemon: its known members, text.p NULL where one is not there. */
struct decoded {
	struct span line;
	struct json_value members[DECODE_N];
	struct span id; /* the whole member messageId, name and value */
};

enum { DECODE_FAILURE_MAX = 600 };

/* What is handed to the user. All that it points to is in bytes, records and failure. */
struct decode_store {
	struct hpkv_answer answer;
	struct hpkv_event event;
	char *bytes;
	size_t n, size;
	struct hpkv_record *records;
	size_t n_records;
	char failure[DECODE_FAILURE_MAX];
};

/* false: not a JSON object. */
bool decode_line(struct span line, struct decoded *d);

/* The messageId, 0 if it is none of ours. */
uint64_t decode_id(const struct decoded *d);

/* Does the line end the connection's service: an error of the daemon that answers no request? */
bool decode_is_farewell(const struct decoded *d);

/* s->answer of a request that may be repeated, or not. user_id takes the place of our messageId in
 * the answer's line; empty: nothing does. */
void decode_answer(struct decode_store *s, const struct decoded *d, bool repeatable,
		   struct span user_id);

/* s->answer of a request that was not answered. */
void decode_failure(struct decode_store *s, enum hpkv_result result, const char *error);

/* s->event of a line that answers nothing. false: no memory. */
bool decode_event(struct decode_store *s, const struct decoded *d);

void decode_free(struct decode_store *s);
