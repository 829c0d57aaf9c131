/* pool.h - short-lived blocks of varying size, without malloc on the hot path.
 *
 * Freed blocks of a few common sizes are kept for the next request, up to a bound for each size;
 * larger ones go to malloc and free. One pool belongs to one room and one thread. */
#pragma once

#include <stddef.h>

enum { POOL_CLASSES = 5 };

struct pool {
	struct {
		void *first; /* free blocks, each holding the address of the next */
		size_t n;
	} free[POOL_CLASSES];
};

/* What a block of n bytes takes in fact: ask for that size, and sums of sizes are true. */
size_t pool_size(size_t n);

void *pool_get(struct pool *pool, size_t n); /* uninitialised; n is needed again for pool_put() */
void pool_put(struct pool *pool, void *p, size_t n);
void pool_fini(struct pool *pool); /* frees the kept blocks; those in use stay valid */
