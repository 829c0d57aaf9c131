#include "daemon/tokens.h"

#include <errno.h>

#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "daemon/state_file.h"
#include "daemon/token_secret.h"

#define NAME "remembered-tokens"

enum { FILE_MAX = 4 * REMEMBERED_TOKENS_BYTES_MAX /* with what is written beside each */ };

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

static struct local_key service_of(const struct config *config)
{
	const char *key = config->upstream.api_key;
	struct buf text = {0};

	buf_room(&text, 256 + (key ? strlen(key) : 0)); /* so that it is not moved with the key */
	buf_addf(&text, "%.200s ", config->upstream.url.text ? config->upstream.url.text : "");
	if (key)
		buf_add(&text, key, strlen(key));
	struct local_key service = local_key_of(buf_span(&text));
	buf_wipe(&text);
	return service;
}

void tokens_set_service(struct tokens *t, const struct config *config)
{
	struct local_key service = service_of(config);

	if (!local_key_same(&service, &t->service))
		remembered_tokens_clear(t->remembered);
	t->service = service;
}

void tokens_load(struct tokens *t)
{
	struct buf text = {0};
	const char *why;
	int err = state_file_read(NAME, FILE_MAX, &text, &why);

	t->loaded = true;
	if (err == 0 &&
	    !remembered_tokens_read(t->remembered, t->local, t->access, &t->service,
				    buf_span(&text), clock_boot_ms(), clock_wall_ms())) {
		err = -EINVAL;
		why = "was not written with this token-secret";
	}
	buf_release(&text);
	if (err < 0 && err != -ENOENT)
		log_warning("tokens of HPKV that were made before this start are forgotten: "
			    "remembered-tokens in $STATE_DIRECTORY can't be used: %s",
			    why);
}

void tokens_save(const struct tokens *t)
{
	struct buf text = {0};
	int err = 0;

	if (remembered_tokens_count(t->remembered)) {
		remembered_tokens_write(t->remembered, t->local, &t->service, clock_boot_ms(),
					clock_wall_ms(), &text);
		err = state_file_write(NAME, buf_span(&text), false);
	}
	if (buf_len(&text) == 0 || err < 0) /* a former one says too much */
		state_file_remove(NAME);
	buf_release(&text);
	if (err < 0 && err != -ENOENT)
		log_warning("tokens of HPKV that were made are forgotten: remembered-tokens in "
			    "$STATE_DIRECTORY can't be written: %s",
			    strerror(-err));
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
