/* target.h - where one WebSocket leads to, and whether that can be connected to at all.
 *
 * What ends up in a request's head is checked here: nothing gets there that would end a line, and
 * nothing that is too long for a name or for a head that servers take. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	TARGET_HOST_MAX = 253, /* bytes of a name (RFC 1035) */
	TARGET_PATH_MAX =
		15000, /* bytes; common servers (node.js) take 16 KiB of a request's head */
};

struct websocket_target {
	const char *host; /* for SNI, Host and the certificate */
	uint16_t port;    /* ... and for Host */
	const char *path; /* "/ws?apiKey=…": secret */
	bool tls;
	int timeout_ms;     /* from here to the answered upgrade */
	size_t max_message; /* bytes; of a longer message only the beginning is kept */
};

/* Why this target can't be connected to at all; NULL: it can. */
const char *target_objection(const struct websocket_target *t);

/* As in "name:80", "[::1]:80", to be freed; usual: the port that goes without saying, 0: none. host
 * is no longer than one without an objection. */
char *target_host_port(const char *host, unsigned port, unsigned usual);
