/* random.h - numbers that look random and are the same in each run. */
#pragma once

#include <stdint.h>

/* The next state, from any other. Its upper bits are the random ones. */
static inline uint32_t random_next(uint32_t *state)
{
	return *state = *state * 1664525 + 1013904223;
}

/* 0 … n - 1 */
static inline uint32_t random_below(uint32_t *state, uint32_t n)
{
	return (random_next(state) >> 8) % n;
}
