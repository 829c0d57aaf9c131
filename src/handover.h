/* handover.h - the notifications of two connections as one sequence: while a new connection takes
 * over from an old one, each change is told once, none is lost, and those of a key keep their
 * order.
 *
 * Both connections are told the changes of the keys that both have; what is older than the new
 * one's subscription comes by the old one alone. Each brings the changes of one key in the
 * service's order, but one may lag behind the other by seconds. So, while the old one is believed,
 * its changes are delivered as they come and remembered; those of the new one that it has brought
 * already are dropped, the others held until it brings them too. From handover_move() on the new
 * one is believed: what is held is delivered in order, and what it brings later is dropped if the
 * old one was faster.
 *
 * For each key the two are aligned at the first change that the new one brings: either the old one
 * has brought it (what it brought before is older than the new connection), or it will (what it
 * brings before is older too). handover_aligned() says whether this has happened for all keys of
 * which the new one has spoken; before that, to move could lose what the old one is late with. Of
 * the other keys nothing can be said here, so the caller sends a ping by the old connection once
 * the new one is up: when the answer is there, all that only the old one is told has come, if the
 * service keeps to the order of what it sends on one connection.
 *
 * Two changes are the same if change.h says so. Should the service stamp one change differently on
 * each connection, which is not known of it, then no key is aligned by that. If the caller has
 * waited for it in vain and moves, doubles are found by their values; they show how the service
 * stamps (enum handover_stamps), and from then on values decide as long as the stamps are close.
 *
 * What can go wrong:
 * - In each state a change that equals an earlier one of its key in value and stamp (UNLIKE: in
 *   value, within SAME_WITHIN_MS) may be taken for it. If the new one begins a key with it, it may
 *   be lost; where such pairs abound, others of the key may be lost, come twice or out of order.
 * - A move after waiting goes by the values of the keys that are not aligned. If these repeat
 *   within SAME_WITHIN_MS, as those of a key that toggles do, changes that the old one has not
 *   brought may be taken for doubles: they are lost, perhaps some that follow too, and UNLIKE is
 *   concluded wrongly.
 * - In UNKNOWN and ALIKE, if the connections stamp differently for all that: what the old one has
 *   brought and the new one brings after the move comes twice, unless the move found doubles of
 *   some key.
 *
 * The time of a call is bounded on the average whatever the connections bring. No clock, no
 * descriptors, no parsing: delivered changes go to ops->deliver(). */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "change.h"

enum {
	SAME_WITHIN_MS = 5000,
	ALIKE_AFTER = 32, /* doubles in a row with equal stamps: no chance any more */
};

/* How the service stamps one change on two connections, as far as doubles have shown. Those without
 * stamps show nothing; equal stamps may be chance, so one pair that differs outweighs them. */
enum handover_stamps {
	HANDOVER_STAMPS_UNKNOWN, /* to be the same is to have the same value and stamp */
	HANDOVER_STAMPS_ALIKE,   /* likewise */
	HANDOVER_STAMPS_UNLIKE,  /* ... or the same value, and stamps within SAME_WITHIN_MS */
};

/* Kept by the caller from one handover to the next; zeroed in the beginning. */
struct handover_learned {
	enum handover_stamps stamps;
	unsigned equal; /* how many of the last doubles had equal stamps in a row; ALIKE_AFTER at
			   most */
};

struct handover;

struct handover_ops {
	/* A change that is believed; its text is valid during the call. Must not call back. */
	void (*deliver)(void *owner, const struct change *change);
};

struct handover_limits {
	size_t remembered; /* changes of the old one, held ones of the new one, keys: together */
	size_t held_bytes; /* text of those that are held */
};

/* To be made before the new connection subscribes, so that what both are told is known of the old
 * one. learned outlives it. */
struct handover *handover_new(const struct handover_limits *limits,
			      struct handover_learned *learned, const struct handover_ops *ops,
			      void *owner);
void handover_free(struct handover *h); /* drops what is held */

/* The connections bring a change; what has to outlive the call is copied. 0, or -ENOBUFS: there is
 * more to remember or to hold than the limits allow. Before the move a change of the old one was
 * delivered all the same and one of the new one is lost, so the handover must be given up: freed,
 * and the old one goes on. After the move the change was delivered, but a double of it may be
 * delivered too: the handover is of no more use, and the new one goes on alone.
 *
 * covered: the old connection is told of this key as well; if not, nothing of it is waited for. It
 * is the same whenever a key is brought. */
int handover_old_brings(struct handover *h, const struct change *change);
/* Before the move: the connection that was there before the old one was faster, and the old one
 * will bring it as well. */
int handover_old_will_bring(struct handover *h, const struct change *change);
int handover_new_brings(struct handover *h, const struct change *change, bool covered);

/* Has the old one brought the first change of each covered key that the new one has brought? */
bool handover_aligned(const struct handover *h);

/* From now on the new connection is believed. Delivers what is held, in the order in which it came.
 *
 * waited: not all keys are aligned, although the old one had time to bring what the new one has.
 * Then these keys are aligned by values, unless many stamps were seen to be alike: if what the old
 * one brought agrees from some change on with what is held from the first on, as far as both reach,
 * in value and within SAME_WITHIN_MS, these are doubles; the earliest such change counts. Else, or
 * if there is none, all that the old one brought of the key is taken to be older than what is held.
 *
 * After it the old one may still bring changes while it finishes: of a key about which the new one
 * has said nothing so far they are delivered (and known, should the new one bring them too), others
 * are dropped. So is what handover_old_will_bring() has told before. */
void handover_move(struct handover *h, bool waited);

/* Said after the move, if the old connection goes on for a while. What it is late with of a key of
 * which the new one has said nothing so far shall come before what that says first: so this is
 * held, and what follows of the key, until the old one has brought the same. For a service whose
 * pongs overtake its notifications, whose old connection may have more to bring than its pong has
 * said. handover_old_gone(): it has no more to bring, what is held is delivered. */
void handover_old_stays(struct handover *h);
void handover_old_gone(struct handover *h);

/* Is something of this key held? */
bool handover_holds(const struct handover *h, uint64_t key_hash);

size_t handover_dropped(const struct handover *h); /* changes that came a second time */
