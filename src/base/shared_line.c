#include "base/shared_line.h"

#include <stdlib.h>

#include "base/mem.h"

struct shared_line *shared_line_new(size_t n, struct span key)
{
	struct shared_line *shared = mem_alloc(sizeof(*shared) + n + key.n);
	char *copy = shared->text + n;

	*shared = (struct shared_line){.refs = 1, .n = (uint32_t)n, .key = {copy, key.n}};
	if (key.n)
		memcpy(copy, key.p, key.n);
	return shared;
}

void shared_line_unref(struct shared_line *shared)
{
	if (--shared->refs)
		return;
	if (shared->secret)
		mem_wipe(shared->text, shared->n);
	free(shared);
}
