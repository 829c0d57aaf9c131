/* target.h - where one WebSocket leads to, and whether that can be connected to at all.
 *
 * What ends up in a request's head is checked here: nothing gets there that would end a line, and
 * nothing that libwebsockets would cut or not check. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct link_target {
	const char *host; /* for SNI, Host and the certificate */
	uint16_t port;    /* ... and for Host */
	const char *path; /* "/ws?apiKey=…": secret */
	bool tls;
	int timeout_ms;     /* from here to the answered upgrade */
	size_t max_message; /* bytes; of a longer message only the beginning is kept */
};

/* Why this target can't be connected to at all; NULL: it can. path_max: bytes. */
const char *target_objection(const struct link_target *t, size_t path_max);

/* As in "name:80", "[::1]:80", to be freed; usual: the port that goes without saying, 0: none. host
 * is no longer than one without an objection. */
char *target_host_port(const char *host, unsigned port, unsigned usual);
