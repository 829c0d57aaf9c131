/* command.h - parses a request to the sandbox from the JSON of a WebSocket message or a REST body.
 *
 * Strings are decoded, \u0000 included. A value that is not a string is stored as its own JSON
 * text. Whether a command makes sense is checked by ops.h. */
#pragma once

#include <stdint.h>

#include "base/span.h"

/* The numbers of HPKV's WebSocket API. */
enum op { OP_NONE, OP_GET, OP_SET, OP_PATCH, OP_DELETE, OP_RANGE, OP_INCREMENT, OP_N };

struct command {
	enum op op;                      /* OP_NONE: not given, or unknown */
	struct span key, end_key, value; /* p NULL: not given; key: a NUL follows */
	bool has_limit;
	int64_t limit;
	struct span id; /* the messageId as it was written; empty: not given */
	bool partial;   /* REST: partialUpdate */
	char *memory;   /* holds the decoded strings */
};

/* Parses text into c. 0; or -EINVAL if the text is no JSON object or a member has a wrong type,
 * with *why set. c then holds the members that were understood. Call command_fini() in both cases.
 */
int command_read(struct command *c, struct span text, const char **why);
void command_fini(struct command *c);
