/* upgrade.h - the request for the upgrade, and the service's answer to it (RFC 6455, 4.1; HTTP/1.1
 * as in RFC 9112).
 *
 * Without a socket: makes the request, reads the head of an answer once it is whole, and judges it.
 * Answers of the class 1xx that come before (100, 103) are passed over. An extension or a
 * subprotocol that was not asked for is refused; none is ever asked for. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/span.h"

enum {
	UPGRADE_HEAD_MAX = 16384, /* bytes of an answer's head, with the interim ones before it */
	UPGRADE_KEY = 24,         /* characters of a Sec-WebSocket-Key */
};

/* The request, to be freed by secret_free(): the path is secret. key: receives the request's
 * Sec-WebSocket-Key. host: as target_host_port() makes it. Neither is checked (target.h). */
char *upgrade_request(const char *host, const char *path, char key[UPGRADE_KEY]);

struct upgrade {
	int status;
	size_t head;             /* bytes; what follows is the body, or the first frames */
	struct span retry_after; /* where it lies; n is 0: there is none */
	uint64_t body;           /* bytes of body that are announced; UINT64_MAX: some, or until the
				    end */
};

/* 0: the head is not whole yet. 1: it is, *u tells. -EPROTO: it will never be an answer; *why says
 * (static). key: that of the request. A 101 that does not agree to the request is such a fault. */
int upgrade_read(struct span bytes, const char *key, struct upgrade *u, const char **why);
