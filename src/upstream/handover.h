/* handover.h - merges the notifications of several connections into one stream while one takes over
 * from another: each change once, the changes of a key in the service's order.
 *
 * Each connection brings the changes of a key in the service's order, and all of them from its
 * subscription on, but may lag behind another by seconds. Two notifications are the same change if
 * key, value and timestamp are the same (notification.h).
 *
 *                begin                      move                          former ends
 *     main  ───────┼── told ──────────────────┼── former: see below ────────┼──
 *     next         └── held, or a double ─────┴── main: told, or a double ──┴── told
 *
 * Changes are recorded until each compared connection has brought them, or for half a minute after
 * a move. One that is on record is a double. Any other is told if the main connection brings it.
 * The next connection's are held until the main one brings them, too, or until handover_move()
 * (connections.h says when), which tells them in order.
 *
 * The pong of the former connection may have overtaken changes. One that only the former connection
 * has brought is told while the main one has brought nothing of its key. Else it is a straggler,
 * and waits: it is either newer, and the main connection will bring it, or older. If the main one
 * does not bring it within some calls of handover_expire(), or until handover_forget(), it is too
 * late: ops->straggler() makes its key a gap.
 *
 * Limits:
 * - A change without a timestamp is identified by its value alone. Before the move it may be taken
 *   for an earlier one that the main connection has brought since handover_begin(), and be lost if
 *   only the next connection brings it. After the move the main connection's are always told,
 *   perhaps twice.
 * - Of changes with the same key, value and timestamp up to SAME_MAX are told apart; beyond that
 *   some may come twice.
 * - A service that stamped one change differently on each connection, which is not known of HPKV,
 *   would cause doubles and gaps.
 * - Connections replaced before the former one are not compared.
 *
 * No clock and no descriptors. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "codec/notification.h"
#include "base/map.h"
#include "codec/wire.h"

/* In this order: each takes the place of the one before it. */
enum handover_from { HANDOVER_FORMER, HANDOVER_MAIN, HANDOVER_NEXT };

struct handover_ops {
	/* A change, once and in order. The frame is valid during the call. Must not call back. */
	void (*change)(void *owner, const struct wire_frame *frame,
		       const struct notification *change);
	/* A change that is too late to be told in order. NULL, NULL: there may be some, of any key,
	 * and some changes may be told twice. Must not call back. */
	void (*straggler)(void *owner, const struct wire_frame *frame,
			  const struct notification *change);
};

enum {
	HANDOVER_RECORD_BYTES = 128, /* of a record, without text */
	HANDOVER_SPOKEN_BITS = 1 << 17,
};

struct record;
TAILQ_HEAD(records, record);

struct handover {
	const struct handover_ops *ops;
	void *owner;
	uint64_t seed;           /* of notification.h's hashes */
	unsigned awaited;        /* a bit for each connection that is compared with another */
	struct records told;     /* in the order of telling */
	struct records pending;  /* in the order of arrival */
	struct map changes;      /* all records, by key, value and timestamp */
	size_t bytes, max_bytes; /* of records, and text of pending ones */
	/* A bit for the hash of each key of which a connection has brought a change. A key that
	 * shares its bit with another may have a straggler that is none. */
	uint8_t spoken[HANDOVER_NEXT + 1][HANDOVER_SPOKEN_BITS / 8];
	uint64_t doubles; /* changes that came again, so far */
};

/* Nothing is compared at first: notifications are delivered as they come. */
void handover_init(struct handover *h, uint64_t seed, const struct handover_ops *ops, void *owner);
void handover_fini(struct handover *h); /* tells nothing */
/* From now on. Needed before the first connection. */
void handover_limit(struct handover *h, size_t max_bytes);

/* A next connection is about to be made. Must be called before the service can subscribe it. */
void handover_begin(struct handover *h);
/* There is no next connection any more. */
void handover_abort(struct handover *h);
/* The next connection becomes the main one, and the main one the former. Without handover_begin()
 * nothing is compared. */
void handover_move(struct handover *h);
/* The former connection has ended. */
void handover_former_gone(struct handover *h);
/* To be called at equal intervals after a move, until it returns false: then no former connection
 * is compared any more. */
bool handover_expire(struct handover *h);
/* The comparison with the former connection ends. */
void handover_forget(struct handover *h);

/* A connection brings a notification. Ignored: one of the next connection without handover_begin();
 * one of a former connection that has ended, or after handover_forget(). False: there was no room
 * to compare the next connection any longer. handover_abort() was called; the caller must give that
 * connection up. */
bool handover_brings(struct handover *h, enum handover_from from, const struct wire_frame *frame);
