#include "grant.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>

#include "codec/json.h"
#include "base/mem.h"

enum { MAC = 32 };

static const char DIGITS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* --- base64url without padding (RFC 4648, 5) */

static void encode(struct span bytes, struct buf *out)
{
	const unsigned char *p = (const unsigned char *)bytes.p;

	for (size_t i = 0; i < bytes.n; i += 3) {
		size_t n = bytes.n - i < 3 ? bytes.n - i : 3;
		unsigned word =
			p[i] * 0x10000u + (n > 1 ? p[i + 1] * 0x100u : 0) + (n > 2 ? p[i + 2] : 0);
		char four[4];
		for (unsigned j = 0; j < 4; j++)
			four[j] = DIGITS[word >> (18 - 6 * j) & 63];
		buf_add(out, four, n + 1);
	}
}

static bool decode(struct span text, struct buf *out)
{
	unsigned word = 0, bits = 0;

	for (size_t i = 0; i < text.n; i++) {
		const char *digit = text.p[i] ? strchr(DIGITS, text.p[i]) : NULL;
		if (!digit)
			return false;
		word = (word << 6 | (unsigned)(digit - DIGITS)) & 0xffff;
		bits += 6;
		if (bits >= 8) {
			bits -= 8;
			buf_add(out, (char[]){(char)(word >> bits & 0xff)}, 1);
		}
	}
	return true;
}

static void sign(const unsigned char secret[GRANT_SECRET], struct span text, struct buf *out)
{
	unsigned char mac[MAC];
	unsigned n = sizeof(mac);

	HMAC(EVP_sha256(), secret, GRANT_SECRET, (const unsigned char *)text.p, text.n, mac, &n);
	encode((struct span){(const char *)mac, n}, out);
}

void grant_secret(const char *api_key, unsigned char secret[GRANT_SECRET])
{
	static const char PURPOSE[] = "hpkv-sandbox token";
	unsigned n = GRANT_SECRET;

	HMAC(EVP_sha256(), PURPOSE, sizeof(PURPOSE) - 1, (const unsigned char *)api_key,
	     strlen(api_key), secret, &n);
}

/* --- the JSON of a token, which has the members of a token request and "exp" */

static struct span decoded(const struct json_value *string, char *room)
{
	return (struct span){room, json_string_decode(string, room)};
}

static int read_list(struct grant *g, const struct json_value *list, const char **why)
{
	struct json_array_reader reader;
	struct json_value element;
	int failed = 0;

	*why = "subscribeKeys and subscribePatterns must be lists of strings";
	if (list->type != JSON_ARRAY)
		return -EINVAL;
	json_array_begin(&reader, list);
	while (!failed && json_array_next(&reader, &element) > 0) {
		if (element.type != JSON_STRING)
			return -EINVAL;
		if ((g->n & (g->n - 1)) == 0) /* full at each power of two */
			g->subscriptions = mem_resize(
				g->subscriptions, (g->n ? g->n * 2 : 1) * sizeof(struct pattern));
		char *room = mem_alloc(element.text.n);
		failed = pattern_init(&g->subscriptions[g->n], decoded(&element, room), why);
		free(room);
		g->n += !failed;
	}
	return failed;
}

static int read_access(struct grant *g, const struct json_value *v, const char **why)
{
	if (v->type == JSON_NULL)
		return 0;
	if (v->type != JSON_STRING || g->has_access) {
		*why = "accessPattern must be a string";
		return -EINVAL;
	}
	char *room = mem_alloc(v->text.n);
	int failed = pattern_init_regex(&g->access, decoded(v, room), why);
	free(room);
	g->has_access = !failed;
	return failed;
}

static int read_member(struct grant *g, const struct json_member *m, const char **why)
{
	if (json_string_is(&m->name, SPAN("subscribeKeys")) ||
	    json_string_is(&m->name, SPAN("subscribePatterns")))
		return m->value.type == JSON_NULL ? 0 : read_list(g, &m->value, why);
	if (json_string_is(&m->name, SPAN("accessPattern")))
		return read_access(g, &m->value, why);
	if (json_string_is(&m->name, SPAN("exp")) && m->value.type == JSON_NUMBER)
		json_number_integer(&m->value, 0, INT64_MAX, &g->expires_ms);
	return 0;
}

static struct grant *grant_read(struct span text, const char **why)
{
	struct grant *g = mem_zalloc(sizeof(*g));
	struct json_object_reader reader;
	struct json_member member;
	int more, failed = 0;

	json_object_begin(&reader, text);
	while (!failed && (more = json_object_next(&reader, &member)) > 0)
		failed = read_member(g, &member, why);
	if (!failed && more == 0)
		return g;
	if (!failed)
		*why = "Invalid JSON";
	grant_free(g);
	return NULL;
}

void grant_free(struct grant *g)
{
	if (!g)
		return;
	for (size_t i = 0; i < g->n; i++)
		pattern_fini(&g->subscriptions[i]);
	free(g->subscriptions);
	if (g->has_access)
		pattern_fini(&g->access);
	free(g);
}

/* --- tokens */

static bool is_ours(const struct json_value *name)
{
	return json_string_is(name, SPAN("subscribeKeys")) ||
	       json_string_is(name, SPAN("subscribePatterns")) ||
	       json_string_is(name, SPAN("accessPattern"));
}

/* The payload has the request's members as they were written. */
static void write_payload(struct span body, int64_t expires_ms, struct buf *out)
{
	struct json_object_reader reader;
	struct json_member member;

	buf_addf(out, "{");
	json_object_begin(&reader, body);
	while (json_object_next(&reader, &member) > 0) {
		if (!is_ours(&member.name))
			continue;
		buf_add(out, member.whole.p, member.whole.n);
		buf_addf(out, ",");
	}
	buf_addf(out, "\"exp\":%lld}", (long long)expires_ms);
}

int grant_mint(const unsigned char secret[GRANT_SECRET], struct span body, int64_t expires_ms,
	       struct buf *token, const char **why)
{
	struct grant *g = grant_read(body, why);
	struct buf payload = {0};

	if (!g)
		return -EINVAL;
	grant_free(g);
	write_payload(body, expires_ms, &payload);
	encode(SPAN("{\"alg\":\"HS256\",\"typ\":\"JWT\"}"), token);
	buf_addf(token, ".");
	encode(buf_span(&payload), token);
	buf_release(&payload);
	struct buf mac = {0};
	sign(secret, buf_span(token), &mac);
	buf_addf(token, ".");
	buf_add(token, buf_span(&mac).p, buf_len(&mac));
	buf_release(&mac);
	return 0;
}

static bool is_signed(const unsigned char secret[GRANT_SECRET], struct span text, struct span mac)
{
	struct buf right = {0};

	sign(secret, text, &right);
	bool same =
		buf_len(&right) == mac.n && CRYPTO_memcmp(buf_span(&right).p, mac.p, mac.n) == 0;
	buf_release(&right);
	return same;
}

struct grant *grant_verify(const unsigned char secret[GRANT_SECRET], struct span token)
{
	const char *first = token.n ? memchr(token.p, '.', token.n) : NULL;
	const char *last = token.n ? memrchr(token.p, '.', token.n) : NULL;
	const char *why;
	struct buf payload = {0};
	struct grant *g = NULL;

	if (!first || first == last)
		return NULL;
	struct span text = {token.p, (size_t)(last - token.p)};
	struct span mac = {last + 1, token.n - text.n - 1};
	if (is_signed(secret, text, mac) &&
	    decode((struct span){first + 1, (size_t)(last - first - 1)}, &payload))
		g = grant_read(buf_span(&payload), &why);
	buf_release(&payload);
	return g;
}

bool grant_subscribes(const struct grant *g, struct span key)
{
	for (size_t i = 0; i < g->n; i++) {
		if (pattern_matches(&g->subscriptions[i], key))
			return true;
	}
	return false;
}
