#include "access/local_tokens.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/hmac.h>

#include "access/base64url.h"
#include "base/mem.h"
#include "base/secret.h"
#include "codec/json.h"

enum { MAC = 32, MAC_TEXT = LOCAL_TOKENS_MAC_TEXT };

struct local_tokens {
	char *secret; /* secret.h */
};

struct local_tokens *local_tokens_new(const unsigned char secret[LOCAL_TOKENS_SECRET])
{
	struct local_tokens *t = mem_zalloc(sizeof(*t));

	t->secret = secret_alloc(LOCAL_TOKENS_SECRET);
	memcpy(t->secret, secret, LOCAL_TOKENS_SECRET);
	return t;
}

void local_tokens_free(struct local_tokens *t)
{
	if (!t)
		return;
	secret_free(&t->secret);
	free(t);
}

/* ---- marks ---- */

static void mac_of(const struct local_tokens *t, struct span text, unsigned char mac[MAC])
{
	unsigned n = MAC;

	HMAC(EVP_sha256(), t->secret, LOCAL_TOKENS_SECRET, (const unsigned char *)text.p, text.n,
	     mac, &n);
}

static void add_mac(const struct local_tokens *t, struct span text, struct buf *out)
{
	unsigned char mac[MAC];

	mac_of(t, text, mac);
	base64url_encode((struct span){(const char *)mac, MAC}, out);
	mem_wipe(mac, sizeof(mac));
}

void local_tokens_add_mac(const struct local_tokens *t, struct span text, struct buf *out)
{
	add_mac(t, text, out);
}

/* No token begins as this does. */
void local_tokens_add_mark(const struct local_tokens *t, const struct local_key *key,
			   struct buf *out)
{
	char text[4 + sizeof(key->hash)] = "key:";

	memcpy(text + 4, key->hash, sizeof(key->hash));
	add_mac(t, (struct span){text, sizeof(text)}, out);
}

/* ---- making ---- */

void local_tokens_add_holder(const struct local_tokens *t, const struct token_holder *h,
			     struct buf *out)
{
	if (h->by_key && h->has_key) {
		buf_addf(out, ",\"localKey\":\"");
		local_tokens_add_mark(t, &h->key, out);
		buf_addf(out, "\"");
	} else if (h->known) {
		buf_addf(out, ",\"ids\":[%lld,%lld", (long long)h->uid, (long long)h->gid);
		for (size_t i = 0; i < h->n_groups; i++)
			buf_addf(out, ",%lld", (long long)h->groups[i]);
		buf_addf(out, "]");
	}
}

/* The members have the names of the request's, so that the same reader reads them. */
static void add_payload(const struct local_tokens *t, const struct token_grant *g,
			const struct request *r, int64_t expires, struct buf *out)
{
	buf_addf(out, "{\"op\":\"token\",\"exp\":%lld", (long long)expires);
	local_tokens_add_holder(t, &g->holder, out);
	buf_addf(out, ",\"subscribeKeys\":[");
	buf_add(out, buf_span(&g->keys).p, buf_len(&g->keys));
	buf_addf(out, "],\"subscribePatterns\":[");
	buf_add(out, buf_span(&g->globs).p, buf_len(&g->globs));
	buf_addf(out, "]");
	if (g->pattern) {
		buf_addf(out, ",\"accessPattern\":");
		buf_add(out, r->access_pattern.text.p, r->access_pattern.text.n);
	}
	buf_addf(out, "}");
}

static int make(const struct local_tokens *t, const struct request *r, const struct token_grant *g,
		int64_t wall_ms, struct buf *token, char why[ACCESS_PATTERN_WHY_MAX])
{
	struct buf payload = {0}, mac = {0};
	int result = 0;

	add_payload(t, g, r, wall_ms + LOCAL_TOKENS_LIFE_MS, &payload);
	buf_addf(token, LOCAL_TOKEN_PREFIX);
	base64url_encode(buf_span(&payload), token);
	add_mac(t, buf_span(token), &mac);
	buf_addf(token, ".");
	buf_add(token, buf_span(&mac).p, buf_len(&mac));
	if (buf_len(token) > LOCAL_TOKEN_MAX) {
		snprintf(why, ACCESS_PATTERN_WHY_MAX,
			 "the keys and patterns are too many for one token");
		result = -EINVAL;
	}
	buf_release(&payload);
	buf_wipe(&mac); /* with its text it is a token, also one that was wrong */
	return result;
}

int local_tokens_make(const struct local_tokens *t, const struct request *r,
		      const struct peer_identity *who, int64_t wall_ms, struct buf *token,
		      char why[ACCESS_PATTERN_WHY_MAX])
{
	struct token_grant g = {0};
	char wrong[ACCESS_PATTERN_WHY_MAX];
	int result = token_grant_read(&g, r, wrong);

	if (result < 0) {
		snprintf(why, ACCESS_PATTERN_WHY_MAX, "accessPattern: %.*s",
			 ACCESS_PATTERN_WHY_MAX - 16, wrong);
	} else {
		token_holder_set(&g.holder, who);
		result = make(t, r, &g, wall_ms, token, why);
	}
	token_grant_fini(&g);
	return result;
}

/* ---- opening ---- */

bool local_token_is(struct span text)
{
	size_t n = strlen(LOCAL_TOKEN_PREFIX);

	return text.n >= n && memcmp(text.p, LOCAL_TOKEN_PREFIX, n) == 0;
}

struct search {
	const struct local_tokens *t;
	struct span mark;
};

static bool has_mark(const void *arg, const struct local_key *key)
{
	const struct search *s = arg;
	struct buf mark = {0};

	local_tokens_add_mark(s->t, key, &mark);
	bool same = buf_len(&mark) == s->mark.n &&
		    CRYPTO_memcmp(buf_span(&mark).p, s->mark.p, s->mark.n) == 0;
	buf_release(&mark);
	return same;
}

/* Once: a second list would be added to the first. */
static bool read_ids(struct token_holder *h, const struct json_value *list)
{
	struct json_array_reader reader;
	struct json_value number;
	size_t n = 0;

	if (h->known)
		return false;
	json_array_begin(&reader, list);
	while (json_array_next(&reader, &number) > 0) {
		int64_t id;
		if (n == TOKEN_HOLDER_GROUPS_MAX + 2 || number.type != JSON_NUMBER ||
		    !json_number_integer(&number, 0, UINT32_MAX, &id))
			return false;
		if (n == 0)
			h->uid = (uid_t)id;
		else if (n == 1)
			h->gid = (gid_t)id;
		else
			h->groups[h->n_groups++] = (gid_t)id;
		n++;
	}
	h->known = n >= 2;
	return h->known;
}

struct opening {
	const struct local_tokens *t;
	const struct access *access;
	struct token_holder holder;
	int64_t expires;
};

/* Those that the reader of requests does not know. */
static bool read_member(struct opening *o, const struct json_member *m)
{
	if (json_string_is(&m->name, SPAN("exp")))
		return m->value.type == JSON_NUMBER &&
		       json_number_integer(&m->value, 0, INT64_MAX, &o->expires);
	if (json_string_is(&m->name, SPAN("ids")))
		return m->value.type == JSON_ARRAY && read_ids(&o->holder, &m->value);
	if (!json_string_is(&m->name, SPAN("localKey")))
		return true;
	struct search s = {o->t, json_string_raw(&m->value)};
	o->holder.by_key = true;
	o->holder.has_key = access_find_key(o->access, has_mark, &s, &o->holder.key);
	return o->holder.has_key;
}

static bool read_members(struct opening *o, struct span object)
{
	struct json_object_reader reader;
	struct json_member m;
	int more = 0;

	json_object_begin(&reader, object);
	while ((more = json_object_next(&reader, &m)) > 0) {
		if (!read_member(o, &m))
			return false;
	}
	return more == 0;
}

bool local_tokens_read_holder(const struct local_tokens *t, const struct access *access,
			      struct span object, struct token_holder *holder, int64_t *expires)
{
	struct opening o = {
		.t = t, .access = access, .holder = {.uid = (uid_t)-1, .gid = (gid_t)-1}};

	if (!read_members(&o, object))
		return false;
	*holder = o.holder;
	*expires = o.expires;
	return true;
}

static bool read_payload(struct opening *o, struct span payload, struct token_grant *g)
{
	struct request request;
	struct request_fault fault;
	char why[ACCESS_PATTERN_WHY_MAX];

	if (!read_members(o, payload) || request_parse(payload, &request, &fault) < 0 ||
	    request.op != OP_TOKEN)
		return false;
	g->holder = o->holder;
	return token_grant_read(g, &request, why) == 0;
}

int local_tokens_open(const struct local_tokens *t, const struct access *access, struct span text,
		      int64_t wall_ms, struct token_grant *g, int64_t *left_ms)
{
	struct opening o = {
		.t = t, .access = access, .holder = {.uid = (uid_t)-1, .gid = (gid_t)-1}};
	size_t n = strlen(LOCAL_TOKEN_PREFIX);
	struct buf mac = {0}, payload = {0};

	*g = (struct token_grant){0};
	if (!local_token_is(text) || text.n > LOCAL_TOKEN_MAX || text.n < n + MAC_TEXT + 1)
		return -EACCES;
	struct span signed_text = {text.p, text.n - MAC_TEXT - 1};
	add_mac(t, signed_text, &mac);
	bool good = text.p[signed_text.n] == '.' && buf_len(&mac) == MAC_TEXT &&
		    CRYPTO_memcmp(buf_span(&mac).p, text.p + signed_text.n + 1, MAC_TEXT) == 0 &&
		    base64url_decode((struct span){text.p + n, signed_text.n - n}, &payload) &&
		    read_payload(&o, buf_span(&payload), g) && o.expires > wall_ms;
	*left_ms = o.expires - wall_ms;
	buf_wipe(&mac);
	buf_release(&payload);
	if (good)
		return 0;
	token_grant_fini(g);
	return -EACCES;
}
