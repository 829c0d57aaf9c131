/* receive.h - the bytes of a service taken apart into messages, pings, pongs and its close frame.
 *
 * Without a socket: bytes are put in, items are taken out, one at a time. A message that lies whole
 * in one frame is handed out where it lies; one in several frames is put together first. Of a
 * message that is longer than max_message only the beginning is kept. A message that is longer than
 * anything that could reasonably come (RECEIVE_FACTOR times max_message and RECEIVE_LEAST bytes) is
 * refused when the header says so, before its bytes come.
 *
 * What RFC 6455 forbids a server is refused: masked frames, reserved bits, unknown opcodes, control
 * frames in parts or beyond 125 bytes, frames out of order, close frames with half a code or a code
 * that must not be sent. A length that takes more bytes than it needs is tolerated. Whether texts
 * are UTF-8 is the reader's concern. */
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
	size_t used;      /* bytes at their head that the last item was in */

	struct frame_header frame; /* the one that is being read */
	uint64_t left;             /* bytes of its payload that were not taken yet */
	bool in_frame;

	struct buf message; /* the beginning of one in several frames, or of one that is too long */
	uint64_t total;     /* bytes of it that came or were announced */
	bool in_message, binary;

	int fault_code; /* of the close frame that says so; 0: no fault so far */
	char fault[100];
};

void receive_init(struct receive *r, size_t max_message);
void receive_release(struct receive *r);

/* Room for n bytes that come, and how many of them did. */
char *receive_room(struct receive *r, size_t n);
void receive_grew(struct receive *r, size_t n);

/* 1: *item is the next one; 0: more bytes are needed; -EPROTO: the peer has broken the protocol,
 * fault (a phrase about its frame) and fault_code say how, and nothing more can be read. */
int receive_next(struct receive *r, struct receive_item *item);

/* Is a message being received whose last frame has not come? */
static inline bool receive_is_within(const struct receive *r)
{
	return r->in_message;
}
