/* test.h - what every unit test needs: cmocka with the headers it wants before it, and texts that
 * cannot be overread.
 *
 * A text under test is copied to a heap block of exactly its size, so that the sanitizers and
 * valgrind see the first byte that is read beyond it; a string literal's NUL would hide it. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/span.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static inline struct span copy_of(struct span text)
{
	char *p = malloc(text.n ? text.n : 1);

	assert_non_null(p);
	if (text.n)
		memcpy(p, text.p, text.n);
	return (struct span){p, text.n};
}

static inline void free_copy(struct span copy)
{
	free((void *)(uintptr_t)copy.p);
}

static inline struct span span_of(const char *s)
{
	return (struct span){s, strlen(s)};
}

/* Fails with both texts shown. */
#define assert_span(actual, literal)                                                               \
	do {                                                                                       \
		struct span seen_ = (actual);                                                      \
		const char *want_ = (literal);                                                     \
		if (!span_equal(seen_, span_of(want_)))                                            \
			fail_msg("%.*s instead of %s", (int)seen_.n, seen_.p ? seen_.p : "",       \
				 want_);                                                           \
	} while (0)
