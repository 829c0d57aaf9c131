/* error_text.h - why a connection failed, in words that a reader of the log can use.
 *
 * Turns errors of the kernel and answers of the service into a phrase or a number. Pure: the
 * phrases are static and contain nothing that a peer sent. A peer's own words are quoted here. */
#pragma once

#include <stddef.h>
#include <time.h>

#include "base/span.h"

/* A phrase for errno; NULL when it is not about a connection. */
const char *error_text_of_errno(int err);

/* Seconds of a Retry-After, which is a number or a date; at most a day. -1: neither. */
int error_text_retry_after(const char *text, time_t now);

/* The meaning of a close frame's status code (the IANA registry of them); NULL: none. */
const char *error_text_close_name(int code);

/* Recognises a secret in a peer's words without keeping it: SHA-256 of the value of a path's query,
 * encoded and decoded. Zeroed: none. */
enum { ERROR_TEXT_DIGEST = 32 };
struct error_text_form {
	size_t n; /* bytes; 0: too short to be looked for */
	unsigned char digest[ERROR_TEXT_DIGEST];
};
struct error_text_secret {
	struct error_text_form form[2];
};
void error_text_remember(struct error_text_secret *secret, const char *path);

/* Quotes a peer's words for the log and the status answer, in at most size bytes with a NUL: all
 * but printable ASCII becomes \xNN, blanks and line ends one space, and "..." replaces what does
 * not fit. The peer may repeat what it was sent: "..." also replaces the secret, and runs of
 * letters and digits that may be a key or a token. */
void error_text_quote(char *out, size_t size, struct span text,
		      const struct error_text_secret *secret);
