#include "config/proxy.h"

#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <arpa/inet.h>
#include <event2/http.h>

#include "base/buf.h"
#include "base/mem.h"
#include "base/span.h"
#include "config/url.h"

enum {
	DEFAULT_PORT = 1080,
	SHOWN_MAX = 60, /* bytes of an entry that a message repeats */
};

/* Fills proxy from a URI that libevent has parsed. Returns the fault, or NULL. */
static const char *convert(const struct evhttp_uri *uri, struct proxy *proxy)
{
	const char *scheme = evhttp_uri_get_scheme(uri), *path = evhttp_uri_get_path(uri);
	int port = evhttp_uri_get_port(uri);

	if (!scheme || strcasecmp(scheme, "http") != 0)
		return "names a proxy that does not speak plain HTTP, and no other can be "
		       "used";
	if (evhttp_uri_get_userinfo(uri))
		return "names a proxy with a password, which others could see there: write "
		       "user:password into a file and name it in proxy_credentials_file";
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
	buf_wipe(&whole); /* it may have held a password */
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

/* ---- NO_PROXY ---- */

struct address {
	size_t size; /* bytes: 4, or 16 */
	unsigned char bytes[16];
};

/* One entry. */
struct entry {
	struct span name; /* without dots around it; or n is 0 */
	bool everything;
	struct address address; /* size 0: it is none */
	unsigned prefix;        /* how many of its bits are compared */
	unsigned port;          /* 0: any */
};

static bool parse_address(struct span text, struct address *out)
{
	char copy[INET6_ADDRSTRLEN];

	if (text.n >= 2 && text.p[0] == '[' && text.p[text.n - 1] == ']')
		text = (struct span){text.p + 1, text.n - 2};
	if (text.n >= sizeof(copy))
		return false;
	memcpy(copy, text.p, text.n);
	copy[text.n] = '\0';
	out->size = inet_pton(AF_INET, copy, out->bytes) == 1    ? 4
		    : inet_pton(AF_INET6, copy, out->bytes) == 1 ? 16
								 : 0;
	return out->size;
}

/* The whole text as a number, up to max. */
static bool parse_number(struct span text, unsigned max, unsigned *out)
{
	unsigned n = 0;

	if (!text.n || text.n > 5)
		return false;
	for (size_t i = 0; i < text.n; i++) {
		if (text.p[i] < '0' || text.p[i] > '9')
			return false;
		n = n * 10 + (unsigned)(text.p[i] - '0');
	}
	*out = n;
	return n <= max;
}

static struct span behind(struct span text, const char *p)
{
	return (struct span){p + 1, (size_t)(text.p + text.n - p - 1)};
}

/* Takes ":port" off the end, but no part of an IPv6 address. */
static bool take_port(struct span *text, unsigned *port)
{
	const char *colon = memrchr(text->p, ':', text->n);
	bool bracket = text->p[0] == '[';

	*port = 0;
	if (!colon || (bracket && colon < text->p + text->n && colon[-1] != ']') ||
	    (!bracket && memchr(text->p, ':', (size_t)(colon - text->p))))
		return true;
	if (!parse_number(behind(*text, colon), UINT16_MAX, port) || !*port)
		return false;
	text->n = (size_t)(colon - text->p);
	return true;
}

static bool parse_name(struct span text, struct entry *e)
{
	static const char letters[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";

	if (text.n >= 2 && text.p[0] == '*' && text.p[1] == '.')
		text = behind(text, text.p);
	if (text.n && text.p[0] == '.')
		text = behind(text, text.p);
	if (text.n && text.p[text.n - 1] == '.')
		text.n--;
	for (size_t i = 0; i < text.n; i++) {
		if (!memchr(letters, text.p[i], sizeof(letters) - 1))
			return false;
	}
	e->name = text;
	return text.n;
}

/* False: the entry is invalid. */
static bool parse_entry(struct span text, struct entry *e)
{
	const char *slash = memchr(text.p, '/', text.n);

	*e = (struct entry){0};
	if (text.n == 1 && *text.p == '*') {
		e->everything = true;
		return true;
	}
	if (slash)
		return parse_address((struct span){text.p, (size_t)(slash - text.p)},
				     &e->address) &&
		       parse_number(behind(text, slash), (unsigned)e->address.size * 8, &e->prefix);
	if (!take_port(&text, &e->port) || !text.n)
		return false;
	e->prefix = UINT_MAX;
	return parse_address(text, &e->address) || parse_name(text, e);
}

static bool same_bits(const struct address *a, const struct address *b, unsigned bits)
{
	if (a->size != b->size)
		return false;
	if (bits > a->size * 8)
		bits = (unsigned)a->size * 8;
	unsigned rest = bits % 8, mask = 0xff00u >> rest & 0xff;
	return memcmp(a->bytes, b->bytes, bits / 8) == 0 &&
	       (!rest || ((a->bytes[bits / 8] ^ b->bytes[bits / 8]) & mask) == 0);
}

/* Is host the name, or below it? */
static bool is_below(struct span host, struct span name)
{
	return name.n && name.n <= host.n &&
	       strncasecmp(host.p + host.n - name.n, name.p, name.n) == 0 &&
	       (name.n == host.n || host.p[host.n - name.n - 1] == '.');
}

static bool matches(const struct entry *e, const char *host, uint16_t port)
{
	struct span name = {host, strlen(host)};
	struct address address;

	if (e->everything)
		return true;
	if (e->port && e->port != port)
		return false;
	if (parse_address(name, &address))
		return e->address.size && same_bits(&e->address, &address, e->prefix);
	if (name.n && name.p[name.n - 1] == '.')
		name.n--;
	return is_below(name, e->name);
}

/* The next entry of the list; n is 0 at its end. */
static struct span next_entry(const char **list)
{
	static const char separators[] = ", \t\r\n";
	const char *p = *list + strspn(*list, separators);
	size_t n = strcspn(p, separators);

	*list = p + n;
	return (struct span){p, n};
}

bool proxy_is_bypassed(const char *no_proxy, const char *host, uint16_t port)
{
	struct span text;
	struct entry e;

	if (url_is_loopback(host))
		return true;
	while (no_proxy && (text = next_entry(&no_proxy)).n) {
		if (parse_entry(text, &e) && matches(&e, host, port))
			return true;
	}
	return false;
}

char *proxy_useless_entry(const char *no_proxy)
{
	struct span text;
	struct entry e;

	while (no_proxy && (text = next_entry(&no_proxy)).n) {
		if (parse_entry(text, &e))
			continue;
		char *shown = mem_strndup(text.p, text.n < SHOWN_MAX ? text.n : SHOWN_MAX);
		for (char *c = shown; *c; c++) {
			if (*c < ' ' || *c > '~')
				*c = '?';
		}
		return shown;
	}
	return NULL;
}
