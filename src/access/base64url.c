#include "access/base64url.h"

#include <openssl/evp.h>

static void swap(char *text, size_t n, const char *from, const char *to)
{
	for (size_t i = 0; i < n; i++) {
		if (text[i] == from[0] || text[i] == from[1])
			text[i] = to[text[i] == from[1]];
	}
}

void base64url_encode(struct span bytes, struct buf *out)
{
	char *room = buf_room(out, (bytes.n + 2) / 3 * 4 + 1);
	size_t n = (size_t)EVP_EncodeBlock((unsigned char *)room, (const unsigned char *)bytes.p,
					   (int)bytes.n);

	while (n && room[n - 1] == '=')
		n--;
	swap(room, n, "+/", "-_");
	buf_grew(out, n);
}

bool base64url_decode(struct span text, struct buf *out)
{
	size_t padding = (4 - text.n % 4) % 4;
	struct buf padded = {0};

	if (padding == 3)
		return false;
	buf_add(&padded, text.p, text.n);
	buf_add(&padded, "==", padding);
	if (text.n)
		swap(buf_start(&padded), text.n, "-_", "+/");
	size_t n = buf_len(&padded);
	int got = EVP_DecodeBlock((unsigned char *)buf_room(out, n + 1),
				  (const unsigned char *)buf_span(&padded).p, (int)n);
	buf_release(&padded);
	if (got < (int)padding)
		return false;
	buf_grew(out, (size_t)got - padding);
	return true;
}
