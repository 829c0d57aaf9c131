#include "proxy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <event2/http.h>

#include "buf.h"
#include "mem.h"
#include "url.h"

enum { DEFAULT_PORT = 1080 };

/* Fills proxy from what libevent took apart; returns what is wrong, or NULL. */
static const char *convert(const struct evhttp_uri *uri, struct proxy *proxy)
{
	const char *scheme = evhttp_uri_get_scheme(uri), *path = evhttp_uri_get_path(uri);
	int port = evhttp_uri_get_port(uri);

	if (!scheme || strcasecmp(scheme, "http") != 0)
		return "names a proxy that is not spoken to in plain HTTP, and no other can be "
		       "used";
	if (evhttp_uri_get_userinfo(uri))
		return "names a proxy with a password, and none such can be used";
	if (port == 0 || port > UINT16_MAX || (*path && strcmp(path, "/") != 0))
		return "is not the address of a proxy (e.g. http://proxy.example:3128)";
	proxy->host = url_copy_host(evhttp_uri_get_host(uri));
	proxy->port = (uint16_t)(port > 0 ? port : DEFAULT_PORT);
	return proxy->host ? NULL : "has no valid host name in it";
}

int proxy_parse(const char *text, struct proxy *out, const char **why)
{
	struct buf whole = {0};
	struct proxy proxy = {0};

	buf_addf(&whole, "%s%s", strstr(text, "://") ? "" : "http://", text);
	buf_add(&whole, "", 1);
	struct evhttp_uri *uri = evhttp_uri_parse(buf_span(&whole).p);
	mem_wipe(whole.p, whole.size); /* it may have held a password */
	buf_release(&whole);
	*why = uri ? convert(uri, &proxy)
		   : "is not the address of a proxy (e.g. http://proxy.example:3128)";
	if (uri)
		evhttp_uri_free(uri);
	if (*why) {
		proxy_fini(&proxy);
		return -EINVAL;
	}
	*out = proxy;
	return 0;
}

void proxy_fini(struct proxy *proxy)
{
	free(proxy->host);
	*proxy = (struct proxy){0};
}

/* Is host the name, or below it? */
static bool matches(const char *name, size_t n, const char *host)
{
	size_t length = strlen(host);

	if (n && *name == '.') {
		name++;
		n--;
	}
	if (n == 1 && *name == '*')
		return true;
	return n && n <= length && strncasecmp(host + length - n, name, n) == 0 &&
	       (n == length || host[length - n - 1] == '.');
}

bool proxy_is_bypassed(const char *no_proxy, const char *host)
{
	static const char separators[] = ", \t";

	if (url_is_loopback(host))
		return true;
	for (const char *p = no_proxy ? no_proxy : ""; *p;) {
		p += strspn(p, separators);
		size_t n = strcspn(p, separators);
		if (matches(p, n, host))
			return true;
		p += n;
	}
	return false;
}
