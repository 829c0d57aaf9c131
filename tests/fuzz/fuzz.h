/* fuzz.h - what the fuzz targets share with whoever runs them.
 *
 * Each target reads one text and checks what must hold for every text there is, beyond not
 * crashing. The fuzzer runs it on texts that it invents (configure --enable-fuzzers, clang;
 * tests/fuzz/run); replay.c runs it on the target's own seeds, on what is near them and on its
 * corpus in any build, so that a target never rots.
 *
 * A new target is a source here with its rules in Makefile.am (a fuzzer and a replay), and a
 * dictionary where tokens help. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/span.h"

extern const struct span fuzz_seeds[];
extern const size_t fuzz_n_seeds;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Unlike assert() it is never compiled out. */
#define must(condition)                                                                            \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "%s:%d: must hold: %s\n", __FILE__, __LINE__, #condition); \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

/* Memory of exactly n bytes, so that a byte too many is seen. */
static inline char *fuzz_memory(size_t n)
{
	char *p = malloc(n ? n : 1);

	must(p != NULL);
	return p;
}
