/* target.h - where one WebSocket connects to, and whether that is valid.
 *
 * What goes into a request's head is checked here: no byte may end a line, no name may be too long,
 * and no head longer than servers accept. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	TARGET_HOST_MAX = 253, /* bytes of a name (RFC 1035) */
	TARGET_PATH_MAX =
		15000, /* bytes; common servers (node.js) accept 16 KiB for a request's head */
};

struct websocket_target {
	const char *host; /* for SNI, Host and the certificate */
	uint16_t port;    /* ... and for Host */
	const char *path; /* "/ws?apiKey=…": secret */
	bool tls;
	int timeout_ms;     /* for handshake and upgrade together */
	size_t max_message; /* bytes; only the beginning of a longer message is kept */
};

/* Why this target is invalid; NULL: it is valid. */
const char *target_objection(const struct websocket_target *t);

/* "name:80" or "[::1]:80", to be freed; without the port if it is the usual one (0: none is). host
 * must be valid. */
char *target_host_port(const char *host, unsigned port, unsigned usual);
