/* pool.h - short-lived blocks of varying size, without malloc on the hot path.
 *
 * Freed blocks of a few common sizes are kept for reuse, up to a bound for each size; larger ones
 * use malloc and free. A pool belongs to one room and one thread. */
#pragma once

#include <stddef.h>

enum { POOL_CLASSES = 5 };

struct pool {
	struct {
		void *first; /* free blocks, each with the address of the next */
		size_t n;
	} free[POOL_CLASSES];
};

/* The size that a block of n bytes really takes. Ask for that size, so that memory accounts are
 * exact. */
size_t pool_size(size_t n);

void *pool_get(struct pool *pool, size_t n); /* uninitialised; pool_put() needs n again */
void pool_put(struct pool *pool, void *p, size_t n);
void pool_fini(struct pool *pool); /* frees the kept blocks; blocks in use stay valid */
