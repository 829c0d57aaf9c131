/* frame.h - WebSocket frames as a client sends them (RFC 6455, 5.2): appended to a queue, masked in
 * one pass.
 *
 * Frames of many messages follow each other in one queue and leave it in batches of whole frames,
 * so that one TLS record carries many of them. Nothing here parses what a peer sent. */
#pragma once

#include "buf.h"
#include "span.h"

enum frame_opcode { FRAME_TEXT = 1, FRAME_PING = 9 };

/* Bytes that a frame adds to its payload, at most. */
enum { FRAME_OVERHEAD_MAX = 14 };

/* Appends one final frame whose payload is head and body joined, masked under a fresh unpredictable
 * key. */
void frame_append(struct buf *queue, enum frame_opcode opcode, struct span head, struct span body);

/* How many bytes at the head of a queue of such frames to send at once: as many whole frames as fit
 * in max, but at least one. 0 when the queue is empty. */
size_t frame_batch(const struct buf *queue, size_t max);
