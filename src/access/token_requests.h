/* token_requests.h - clients' requests for tokens, from the checked line to the token.
 *
 * The rules have allowed the request (access.h). Here it waits for its turn, is put as the rules
 * say (of token = own, the daemon writes the access pattern), and answered: by the token, which is
 * wiped once it was handed on, or by an error.
 *
 *     *    waiting -> minting -> answered        a token; 400, 502, 503 at once if it can't be had
 *        ^       |
 *        +-------+  the service is away, or its rate limit refuses it: all wait for a while
 *
 * Asking twice does no harm, so what fails for a reason that passes is tried again until its time
 * is up. Tokens are for people who log in, not for streams of data: few are minted at once, and
 * they are paced; the turns are shared between clients. No descriptors, no clock. */
#pragma once

#include <stdint.h>

#include "access/access.h"
#include "requests/pending.h"
#include "requests/router.h"
#include "base/span.h"
#include "codec/stats.h"

struct token_requests;

struct token_requests_settings {
	unsigned at_once;  /* under way to the service */
	int64_t every_ms;  /* between two of them at least */
	unsigned max_asks; /* that wait or are under way, of all clients ... */
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
	const char *why;   /* a phrase without secrets, when token is NULL */
};

struct token_requests_ops {
	/* Has a token minted. token_requests_minted() follows, never from within, unless it is
	 * cancelled before. Returns what to cancel. */
	void *(*mint)(void *owner, const struct token_requests_wish *wish, void *ask);
	void (*cancel)(void *owner, void *minting);
	/* Call token_requests_wake() at this time, and not at the one that was said before. */
	void (*wake_at)(void *owner, int64_t at);
};

struct token_requests *token_requests_new(const struct token_requests_settings *settings,
					  const struct token_requests_ops *ops, void *owner,
					  struct router *router, struct access *access,
					  struct stats *stats);
void token_requests_free(struct token_requests *t); /* all peers have left */

void token_requests_join(struct peer *peer);
void token_requests_ask(struct token_requests *t, struct peer *peer, const struct request *request,
			int64_t now);
void token_requests_minted(struct token_requests *t, void *ask,
			   const struct token_requests_answer *answer, int64_t now);
void token_requests_wake(struct token_requests *t, int64_t now);

/* As router_ops::deferred_end(), of a request for a token. */
const char *token_requests_deferred_end(struct token_requests *t, struct pending *p);

/* The rules, the key or the service are about to change: what is under way is given up, and waits
 * again. Once they have, token_requests_review(): every request is judged again, and it goes on. */
void token_requests_interrupt(struct token_requests *t);
void token_requests_set(struct token_requests *t,
			const struct token_requests_settings *settings); /* from now on */
void token_requests_review(struct token_requests *t, int64_t now);
