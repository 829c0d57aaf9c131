/* events.h - the lines that clients get without asking: notifications, gaps, the connection's
 * state.
 *
 * Source: doc/protocol.md. A notification of the service is passed on byte for byte, except that
 * raw line ends between its tokens become spaces. Values that the daemon read itself have the same
 * form and a member "initial" or "resync". Each function appends or writes one line, line end
 * included. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "codec/wire.h"

/* The service's notification as a line: an upper bound of its length, and the writing, which
 * returns the length. */
size_t events_change_max(const struct wire_frame *frame);
size_t events_write_change(const struct wire_frame *frame, char *out);

/* The same line with "skipped":n as its last member. */
void events_add_skipped(struct buf *out, struct span line, uint64_t n);

/* {"type":"notification","key":…,"value":…,"timestamp":…,"initial":true}, or "resync". key: plain
 * bytes; value: JSON text, empty: null. */
enum events_reason { EVENTS_INITIAL, EVENTS_RESYNC, EVENTS_REASON_N };
void events_add_value(struct buf *out, struct span key, struct span value, int64_t timestamp,
		      enum events_reason reason);

/* {"type":"gap","pattern":…,"since":…,"until":…} and {"type":"gap","key":…}. Times are wall clock,
 * in ms. */
void events_add_pattern_gap(struct buf *out, struct span pattern, int64_t since, int64_t until);
void events_add_key_gap(struct buf *out, struct span key);

/* {"type":"unsubscribed","key":…,"reason":"forbidden","timestamp":…}, or with "pattern". */
void events_add_unsubscribed(struct buf *out, bool pattern, struct span name, int64_t timestamp);

/* {"type":"connection","state":"connected","timestamp":…} */
/* reason: why for good, "shutting_down"; or NULL. */
void events_add_connection(struct buf *out, const char *state, const char *reason,
			   int64_t timestamp);
