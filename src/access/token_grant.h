/* token_grant.h - what a token grants at the WebSocket door: subscriptions, an access pattern, and
 * the rights of the client that it was made for.
 *
 * The lists of a request for a token are sorted here: as at the service, both may hold keys and
 * globs, and what begins with ^ is a regular expression, which only the service can subscribe to.
 * Empty names are left out: a subscribe request with one would be refused as a whole. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "access/access_pattern.h"
#include "access/local_keys.h"
#include "base/buf.h"
#include "codec/request.h"
#include "requests/peer.h"

enum { TOKEN_HOLDER_GROUPS_MAX = 64 };

/* Whom a token was made for, to be judged by the rules whenever these change. Of more groups only
 * the first count: rights can be lost so, never won. */
struct token_holder {
	bool known; /* uid, gid and groups are */
	bool by_key, has_key;
	uid_t uid;
	gid_t gid;
	gid_t groups[TOKEN_HOLDER_GROUPS_MAX];
	size_t n_groups;
	struct local_key key;
};

void token_holder_set(struct token_holder *h, const struct peer_identity *who);
/* Valid as long as h stays where it is. */
struct peer_identity token_holder_identity(const struct token_holder *h);

struct token_grant {
	struct token_holder holder;
	struct buf keys, globs; /* JSON strings with commas between them, as they were written */
	bool has_regex;         /* a regular expression was among them, and is left out */
	struct access_pattern *pattern; /* NULL: none */
};

/* Reads the lists and the pattern of a request for a token. 0, or -EINVAL with why set: the access
 * pattern can't be used. */
int token_grant_read(struct token_grant *g, const struct request *r,
		     char why[ACCESS_PATTERN_WHY_MAX]);
void token_grant_fini(struct token_grant *g);

/* Appends the line that subscribes to all of it; nothing if there is nothing to subscribe to.
 * members: further ones of the line, each with a comma before it. */
void token_grant_subscribe(const struct token_grant *g, struct span members, struct buf *line);
