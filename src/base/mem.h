/* mem.h - allocation for our own small structures.
 *
 * These never return NULL: when the machine has no memory left for a few hundred bytes of ours,
 * carrying on would mean failing requests in ways that nobody has tested, so the daemon stops with
 * a message and its supervisor starts it again. Sizes that a peer chooses are capped before they
 * come here. */
#pragma once

#include <stddef.h>

void *mem_alloc(size_t n);           /* uninitialised */
void *mem_zalloc(size_t n);          /* zeroed */
void *mem_resize(void *p, size_t n); /* as realloc */
char *mem_strdup(const char *s);
char *mem_strndup(const char *s, size_t n);
void mem_wipe(void *p, size_t n); /* overwrites; never optimised away */

/* A library has found no memory for so many bytes of ours: says so, and ends the program. */
void mem_refused(size_t n) __attribute__((noreturn));
