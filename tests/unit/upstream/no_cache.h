/* no_cache.h - functions for upstream.h in the place of a cache: they do nothing. */
#pragma once

#include "upstream/upstream.h"

static inline void no_cache_up(struct cache *c)
{
	(void)c;
}

static inline void no_cache_live(struct cache *c, bool token)
{
	(void)c, (void)token;
}

static inline void no_cache_lost(struct cache *c, int64_t heard_ms)
{
	(void)c, (void)heard_ms;
}

static inline void no_cache_arrived(struct cache *c, const struct wire_frame *frame)
{
	(void)c, (void)frame;
}

static inline void no_cache_change(struct cache *c, const struct wire_frame *frame,
				   const struct notification *change)
{
	(void)c, (void)frame, (void)change;
}

#define NO_CACHE                                                                                   \
	{                                                                                          \
		.up = no_cache_up, .live = no_cache_live, .lost = no_cache_lost,                   \
		.arrived = no_cache_arrived, .change = no_cache_change, .missed = no_cache_up      \
	}
