#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"

enum { STACK_WIPED = 65536 };

void mem_refused(size_t n)
{
	log_error("out of memory: %zu bytes were refused", n);
	abort();
}

static void *checked(void *p, size_t n)
{
	if (!p && n)
		mem_refused(n);
	return p;
}

void *mem_alloc(size_t n)
{
	return checked(malloc(n), n);
}

void *mem_zalloc(size_t n)
{
	return checked(calloc(1, n), n);
}

void *mem_resize(void *p, size_t n)
{
	return checked(realloc(p, n), n);
}

char *mem_strdup(const char *s)
{
	return mem_strndup(s, strlen(s));
}

char *mem_strndup(const char *s, size_t n)
{
	char *copy = mem_alloc(n + 1);
	memcpy(copy, s, n);
	copy[n] = '\0';
	return copy;
}

void mem_wipe(void *p, size_t n)
{
	if (p && n)
		explicit_bzero(p, n);
}

__attribute__((noinline)) void mem_wipe_stack(void)
{
	char below[STACK_WIPED];

	explicit_bzero(below, sizeof(below));
}
