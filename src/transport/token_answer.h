/* token_answer.h - the answer to a request for a token, as JSON: {"token":"…","expiresIn":7200}.
 *
 * The service sends it, or an endpoint of the customer's. The token is checked before it may enter
 * a request line. Other members are passed over. */
#pragma once

#include <stdbool.h>

#include "base/span.h"

/* Is it printable ASCII without spaces? A key or token goes into a request line: it must not
 * contain a byte that ends the line, or the word. */
bool token_answer_is_plain(const char *text);

/* The first token of the answer, a secret to be freed by secret_free(). NULL: there is none, or it
 * can't be used. expires_in_s stays as it is when it has no such member that is a number from 1 on.
 */
char *token_answer_read(struct span text, int *expires_in_s);
