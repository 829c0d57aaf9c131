/* events.h - the lines that a client is sent unasked: notifications, gaps, the connection's state.
 *
 * Source: the local protocol, "things the daemon says unasked". A notification of the service stays
 * what it is, byte for byte but for raw line ends between its tokens; what we say ourselves in its
 * form carries "initial" or "resync". Each function appends one line to out, line end included. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "codec/wire.h"

/* The service's notification as a line: its length at most, and the writing of it, which returns
 * the length. */
size_t events_change_max(const struct wire_frame *frame);
size_t events_change(const struct wire_frame *frame, char *out);

/* A line of events_change() again, with "skipped":n as its last member. */
void events_skipped(struct buf *out, struct span line, uint64_t n);

/* {"type":"notification","key":…,"value":…,"timestamp":…,"initial":true}. key is plain bytes;
 * value is JSON text, empty: null. */
enum events_reason { EVENTS_INITIAL, EVENTS_RESYNC, EVENTS_REASON_N };
void events_value(struct buf *out, struct span key, struct span value, int64_t timestamp,
		  enum events_reason reason);

/* {"type":"gap","pattern":…,"since":…,"until":…} and {"type":"gap","key":…}; times are wall clock,
 * in ms. */
void events_pattern_gap(struct buf *out, struct span pattern, int64_t since, int64_t until);
void events_key_gap(struct buf *out, struct span key);

/* {"type":"unsubscribed","key":…,"reason":"forbidden","timestamp":…}, or with "pattern". */
void events_unsubscribed(struct buf *out, bool pattern, struct span name, int64_t timestamp);

/* {"type":"connection","state":"connected","timestamp":…} */
void events_connection(struct buf *out, const char *state, int64_t timestamp);

/* The last line to a client with subscriptions when the daemon ends. */
void events_shutting_down(struct buf *out, int64_t timestamp);
