#include "ws.h"

#include <ctype.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "bench.h"

enum { HEAD_MAX = 14, MESSAGE_MAX = 1 << 20, REQUEST_MAX = 16384, MASKED = 0x80, FINAL = 0x80 };

/* A mask protects proxies from scripts in browsers; these tools meet neither, but must pay for one.
 */
static const unsigned char mask_key[4] = {0x37, 0xfa, 0x21, 0x3d};

/* Eight bytes at a time, which the compiler widens. Masking twice is unmasking. */
static void mask(char *p, size_t n, const unsigned char key[4])
{
	uint64_t wide, word;
	size_t i = 0;

	memcpy(&wide, key, 4);
	memcpy((char *)&wide + 4, key, 4);
	for (; i + 8 <= n; i += 8) {
		memcpy(&word, p + i, 8);
		word ^= wide;
		memcpy(p + i, &word, 8);
	}
	for (; i < n; i++)
		p[i] = (char)(p[i] ^ key[i & 3]);
}

int ws_frame_at(char *p, size_t n, struct ws_frame *f)
{
	const unsigned char *u = (const unsigned char *)p;
	size_t head = 2, length;

	if (n < head)
		return 0;
	length = u[1] & 127;
	head += length == 126 ? 2 : length == 127 ? 8 : 0;
	if (n < head)
		return 0;
	if (head > 2) {
		length = 0;
		for (size_t i = 2; i < head; i++)
			length = length << 8 | u[i];
	}
	if (!(u[0] & FINAL) || length > MESSAGE_MAX)
		return -1;
	bool masked = u[1] & MASKED;
	head += masked ? 4 : 0;
	if (n < head + length)
		return 0;
	if (masked)
		mask(p + head, length, u + head - 4);
	*f = (struct ws_frame){u[0] & 15, p + head, length, head + length};
	return 1;
}

void ws_append(struct buf *out, enum ws_opcode opcode, bool masking, struct span head,
	       struct span body)
{
	size_t n = head.n + body.n;
	char *p = buf_room(out, HEAD_MAX + n), *start = p;

	*p++ = (char)(FINAL | opcode);
	if (n < 126) {
		*p++ = (char)((masking ? MASKED : 0) | n);
	} else if (n < 65536) {
		*p++ = (char)((masking ? MASKED : 0) | 126);
		*p++ = (char)(n >> 8);
		*p++ = (char)n;
	} else {
		bench_die("a message of %zu bytes", n);
	}
	if (masking)
		p = (char *)memcpy(p, mask_key, 4) + 4;
	if (head.n)
		memcpy(p, head.p, head.n);
	if (body.n)
		memcpy(p + head.n, body.p, body.n);
	if (masking)
		mask(p, n, mask_key);
	buf_grew(out, (size_t)(p + n - start));
}

static void accept_key(const char *key, size_t n, char out[32])
{
	static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
	unsigned char joined[64 + sizeof guid], digest[SHA_DIGEST_LENGTH];

	memcpy(joined, key, n);
	memcpy(joined + n, guid, sizeof guid - 1);
	SHA1(joined, n + sizeof guid - 1, digest);
	EVP_EncodeBlock((unsigned char *)out, digest, sizeof digest);
}

int ws_serve_upgrade(struct buf *in, struct buf *out)
{
	static const char name[] = "\r\nSec-WebSocket-Key:";
	struct span text = buf_span(in);
	char request[REQUEST_MAX + 1], accept[32];
	const char *end = memmem(text.p, text.n, "\r\n\r\n", 4);

	if (!end)
		return text.n < REQUEST_MAX ? 0 : -1;
	size_t n = (size_t)(end + 4 - text.p);
	if (n > REQUEST_MAX)
		return -1;
	memcpy(request, text.p, n);
	request[n] = 0;
	const char *key = strcasestr(request, name);
	if (!key)
		return -1;
	key += sizeof name - 1;
	key += strspn(key, " ");
	size_t key_length = strcspn(key, " \r\n");
	if (key_length > 64)
		return -1;
	accept_key(key, key_length, accept);
	buf_addf(out,
		 "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
		 "Sec-WebSocket-Accept: %s\r\n\r\n",
		 accept);
	buf_take(in, n);
	return 1;
}

static void wait_readable(const struct conn *c)
{
	struct pollfd p = {.fd = c->fd, .events = POLLIN};

	if (poll(&p, 1, 10000) <= 0)
		bench_die("no answer to the upgrade within ten seconds");
}

void ws_connect(struct conn *c, const char *port, SSL_CTX *tls)
{
	const char *end = NULL;

	conn_client(c, bench_connect(port), tls);
	buf_addf(&c->out,
		 "GET /ws?apiKey=bench HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nUpgrade: "
		 "websocket\r\nConnection: Upgrade\r\n"
		 "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
		 port);
	if (!conn_flush(c))
		bench_die("the connection to the service ended before the upgrade");
	while (!end) {
		wait_readable(c);
		if (!conn_fill(c))
			bench_die("the service has refused the upgrade");
		struct span text = buf_span(&c->in);
		if (text.n)
			end = memmem(text.p, text.n, "\r\n\r\n", 4);
	}
	if (memcmp(buf_span(&c->in).p, "HTTP/1.1 101", 12) != 0)
		bench_die("the service has refused the upgrade");
	buf_take(&c->in, (size_t)(end + 4 - buf_span(&c->in).p));
}
