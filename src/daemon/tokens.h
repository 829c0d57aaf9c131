/* tokens.h - the tokens that open the WebSocket door: local ones, and those of the service that
 * clients have been given here. Joins the two rooms that know them with the rules and the clocks.
 */
#pragma once

#include <stdint.h>

#include "access/access.h"
#include "access/local_tokens.h"
#include "access/remembered_tokens.h"
#include "config/config.h"

struct tokens {
	struct local_tokens *local;
	struct remembered_tokens *remembered;
	const struct access *access;
	struct local_key service; /* a hash of what says which service they are of */
	bool loaded;
};

void tokens_init(struct tokens *t, const struct access *access);
void tokens_fini(struct tokens *t);

/* The service that tokens are of from now on: remembered ones of another are forgotten. */
void tokens_set_service(struct tokens *t, const struct config *config);
/* Tokens of the service go on to the next process, by a file in $STATE_DIRECTORY: written at an
 * orderly end, and read once the service and the rules are known. */
void tokens_load(struct tokens *t);
void tokens_save(const struct tokens *t);

/* As dispatch_ops::local_token, for a client that is known as who. */
int tokens_make_local(const struct tokens *t, const struct request *r,
		      const struct peer_identity *who, struct buf *token,
		      char why[ACCESS_PATTERN_WHY_MAX]);

/* As token_requests_ops::made. */
void tokens_remember(struct tokens *t, const struct request *r, struct span access_pattern,
		     const struct peer_identity *who, struct span token, int64_t lifetime_ms);

/* As ws_door_ops::open_token. */
int tokens_open(struct tokens *t, struct span text, struct token_grant *grant, int64_t *left_ms,
		const char **why);
