/* frame.h - WebSocket frames (RFC 6455, 5.2): makes those that a client sends, reads the headers of
 * those that a server sends.
 *
 * Frames of many messages follow each other in one queue, masked in one pass. They leave it in
 * batches of whole frames, so that one TLS record carries many of them. receive.h judges the order
 * of frames and their contents. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/span.h"

enum frame_opcode {
	FRAME_CONTINUATION = 0,
	FRAME_TEXT = 1,
	FRAME_BINARY = 2,
	FRAME_CLOSE = 8,
	FRAME_PING = 9,
	FRAME_PONG = 10,
};

/* Status codes of the close frames that we send (RFC 6455, 7.4.1). */
enum frame_close_code {
	FRAME_CLOSE_PROTOCOL = 1002,
	FRAME_CLOSE_NOT_UTF8 = 1007,
	FRAME_CLOSE_TOO_BIG = 1009,
};

enum {
	FRAME_OVERHEAD_MAX = 14, /* bytes that a frame adds to its payload, at most */
	FRAME_CONTROL_MAX = 125, /* bytes of payload of a ping, a pong or a close frame */
};

/* Appends one final frame with head and body joined as its payload, masked with a fresh
 * unpredictable key. */
void frame_append(struct buf *queue, enum frame_opcode opcode, struct span head, struct span body);

/* How many bytes at the head of a queue of such frames to send at once: as many whole frames as fit
 * in max, but at least one. 0 when the queue is empty. */
size_t frame_batch(const struct buf *queue, size_t max);

struct frame_header {
	size_t size; /* bytes of the header itself, without a masking key */
	unsigned opcode, reserved;
	bool final, masked;
	uint64_t length; /* of the payload */
};

/* Reads the header at the beginning of bytes. False: it is not complete yet. */
bool frame_read_header(struct span bytes, struct frame_header *header);
