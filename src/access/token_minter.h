/* token_minter.h - where clients' tokens come from: the requests of the issuer (token_requests.h)
 * as requests to the service (token_client.h), in the loop.
 *
 * Owns the issuer, its timer and a minter of its own, apart from the one that the connection has
 * (credentials.h): theirs are other tokens, asked for by the same key. */
#pragma once

#include <event2/event.h>

#include "access/token_requests.h"
#include "transport/token_client.h"

struct token_minter;

struct token_minter_settings {
	struct token_client_settings minter;
	const char *api_key; /* secret; stays where it is until token_minter_set() or
				token_minter_free() */
	struct token_requests_settings token_requests;
};

struct token_minter *token_minter_new(struct event_base *base,
				      const struct token_minter_settings *settings,
				      struct router *router, struct access *access,
				      struct stats *stats);
void token_minter_free(struct token_minter *m); /* all peers have left */

struct token_requests *token_minter_requests(struct token_minter *m);

/* Another key, service or rules: who waits is judged again, and what was under way begins anew. The
 * bounds of the issuer stay. */
void token_minter_set(struct token_minter *m, const struct token_minter_settings *settings);
