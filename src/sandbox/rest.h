/* rest.h - the HTTP side of the sandbox: records by REST, tokens, and searches as HPKV Nexus has
 * them.
 *
 * A request is answered when its body has come whole; bodies are as bounded as WebSocket messages.
 * The API key goes in the x-api-key header. Keys in the address are true to the byte (uri.h):
 * decoded once; the bounds of a range a second time if they still look encoded, because HPKV's own
 * client encodes them twice. */
#pragma once

#include <event2/event.h>

#include "base/buf.h"
#include "service.h"

struct conn;
struct rest_route;

/* One request at a time; zeroed before the first. */
struct rest {
	struct conn *conn; /* NULL: there is no request */
	struct service *service;
	const struct rest_route *route;
	struct api_key *key;
	struct buf path;              /* the decoded key that the path names */
	struct buf start, end, limit; /* of the query */
	struct buf body;
	struct buf reply;      /* the whole response, head included */
	struct event *release; /* sends it (--delay-ms) */
	int refusal;           /* the status to refuse it with; 0: it will be run */
	bool answered;
	bool close; /* after the reply */
};

/* The request's head is in conn->http. */
void rest_begin(struct rest *r, struct conn *conn);
void rest_body(struct rest *r, struct span piece);
void rest_body_end(struct rest *r);

void rest_end(struct rest *r); /* frees what it has; may be called twice */

/* Answers what is no request, or one for an upgrade that is not granted, and ends the connection.
 */
void rest_refuse(struct conn *conn, int status);
