/* batch.h - the same request for many keys, as many at once as is sensible; answers are handed on
 * in the order of the keys. */
#pragma once

#include "cli.h"

/* Called for each key in order; returns an enum cli_exit. */
typedef int batch_fn(struct cli *c, struct hpkv_bytes key, const struct hpkv_answer *answer);

/* The highest of what each said. */
int batch_run(struct cli *c, enum hpkv_op op, int n, char **keys, batch_fn *each);
