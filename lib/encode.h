/* encode.h - requests as lines.
 *
 * Checks what the daemon could not tell from something else: bytes that are not UTF-8, a number
 * that is none, a text that is no JSON object. The rest the daemon checks. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "hpkv.h"
#include "text.h"

enum { ENCODE_FAULT_MAX = 200 };

/* A request's line and what is known of it. */
struct encoded {
	struct text line;    /* with its LF; owned by whoever asked for it */
	enum hpkv_op op;     /* of a HPKV_JSON too, if the daemon's ops are known; else HPKV_JSON */
	bool repeatable;     /* doing it twice does no harm */
	bool remote;         /* the service answers it, not the daemon */
	int timeout_ms;      /* the time it gives the daemon */
	struct span user_id; /* HPKV_JSON: its messageId as written, within the request's text */
};

/* HPKV_OK; HPKV_INVALID with a sentence in fault; HPKV_NO_MEMORY. */
int encode_request(const struct hpkv_request *q, uint64_t id, int timeout_ms, struct encoded *e,
		   char fault[ENCODE_FAULT_MAX]);
