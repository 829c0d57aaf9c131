/* token_requests.h - clients' requests for tokens, from the checked line to the token.
 *
 * The access rules have allowed the request (access.h). It waits here for its turn and is minted as
 * the rules say: with `token = own` the daemon writes the access pattern. It is answered with the
 * token, which is wiped after it was written, or with an error.
 *
 *     *    waiting -> minting -> answered        a token, or an error that does not pass
 *        ^       |
 *        +-------+       the service is away, or its rate limit refused it: all requests pause
 *
 * Minting twice does no harm, so a failure that may pass is retried until the deadline. Tokens are
 * for people who log in, not for streams of data: few are minted at once, at a limited rate, and
 * clients take turns. No descriptors, no clock. */
#pragma once

#include <stdint.h>

#include "access/access.h"
#include "requests/pending.h"
#include "requests/router.h"
#include "base/span.h"
#include "codec/stats.h"

struct token_requests;

struct token_requests_settings {
	unsigned at_once;  /* being minted, at most */
	int64_t every_ms;  /* between two of them, at least */
	unsigned max_asks; /* waiting or being minted, of all clients ... */
	unsigned max_peer_asks;
	size_t max_bytes; /* ... and their memory, about */
	bool by_endpoint; /* an endpoint of the customer's makes them: a 401 or 403 is its answer to
			     the asker, not to our key */
};

/* JSON as text; p NULL: not given. */
struct token_requests_wish {
	struct span subscribe_keys, subscribe_patterns, access_pattern;
};

struct token_requests_answer {
	const char *token; /* secret; NULL: refused or failed */
	int http_status;   /* 0: no answer came */
	int retry_after_s; /* -1: none given */
	const char *why;   /* if token is NULL: a phrase without secrets */
};

struct token_requests_ops {
	/* Appends a token that is good at this hpkvd only (local_tokens.h), for a client that may
	 * have none of the service. 0; or -EINVAL: why says what is wrong with the request. */
	int (*make_local)(void *owner, struct peer *peer, const struct request *request,
			  struct buf *token, char why[ACCESS_PATTERN_WHY_MAX]);
	/* The service has minted this token for the request, with this access pattern, a JSON
	 * string (n 0: none). */
	void (*made)(void *owner, struct peer *peer, const struct request *request,
		     struct span access_pattern, struct span token);
	/* Mints a token. Returns a handle for cancel(). token_requests_minted() follows unless it
	 * was cancelled, never from within. */
	void *(*mint)(void *owner, const struct token_requests_wish *wish, void *ask);
	void (*cancel)(void *owner, void *minting);
	/* Call token_requests_wake() at this time instead of the time asked for before. */
	void (*wake_at)(void *owner, int64_t at);
};

struct token_requests *token_requests_new(const struct token_requests_settings *settings,
					  const struct token_requests_ops *ops, void *owner,
					  struct router *router, struct access *access,
					  struct stats *stats);
void token_requests_free(struct token_requests *t); /* after all peers have left */

void token_requests_join(struct peer *peer);
void token_requests_ask(struct token_requests *t, struct peer *peer, const struct request *request,
			int64_t now);
void token_requests_minted(struct token_requests *t, void *ask,
			   const struct token_requests_answer *answer, int64_t now);
void token_requests_wake(struct token_requests *t, int64_t now);

/* router_ops::deferred_end() of a token request. */
const char *token_requests_deferred_end(struct token_requests *t, struct pending *p);

/* The rules, the key or the service are about to change: cancels what is being minted, which waits
 * again. token_requests_review() follows, which judges every request again and goes on. */
void token_requests_interrupt(struct token_requests *t);
void token_requests_set(struct token_requests *t,
			const struct token_requests_settings *settings); /* replaces the settings */
void token_requests_review(struct token_requests *t, int64_t now);
