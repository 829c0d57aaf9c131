/* request.h - a client's line into a checked request, whose fields are spans of the line.
 *
 * Knows the members and types of each operation (one table), and nothing of clients, the service or
 * time. Member names are compared decoded, so "k\u0065y" is key. A member that the operation reads
 * must not occur twice; unknown members are ignored. An operation of the protocol that this daemon
 * does not offer is not in the table and so unknown. */
#pragma once

#include <stdint.h>

#include "codec/json.h"
#include "codec/reply.h"
#include "base/span.h"

enum request_op {
	OP_GET = 1, /* 1 … 6 are the service's numbers */
	OP_SET,
	OP_PATCH,
	OP_DELETE,
	OP_RANGE,
	OP_INCREMENT,
	OP_SUBSCRIBE,
	OP_UNSUBSCRIBE,
	OP_TOKEN,
	OP_PING,
	OP_STATUS,
	OP_STATS,
	OP_SEARCH, /* of HPKV Nexus, as is the next */
	OP_QUERY,
	OP_N
};

enum { REQUEST_ID_MAX = 128, REQUEST_TIMEOUT_MAX_MS = 600000, REQUEST_FAULT_MAX = 200 };

struct request {
	enum request_op op;
	struct span id;      /* messageId as written, with quotes; empty: none */
	uint32_t timeout_ms; /* 0: request_timeout */
	struct json_value key, end_key, value, limit; /* text.p NULL: not given */
	struct json_value keys, pattern, patterns;    /* of subscribe and unsubscribe, beside key */
	bool initial;
	bool fresh;             /* of get and range: not from memory */
	bool top;               /* of status: with the busiest clients */
	struct json_value body; /* of search and query: what Nexus gets */
	struct json_value subscribe_keys, subscribe_patterns, access_pattern; /* of token */
	bool local; /* token: one that is good here only will do */
};

/* Why a line was refused. id: the first messageId, if it can be echoed; of a line that is not JSON,
 * if it stands before the fault. text: a printable sentence that names the member. */
struct request_fault {
	enum reply_error error; /* REPLY_BAD_JSON, REPLY_BAD_REQUEST or REPLY_UNKNOWN_OP */
	struct span id;
	char text[REQUEST_FAULT_MAX];
};

/* 0, or -EBADMSG with *fault set. *r is valid as long as the line. */
int request_parse(struct span line, struct request *r, struct request_fault *fault);

/* "get", "set" …; never NULL for a valid op. */
const char *request_op_name(enum request_op op);

/* Is it sent to the service as a frame (1 … 6)? Does it name one key? Does it change nothing, so
 * that it may be sent twice (get, range)? */
bool request_op_is_remote(enum request_op op);
bool request_op_has_key(enum request_op op);
bool request_op_is_read(enum request_op op);
/* Does it go to HPKV Nexus? */
static inline bool request_op_is_nexus(enum request_op op)
{
	return op == OP_SEARCH || op == OP_QUERY;
}
