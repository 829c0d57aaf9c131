/* encode.h - turns requests into lines.
 *
 * Checks only errors that the daemon could not see: bytes that are not UTF-8, text that is not a
 * number, text that is not a JSON object. The daemon checks everything else. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "hpkv.h"
#include "text.h"

enum { ENCODE_FAULT_MAX = 200 };

/* A request's line and its properties. */
struct encoded {
	struct text line;         /* LF included; the caller owns it */
	enum hpkv_op op;          /* also of a HPKV_JSON, if its op is known; else HPKV_JSON */
	bool repeatable;          /* may be executed twice without harm */
	bool remote;              /* answered by the service, not by the daemon */
	int timeout_ms;           /* the daemon's time limit */
	size_t limit_at, limit_n; /* where its digits are in the line; 0: it has none */
	struct span user_id; /* HPKV_JSON: its messageId as written, a part of the request's text */
};

/* Encodes q. HPKV_OK; HPKV_INVALID with a sentence in fault; HPKV_NO_MEMORY. */
int encode_request(const struct hpkv_request *q, uint64_t id, int timeout_ms, struct encoded *e,
		   char fault[ENCODE_FAULT_MAX]);
