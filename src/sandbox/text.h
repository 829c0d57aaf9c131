/* text.h - bytes into JSON strings. The reverse is json_string_decode() of json.h. */
#pragma once

#include "buf.h"
#include "span.h"

/* Appends a JSON string, quotes included. The bytes are UTF-8, or what json_string_decode() makes
 * of a lone surrogate, which becomes the same \uD8xx again. */
void text_add_string(struct buf *out, struct span bytes);

/* Are these bytes UTF-8? */
bool text_is_utf8(struct span bytes);
