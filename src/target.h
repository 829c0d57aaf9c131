/* target.h - where one WebSocket leads to, and whether that can be connected to at all.
 *
 * What ends up in a request's head is checked here: nothing gets there that would end a line, and
 * nothing that libwebsockets would cut or not check. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct link_target {
	const char *address; /* numeric, IPv4 or IPv6; not used when there is a proxy */
	uint16_t port;
	const char *host; /* for SNI, Host, the certificate, and the proxy's CONNECT */
	const char *path; /* "/ws?apiKey=…": secret */
	bool tls;
	const char *proxy_address; /* numeric: an HTTP proxy to go through; NULL: none */
	uint16_t proxy_port;
	int connect_timeout_ms; /* from here to the answered upgrade */
	size_t max_message;     /* bytes; of a longer message only the beginning is kept */
};

/* Why this target can't be connected to at all; NULL: it can. path_max: bytes. */
const char *target_objection(const struct link_target *t, size_t path_max);

/* As in "name:80", "[::1]:80", to be freed; usual: the port that goes without saying, 0: none. host
 * is no longer than one without an objection. */
char *target_host_port(const char *host, unsigned port, unsigned usual);
