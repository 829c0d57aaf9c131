/* local_tokens.h - tokens that are good at this hpkvd only, for clients that may not have one of
 * the service.
 *
 *   hpkvd1.PAYLOAD.MAC   the payload is a JSON object in base64url; the MAC is HMAC-SHA256, in
 *                        base64url, of all that stands before its dot
 *
 * Nothing is kept of them: a token says itself what it grants, whom it was made for and when it
 * ends, and the MAC that it was made here. Of a local key it holds a keyed hash. Whoever has the
 * secret can make tokens; another secret makes all that were made worthless. */
#pragma once

#include <stdint.h>

#include "access/access.h"
#include "access/token_grant.h"

enum {
	LOCAL_TOKENS_SECRET = 32, /* bytes */
	LOCAL_TOKENS_LIFE_MS = 2 * 3600 * 1000,
	LOCAL_TOKEN_MAX = 12000, /* it travels in the head of a request (http_message.h) */
};

#define LOCAL_TOKEN_PREFIX "hpkvd1."

struct local_tokens;

/* Copies the secret. */
struct local_tokens *local_tokens_new(const unsigned char secret[LOCAL_TOKENS_SECRET]);
void local_tokens_free(struct local_tokens *t);

/* Appends a token for a request that the rules allow (access.h). 0; or -EINVAL, and why says what
 * is wrong with the request. */
int local_tokens_make(const struct local_tokens *t, const struct request *r,
		      const struct peer_identity *who, int64_t wall_ms, struct buf *token,
		      char why[ACCESS_PATTERN_WHY_MAX]);

/* Does the text look like one, whoever has made it? */
bool local_token_is(struct span text);

/* What the token grants; *left_ms is the time until its end. -EACCES: it was not made here, was
 * altered, has expired, or the local key that it was made for is gone. */
int local_tokens_open(const struct local_tokens *t, const struct access *access, struct span text,
		      int64_t wall_ms, struct token_grant *g, int64_t *left_ms);

/* For what is kept beside tokens (remembered_tokens.h): the same secret proves that it was written
 * here. */
enum { LOCAL_TOKENS_MAC_TEXT = 43 };
void local_tokens_add_mac(const struct local_tokens *t, struct span text, struct buf *out);
/* The mark of a key, which stands for it where others may read: no key can be tried out with it. */
void local_tokens_add_mark(const struct local_tokens *t, const struct local_key *key,
			   struct buf *out);
/* Members of an object, each with a comma before it, that say who the holder is. */
void local_tokens_add_holder(const struct local_tokens *t, const struct token_holder *h,
			     struct buf *out);
/* Reads these, and exp: when it ends. False: they are wrong, or the holder's local key is gone. */
bool local_tokens_read_holder(const struct local_tokens *t, const struct access *access,
			      struct span object, struct token_holder *holder, int64_t *expires);
