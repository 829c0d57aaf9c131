/* ws_frames.h - the server's end of a WebSocket (RFC 6455) as bytes: those of a client into
 * messages, and the head of a frame to it. wslay reads the frames.
 *
 * A reader joins fragments, and hands out pings and the other's close frame; what a client must not
 * send (no mask, reserved bits, unknown opcodes, fragments out of order, long control frames) is a
 * fault, after which it reads nothing any more. It keeps no more than one message of its bound, one
 * control frame, and 4 KiB of what it has been given and not looked at; of a longer message it
 * tells as soon as it knows, and skips the rest. Whether text is UTF-8 is its caller's question.
 *
 * There is no compression, and no fragment goes out. */
#pragma once

#include <stdint.h>

#include "base/buf.h"
#include "base/span.h"

enum ws_event {
	WS_NEED_MORE, /* all that was given has been read */
	WS_TEXT,
	WS_BINARY,
	WS_TOO_LONG, /* a message is longer than the bound, and is being skipped; payload is a part
			of its beginning */
	WS_PING,     /* wants a pong of the same payload */
	WS_PONG,
	WS_CLOSE, /* wants a close frame of the same code; there may be none (WS_NO_CODE) */
	WS_FAULT, /* the connection ends, with WS_PROTOCOL_ERROR */
};

enum ws_code {
	WS_NORMAL = 1000,
	WS_GOING_AWAY = 1001,
	WS_PROTOCOL_ERROR = 1002,
	WS_UNSUPPORTED = 1003,
	WS_NO_CODE = 1005, /* never sent */
	WS_NOT_UTF8 = 1007,
	WS_POLICY = 1008,
	WS_MESSAGE_TOO_BIG = 1009,
	WS_TRY_AGAIN = 1013,
};

enum ws_opcode {
	WS_OPCODE_TEXT = 1,
	WS_OPCODE_CLOSE = 8,
	WS_OPCODE_PING = 9,
	WS_OPCODE_PONG = 10,
};

/* A frame's head has at most so many bytes; a control frame so many of payload. */
enum { WS_HEAD_MAX = 10, WS_CONTROL_MAX = 125 };

struct ws_reader;

struct ws_reader *ws_reader_new(size_t max_message);
void ws_reader_free(struct ws_reader *r); /* NULL: nothing */
/* Between two frames, frees what only the next one needs. Ends what was handed out. */
void ws_reader_rest(struct ws_reader *r);

/* A new bound, from the next message on. */
void ws_reader_set_max(struct ws_reader *r, size_t max_message);

size_t ws_reader_kept(const struct ws_reader *r); /* bytes of a message that is not whole */

/* Reads on, taking from *in what it needs. payload, of a message, a ping, a pong or a close frame
 * (its reason), is valid until the next call; code is set of WS_CLOSE. */
enum ws_event ws_next(struct ws_reader *r, struct span *in, struct span *payload, int *code);

/* Writes the head of a frame with n bytes of payload that is a whole message; returns its length.
 */
size_t ws_head(char head[WS_HEAD_MAX], enum ws_opcode opcode, size_t n);

/* Appends a whole close frame; reason has at most WS_CONTROL_MAX - 2 bytes. WS_NO_CODE: none is in
 * it. */
void ws_add_close(struct buf *out, int code, struct span reason);

/* Appends a whole pong. */
void ws_add_pong(struct buf *out, struct span payload);
