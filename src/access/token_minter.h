/* token_minter.h - mints clients' tokens: passes token_requests.h on to the service
 * (token_client.h), in the loop.
 *
 * Owns the token requests, their timer and a token client of its own. The connection's tokens are
 * other ones, minted by credentials.h with the same key. */
#pragma once

#include <event2/event.h>

#include "access/token_requests.h"
#include "transport/token_client.h"

struct token_minter;

struct token_minter_settings {
	struct token_client_settings minter;
	const char *api_key; /* secret; valid until token_minter_set() or token_minter_free() */
	struct token_requests_settings token_requests;
};

/* As those of token_requests_ops. */
struct token_minter_ops {
	int (*make_local)(void *owner, struct peer *peer, const struct request *request,
			  struct buf *token, char why[ACCESS_PATTERN_WHY_MAX]);
	void (*made)(void *owner, struct peer *peer, const struct request *request,
		     struct span access_pattern, struct span token);
};

struct token_minter *token_minter_new(struct event_base *base,
				      const struct token_minter_settings *settings,
				      struct router *router, struct access *access,
				      const struct token_minter_ops *ops, void *owner,
				      struct stats *stats);
void token_minter_free(struct token_minter *m); /* after all peers have left */

struct token_requests *token_minter_requests(struct token_minter *m);

/* Another key, service or rules: judges waiting requests again and restarts those being minted. The
 * limits stay. */
void token_minter_set(struct token_minter *m, const struct token_minter_settings *settings);
