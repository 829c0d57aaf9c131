/* secret.h - texts that must not get anywhere: the API key, tokens, and the request paths that they
 * travel in.
 *
 * Each lies in pages of its own, which are locked, so that they never reach a swap device, and left
 * out of core dumps, both as far as the kernel lets us; and it is overwritten before they are given
 * back. Several may hold the same one: each frees it here, the last one for good, and none copies
 * it elsewhere. What libraries do with what they are given is their users' care (websocket.c,
 * token_client.c).
 */
#pragma once

#include <stddef.h>

char *secret_alloc(size_t n); /* zeroed; like those of mem.h it never returns NULL */
char *secret_dup(const char *text);
char *secret_dupn(const char *text, size_t n); /* with a NUL behind it */
/* The same text, which is one of this room's, with one more holder. Not to be changed any more. */
char *secret_share(const char *secret);
/* The last holder's overwrites it. NULL will do; *secret becomes NULL. */
void secret_free(char **secret);

/* Can memory be locked here? 0, or -errno: then secrets are kept all the same, but may be swapped
 * out. */
int secret_check(void);
