/* proxy.h - the HTTP proxy that the environment names, as curl reads HTTPS_PROXY and NO_PROXY.
 *
 * hpkvd speaks plain HTTP (CONNECT) to a proxy, and TLS through it, end to end. A proxy that itself
 * speaks TLS or SOCKS is refused with an error; hpkvd does not bypass it. A password in the address
 * is refused too, since other programs can see the environment: it belongs in a file
 * (proxy_credentials_file). */
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
 * itself: no name is looked up. A loopback host never needs a proxy. */
bool proxy_is_bypassed(const char *no_proxy, const char *host, uint16_t port);

/* The first entry that is none of these, shortened and with control characters replaced; free() it.
 * NULL: there is none. */
char *proxy_useless_entry(const char *no_proxy);
