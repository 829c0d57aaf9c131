/* reasons.h - why a connection failed, as a reader of the log can use it.
 *
 * What the kernel, libwebsockets and the service's Retry-After say, each turned into a phrase or a
 * number. Pure: the phrases are static and hold nothing that a peer sent. */
#pragma once

#include <stddef.h>
#include <time.h>

/* What the kernel said; NULL when errno is about something else. */
const char *reasons_of_errno(int err);

/* The library's phrase in our words; NULL: it has to do as it is. */
const char *reasons_translate(const char *theirs, size_t n);

/* Seconds of a Retry-After, which is a number or a date; at most a day. -1: neither. */
int reasons_retry_after(const char *text, time_t now);
