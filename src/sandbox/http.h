/* http.h - what the sandbox reads from the head of an HTTP request, beyond what libwebsockets' own
 * calls make easy. */
#pragma once

#include <libwebsockets.h>

#include "base/buf.h"
#include "base/span.h"

/* The value of a query parameter, decoded, appended to out. False: it is not there. */
bool http_query(struct lws *wsi, struct span name, struct buf *out);

/* The x-api-key header, appended to out. False: it is not there. */
bool http_api_key(struct lws *wsi, struct buf *out);
