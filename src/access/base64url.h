/* base64url.h - bytes as text that may stand in an address: base64url without padding (RFC 4648,
 * 5), by way of OpenSSL's base64. */
#pragma once

#include <stdbool.h>

#include "base/buf.h"
#include "base/span.h"

/* Appends. bytes: at most INT_MAX / 2. */
void base64url_encode(struct span bytes, struct buf *out);

/* Appends. False: the text is none. What OpenSSL lets pass (white space at the ends) passes:
 * whoever has the text signed compares the text. */
bool base64url_decode(struct span text, struct buf *out);
