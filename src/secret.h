/* secret.h - texts that must not get anywhere: the API key, tokens, and the request paths that they
 * travel in.
 *
 * Each lies in pages of its own, which are locked, so that they never reach a swap device, and left
 * out of core dumps, both as far as the kernel lets us; and it is overwritten before they are given
 * back. Whoever holds one frees it here and copies it nowhere else. What libraries do with what
 * they are given is their users' care (link.c, token.c). */
#pragma once

#include <stddef.h>

char *secret_alloc(size_t n); /* zeroed; like those of mem.h it never returns NULL */
char *secret_dup(const char *text);
char *secret_dupn(const char *text, size_t n); /* with a NUL behind it */
void secret_free(char **secret);               /* overwrites; NULL will do; *secret becomes NULL */

/* Can memory be locked here? 0, or -errno: then secrets are kept all the same, but may be swapped
 * out. */
int secret_check(void);
