/* credentials.h - what a connection to the service is opened with: a request path that contains a
 * token, or the API key. Without an API key it is always a token, for an empty list if need be.
 *
 * Mints tokens (token_client.h) for the list of what is subscribed to, keeps the last one for as
 * long as it can be used again, and knows when it is to be renewed: after three quarters of its
 * life, by a clock that goes on while the machine sleeps (attempts.h renews it then).
 *
 * A token grows with its list and travels in a request line, so the list has a budget. At first the
 * budget follows from the longest request line (TARGET_PATH_MAX) and the guess that a token is its
 * list in base64, once for each member name that the list is sent under. Each minted token shows
 * how they really grow, and refusals show how long a line the service takes.
 *
 * Key and token are secrets: paths are overwritten after use. */
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
	const char *api_key;                       /* of secret.h: is shared; NULL: there is none */
	const char *path_prefix;                   /* before /ws */
	unsigned fields;                           /* enum token_client_fields */
	const char *access_pattern;                /* a regex; "": none is sent */
	int64_t lifetime_ms;                       /* of tokens, unless their answer says less */
};

enum credentials_verdict {
	CREDENTIALS_READY,    /* credentials_new_path() has the new token */
	CREDENTIALS_NONE,     /* nothing is wanted, or nothing of it has room: use the API key */
	CREDENTIALS_TOO_LONG, /* the token or the list is too long: ask again, for a shorter one */
	CREDENTIALS_REFUSED,  /* the service refuses the list */
	CREDENTIALS_UNAUTHORIZED, /* ... or the key */
	CREDENTIALS_FAILED,       /* no token for now */
	CREDENTIALS_VERDICT_N
};

struct credentials_answer {
	enum credentials_verdict verdict;
	const char *why;   /* a sentence without secrets, valid during the call */
	int retry_after_s; /* -1: none given */
	bool limited;      /* refused by a rate limit */
};

struct credentials_ops {
	/* Appends the list of what is wanted, as a JSON array of at most budget bytes ("[]" at
	 * least); returns the number of its strings. Called from within credentials_ask(). */
	size_t (*make_list)(void *owner, size_t budget, struct buf *list);
	void (*answer)(void *owner, const struct credentials_answer *answer);
};

/* No token is in force at first. */
struct credentials *credentials_new(struct event_base *base,
				    const struct credentials_settings *settings,
				    const struct credentials_ops *ops, void *owner,
				    struct stats *stats);
void credentials_free(struct credentials *c);
/* Of the requests for tokens, and of tokens, the one in force included. */
void credentials_set_times(struct credentials *c, int64_t timeout_ms, int64_t lifetime_ms);

/* Makes a list and asks for a token for it; answer() follows, never from within, unless
 * credentials_cancel() comes first. One at a time. */
void credentials_ask(struct credentials *c);
void credentials_cancel(struct credentials *c);
bool credentials_is_asking(const struct credentials *c); /* answer() is to follow */

/* The path with the new token, after CREDENTIALS_READY. credentials_accept() puts it in force once
 * its connection is the main one; without a new token it does nothing. credentials_reject() drops
 * it. */
const char *credentials_new_path(const struct credentials *c);
void credentials_accept(struct credentials *c);
void credentials_reject(struct credentials *c);

/* The path with the token in force; NULL: there is none, or it has expired. Valid until the next
 * call. */
const char *credentials_path(struct credentials *c);
void credentials_forget(struct credentials *c); /* no token is in force any more */
/* The same with the API key, if there is one: secret, the caller's. It is to be freed once the
 * connection is begun. */
char *credentials_make_key_path(const struct credentials *c);

/* The service refused the new token, with this HTTP status. Returns whether a shorter one may help.
 */
bool credentials_was_refused(struct credentials *c, int http_status);

/* Times of clock_boot_ms(), of the token in force. */
int64_t credentials_renew_at(const struct credentials *c);
int64_t credentials_expires_at(const struct credentials *c);
