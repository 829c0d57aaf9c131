/* library.h - libwebsockets made ready, and the requests that it writes.
 *
 * It is to obey nobody behind our back: no proxy of the environment, no pings and hardly any
 * time-outs of its own, its log among ours at the level of debugging. How it lives inside our loop
 * is told in link.c, which uses it; here is what is done once, and what depends on how it lays out
 * a request.
 *
 * It cuts long request lines without a word (version 4.1.6 at 2 KB). So it is given "/" for a path,
 * and the real one is put in its place in the finished request. This also keeps the secret in it
 * away from the library's own memory, but for the buffer that the request is made in. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include <libwebsockets.h>

#include "span.h"

enum {
	LIBRARY_BUFFER = 65536,   /* it reads and makes requests in it */
	LIBRARY_PATH_MAX = 15000, /* of a request; with the rest of that it fits into one TLS record
				     and any fresh socket's buffer */
};

extern const char library_protocol[]; /* the name of the one that callback is for */

struct library {
	struct lws_context *lws;
	struct lws_vhost *vhost;
	struct lws_protocols protocols[2]; /* the second one ends them */
};

/* False when it can't be used; library_fini() all the same. It stays where it is. */
bool library_init(struct library *lib, lws_callback_function *callback, struct ssl_ctx_st *tls);
void library_fini(struct library *lib);

/* The Sec-WebSocket-Key in a request that it made: n characters; NULL: there is none. */
const char *library_find_key(struct span request, size_t n);

/* Puts path where the library wrote "/". It offers the request's end, for headers to be appended,
 * and how much room is left; so where the request begins is known, and what stands there is
 * checked. *end is the new end, *request all of it, in the library's buffer. False, with nothing
 * done: this is not the request that was expected. */
bool library_put_path(const char *path, char **end, size_t room, struct span *request);
