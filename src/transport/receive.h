/* receive.h - splits the service's bytes into messages, pings, pongs and the close frame.
 *
 * Has no socket: bytes are put in, items are taken out, one at a time. A message that lies whole in
 * one frame is returned in place; one in several frames is joined first. Of a message longer than
 * max_message only the beginning is kept. A message longer than anything reasonable (RECEIVE_FACTOR
 * times max_message and RECEIVE_LEAST bytes) is refused at its header, before its bytes come.
 *
 * Refused as RFC 6455 demands: masked frames, reserved bits, unknown opcodes, control frames in
 * parts or beyond 125 bytes, frames out of order, close frames with half a code or an invalid one.
 * A length in more bytes than needed is tolerated. Callers check whether texts are UTF-8. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "transport/frame.h"
#include "base/span.h"

enum {
	RECEIVE_FACTOR = 16,
	RECEIVE_LEAST = 64 << 20,
	RECEIVE_NO_CODE = 1005, /* stands for a close frame without a code (RFC 6455, 7.1.5) */
};

enum receive_kind { RECEIVE_MESSAGE, RECEIVE_PING, RECEIVE_PONG, RECEIVE_CLOSE, RECEIVE_KIND_N };

/* Valid until the next call of receive_next(), receive_room() or receive_release(). */
struct receive_item {
	enum receive_kind kind;
	struct span text;       /* the payload; of a close frame its text, not checked */
	int code;               /* of a close frame */
	bool binary, truncated; /* of a message */
};

struct receive {
	size_t max_message;
	struct buf bytes; /* as they came */
	size_t used;      /* bytes at their head that hold the last item */

	struct frame_header frame; /* the one being read */
	uint64_t left;             /* bytes of its payload that were not taken yet */
	bool in_frame;

	struct buf message; /* the beginning of a message in several frames, or of one that is too
			       long */
	uint64_t total;     /* bytes of it that came or were announced */
	bool in_message, binary;

	int fault_code; /* the code of our close frame about the fault; 0: no fault so far */
	char fault[100];
};

/* Empty at first; receive_release() frees its memory. */
void receive_init(struct receive *r, size_t max_message);
void receive_release(struct receive *r);

/* Room for n bytes; then how many of them were filled. */
char *receive_room(struct receive *r, size_t n);
void receive_grew(struct receive *r, size_t n);

/* 1: *item is the next one; 0: needs more bytes; -EPROTO: the peer has broken the protocol: fault
 * (a phrase about its frame) and fault_code say how, and nothing more can be read. */
int receive_next(struct receive *r, struct receive_item *item);

/* Is a message incomplete whose first frame has come? */
static inline bool receive_is_within(const struct receive *r)
{
	return r->in_message;
}
