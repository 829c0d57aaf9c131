/* handover.h - merges the notifications of several connections into one stream while one takes over
 * from another: each change once, the changes of a key in the service's order.
 *
 * The service numbers no notification and repeats none, and each connection may lag behind another
 * by seconds. Two notifications are the same change if key, value and timestamp are the same
 * (notification.h). Each connection brings the changes of a key in the service's order, and all of
 * them from its subscription on.
 *
 *                begin                      move                          former ends
 *     main  ───────┼── delivered ─────────────┼── former: see below ────────┼──
 *     next         └── held, or a double ─────┴── main: delivered, ─────────┴── delivered
 *                                                 or a double
 *
 * From handover_begin() on, changes of the main connection are delivered and recorded. A change of
 * the next connection that is on record is a double. Any other is held until the main connection
 * brings it, too.
 *
 * handover_move() delivers the held changes in order. The next connection becomes the main one, the
 * main one the former. The caller moves after a ping on the next connection and then one on the
 * main connection were answered. The first answer shows that the next one is subscribed. The second
 * shows that the main one has brought all earlier changes, unless its pong overtook some.
 *
 * After the move the record shows the doubles of both connections. A change that only the former
 * connection has brought is delivered while the main one has brought nothing of its key. Else it is
 * a straggler, and waits: it is either newer, and the main connection will bring it, or older and
 * was overtaken by the pong. If the main connection has not brought it after some calls of
 * handover_expire(), or before handover_forget(), it is too late: ops->straggler() makes its key a
 * gap.
 *
 * A record is either told or pending. A pending one that the next connection has brought is a held
 * change; any other is a straggler. A told one stays until each connection that may bring the
 * change again has brought it, or for some more of these calls.
 *
 * Limits:
 * - A change without a timestamp is identified by its value alone. Before the move it may be taken
 *   for an earlier one that the main connection has brought since handover_begin(), and be lost if
 *   only the next connection brings it. After the move the main connection's are always delivered,
 *   perhaps twice.
 * - Changes of a key with the same value in the same millisecond are only counted; with more than
 *   SAME_MAX of them on record some may come twice.
 * - A service that stamped one change differently on each connection, which is not known of HPKV,
 *   would cause doubles and gaps.
 * - Connections replaced before the former one are not compared.
 *
 * No clock and no descriptors. The average time of a call is bounded. */
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

struct handover_limits {
	size_t records;    /* of changes */
	size_t text_bytes; /* of held changes and stragglers */
};

enum { HANDOVER_SPOKEN_BITS = 1 << 17 };

struct record;
TAILQ_HEAD(records, record);

struct handover {
	const struct handover_ops *ops;
	void *owner;
	uint64_t seed; /* of notification.h's hashes */
	struct handover_limits limits;
	unsigned awaited;       /* a bit for each connection that is compared with another */
	struct records told;    /* in the order of telling */
	struct records pending; /* in the order of arrival */
	struct map changes;     /* all records, by key, value and timestamp */
	size_t text_bytes;      /* of pending ones */
	/* A bit for the hash of each key of which a connection has brought a change. A key that
	 * shares its bit with another may have a straggler that is none. */
	uint8_t spoken[HANDOVER_NEXT + 1][HANDOVER_SPOKEN_BITS / 8];
	uint64_t doubles; /* changes that came again, so far */
};

/* Nothing is compared at first: notifications are delivered as they come. */
void handover_init(struct handover *h, uint64_t seed, const struct handover_ops *ops, void *owner);
void handover_fini(struct handover *h); /* tells nothing */
/* From now on. Needed before the first connection. */
void handover_limit(struct handover *h, const struct handover_limits *limits);

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
