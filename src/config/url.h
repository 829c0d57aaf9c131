/* url.h - the address of the service, as users write it, into its parts.
 *
 * Accepts https:// and wss:// (they name the same service), http:// and ws:// for a loopback host
 * only, with or without a port, a path before /ws, and the trailing / or /ws that HPKV's dashboard
 * and examples add. Refuses parts that have no meaning here or could be a secret (user names,
 * queries, fragments), so a struct url may be shown to anybody. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct url {
	char *text; /* to show: "https://api-eu-2.hpkv.io", a port only if unusual, the prefix if
		       any */
	char *host; /* a name, or an address; an IPv6 address without its brackets */
	uint16_t port;
	bool tls;          /* false only for a loopback host */
	char *path_prefix; /* before /ws and /token/websocket: "" or "/some/path" */
};

/* 0: *url is set, freed by url_fini(). -EINVAL: *why is a phrase ("has a query (from its ? on); …")
 * that does not repeat the text, since that may hold a key. */
int url_parse(const char *text, struct url *url, const char **why);
/* The same of a page of another server: its path is kept as it is, in path_prefix. */
int url_parse_page(const char *text, struct url *url, const char **why);
void url_fini(struct url *url);

/* The host of a URI without its brackets, to be freed; NULL if it is neither a name nor an address.
 */
char *url_copy_host(const char *host);

/* Does this host always mean this machine, whatever a name server says? */
bool url_is_loopback(const char *host);
