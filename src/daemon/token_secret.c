#include "daemon/token_secret.h"

#include <errno.h>
#include <string.h>

#include <event2/util.h>

#include "base/log.h"
#include "base/mem.h"
#include "daemon/state_file.h"

#define NAME "token-secret"

static int read_secret(unsigned char secret[LOCAL_TOKENS_SECRET], const char **why)
{
	struct buf bytes = {0};

	buf_room(&bytes, LOCAL_TOKENS_SECRET); /* so that it is not moved */
	int err = state_file_read(NAME, LOCAL_TOKENS_SECRET, &bytes, why);
	if ((err == 0 && buf_len(&bytes) != LOCAL_TOKENS_SECRET) || err == -EFBIG) {
		*why = "has not the length of a secret";
		err = -EINVAL;
	}
	if (err == 0)
		memcpy(secret, buf_span(&bytes).p, LOCAL_TOKENS_SECRET);
	buf_wipe(&bytes);
	return err;
}

void token_secret_get(unsigned char secret[LOCAL_TOKENS_SECRET])
{
	const char *why;
	int err = read_secret(secret, &why);

	if (err < 0)
		evutil_secure_rng_get_bytes(secret, LOCAL_TOKENS_SECRET);
	if (err == -ENOENT) {
		err = state_file_write(
			NAME, (struct span){(const char *)secret, LOCAL_TOKENS_SECRET}, true);
		why = strerror(-err);
	}
	if (err < 0 && err != -ENOENT) /* else nobody has asked for it to be kept */
		log_warning("local tokens end with this process: token-secret in $STATE_DIRECTORY "
			    "can't be used: %s",
			    why);
}
