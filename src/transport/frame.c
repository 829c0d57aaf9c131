#include "transport/frame.h"

#include <stdint.h>
#include <stdlib.h>

#include <openssl/rand.h>

#include "base/log.h"

enum { KEY = 4, KEY_POOL = 4096 };

/* A masking key must be unpredictable (RFC 6455, 10.3). Asking the generator for four bytes costs
 * as much as asking for four thousand, so it is asked for many. Each byte is used once. */
static void fresh_key(unsigned char key[KEY])
{
	static unsigned char pool[KEY_POOL];
	static size_t left;

	if (left < KEY) {
		if (RAND_bytes(pool, sizeof(pool)) != 1) {
			log_error("the random number generator failed");
			abort(); /* a predictable mask would let a client choose the bytes that a
				    proxy sees */
		}
		left = sizeof(pool);
	}
	left -= KEY;
	memcpy(key, pool + left, KEY);
}

/* Copies from to to, masked; phase: how many bytes of the payload came before. Eight bytes at a
 * time: whatever the byte order, byte i of the doubled key meets byte i of the payload. */
static void copy_masked(char *to, struct span from, const unsigned char key[KEY], size_t phase)
{
	unsigned char turned[8];
	uint64_t mask, word;
	size_t i = 0;

	for (size_t j = 0; j < sizeof(turned); j++)
		turned[j] = key[(phase + j) % KEY];
	memcpy(&mask, turned, sizeof(mask));
	for (; i + sizeof(word) <= from.n; i += sizeof(word)) {
		memcpy(&word, from.p + i, sizeof(word));
		word ^= mask;
		memcpy(to + i, &word, sizeof(word));
	}
	for (; i < from.n; i++)
		to[i] = (char)(from.p[i] ^ turned[i % sizeof(turned)]);
}

/* Writes opcode and length; returns how many bytes that took. */
static size_t put_header(unsigned char *p, enum frame_opcode opcode, uint64_t length)
{
	size_t extra = length < 126 ? 0 : length <= UINT16_MAX ? 2 : 8;

	p[0] = (unsigned char)(0x80 | opcode);
	p[1] = (unsigned char)(0x80 | (extra == 0 ? length : extra == 2 ? 126 : 127));
	for (size_t i = 0; i < extra; i++)
		p[2 + i] = (unsigned char)(length >> 8 * (extra - 1 - i));
	return 2 + extra;
}

void frame_append(struct buf *queue, enum frame_opcode opcode, struct span head, struct span body)
{
	unsigned char *start =
		(unsigned char *)buf_room(queue, FRAME_OVERHEAD_MAX + head.n + body.n);
	unsigned char *key = start + put_header(start, opcode, (uint64_t)head.n + body.n);
	char *payload = (char *)key + KEY;

	fresh_key(key);
	copy_masked(payload, head, key, 0);
	copy_masked(payload + head.n, body, key, head.n);
	buf_grew(queue, (size_t)(payload - (char *)start) + head.n + body.n);
}

bool frame_read_header(struct span bytes, struct frame_header *header)
{
	const unsigned char *p = (const unsigned char *)bytes.p;
	struct frame_header h = {.size = 2};

	if (bytes.n < 2)
		return false;
	h.length = p[1] & 0x7f;
	size_t extra = h.length < 126 ? 0 : h.length == 126 ? 2 : 8;
	h.size += extra;
	if (bytes.n < h.size)
		return false;
	if (extra)
		h.length = 0;
	for (size_t i = 0; i < extra; i++)
		h.length = h.length << 8 | p[2 + i];
	h.final = p[0] & 0x80;
	h.reserved = p[0] >> 4 & 7;
	h.opcode = p[0] & 0xf;
	h.masked = p[1] & 0x80;
	*header = h;
	return true;
}

size_t frame_batch(const struct buf *queue, size_t max)
{
	struct span all = buf_span(queue);
	struct frame_header h;
	size_t n = 0;

	while (n < all.n && frame_read_header((struct span){all.p + n, all.n - n}, &h)) {
		size_t next = n + h.size + KEY + (size_t)h.length;
		if (n && next > max)
			break;
		n = next;
	}
	return n;
}
