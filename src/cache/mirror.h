/* mirror.h - all records whose keys begin alike: loaded in pages, kept whole, ranges answered.
 *
 *     OUT -> LOADING -> WHOLE        OUT: changes of it are not told of at present
 *               |         |
 *               +----+----+--> GIVEN_UP   too big, or its pages can't be relied on
 *
 * In a mirror that is WHOLE no entry means that there is no such record. An EMPTY entry means that
 * it is not known: the owner reads the key again (mirror_next_unknown()).
 *
 * A page is a range from behind the last key on. Its answer speaks of each key between its ends;
 * what of that is believed says truth.h. A whole mirror goes through its pages again and again, one
 * pass in half of max_age; what the last two passes have not confirmed is not served.
 *
 * Pure: the owner sends the requests and brings the answers. All times are of one clock, the
 * owner's, which goes on during sleep. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "cache/entry.h"
#include "cache/truth.h"
#include "codec/wire.h"

enum { MIRROR_PAGE = 1000, MIRROR_PAGE_MIN = 50, MIRROR_RANGE = 100, MIRROR_RANGE_MAX = 1000 };

enum mirror_state { MIRROR_OUT, MIRROR_LOADING, MIRROR_WHOLE, MIRROR_GIVEN_UP, MIRROR_STATE_N };

/* Of all mirrors together. */
struct mirror_limits {
	size_t memory; /* of all entries, as entry.h counts */
	int64_t max_age_ms;
	int64_t keep_missing_ms; /* an entry that an answer has made MISSING stays so long */
};

struct mirror {
	struct entries *entries;
	struct truth *truth;
	const struct mirror_limits *limits;
	uint8_t origin;
	enum mirror_state state;
	struct buf prefix, first, last; /* keys lie between first and last, and have the prefix */
	struct buf from;                /* the next page begins here */
	bool asking;                    /* a page is on its way, which is this: */
	uint64_t page;                  /* the owner's number, not used again */
	int64_t due;                    /* of the next page */
	unsigned failures;              /* of pages, in a row */
	unsigned refusals;              /* ... of which these are the service's last word */
	int64_t answered_at;            /* when an answer has last spoken of keys without entries */
	int64_t began;                  /* the present pass */
	int64_t confirmed;              /* when the last whole pass began */
	unsigned pages, pages_before;   /* of this pass, of the last whole one */
	unsigned limit;                 /* records that a page is asked for */
	size_t range_max;               /* records in an answer */
	struct entry_list unknown;
};

void mirror_init(struct mirror *m, struct entries *es, struct truth *t,
		 const struct mirror_limits *limits, uint8_t origin, struct span prefix);
void mirror_fini(struct mirror *m); /* its entries stay */

bool mirror_has(const struct mirror *m, struct span key);

/* Changes of it are told of from now on: it is loaded. */
void mirror_start(struct mirror *m, int64_t now);
/* All that was known of it is forgotten. */
void mirror_stop(struct mirror *m);

static inline bool mirror_is_active(const struct mirror *m)
{
	return m->state == MIRROR_LOADING || m->state == MIRROR_WHOLE;
}

/* One that was given up is OUT: it may be tried again. */
void mirror_try_again(struct mirror *m);

/* Nothing is believed of this entry of an active mirror: it waits to be read again, unless it is
 * fenced. */
void mirror_unknown(struct mirror *m, struct entry *e);
/* It is known again or fenced, or is about to be read or freed. */
void mirror_unlink(struct mirror *m, struct entry *e);
/* There is no such record: the entry is freed if nothing needs it any more. */
void mirror_missing(struct mirror *m, struct entry *e, int64_t now);
/* The first that waits, not unlinked; NULL: none. */
static inline struct entry *mirror_next_unknown(const struct mirror *m)
{
	return TAILQ_FIRST(&m->unknown);
}

/* Is a page to be asked for now? Then mirror_asked(), and from m->from to m->last, m->limit of
 * them.
 */
bool mirror_wants_page(const struct mirror *m, int64_t now);
/* max_age_ms is another: if it is shorter the next page is due sooner. */
void mirror_hurry(struct mirror *m, int64_t now);
void mirror_asked(struct mirror *m, uint64_t page, int64_t now);

/* The answer to the page that was sent at `seen`. NULL, or why the mirror has given up. */
const char *mirror_page(struct mirror *m, const struct wire_frame *answer, uint64_t seen,
			int64_t now);
/* There was none. sent: it was asked for, and may have been too much for the connection's limits or
 * the time that there was: smaller ones are asked for from now on. */
void mirror_no_page(struct mirror *m, bool sent, int64_t now);
void mirror_give_up(struct mirror *m); /* its entries are of no use any more */

/* A client was told of the keys in this range. */
void mirror_answered(struct mirror *m, struct span from, struct span to, int64_t now);

/* May a key that has no entry be said not to exist? */
bool mirror_is_sure(const struct mirror *m, int64_t now);

/* Appends the answer to a range inside the mirror: an object without its last brace, to which the
 * messageId belongs. False: it can't be given, and nothing was appended. */
bool mirror_range(struct mirror *m, struct span from, struct span to, size_t limit, int64_t now,
		  struct buf *out);
