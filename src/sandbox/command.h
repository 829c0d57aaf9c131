/* command.h - one request to the sandbox, read from the JSON of a WebSocket message or of a REST
 * body.
 *
 * Strings are decoded here, \u0000 included, and nothing else is: what a value that is not a string
 * was written as is what gets stored. Whether a command makes sense is ops.h's question. */
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
	struct span id; /* the messageId as it was written, empty: not given */
	bool partial;   /* REST: partialUpdate */
	char *memory;   /* where the decoded strings are */
};

/* 0; or -EINVAL when the text is not a JSON object or a member has a type that it can't have: *why
 * says which. c is then as far as the text was understood. Freed by command_fini() in both cases.
 */
int command_read(struct command *c, struct span text, const char **why);
void command_fini(struct command *c);
