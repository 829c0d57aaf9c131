/* batch.h - sends one request for each of many keys, several at a time, and passes the answers on
 * in the order of the keys. */
#pragma once

#include "cli.h"

/* Called for each key, in order. Returns an enum cli_exit. */
typedef int batch_fn(struct cli *c, struct hpkv_bytes key, const struct hpkv_answer *answer);

/* Returns the highest exit status that each() has returned. */
enum { BATCH_FRESH }; /* the place of --fresh among a command's options, if it has any */

int batch_run(struct cli *c, enum hpkv_op op, int n, char **keys, batch_fn *each);
