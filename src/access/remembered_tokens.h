/* remembered_tokens.h - tokens of the service that clients have been given here: what each grants,
 * so that it opens the WebSocket door as well, without another connection to the service.
 *
 * A token itself is not kept, only its hash. It counts until its own end, if it says one as tokens
 * of the JWT kind do, and for no longer than its lifetime. There is a bound: the oldest are
 * forgotten first, and then open the service's door alone.
 *
 * The tokens can be written down for the next process, sealed with the secret of local tokens. The
 * text opens nothing: it has hashes of tokens, and of local keys only marks. */
#pragma once

#include <stdint.h>

#include "access/local_tokens.h"
#include "access/token_grant.h"

enum { REMEMBERED_TOKENS_MAX = 1024, REMEMBERED_TOKENS_BYTES_MAX = 4 * 1024 * 1024 };

struct remembered_tokens;

struct remembered_tokens *remembered_tokens_new(void);
void remembered_tokens_free(struct remembered_tokens *t);

/* Remembers what the token of this request grants. access_pattern is the JSON string of the pattern
 * that it was made with; empty: it has none. boot_ms is of the clock that goes on while the machine
 * sleeps. */
void remembered_tokens_add(struct remembered_tokens *t, struct span token, const struct request *r,
			   struct span access_pattern, const struct peer_identity *who,
			   int64_t lifetime_ms, int64_t boot_ms, int64_t wall_ms);

/* What it grants; *left_ms is the time until its end. -EACCES: it is not known, or has expired.
 * -EINVAL: its access pattern can't be used here, and why says so. */
int remembered_tokens_open(struct remembered_tokens *t, struct span token, int64_t boot_ms,
			   struct token_grant *g, int64_t *left_ms,
			   char why[ACCESS_PATTERN_WHY_MAX]);

void remembered_tokens_clear(struct remembered_tokens *t); /* the service, or its key, is another */

size_t remembered_tokens_count(const struct remembered_tokens *t);

/* Appends all of them, as text. service: a hash of what says which service they are of. */
void remembered_tokens_write(const struct remembered_tokens *t, const struct local_tokens *seal,
			     const struct local_key *service, int64_t boot_ms, int64_t wall_ms,
			     struct buf *out);
/* Adds those of the text that are of this service and have not ended. False: it was not written
 * with this seal, or was altered. */
bool remembered_tokens_read(struct remembered_tokens *t, const struct local_tokens *seal,
			    const struct access *access, const struct local_key *service,
			    struct span text, int64_t boot_ms, int64_t wall_ms);
