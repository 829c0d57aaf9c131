/* http_message.h - a client's bytes into HTTP/1.1 requests.
 *
 * The parser is http-parser's. This room gathers a head, refuses what that is too lenient about and
 * what the gateway must not guess (a bare LF or CR, a NUL, a folded or nameless header, a name with
 * a space), has it parsed, and gathers the body. So a request is told of twice: once its head is
 * known, when it may be refused without its body, and once it is whole.
 *
 * Bounds: HTTP_HEAD_MAX bytes of head, HTTP_HEADERS_MAX headers, body_max bytes of body. Between
 * two requests it owns no memory. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/span.h"

enum { HTTP_HEAD_MAX = 16384, HTTP_HEADERS_MAX = 100 };

enum http_verb {
	HTTP_VERB_GET,
	HTTP_VERB_HEAD,
	HTTP_VERB_POST,
	HTTP_VERB_PUT,
	HTTP_VERB_PATCH,
	HTTP_VERB_DELETE,
	HTTP_VERB_OPTIONS,
	HTTP_VERB_N
};

struct http_header {
	struct span name, value; /* as written, without white space around the value */
};

/* Valid until the call into http_message_ops returns. */
struct http_request {
	enum http_verb verb;
	struct span path;      /* as written: nothing is decoded, no dot is removed */
	struct span query;     /* without its ? */
	struct span authority; /* host:port of a target that is a whole URL; else empty */
	bool http_1_0;
	bool keep_alive;  /* what the client wants of the connection behind this request */
	bool has_body;    /* a body follows the head, if only an empty one in chunks */
	bool expects_100; /* and the client waits for leave to send it */
	bool upgrade;     /* Connection: upgrade and some Upgrade: */
	struct span body; /* once it is whole */
	struct http_header headers[HTTP_HEADERS_MAX];
	size_t n_headers;
};

/* The value of the header of this name (whatever its case), *n of which there are. */
struct span http_request_header(const struct http_request *r, const char *name, size_t *n);
/* Does a header that is a list of words have this one, whatever its case? */
bool http_request_lists(const struct http_request *r, const char *name, const char *word);

struct http_message;

enum http_verdict {
	HTTP_GO_ON, /* read on: the body, or the next request */
	HTTP_HOLD,  /* this one is taken; no further one before http_message_resume() */
	HTTP_STOP,  /* nothing more is an HTTP request: what follows is the caller's */
};

struct http_message_ops {
	/* The head is there, and a body is to follow. HTTP_STOP: it is not wanted. The request's
	 * spans stay valid until ops->request() has returned or the message is freed. */
	enum http_verdict (*head)(void *owner, const struct http_request *r);
	/* The request is whole. */
	enum http_verdict (*request)(void *owner, const struct http_request *r);
	/* What came is no request that can be served: a status of 4xx or 5xx and a sentence.
	 * Nothing more is read. */
	void (*fault)(void *owner, int status, const char *why);
};

struct http_message *http_message_new(const struct http_message_ops *ops, void *owner,
				      size_t body_max);
void http_message_free(struct http_message *m);
/* Of bodies from now on; one that has begun keeps its bound. */
void http_message_set(struct http_message *m, size_t body_max);

/* As the verdict of the last call into ops says; HTTP_GO_ON if there was none. */
enum http_verdict http_message_feed(struct http_message *m, struct span bytes);
enum http_verdict http_message_resume(struct http_message *m);

/* Has a part of a head come, and not the rest? */
bool http_message_is_in_head(const struct http_message *m);
/* Has a head come, and not all of the body behind it? */
bool http_message_is_in_body(const struct http_message *m);
size_t http_message_kept(const struct http_message *m);
/* Nothing more is read, and what comes is dropped. Also from within ops. */
void http_message_stop(struct http_message *m);
/* Bytes behind the request for which ops->request() said HTTP_STOP: moves them to out. */
void http_message_rest(struct http_message *m, struct buf *out);
