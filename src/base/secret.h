/* secret.h - texts that must not leak: the API key, tokens, and request paths that contain them.
 *
 * Each secret lies in pages of its own, which are locked (never swapped) and left out of core
 * dumps, both as far as the kernel allows, and overwritten before they are freed. Several holders
 * may share a secret: each frees it here, the last one for good, and no holder copies it to other
 * memory. Rooms that pass secrets to libraries take care of the libraries' copies (websocket.c,
 * token_client.c). */
#pragma once

#include <stddef.h>

char *secret_alloc(size_t n); /* zeroed; never NULL, like the functions of mem.h */
char *secret_dup(const char *text);
char *secret_dupn(const char *text, size_t n); /* with a NUL behind it */
/* One more holder of this secret, which is one of this room's. It must not be changed any more. */
char *secret_share(const char *secret);
/* The last holder overwrites it. Accepts NULL; *secret becomes NULL. */
void secret_free(char **secret);

/* Can memory be locked here? 0, or -errno: then secrets are kept all the same, but may be swapped
 * out. */
int secret_check(void);
