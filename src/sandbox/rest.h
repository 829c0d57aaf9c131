/* rest.h - REST access to records, and tokens, over HTTP.
 *
 * A request is answered once its body is complete. Bodies have the bound of WebSocket messages. The
 * API key is in the x-api-key header. */
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
	struct buf path;              /* the decoded key in the path */
	struct buf start, end, limit; /* parameters of the query */
	struct buf body;
	struct buf reply; /* the complete response, head included */
	int refusal;      /* the status of a refusal; 0: the request will be run */
	bool awaits_body;
	bool close; /* close the connection after the reply */
	lws_sorted_usec_list_t release;
};

/* Events of a request. They return the result of the libwebsockets callback: 0, or -1 to close. */
int rest_begin(struct rest *r, struct service *sv, struct lws *wsi, const char *uri);
int rest_body(struct rest *r, struct span piece);
int rest_body_end(struct rest *r);
int rest_writable(struct rest *r);

void rest_end(struct rest *r); /* frees what r owns; may be called twice */

/* Refuses an upgrade: writes the whole response at once. Returns the result of CONFIRM_UPGRADE. */
int rest_refuse_upgrade(struct lws *wsi, int status);
