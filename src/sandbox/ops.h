/* ops.h - the six operations: run a command, write the members of its answer. Pure but for the
 * store.
 *
 * WebSocket and REST share the operations; each wraps the members in its own way. The limits, the
 * errors and the definition of a change are here. Notifications are the caller's task. */
#pragma once

#include "base/buf.h"
#include "command.h"
#include "pattern.h"
#include "store.h"

enum { KEY_MAX = 512, VALUE_MAX = 3072, RANGE_DEFAULT = 100, RANGE_MAX = 1000 };

struct outcome {
	int code;     /* 200, or that of an error */
	bool changed; /* the record of the command's key was written, or deleted */
	struct buf body; /* the answer's members, without braces: "success":true,… or "error":"…" */
};

/* access restricts the keys; NULL: it does not. The outcome's body is its caller's to release. */
void ops_run(struct store *s, const struct pattern *access, const struct command *c,
	     struct outcome *o);

/* The sum of an increment under REST's name as well. */
void ops_add_rest_sum(struct outcome *o);

/* An outcome that is an error. */
void ops_fail(struct outcome *o, int code, const char *error);
