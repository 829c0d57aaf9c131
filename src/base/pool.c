#include "base/pool.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* Size classes, and how many free blocks of each are kept: 1.5 MiB in all at most. */
static const struct {
	size_t size, keep;
} classes[POOL_CLASSES] = {{256, 2048}, {512, 512}, {1024, 256}, {2048, 128}, {4096, 64}};

static int class_of(size_t n)
{
	int c = 0;

	while (c < POOL_CLASSES && n > classes[c].size)
		c++;
	return c;
}

size_t pool_size(size_t n)
{
	int c = class_of(n);

	return c == POOL_CLASSES ? n : classes[c].size;
}

void *pool_get(struct pool *pool, size_t n)
{
	int c = class_of(n);

	if (c == POOL_CLASSES)
		return mem_alloc(n);
	void *p = pool->free[c].first;
	if (!p)
		return mem_alloc(classes[c].size);
	memcpy(&pool->free[c].first, p, sizeof(void *));
	pool->free[c].n--;
	return p;
}

void pool_put(struct pool *pool, void *p, size_t n)
{
	int c = class_of(n);

	if (c == POOL_CLASSES || pool->free[c].n == classes[c].keep) {
		free(p);
		return;
	}
	memcpy(p, &pool->free[c].first, sizeof(void *));
	pool->free[c].first = p;
	pool->free[c].n++;
}

void pool_fini(struct pool *pool)
{
	for (int c = 0; c < POOL_CLASSES; c++) {
		while (pool->free[c].first) {
			void *p = pool->free[c].first;
			memcpy(&pool->free[c].first, p, sizeof(void *));
			free(p);
		}
		pool->free[c].n = 0;
	}
}
