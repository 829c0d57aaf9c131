/* refusals.h - connections for which there is no room: each is told so, and closed.
 *
 * Such a connection is told once its first byte has had time to come, which says whether it speaks
 * HTTP, and kept for a moment: most programs write before they read, and to write to a connection
 * that is closed is an error that hides the answer. Nothing that it sends is handed on. It sees the
 * end of the stream behind its last line at once.
 *
 * Owns these sockets, REFUSALS_MAX at once: for one more the oldest is told and closed. */
#pragma once

#include <event2/event.h>

enum { REFUSALS_MAX = 16 };

enum refusal_speech {
	REFUSAL_LINES,
	REFUSAL_HTTP,
	REFUSAL_LINES_OR_HTTP, /* the first byte tells */
};

struct refusals;

struct refusals *refusals_new(struct event_base *base);
void refusals_free(struct refusals *rs); /* tells all, and closes them */

/* Takes over a connected, non-blocking socket. why: a sentence, copied; NULL: there are max_clients
 * clients. */
void refusals_add(struct refusals *rs, int fd, enum refusal_speech speech, const char *why);
