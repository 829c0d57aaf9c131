#include "transport/upgrade.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <openssl/evp.h>
#include <openssl/rand.h>

#include "base/log.h"
#include "base/secret.h"

enum { ACCEPT = 28 }; /* characters of a Sec-WebSocket-Accept */

static const char not_http[] = "the answer to the upgrade is not HTTP";

/* ---- the request ---- */

static void make_key(char key[UPGRADE_KEY + 1])
{
	unsigned char nonce[16];

	if (RAND_bytes(nonce, sizeof(nonce)) != 1) {
		log_error("the random number generator failed");
		abort();
	}
	EVP_EncodeBlock((unsigned char *)key, nonce, sizeof(nonce));
}

char *upgrade_request(const char *host, const char *path, char key[UPGRADE_KEY])
{
	static const char format[] = "GET %s HTTP/1.1\r\n"
				     "Pragma: no-cache\r\n"
				     "Cache-Control: no-cache\r\n"
				     "Host: %s\r\n"
				     "Upgrade: websocket\r\n"
				     "Connection: Upgrade\r\n"
				     "Sec-WebSocket-Key: %s\r\n"
				     "Sec-WebSocket-Version: 13\r\n"
				     "\r\n";
	char text[UPGRADE_KEY + 1];
	size_t size = sizeof(format) + strlen(path) + strlen(host) + UPGRADE_KEY;
	char *request = secret_alloc(size);

	make_key(text);
	memcpy(key, text, UPGRADE_KEY);
	snprintf(request, size, format, path, host, text);
	return request;
}

/* ---- the answer ---- */

/* The fields of the head. */
struct head {
	bool upgrade, upgrade_else, connection, accept, accept_wrong, extension, subprotocol,
		chunked;
	bool has_length;
	uint64_t length;
	struct span retry_after;
	const char *accept_wanted;
};

/* ---- lines ---- */

/* Takes a line from the head of *rest; false: there is no complete one. */
static bool take_line(struct span *rest, struct span *line)
{
	const char *end = rest->n ? memchr(rest->p, '\n', rest->n) : NULL;

	if (!end)
		return false;
	*line = (struct span){rest->p, (size_t)(end - rest->p)};
	rest->n -= line->n + 1;
	rest->p = end + 1;
	if (line->n && line->p[line->n - 1] == '\r')
		line->n--;
	return true;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static struct span trim(struct span text)
{
	while (text.n && is_blank(*text.p))
		text.p++, text.n--;
	while (text.n && is_blank(text.p[text.n - 1]))
		text.n--;
	return text;
}

static bool is_word(struct span text, const char *word)
{
	return text.n == strlen(word) && strncasecmp(text.p, word, text.n) == 0;
}

/* Is the word one of those that the value lists? */
static bool lists(struct span value, const char *word)
{
	while (value.n) {
		const char *comma = memchr(value.p, ',', value.n);
		size_t n = comma ? (size_t)(comma - value.p) : value.n;
		if (is_word(trim((struct span){value.p, n}), word))
			return true;
		n += comma != NULL;
		value.p += n;
		value.n -= n;
	}
	return false;
}

/* ---- fields ---- */

static void read_upgrade(struct head *h, struct span value)
{
	h->upgrade |= lists(value, "websocket");
	h->upgrade_else |= !lists(value, "websocket");
}

static void read_connection(struct head *h, struct span value)
{
	h->connection |= lists(value, "upgrade");
}

static void read_accept(struct head *h, struct span value)
{
	h->accept = true;
	h->accept_wrong |= value.n != ACCEPT || memcmp(value.p, h->accept_wanted, ACCEPT) != 0;
}

static void read_extensions(struct head *h, struct span value)
{
	h->extension |= value.n > 0;
}

static void read_protocol(struct head *h, struct span value)
{
	h->subprotocol |= value.n > 0;
}

static void read_retry_after(struct head *h, struct span value)
{
	h->retry_after = value;
}

static void read_encoding(struct head *h, struct span value)
{
	h->chunked |= lists(value, "chunked");
}

static void read_length(struct head *h, struct span value)
{
	uint64_t n = 0;

	for (size_t i = 0; i < value.n; i++) {
		if (value.p[i] < '0' || value.p[i] > '9' || n > UINT64_MAX / 10 - 1)
			return;
		n = n * 10 + (uint64_t)(value.p[i] - '0');
	}
	h->has_length = value.n > 0;
	h->length = n;
}

static const struct {
	const char *name;
	void (*read)(struct head *h, struct span value);
} fields[] = {
	{"upgrade", read_upgrade},
	{"connection", read_connection},
	{"sec-websocket-accept", read_accept},
	{"sec-websocket-extensions", read_extensions},
	{"sec-websocket-protocol", read_protocol},
	{"retry-after", read_retry_after},
	{"transfer-encoding", read_encoding},
	{"content-length", read_length},
};

static bool read_field(struct head *h, struct span line)
{
	const char *colon = memchr(line.p, ':', line.n);

	if (is_blank(*line.p)) /* a continuation of the previous field, and none that matters */
		return true;
	if (!colon)
		return false;
	struct span name = {line.p, (size_t)(colon - line.p)};
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		if (is_word(name, fields[i].name))
			fields[i].read(h, trim((struct span){colon + 1, line.n - name.n - 1}));
	}
	return true;
}

/* ---- the answer ---- */

/* "HTTP/1.1 101 Switching Protocols", whose beginning may_be_http() has seen. Returns the status;
 * -1: it is another line. */
static int read_status(struct span line)
{
	const size_t at = sizeof("HTTP/1.1 ") - 1;
	int status = 0;

	if (line.n < at + 3 || line.p[at - 1] != ' ' || (line.n > at + 3 && line.p[at + 3] != ' '))
		return -1;
	for (size_t i = at; i < at + 3; i++) {
		if (line.p[i] < '0' || line.p[i] > '9')
			return -1;
		status = status * 10 + (line.p[i] - '0');
	}
	return status < 100 ? -1 : status;
}

/* A peer that speaks something else is recognised at its first bytes: it may never end a line. */
static bool may_be_http(struct span bytes)
{
	static const char begin[] = "HTTP/1.";
	size_t n = bytes.n < sizeof(begin) - 1 ? bytes.n : sizeof(begin) - 1;

	return memcmp(bytes.p, begin, n) == 0;
}

/* RFC 6455, 4.2.2: a hash of the key and this constant. */
static void make_accept(const char *key, char accept[ACCEPT + 1])
{
	char text[UPGRADE_KEY + sizeof("258EAFA5-E914-47DA-95CA-C5AB0DC85B11")];
	unsigned char hash[EVP_MAX_MD_SIZE];
	unsigned n = 0;

	memcpy(text, key, UPGRADE_KEY);
	memcpy(text + UPGRADE_KEY, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11",
	       sizeof(text) - UPGRADE_KEY);
	memset(accept, '-', ACCEPT + 1);
	if (EVP_Digest(text, sizeof(text) - 1, hash, &n, EVP_sha1(), NULL) == 1)
		EVP_EncodeBlock((unsigned char *)accept, hash, (int)n);
}

static const char *objection(const struct head *h)
{
	if (!h->upgrade && h->upgrade_else)
		return "the answer is an upgrade to something else";
	if (!h->upgrade)
		return "the answer to the upgrade lacks Upgrade";
	if (!h->connection)
		return "the answer to the upgrade has a wrong Connection header";
	if (!h->accept)
		return "the answer to the upgrade lacks Sec-WebSocket-Accept";
	if (h->accept_wrong)
		return "the answer to the upgrade has a wrong Sec-WebSocket-Accept";
	if (h->extension)
		return "the answer to the upgrade names an extension that was not offered";
	if (h->subprotocol)
		return "the answer to the upgrade names a subprotocol that was not offered";
	return NULL;
}

/* One head, final or interim, from the beginning of *rest. */
static int read_head(struct span *rest, struct head *h, int *status)
{
	struct span line;

	if (!may_be_http(*rest))
		return -EPROTO;
	if (!take_line(rest, &line))
		return 0;
	*status = read_status(line);
	if (*status < 0)
		return -EPROTO;
	while (take_line(rest, &line)) {
		if (!line.n)
			return 1;
		if (memchr(line.p, '\0', line.n) || !read_field(h, line))
			return -EPROTO;
	}
	return 0;
}

int upgrade_read(struct span bytes, const char *key, struct upgrade *u, const char **why)
{
	char accept[ACCEPT + 1];
	struct span rest = bytes;
	struct head h;
	int status, got;

	make_accept(key, accept);
	do {
		h = (struct head){.accept_wanted = accept};
		got = rest.n ? read_head(&rest, &h, &status) : 0;
	} while (got > 0 && status < 200 && status != 101);
	if (got < 0)
		*why = not_http;
	if (!got && bytes.n > UPGRADE_HEAD_MAX) {
		*why = "the answer to the upgrade is too long";
		got = -EPROTO;
	}
	if (got <= 0)
		return got;
	*why = status == 101 ? objection(&h) : NULL;
	if (*why)
		return -EPROTO;
	*u = (struct upgrade){.status = status,
			      .head = bytes.n - rest.n,
			      .retry_after = h.retry_after,
			      .body = h.has_length && !h.chunked ? h.length : UINT64_MAX};
	return 1;
}
