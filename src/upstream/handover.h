/* handover.h - the notifications of several connections as one stream: each change once, the
 * changes of a key in the service's order, while one connection takes over from another.
 *
 * The service numbers nothing and repeats nothing, and each connection may lag behind another by
 * seconds. Two notifications are the same change if key, value and timestamp are the same
 * (notification.h). Each connection brings the changes of a key in the service's order, all of them
 * from its subscription on.
 *
 *                begin                      move                          forget
 *     main  ───────┼── delivered ─────────────┼── former: see below ────────┼──
 *     next         └── held, or a double ─────┴── main: delivered, ─────────┴── delivered
 *                                                 or a double
 *
 * From handover_begin() on, the changes that the main connection brings are delivered and recorded.
 * A change of the next connection that is on record is a double. Any other is held until the main
 * one brings it as well.
 *
 * handover_move() delivers the held changes in order: the next connection is the main one, the main
 * one the former. The caller moves after a ping on the next connection, and then one on the main
 * connection, were answered. By the first the next one is subscribed. By the second the main one
 * has brought all changes that came before that, if its pongs do not overtake its notifications.
 *
 * Afterwards the record tells the doubles: of the main connection, if the former one was faster,
 * and of the former one. What the former connection brings and the main one has not is delivered as
 * long as the main one has brought nothing of that key. Else it may be newer, and the main one will
 * bring it; or older, if a pong has overtaken it on the former connection. Such a straggler waits.
 * It is delivered when the main connection brings it. If that does not happen between two
 * handover_expire(), or until handover_forget(), it is too late: ops->straggler() makes its key a
 * gap.
 *
 * A change is on record until each connection that may bring it has done so, or has brought a later
 * one of the key.
 *
 * Limits:
 * - A change without a timestamp has only its value to be known by. Before the move it may be taken
 *   for an earlier one that the main connection has brought since handover_begin(), and so be lost
 *   if only the next connection brings it. After the move the main connection's are always
 *   delivered, perhaps twice.
 * - Changes of a key with the same value in the same millisecond are told apart by their number
 *   only; beyond SAME_MAX of them on record some may come twice.
 * - A service that stamped one change differently on each connection, which is not known of HPKV,
 *   would make doubles and gaps.
 * - What a connection brings that was left before the former one is not asked about here.
 *
 * No clock and no descriptors. The time of a call is bounded on the average, whatever is brought.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "codec/notification.h"
#include "base/map.h"
#include "codec/wire.h"

enum handover_from { HANDOVER_MAIN, HANDOVER_NEXT, HANDOVER_FORMER, HANDOVER_FROM_N };

struct handover_ops {
	/* A change, once and in order. The frame is valid during the call. Must not call back. */
	void (*change)(void *owner, const struct wire_frame *frame,
		       const struct notification *change);
	/* This change can't be told in order any more. NULL, NULL: there may be such, of any key,
	 * and some changes may come twice. Must not call back. */
	void (*straggler)(void *owner, const struct wire_frame *frame,
			  const struct notification *change);
};

struct handover_limits {
	size_t records;    /* changes and keys on record */
	size_t text_bytes; /* of held changes and stragglers */
};

enum record_state {
	RECORD_DELIVERED,
	RECORD_HELD,      /* the next connection has brought it, the main one has not */
	RECORD_STRAGGLER, /* only a former connection has brought it, perhaps too late */
	RECORD_STATE_N
};

struct record;
TAILQ_HEAD(records, record);

struct handover {
	const struct handover_ops *ops;
	void *owner;
	uint64_t seed; /* of notification.h's hashes */
	struct handover_limits limits;
	bool next;                              /* is compared with the main connection */
	bool former;                            /* likewise */
	bool former_gone;                       /* ... and brings nothing more */
	struct records records[RECORD_STATE_N]; /* in the order of entering the state */
	struct map changes;                     /* the same, by key, value and timestamp */
	struct map keys;                        /* of them, by hash */
	uint64_t made;                          /* records so far */
	size_t n, text_bytes;                   /* what the limits bound */
	uint64_t doubles;                       /* changes that came again, so far */
};

void handover_init(struct handover *h, uint64_t seed, const struct handover_ops *ops, void *owner);
void handover_fini(struct handover *h); /* tells nothing */
/* From now on. Needed before the first connection. */
void handover_limit(struct handover *h, const struct handover_limits *limits);

/* A next connection is about to be opened. Must come before the service can subscribe it. */
void handover_begin(struct handover *h);
/* There is no next connection any more. */
void handover_abort(struct handover *h);
/* The next connection is the main one from now on, and the main one the former. Without
 * handover_begin() nothing is compared. */
void handover_move(struct handover *h);
/* The former connection has ended. */
void handover_former_gone(struct handover *h);
/* Stragglers that were there the last time this was said are too late. */
void handover_expire(struct handover *h);
/* The main connection is late with nothing any more: what the last move needed goes. */
void handover_forget(struct handover *h);

/* A connection brings a notification. One of the next connection is ignored unless handover_begin()
 * came first, one of a former one that is gone, or after handover_forget(). False: there was no
 * room to compare the next connection any longer; it must be given up, as by handover_abort(),
 * which was called. */
bool handover_brings(struct handover *h, enum handover_from from, const struct wire_frame *frame);
