/* ws_speech.h - WebSocket on a client's connection: a text message is a line of the local protocol,
 * and each line for the client is a text message.
 *
 *   a message in      its line to the core; one that is longer than max_line is answered 413
 *   a binary one      close, 1003
 *   no UTF-8          close, 1007
 *   a protocol error  close, 1002
 *   a ping            a pong; a close frame is answered with the same code
 *
 * The connection also ends when the daemon does (1001), when the client does not read (1013), and
 * when its local key or token is revoked, or its token expires (1008).
 *
 * With a token whose access pattern bounds what it may read, the records of a range that do not
 * match are left out, as the service does it. */
#pragma once

#include <stdint.h>

#include "access/token_grant.h"
#include "gateway/speech.h"

struct ws_settings {
	const size_t *max_line;
	struct stats *stats;
	int64_t (*boot_ms)(void); /* the clock that goes on while the machine sleeps */
};

/* grant: of a client with a token, which ends in left_ms; it is moved, and zeroed. NULL: it has
 * none. settings stay where they are. */
struct speech *ws_speech_new(const struct ws_settings *settings, struct token_grant *grant,
			     int64_t left_ms);
