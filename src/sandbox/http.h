/* http.h - reads query parameters and headers of an HTTP request. */
#pragma once

#include <libwebsockets.h>

#include "base/buf.h"
#include "base/span.h"

/* Appends the decoded value of a query parameter to out. false: it is missing. */
bool http_query(struct lws *wsi, struct span name, struct buf *out);

/* Appends the x-api-key header to out. false: it is missing. */
bool http_api_key(struct lws *wsi, struct buf *out);
