/* mint.h - where clients' tokens come from: the requests of the issuer (issuer.h) as requests to
 * the service (token.h), in the loop.
 *
 * Owns the issuer, its timer and a minter of its own, apart from the one that the connection has
 * (ticket.h): theirs are other tokens, asked for by the same key. */
#pragma once

#include <event2/event.h>

#include "issuer.h"
#include "token.h"

struct mint;

struct mint_settings {
	struct minter_config minter;
	const char *api_key; /* secret; stays where it is until mint_set() or mint_free() */
	struct issuer_settings issuer;
};

struct mint *mint_new(struct event_base *base, const struct mint_settings *settings,
		      struct router *router, struct access *access, struct stats *stats);
void mint_free(struct mint *m); /* all peers have left */

struct issuer *mint_issuer(struct mint *m);

/* Another key, service or rules: who waits is judged again, and what was under way begins anew. The
 * bounds of the issuer stay. */
void mint_set(struct mint *m, const struct mint_settings *settings);
