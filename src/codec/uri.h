/* uri.h - percent-encoded text, and queries.
 *
 * Keys are bytes, and none of them is lost on the way: %2F, %00 and UTF-8 decode to themselves, a +
 * is a +, and no path is tidied up. A % that two hexadecimal digits do not follow is a fault. */
#pragma once

#include <stdbool.h>

#include "base/buf.h"
#include "base/span.h"

/* Appends the decoded text. False: it is not encoded properly. */
bool uri_decode(struct span text, struct buf *out);

/* Of a decoded text: is it what a client that encodes twice has sent? That is so if it consists of
 * valid %XX, one at least, and of what JavaScript's encodeURIComponent() leaves alone. */
bool uri_is_encoded_again(struct span text);

/* The next parameter, as written; value is empty without a =. False: there is none. */
bool uri_next_parameter(struct span *query, struct span *name, struct span *value);
