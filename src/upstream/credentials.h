/* credentials.h - what a connection to the service is opened with: the request path that names a
 * token, or the API key.
 *
 * Mints tokens (token_client.h) for the list of what is wanted, keeps the last one for as long as
 * it can be used again, and knows when it is to be renewed: by a clock that goes on while the
 * machine sleeps.
 *
 * A token grows with its list and travels in a request line, so the list has a budget. It begins
 * with what a link carries (TARGET_PATH_MAX) and the guess that a token is its list, once for
 * each name that the list is sent under, in base64. From each token that is minted it learns how
 * they really grow, and from refusals how long a line the service takes.
 *
 * Key and token are secrets: paths are wiped when they are not used any more. */
#pragma once

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "codec/stats.h"
#include "transport/token_client.h"

struct credentials;

struct credentials_settings {
	struct token_client_settings token_client; /* strings are copied */
	const char *api_key;                       /* secret.h's: is shared */
	unsigned fields;                           /* enum token_client_fields */
	const char *access_pattern;                /* a regex; "": none is sent */
	int64_t lifetime_ms;                       /* of tokens */
};

enum credentials_verdict {
	CREDENTIALS_READY, /* credentials_new_path() has the new token */
	CREDENTIALS_NONE,  /* nothing is wanted, or nothing of it has room: the API key will do */
	CREDENTIALS_TOO_LONG,     /* the token or the list is: ask again, for a shorter one */
	CREDENTIALS_REFUSED,      /* the service does not like the list */
	CREDENTIALS_UNAUTHORIZED, /* ... or the key */
	CREDENTIALS_FAILED,       /* no token for now */
	CREDENTIALS_VERDICT_N
};

struct credentials_answer {
	enum credentials_verdict verdict;
	const char *why;   /* a sentence without secrets, valid during the call */
	int retry_after_s; /* -1: none given */
};

struct credentials_ops {
	/* Appends the list of what is wanted, as a JSON array of at most budget bytes; returns how
	 * many strings it has. Called from within credentials_ask(). */
	size_t (*make_list)(void *owner, size_t budget, struct buf *list);
	void (*answer)(void *owner, const struct credentials_answer *answer);
};

struct credentials *credentials_new(struct event_base *base,
				    const struct credentials_settings *settings,
				    const struct credentials_ops *ops, void *owner,
				    struct stats *stats);
void credentials_free(struct credentials *c);
/* Of the requests for tokens, and of tokens, the one in force included. */
void credentials_set_times(struct credentials *c, int64_t timeout_ms, int64_t lifetime_ms);

/* Makes a list and has a token minted for it; answer() follows, never from within, unless
 * credentials_cancel() comes first. One at a time. */
void credentials_ask(struct credentials *c);
void credentials_cancel(struct credentials *c);
bool credentials_is_asking(const struct credentials *c); /* answer() is to follow */

/* The path with the new token, after CREDENTIALS_READY. It is in force once its connection counts:
 * credentials_accept(); or never will be: credentials_reject(). */
const char *credentials_new_path(const struct credentials *c);
void credentials_accept(struct credentials *c);
void credentials_reject(struct credentials *c);

/* The path with the token in force; NULL: there is none that could be used. Valid until the next
 * call. */
const char *credentials_path(struct credentials *c);
void credentials_forget(struct credentials *c); /* none is in force any more */
/* The same with the API key: secret, the caller's. It is to be freed once the connection is begun.
 */
char *credentials_make_key_path(const struct credentials *c);

/* The service would not have the new token, with this HTTP status. Returns whether a shorter one
 * may help. */
bool credentials_was_refused(struct credentials *c, int http_status);

/* Times of clock_boot_ms(), of the token in force. */
int64_t credentials_renew_at(const struct credentials *c);
int64_t credentials_expires_at(const struct credentials *c);
