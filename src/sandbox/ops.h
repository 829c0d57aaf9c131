/* ops.h - what the six operations do: a command in, the members of an answer out. Pure but for the
 * store.
 *
 * WebSocket and REST share it; each wraps the members in its own way. It decides limits, errors and
 * what a change is, and tells nobody about the change: that is its caller's business. */
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

/* An outcome that is an error. */
void ops_fail(struct outcome *o, int code, const char *error);
