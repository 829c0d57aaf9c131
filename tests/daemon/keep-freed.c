/* keep-freed.c - a program that it is preloaded into (LD_PRELOAD) frees no memory: what it would
 * have freed stays as it is, and is not used again. So a secret that was not overwritten before
 * is found there, and not only if nothing else has happened to be written over it. */
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

void free(void *p)
{
	(void)p;
}

void *realloc(void *p, size_t n)
{
	size_t had = p ? malloc_usable_size(p) : 0;
	void *moved = malloc(n);

	if (moved && p)
		memcpy(moved, p, had < n ? had : n);
	return moved;
}
