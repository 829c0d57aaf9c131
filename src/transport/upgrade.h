/* upgrade.h - the request for the WebSocket upgrade, and the service's answer to it (RFC 6455, 4.1;
 * HTTP/1.1 as in RFC 9112).
 *
 * Has no socket: makes the request, reads the head of an answer once it is complete, and judges it.
 * Interim answers (100, 103) are skipped. An extension or a subprotocol in the answer is refused,
 * since none is ever requested. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/span.h"

enum {
	UPGRADE_HEAD_MAX =
		16384,    /* bytes of an answer's head, with the interim answers before it */
	UPGRADE_KEY = 24, /* characters of a Sec-WebSocket-Key */
};

/* The request, to be freed with secret_free(): the path is secret. key: receives the request's
 * Sec-WebSocket-Key. host: as target_host_port() makes it. Neither is checked (target.h). */
char *upgrade_request(const char *host, const char *path, char key[UPGRADE_KEY]);

struct upgrade {
	int status;
	size_t head;             /* bytes; the body or the first frames follow */
	struct span retry_after; /* in place; n is 0: none */
	uint64_t body; /* bytes of body that are announced; UINT64_MAX: unknown, until the end */
};

/* 0: the head is not complete yet. 1: it is, see *u. -EPROTO: it will never be a valid answer; *why
 * says why (static). key: the request's. A 101 that does not fit the request is such a fault. */
int upgrade_read(struct span bytes, const char *key, struct upgrade *u, const char **why);
