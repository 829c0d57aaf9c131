/* relay.h - the notifications of several connections as one stream, each change once.
 *
 * There is a present lane, whose notifications count. While a next one is made beside it, and from
 * relay_begin() on, the two are compared (handover.h); relay_move() makes the next one the present,
 * and the former goes on to be compared with it until relay_forget(): either may be late. So a
 * change of the present lane may pass two comparisons: with the former one, and with the next.
 *
 * Owns the comparisons, and what is learned from them about the service's stamps. Decides nothing:
 * when to begin and when to move is upstream.h's. No descriptors, no clock. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "change.h"
#include "handover.h"
#include "wire.h"

struct relay_ops {
	void (*change)(void *owner, const struct wire_frame *frame, const struct change *change);
	/* Does the present lane, or the former one, bring the changes of this key? */
	bool (*covers)(void *owner, const struct wire_frame *frame, const struct change *change,
		       bool former);
	/* relay_holds() may say no now of what it said yes of. */
	void (*let_go)(void *owner);
};

struct relay {
	const struct relay_ops *ops;
	void *owner;
	uint64_t seed; /* of change.h's hashes */
	struct handover_limits limits;
	struct handover_learned learned;
	struct handover *next;            /* the present lane and the next one; or NULL */
	struct handover *former;          /* the former lane and the present one; or NULL */
	bool former_stays;                /* its lane may bring more */
	bool from_former;                 /* that is what delivers */
	bool early;                       /* the former lane speaks, so current is new of it only */
	bool overflown;                   /* next has become too large */
	const struct wire_frame *current; /* the frame that is being looked at */
};

void relay_init(struct relay *r, uint64_t seed, const struct relay_ops *ops, void *owner);
void relay_fini(struct relay *r);
/* Of the comparisons that begin from now on. Needed before the first one. */
void relay_limit(struct relay *r, const struct handover_limits *limits);

void relay_begin(struct relay *r); /* before the next lane can be subscribed to anything */
void relay_abort(struct relay *r); /* there will be no next lane; the present one goes on */

/* Has the present lane brought the first of what the next one has brought, of each key? */
bool relay_aligned(const struct relay *r);

/* The next lane is the present one from now on, and what is held of it is told. waited: see
 * handover_move(). Returns how many changes have come twice so far. */
size_t relay_move(struct relay *r, bool waited);
void relay_former_gone(struct relay *r); /* the former lane will bring nothing more */
void relay_forget(struct relay *r);      /* ... and the present one is not late either */

/* Has the present lane brought changes of this key that wait for the former one? */
bool relay_holds(const struct relay *r, uint64_t key_hash);

/* There is too much to compare the next lane with the present one: it must not take over, or
 * changes could come twice, and has to be given up by relay_abort(). What the former lane was
 * waited for with may bring it about at any time, notifications tell at once. */
bool relay_overflows(const struct relay *r);

/* A lane brings a notification. False: relay_overflows(). */
bool relay_present(struct relay *r, const struct wire_frame *frame);
bool relay_next(struct relay *r, const struct wire_frame *frame);
bool relay_former(struct relay *r, const struct wire_frame *frame);
