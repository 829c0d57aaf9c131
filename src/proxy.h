/* proxy.h - the HTTP proxy that the environment names, as curl reads HTTPS_PROXY and NO_PROXY.
 *
 * A proxy is spoken to in plain HTTP (CONNECT); TLS runs through it, end to end. One that itself
 * speaks TLS or SOCKS, or that asks for a password, can't be used, and saying so is better than
 * going round it. */
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

/* Is host reached without the proxy? no_proxy (may be NULL) is a list of names separated by commas
 * or blanks: each stands for itself and all names below it, a leading dot changes nothing, * is
 * everything. This machine itself never needs a proxy. */
bool proxy_is_bypassed(const char *no_proxy, const char *host);
