/* truth.h - when a value that was read may be believed, and what ends the belief.
 *
 * All events are numbered by one counter, the tick. A read carries the tick at which it was sent.
 * Its answer is believed if nothing has happened since that it may not have seen: nothing that
 * concerns all keys (the barrier), no change or own write of its key (entry::changed), and no other
 * value told to any client (entry::told). A read that was sent after another value was told is
 * newer than that, and takes its place. doc/cache.md has the table of events and the argument.
 *
 * Pure rules over entries; owns nothing. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "cache/entry.h"

struct truth {
	uint64_t seed;    /* of notification.h's hashes: values are compared by these */
	uint64_t nothing; /* the hash of a record that is not there */
	uint64_t tick, barrier;
	bool live; /* the service tells of changes on the connection that requests go out on */
};

/* Of a read that is sent now. */
static inline uint64_t truth_now(struct truth *t)
{
	return ++t->tick;
}

void truth_init(struct truth *t, uint64_t seed);

/* Nothing that was sent before is believed. */
static inline void truth_bar(struct truth *t)
{
	t->barrier = ++t->tick;
}

/* The key may have changed: nothing is believed of it, nor in what was sent before. */
void truth_doubt(struct truth *t, struct entries *es, struct entry *e);

/* May what was read by a read sent at `seen` be believed, as far as all keys are concerned? */
static inline bool truth_stands(const struct truth *t, uint64_t seen)
{
	return t->live && seen > t->barrier;
}

/* A client is told this value (its hash) by the answer to a read: may it be believed? Another one
 * that was believed is so no more. */
bool truth_tell(struct truth *t, struct entries *es, struct entry *e, uint64_t seen, uint64_t hash);

/* This value is believed from now on. */
static inline void truth_believed(const struct truth *t, struct entry *e, uint64_t hash)
{
	e->told = hash;
	e->told_at = (uint32_t)t->tick;
}

/* An answer speaks of the key. A notification that comes soon may be older: it is not taken. */
static inline void truth_answered(struct entry *e, int64_t now)
{
	e->answered = true;
	e->answered_at = (uint32_t)now;
}

/* Did an answer speak of it less than so long ago? */
static inline bool truth_is_answered(const struct entry *e, int64_t now, int64_t within_ms)
{
	return e->answered && (uint32_t)now - e->answered_at < within_ms;
}

/* What a page of a mirror, of which no client is told, means for an entry. */
enum truth_page {
	TRUTH_PAGE_OLD,     /* nothing: it is older than what is known, or may be */
	TRUTH_PAGE_SAME,    /* it confirms what is believed */
	TRUTH_PAGE_BELIEVE, /* it is to be believed */
	TRUTH_PAGE_DOUBT,   /* it contradicts what is believed, and was doubted */
	TRUTH_PAGE_N
};
enum truth_page truth_page(struct truth *t, struct entries *es, struct entry *e, uint64_t seen,
			   uint64_t hash);
