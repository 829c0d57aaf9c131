/* error_text.h - why a connection failed, as a reader of the log can use it.
 *
 * What the kernel and the service say, each turned into a phrase or a number. Pure:
 * the phrases are static and hold nothing that a peer sent. A peer's own words are quoted here. */
#pragma once

#include <stddef.h>
#include <time.h>

#include "base/span.h"

/* What the kernel said; NULL when errno is about something else. */
const char *error_text_of_errno(int err);

/* Seconds of a Retry-After, which is a number or a date; at most a day. -1: neither. */
int error_text_retry_after(const char *text, time_t now);

/* What a close frame's status code means (the IANA registry of them); NULL: nothing by itself. */
const char *error_text_close_name(int code);

/* A secret as it is recognised in a peer's words without being kept: SHA-256 of the value of a
 * path's query, as it stands there and decoded. Zeroed: none. */
enum { ERROR_TEXT_DIGEST = 32 };
struct error_text_form {
	size_t n; /* bytes; 0: too short to be looked for */
	unsigned char digest[ERROR_TEXT_DIGEST];
};
struct error_text_secret {
	struct error_text_form form[2];
};
void error_text_remember(struct error_text_secret *secret, const char *path);

/* A peer's words for the log and the status answer, in at most size bytes with a NUL: all but
 * printable ASCII as \xNN, blanks and ends of lines as one space, "..." for what does not fit. The
 * peer may repeat what it was given: "..." stands also for the secret, and for runs of letters and
 * digits that may be a key or a token. */
void error_text_quote(char *out, size_t size, struct span text,
		      const struct error_text_secret *secret);
