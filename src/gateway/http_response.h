/* http_response.h - the bytes of a response. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/span.h"

struct http_response {
	int status;
	int64_t wall_ms;  /* now, for Date; 0: there is none */
	const char *type; /* of the body; NULL: JSON */
	struct span body;
	bool no_body;        /* the client has asked for the head alone: body says how long it is */
	bool close;          /* the connection ends behind it */
	bool keep_alive;     /* an HTTP/1.0 client has asked for that, and gets it */
	bool stream;         /* the body follows, and ends with the connection */
	long retry_after_ms; /* -1: none */
	struct span allow;   /* the methods, of 405; or empty */
	const char *origin;  /* of the web page that may read it; or NULL */
	bool preflight;      /* the browser has asked what the page may send */
	bool private_network;
	struct span extra; /* header lines, each with its line end */
};

/* Appends the head and, if there is one to send, the body. */
void http_response_write(struct buf *out, const struct http_response *r);

/* Appends an error object in the form of the daemon's own errors. */
void http_response_error(struct buf *out, int status, const char *text);
