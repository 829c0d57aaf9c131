/* grant.h - what a token allows, and the token's text: minted for an API key, verified when a
 * connection shows it.
 *
 * A token looks like a JWT: three base64url parts, the second a JSON object with the subscriptions,
 * the access pattern and the expiry, so it grows with its keys as the service's do; the third an
 * HMAC-SHA256 under a secret derived from the API key. A restarted sandbox with the same key
 * therefore knows its old tokens. */
#pragma once

#include <stdint.h>

#include "base/buf.h"
#include "pattern.h"
#include "base/span.h"

enum { GRANT_SECRET = 32 };

struct grant {
	struct pattern *subscriptions;
	size_t n;
	bool has_access;
	struct pattern access;
	int64_t expires_ms; /* wall clock */
};

/* The secret that goes with an API key. */
void grant_secret(const char *api_key, unsigned char secret[GRANT_SECRET]);

/* Appends a token for the body of a token request: subscribeKeys, subscribePatterns and
 * accessPattern. 0, or -EINVAL with *why. */
int grant_mint(const unsigned char secret[GRANT_SECRET], struct span body, int64_t expires_ms,
	       struct buf *token, const char **why);

/* NULL: not a token of this secret. Whether it has expired is its caller's question. */
struct grant *grant_verify(const unsigned char secret[GRANT_SECRET], struct span token);
void grant_free(struct grant *g);

bool grant_subscribes(const struct grant *g, struct span key);
