/* ticket.h - what a connection to the service is opened with: the request path that names a token,
 * or the API key.
 *
 * Mints tokens (token.h) for the list of what is wanted, keeps the last one for as long as it can
 * be used again, and knows when it is to be renewed: by a clock that goes on while the machine
 * sleeps.
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

#include "buf.h"
#include "stats.h"
#include "token.h"

struct ticket;

struct ticket_settings {
	struct minter_config minter; /* strings are copied */
	const char *api_key;         /* secret.h's: is shared */
	unsigned fields;             /* enum token_fields */
	const char *access_pattern;  /* a regex; "": none is sent */
	int64_t lifetime_ms;         /* of tokens */
};

enum ticket_verdict {
	TICKET_READY,        /* ticket_new_path() has the new token */
	TICKET_NONE,         /* nothing is wanted, or nothing of it has room: the API key will do */
	TICKET_TOO_LONG,     /* the token or the list is: ask again, for a shorter one */
	TICKET_REFUSED,      /* the service does not like the list */
	TICKET_UNAUTHORIZED, /* ... or the key */
	TICKET_FAILED,       /* no token for now */
	TICKET_VERDICT_N
};

struct ticket_answer {
	enum ticket_verdict verdict;
	const char *why;   /* a sentence without secrets, valid during the call */
	int retry_after_s; /* -1: none given */
};

struct ticket_ops {
	/* Appends the list of what is wanted, as a JSON array of at most budget bytes; returns how
	 * many strings it has. Called from within ticket_ask(). */
	size_t (*make_list)(void *owner, size_t budget, struct buf *list);
	void (*answer)(void *owner, const struct ticket_answer *answer);
};

struct ticket *ticket_new(struct event_base *base, const struct ticket_settings *settings,
			  const struct ticket_ops *ops, void *owner, struct stats *stats);
void ticket_free(struct ticket *t);
/* Of the requests for tokens, and of tokens, the one in force included. */
void ticket_set_times(struct ticket *t, int64_t timeout_ms, int64_t lifetime_ms);

/* Makes a list and has a token minted for it; answer() follows, never from within, unless
 * ticket_cancel() comes first. One at a time. */
void ticket_ask(struct ticket *t);
void ticket_cancel(struct ticket *t);

/* The path with the new token, after TICKET_READY. It is in force once its connection counts:
 * ticket_accept(); or never will be: ticket_reject(). */
const char *ticket_new_path(const struct ticket *t);
void ticket_accept(struct ticket *t);
void ticket_reject(struct ticket *t);

/* The path with the token in force; NULL: there is none that could be used. Valid until the next
 * call. */
const char *ticket_path(struct ticket *t);
void ticket_forget(struct ticket *t); /* none is in force any more */
/* The same with the API key: secret, the caller's. It is to be freed once the connection is begun.
 */
char *ticket_make_key_path(const struct ticket *t);

/* The service would not have the new token, with this HTTP status. Returns whether a shorter one
 * may help. */
bool ticket_was_refused(struct ticket *t, int http_status);

/* Times of clock_boot_ms(), of the token in force. */
int64_t ticket_renew_at(const struct ticket *t);
int64_t ticket_expires_at(const struct ticket *t);
