#include "daemon/tokens.h"

#include <errno.h>

#include "base/clock.h"
#include "base/mem.h"
#include "daemon/token_secret.h"

void tokens_init(struct tokens *t, const struct access *access)
{
	unsigned char secret[LOCAL_TOKENS_SECRET];

	token_secret_get(secret);
	*t = (struct tokens){.local = local_tokens_new(secret),
			     .remembered = remembered_tokens_new(),
			     .access = access};
	mem_wipe(secret, sizeof(secret));
}

void tokens_fini(struct tokens *t)
{
	local_tokens_free(t->local);
	if (t->remembered)
		remembered_tokens_free(t->remembered);
	*t = (struct tokens){0};
}

int tokens_make_local(const struct tokens *t, const struct request *r,
		      const struct peer_identity *who, struct buf *token,
		      char why[ACCESS_PATTERN_WHY_MAX])
{
	buf_room(token, LOCAL_TOKEN_MAX); /* so that it is not moved */
	return local_tokens_make(t->local, r, who, clock_wall_ms(), token, why);
}

void tokens_remember(struct tokens *t, const struct request *r, struct span access_pattern,
		     const struct peer_identity *who, struct span token, int64_t lifetime_ms)
{
	remembered_tokens_add(t->remembered, token, r, access_pattern, who, lifetime_ms,
			      clock_boot_ms(), clock_wall_ms());
}

int tokens_open(struct tokens *t, struct span text, struct token_grant *grant, int64_t *left_ms,
		const char **why)
{
	char wrong[ACCESS_PATTERN_WHY_MAX];
	int err = local_token_is(text)
			  ? local_tokens_open(t->local, t->access, text, clock_wall_ms(), grant,
					      left_ms)
			  : remembered_tokens_open(t->remembered, text, clock_boot_ms(), grant,
						   left_ms, wrong);

	if (err == 0 && grant->holder.has_key && !access_knows(t->access, &grant->holder.key)) {
		token_grant_fini(grant);
		err = -EACCES;
	}
	*why = err == -EINVAL ? "this hpkvd can't use the access pattern of the token"
			      : "the token was not made here, has been altered, or has expired";
	if (err < 0 || !grant->has_regex)
		return err;
	*why = "the token has a regular expression among its subscriptions, which only HPKV itself "
	       "can serve";
	token_grant_fini(grant);
	return -EACCES;
}
