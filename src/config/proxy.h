/* proxy.h - the HTTP proxy that the environment names, as curl reads HTTPS_PROXY and NO_PROXY.
 *
 * A proxy is spoken to in plain HTTP (CONNECT); TLS runs through it, end to end. One that itself
 * speaks TLS or SOCKS can't be used, and saying so is better than going round it. Nor may a
 * password stand in the address, since other programs can see the environment: there is a file for
 * it (proxy_credentials_file). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct proxy {
	char *host; /* NULL: none */
	uint16_t port;
};

/* "http://proxy.example:3128", also without the scheme; port 1080 when there is none, as curl has
 * it. 0, or -EINVAL with *why a phrase that does not repeat the text, which may hold a password.
 * Freed by proxy_fini(). */
int proxy_parse(const char *text, struct proxy *out, const char **why);
void proxy_fini(struct proxy *proxy);

/* Is host reached without the proxy? no_proxy (may be NULL) is a list separated by commas or
 * blanks. An entry is "*" (everything), a name (it and all names below it; "." or "*." before it
 * changes nothing), an address, each with a port or without, or a network ("10.0.0.0/8",
 * "fd00::/8"). As in curl, addresses and networks are compared with a host that is an address
 * itself: no name is looked up. This machine itself never needs a proxy. */
bool proxy_is_bypassed(const char *no_proxy, const char *host, uint16_t port);

/* The first entry that is none of these, shortened, its control characters replaced, and to be
 * freed; NULL: there is none. */
char *proxy_useless_entry(const char *no_proxy);
