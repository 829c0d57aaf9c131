/* grant.h - tokens: minted for an API key, verified when a connection presents them.
 *
 * A token looks like a JWT: three base64url parts. The second is a JSON object with the
 * subscriptions, the access pattern and the expiry, so tokens grow with their keys, as the
 * service's do. The third is an HMAC-SHA256 under a secret that is derived from the API key, so a
 * restarted sandbox with the same key accepts its old tokens. */
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

/* Derives the secret of an API key. */
void grant_secret(const char *api_key, unsigned char secret[GRANT_SECRET]);

/* Appends a token for the body of a token request: subscribeKeys, subscribePatterns, accessPattern.
 * 0, or -EINVAL with *why set. */
int grant_mint(const unsigned char secret[GRANT_SECRET], struct span body, int64_t expires_ms,
	       struct buf *token, const char **why);

/* Verifies a token. NULL: it was not signed with this secret. The caller checks the expiry. */
struct grant *grant_verify(const unsigned char secret[GRANT_SECRET], struct span token);
void grant_free(struct grant *g);

/* Do its subscriptions match the key? */
bool grant_subscribes(const struct grant *g, struct span key);
