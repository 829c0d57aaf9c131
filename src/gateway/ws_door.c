#include "gateway/ws_door.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/sha.h>

#include "base/mem.h"
#include "codec/uri.h"
#include "gateway/rest.h"

enum { KEY_TEXT = 24, KEY = 16 };

/* Of Sec-WebSocket-Key: 16 bytes in base64. */
static bool is_key(struct span text)
{
	unsigned char bytes[KEY_TEXT];

	return text.n == KEY_TEXT && memcmp(text.p + KEY_TEXT - 2, "==", 2) == 0 &&
	       EVP_DecodeBlock(bytes, (const unsigned char *)text.p, KEY_TEXT) == KEY + 2;
}

static void add_accept(struct span key, struct buf *headers)
{
	static const char GUID[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
	unsigned char text[KEY_TEXT + sizeof(GUID)], digest[SHA_DIGEST_LENGTH];
	unsigned char accept[SHA_DIGEST_LENGTH / 3 * 4 + 8];

	memcpy(text, key.p, KEY_TEXT);
	memcpy(text + KEY_TEXT, GUID, sizeof(GUID));
	SHA1(text, KEY_TEXT + sizeof(GUID) - 1, digest);
	EVP_EncodeBlock(accept, digest, sizeof(digest));
	buf_addf(headers, "Sec-WebSocket-Accept: %s\r\n", accept);
}

/* Is there a token in the query? Appends it, decoded; one that can't be decoded is cut short, and
 * so none of ours. To be wiped. */
static bool find_token(struct span query, struct buf *token)
{
	struct span name, value;

	buf_room(token, query.n); /* so that it is never moved */
	while (uri_next_parameter(&query, &name, &value)) {
		if (!span_equal(name, SPAN("token")) || !value.n)
			continue;
		uri_decode(value, token);
		return true;
	}
	return false;
}

static void refuse(struct http_offer *offer, int status, const char *error)
{
	offer->status = status;
	offer->error = error;
}

/* members: of the line that subscribes, beside its lists. */
static void open_by_token(const struct ws_door *door, struct span token, struct span members,
			  struct http_offer *offer)
{
	struct token_grant grant = {0};
	int64_t left_ms;
	const char *why;

	if (door->ops->open_token(door->owner, token, &grant, &left_ms, &why) < 0) {
		refuse(offer, 403, why);
		return;
	}
	offer->status = 101;
	token_grant_subscribe(&grant, members, &offer->subscribe);
	offer->next = ws_speech_new(&door->settings, &grant, left_ms);
	offer->admit = door->ops->admit;
}

/* members: as above. */
static bool check(const struct http_request *r, struct buf *members, struct http_offer *offer)
{
	size_t versions, keys;
	struct span version = http_request_header(r, "Sec-WebSocket-Version", &versions);
	struct span key = http_request_header(r, "Sec-WebSocket-Key", &keys);
	struct rest_fault fault;

	if (r->verb != HTTP_VERB_GET || r->http_1_0 || r->has_body) {
		refuse(offer, 400,
		       "a WebSocket is opened by GET, with HTTP/1.1 and without a body");
	} else if (versions != 1 || !span_equal(version, SPAN("13"))) {
		refuse(offer, 426, "the header Sec-WebSocket-Version must be 13");
		buf_addf(&offer->headers, "Sec-WebSocket-Version: 13\r\n");
	} else if (keys != 1 || !is_key(key)) {
		refuse(offer, 400, "the header Sec-WebSocket-Key must be 16 bytes in base64");
	} else if (!rest_timeout(r->query, members, &fault)) {
		refuse(offer, 400,
		       "the query is not percent-encoded properly, or its timeoutMs is no whole "
		       "number or there twice");
	} else {
		return true;
	}
	return false;
}

static void open_door(const struct ws_door *door, const struct http_request *r, struct span members,
		      struct http_offer *offer)
{
	struct buf token = {0};

	if (find_token(r->query, &token)) {
		open_by_token(door, buf_span(&token), members, offer);
	} else {
		offer->status = 101;
		offer->next = ws_speech_new(&door->settings, NULL, 0);
	}
	buf_wipe(&token);
}

void ws_door_upgrade(const struct ws_door *door, const struct http_request *r,
		     struct http_offer *offer)
{
	struct buf members = {0};
	size_t n;

	if (check(r, &members, offer))
		open_door(door, r, buf_span(&members), offer);
	if (offer->status == 101)
		add_accept(http_request_header(r, "Sec-WebSocket-Key", &n), &offer->headers);
	buf_release(&members);
}
