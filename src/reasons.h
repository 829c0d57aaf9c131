/* reasons.h - why a connection failed, as a reader of the log can use it.
 *
 * What the kernel and the service say, each turned into a phrase or a number. Pure:
 * the phrases are static and hold nothing that a peer sent. A peer's own words are quoted here. */
#pragma once

#include <stddef.h>
#include <time.h>

#include "span.h"

/* What the kernel said; NULL when errno is about something else. */
const char *reasons_of_errno(int err);

/* Seconds of a Retry-After, which is a number or a date; at most a day. -1: neither. */
int reasons_retry_after(const char *text, time_t now);

/* What a close frame's status code means (the IANA registry of them); NULL: nothing by itself. */
const char *reasons_close_name(int code);

/* A peer's words for the log and the status answer, in at most size bytes with a NUL: all but
 * printable ASCII as \xNN, blanks and ends of lines as one space, "..." for what does not fit. The
 * peer may repeat what it was given: "..." stands also for the secret in the query of path (NULL:
 * there is none), and for runs of letters and digits that are long enough for a key or a token, and
 * are neither joined words without a digit nor a few characters again and again. */
void reasons_quote(char *out, size_t size, struct span text, const char *path);
