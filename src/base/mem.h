/* mem.h - allocation for our own small structures.
 *
 * These functions never return NULL. When the machine has no memory left for a few hundred bytes,
 * going on would take untested paths; so the daemon ends with a message and its supervisor starts
 * it again. Callers cap sizes that a peer chooses before they come here. */
#pragma once

#include <stddef.h>

void *mem_alloc(size_t n);           /* uninitialised */
void *mem_zalloc(size_t n);          /* zeroed */
void *mem_resize(void *p, size_t n); /* as realloc */
char *mem_strdup(const char *s);
char *mem_strndup(const char *s, size_t n);
void mem_wipe(void *p, size_t n); /* overwrites with zeros; the compiler never removes it */
/* The same for what functions that have returned left on the stack. The dynamic linker saves vector
 * registers there, in which memcpy() may have left a secret. */
void mem_wipe_stack(void);

/* A library could not allocate this many bytes for us: logs that and ends the program. */
void mem_refused(size_t n) __attribute__((noreturn));
