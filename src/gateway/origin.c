#include "gateway/origin.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <strings.h>

#include "base/mem.h"

struct origins {
	struct span *word;
	size_t n;
	char text[];
};

static const char blanks[] = " \t";

static bool is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool all_digits(struct span s)
{
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] < '0' || s.p[i] > '9')
			return false;
	}
	return s.n > 0 && s.n <= 5;
}

/* A host as browsers write it: what could not stand in one is a slip of the administrator's. */
static bool is_host(struct span host)
{
	bool bracketed = host.n > 2 && host.p[0] == '[' && host.p[host.n - 1] == ']';

	for (size_t i = bracketed; i < host.n - bracketed; i++) {
		char c = host.p[i];
		if (!is_alnum(c) && c != '.' && c != '-' && c != '_' && !(bracketed && c == ':'))
			return false;
	}
	return host.n > 0;
}

/* host and port of "host:port"; the port is empty if there is none. */
static void split_port(struct span *host, struct span *port)
{
	size_t i = host->n;

	*port = (struct span){0};
	while (i > 0 && host->p[i - 1] != ':' && host->p[i - 1] != ']')
		i--;
	if (i == 0 || host->p[i - 1] != ':')
		return;
	*port = (struct span){host->p + i, host->n - i};
	host->n = i - 1;
}

static const char *origin_fault(struct span word)
{
	const char *colon = memchr(word.p, ':', word.n);
	struct span host, port;

	if (span_equal(word, SPAN("*")) || span_equal(word, SPAN("null")))
		return "stands for any page: name those that may use the gateway";
	if (!colon || colon == word.p || word.n - (size_t)(colon - word.p) < 4 ||
	    memcmp(colon, "://", 3) != 0)
		return "is not an origin as browsers send it, such as https://app.example or "
		       "http://localhost:3000";
	for (const char *p = word.p; p < colon; p++) {
		if (!is_alnum(*p) && *p != '-' && *p != '+' && *p != '.')
			return "has no scheme in front of its ://";
	}
	host = (struct span){colon + 3, word.n - (size_t)(colon - word.p) - 3};
	bool colon_last = host.p[host.n - 1] == ':';
	split_port(&host, &port);
	if (memchr(host.p, '/', host.n))
		return "has a path: an origin ends with its host or port";
	if (!is_host(host) || colon_last || (port.n && !all_digits(port)))
		return "has no host, or a port that is no number, behind its ://";
	return NULL;
}

struct origins *origins_new(const char *list, const char **why, struct span *bad)
{
	size_t n = strlen(list);
	struct origins *o = mem_zalloc(sizeof(*o) + n + 1);

	memcpy(o->text, list, n);
	for (char *p = o->text + strspn(o->text, blanks); *p; p += strspn(p, blanks)) {
		struct span word = {p, strcspn(p, blanks)};
		p += word.n;
		if ((*why = origin_fault(word))) {
			*bad = (struct span){list + (word.p - o->text), word.n};
			origins_free(o);
			return NULL;
		}
		o->word = mem_resize(o->word, (o->n + 1) * sizeof(*o->word));
		o->word[o->n++] = word;
	}
	return o;
}

void origins_free(struct origins *o)
{
	if (o)
		free(o->word);
	free(o);
}

bool origins_allow(const struct origins *o, struct span origin)
{
	for (size_t i = 0; o && i < o->n; i++) {
		if (o->word[i].n == origin.n && strncasecmp(o->word[i].p, origin.p, origin.n) == 0)
			return true;
	}
	return false;
}

bool origin_is_local(struct span host)
{
	char text[INET6_ADDRSTRLEN];
	struct in6_addr six, loopback = IN6ADDR_LOOPBACK_INIT;
	struct in_addr four;
	struct span port;
	bool colon_last = host.n && host.p[host.n - 1] == ':';

	split_port(&host, &port);
	if ((port.n && !all_digits(port)) || (colon_last && !host.n))
		return false;
	bool bracketed = host.n > 2 && host.p[0] == '[' && host.p[host.n - 1] == ']';
	host = (struct span){host.p + bracketed, host.n - 2 * (size_t)bracketed};
	if (host.n >= sizeof(text) || (host.n && memchr(host.p, '\0', host.n)))
		return false;
	if (!host.n)
		return false;
	memcpy(text, host.p, host.n);
	text[host.n] = '\0';
	if (bracketed)
		return inet_pton(AF_INET6, text, &six) == 1 &&
		       memcmp(&six, &loopback, sizeof(six)) == 0;
	if (inet_pton(AF_INET, text, &four) == 1)
		return ntohl(four.s_addr) >> 24 == 127;
	return strcasecmp(text, "localhost") == 0 || strcasecmp(text, "localhost.") == 0;
}
