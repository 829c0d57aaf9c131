#include "config/url.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <arpa/inet.h>
#include <event2/http.h>

#include "base/buf.h"
#include "base/mem.h"

enum { HOST_MAX = 253, PREFIX_MAX = 512 };

static const struct scheme {
	const char *name;
	bool tls;
} schemes[] = {{"https", true}, {"wss", true}, {"http", false}, {"ws", false}};

static const struct scheme *find_scheme(const char *name)
{
	for (size_t i = 0; name && i < sizeof(schemes) / sizeof(schemes[0]); i++) {
		if (strcasecmp(name, schemes[i].name) == 0)
			return &schemes[i];
	}
	return NULL;
}

/* localhost is resolved without a name server. */
bool url_is_loopback(const char *host)
{
	struct in_addr v4;
	struct in6_addr v6;

	if (inet_pton(AF_INET, host, &v4) == 1)
		return (ntohl(v4.s_addr) >> 24) == 127;
	if (inet_pton(AF_INET6, host, &v6) == 1)
		return IN6_IS_ADDR_LOOPBACK(&v6);
	return strcasecmp(host, "localhost") == 0;
}

/* Names go into DNS questions, Host headers and certificate checks, so only the characters of host
 * names pass, not all that a URI's reg-name may hold. */
static bool is_host_name(const char *host)
{
	size_t n = strlen(host);

	return n > 0 && n <= HOST_MAX && host[0] != '.' && host[0] != '-' &&
	       strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") ==
		       n &&
	       !strstr(host, "..");
}

char *url_copy_host(const char *host)
{
	struct in6_addr v6;
	size_t n = host ? strlen(host) : 0;

	if (n == 0)
		return NULL;
	if (host[0] != '[')
		return is_host_name(host) ? mem_strdup(host) : NULL;
	if (n < 2 || host[n - 1] != ']')
		return NULL;
	char *address = mem_strndup(host + 1, n - 2);
	if (inet_pton(AF_INET6, address, &v6) == 1)
		return address;
	free(address);
	return NULL;
}

/* The length of the path without the slashes and the one "/ws" that users add to the base URL. */
static size_t prefix_length(const char *path)
{
	size_t n = strlen(path);

	while (n && path[n - 1] == '/')
		n--;
	if (n >= 3 && memcmp(path + n - 3, "/ws", 3) == 0)
		n -= 3;
	while (n && path[n - 1] == '/')
		n--;
	return n;
}

static char *display_text(const struct url *url)
{
	struct buf b = {0};
	bool bracket = strchr(url->host, ':') != NULL;

	buf_addf(&b, "%s://%s%s%s", url->tls ? "https" : "http", bracket ? "[" : "", url->host,
		 bracket ? "]" : "");
	if (url->port != (url->tls ? 443 : 80))
		buf_addf(&b, ":%u", (unsigned)url->port);
	buf_add(&b, url->path_prefix, strlen(url->path_prefix));
	char *text = mem_strndup(buf_span(&b).p, buf_len(&b));
	buf_release(&b);
	return text;
}

/* Fills url from a URI that libevent has parsed. Returns the fault, or NULL. */
static const char *convert(const struct evhttp_uri *uri, struct url *url, bool page)
{
	const struct scheme *scheme = find_scheme(evhttp_uri_get_scheme(uri));
	const char *host = evhttp_uri_get_host(uri), *path = evhttp_uri_get_path(uri);
	int port = evhttp_uri_get_port(uri);
	size_t prefix_n = page ? strlen(path) : prefix_length(path);

	if (!scheme)
		return "does not begin with https:// or wss://";
	if (evhttp_uri_get_userinfo(uri))
		return page ? "has a user name in it; credentials belong in token_header_file"
			    : "has a user name in it; the key belongs in api_key_file";
	if (evhttp_uri_get_query(uri))
		return page ? "has a query (from its ? on); credentials belong in token_header_file"
			    : "has a query (from its ? on); the key belongs in api_key_file";
	if (evhttp_uri_get_fragment(uri))
		return "has a fragment (from its # on), which means nothing here";
	if (!(url->host = url_copy_host(host)))
		return "has no valid host name in it";
	if (!scheme->tls && !url_is_loopback(url->host))
		return "is not encrypted: http:// and ws:// are for localhost, 127.0.0.0/8 and "
		       "[::1] only";
	if (port == 0 || port > UINT16_MAX)
		return "has a port that is not in 1 to 65535";
	if (prefix_n > PREFIX_MAX)
		return "has a path longer than 512 bytes";
	url->tls = scheme->tls;
	url->port = (uint16_t)(port > 0 ? port : scheme->tls ? 443 : 80);
	url->path_prefix = prefix_n || !page ? mem_strndup(path, prefix_n) : mem_strdup("/");
	url->text = display_text(url);
	return NULL;
}

static int parse(const char *text, struct url *out, bool page, const char **why)
{
	struct url url = {0};
	struct evhttp_uri *uri = evhttp_uri_parse(text);

	*why = uri ? convert(uri, &url, page) : "is not a URL (e.g. https://api-eu-2.hpkv.io)";
	if (uri)
		evhttp_uri_free(uri);
	if (*why) {
		url_fini(&url);
		return -EINVAL;
	}
	*out = url;
	return 0;
}

int url_parse(const char *text, struct url *url, const char **why)
{
	return parse(text, url, false, why);
}

int url_parse_page(const char *text, struct url *url, const char **why)
{
	return parse(text, url, true, why);
}

void url_fini(struct url *url)
{
	free(url->text);
	free(url->host);
	free(url->path_prefix);
	*url = (struct url){0};
}
