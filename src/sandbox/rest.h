/* rest.h - the HTTP side of the sandbox: records by REST, and tokens.
 *
 * A request is answered when its body has come whole; bodies are as bounded as WebSocket messages.
 * The API key goes in the x-api-key header. */
#pragma once

#include <libwebsockets.h>

#include "base/buf.h"
#include "service.h"

struct rest_route;

/* One request at a time. Zeroed by libwebsockets before the first. */
struct rest {
	struct lws *wsi;
	struct service *service;
	const struct rest_route *route;
	struct api_key *key;
	struct buf path;              /* the decoded key that the path names */
	struct buf start, end, limit; /* of the query */
	struct buf body;
	struct buf reply; /* the whole response, head included */
	int refusal;      /* the status to refuse it with; 0: it will be run */
	bool awaits_body;
	bool close; /* after the reply */
	lws_sorted_usec_list_t release;
};

/* These return what the libwebsockets callback has to: 0, or -1 to close. */
int rest_begin(struct rest *r, struct service *sv, struct lws *wsi, const char *uri);
int rest_body(struct rest *r, struct span piece);
int rest_body_end(struct rest *r);
int rest_writable(struct rest *r);

void rest_end(struct rest *r); /* frees what it has; may be called twice */

/* Refuses a request for an upgrade: writes the whole response at once. What CONFIRM_UPGRADE has to
 * return. */
int rest_refuse_upgrade(struct lws *wsi, int status);
