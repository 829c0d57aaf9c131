/* http.h - the HTTP requests of one connection: http-parser's events as whole request heads.
 *
 * The target is kept as it was written: whose key it names, and where that begins and ends, is
 * decided before anything in it is decoded (uri.h). */
#pragma once

#include <http_parser.h>

#include "base/buf.h"
#include "base/span.h"

enum { HTTP_HEAD_MAX = 64 * 1024 };

enum http_header {
	HEADER_API_KEY,
	HEADER_UPGRADE,
	HEADER_WS_KEY,
	HEADER_WS_VERSION,
	HEADER_N /* any other */
};

struct http_ops {
	/* The head is here; what it says is in struct http until the request has ended. */
	void (*head)(void *owner);
	void (*body)(void *owner, struct span piece);
	void (*end)(void *owner); /* nothing further is read until http_resume() */
};

struct http {
	http_parser parser;
	const struct http_ops *ops;
	void *owner;
	struct buf target;
	struct buf name; /* of the header that is being read */
	struct buf values[HEADER_N];
	bool has[HEADER_N];
	bool in_value, paused;
};

void http_init(struct http *h, const struct http_ops *ops, void *owner);
void http_fini(struct http *h);

/* Reads on; *taken is how many bytes. False: this is no HTTP. After an upgrade's head, or while it
 * is paused, it takes less than there is. */
bool http_read(struct http *h, struct span data, size_t *taken);
void http_resume(struct http *h);

/* The target before its question mark, and behind it. */
struct span http_path(const struct http *h);
struct span http_query(const struct http *h);

/* Appends the value of a query parameter, decoded once. False: it is not there, or not decodable.
 */
bool http_parameter(const struct http *h, struct span name, struct buf *out);

/* -1: none is announced. */
int64_t http_content_length(const struct http *h);
