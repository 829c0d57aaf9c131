#include "access/remembered_tokens.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include <openssl/crypto.h>

#include "access/base64url.h"
#include "base/map.h"
#include "base/mem.h"
#include "codec/json.h"

struct entry {
	struct map_node node;
	TAILQ_ENTRY(entry) by_age; /* remembered_tokens::all, the oldest first */
	struct local_key token;    /* its hash */
	struct token_holder holder;
	int64_t until; /* boot_ms */
	size_t n;
	char text[]; /* the request, as a line of its own */
};

struct remembered_tokens {
	TAILQ_HEAD(, entry) all;
	struct map by_token;
	size_t n, bytes;
};

struct remembered_tokens *remembered_tokens_new(void)
{
	struct remembered_tokens *t = mem_zalloc(sizeof(*t));

	TAILQ_INIT(&t->all);
	return t;
}

static size_t size_of(const struct entry *e)
{
	return sizeof(*e) + e->n;
}

static void forget(struct remembered_tokens *t, struct entry *e)
{
	TAILQ_REMOVE(&t->all, e, by_age);
	map_remove(&t->by_token, &e->node);
	t->n--;
	t->bytes -= size_of(e);
	free(e);
}

void remembered_tokens_clear(struct remembered_tokens *t)
{
	while (!TAILQ_EMPTY(&t->all))
		forget(t, TAILQ_FIRST(&t->all));
}

void remembered_tokens_free(struct remembered_tokens *t)
{
	remembered_tokens_clear(t);
	map_fini(&t->by_token);
	free(t);
}

size_t remembered_tokens_count(const struct remembered_tokens *t)
{
	return t->n;
}

/* SHA-256: nobody can aim for one of its chains. */
static uint64_t chain_of(const struct local_key *token)
{
	uint64_t hash;

	memcpy(&hash, token->hash, sizeof(hash));
	return hash;
}

static struct entry *find(const struct remembered_tokens *t, const struct local_key *token)
{
	struct map_node *node = map_first(&t->by_token, chain_of(token));

	for (; node; node = map_next(node)) {
		struct entry *e = map_entry(node, struct entry, node);
		if (local_key_same(&e->token, token))
			return e;
	}
	return NULL;
}

/* ---- when a token ends ---- */

/* Seconds since 1970 in a JWT (RFC 7519, 4.1.4); milliseconds where they would be in the year
 * 5000. */
static int64_t wall_of(int64_t exp)
{
	return exp > 100000000000 ? exp : exp * 1000;
}

/* The exp in the middle part of a token that looks like a JWT; INT64_MAX: it says none. */
static int64_t end_of(struct span token)
{
	const char *first = token.n ? memchr(token.p, '.', token.n) : NULL;
	const char *last = token.n ? memrchr(token.p, '.', token.n) : NULL;
	struct json_object_reader reader;
	struct json_member m;
	struct buf payload = {0};
	int64_t exp = 0;

	if (!first || first == last)
		return INT64_MAX;
	if (base64url_decode((struct span){first + 1, (size_t)(last - first) - 1}, &payload)) {
		json_object_begin(&reader, buf_span(&payload));
		while (json_object_next(&reader, &m) > 0) {
			if (json_string_is(&m.name, SPAN("exp")) && m.value.type == JSON_NUMBER)
				json_number_integer(&m.value, 1, INT64_MAX / 1000, &exp);
		}
	}
	buf_release(&payload);
	return exp ? wall_of(exp) : INT64_MAX;
}

/* ---- adding and opening ---- */

static void add_member(struct buf *line, const char *name, struct span value)
{
	if (!value.n)
		return;
	buf_addf(line, ",\"%s\":", name);
	buf_add(line, value.p, value.n);
}

static void write_line(const struct request *r, struct span access_pattern, struct buf *line)
{
	buf_addf(line, "{\"op\":\"token\"");
	add_member(line, "subscribeKeys", r->subscribe_keys.text);
	add_member(line, "subscribePatterns", r->subscribe_patterns.text);
	add_member(line, "accessPattern", access_pattern);
	buf_addf(line, "}");
}

static void make_room(struct remembered_tokens *t, size_t size)
{
	while (t->n &&
	       (t->n >= REMEMBERED_TOKENS_MAX || t->bytes + size > REMEMBERED_TOKENS_BYTES_MAX))
		forget(t, TAILQ_FIRST(&t->all));
}

static void insert(struct remembered_tokens *t, const struct local_key *token,
		   const struct token_holder *holder, int64_t until, const struct request *r,
		   struct span access_pattern)
{
	struct entry *e = find(t, token);
	struct buf line = {0};

	if (e)
		forget(t, e);
	write_line(r, access_pattern, &line);
	e = mem_zalloc(sizeof(*e) + buf_len(&line));
	e->token = *token;
	e->holder = *holder;
	e->until = until;
	e->n = buf_len(&line);
	memcpy(e->text, buf_span(&line).p, e->n);
	buf_release(&line);
	make_room(t, size_of(e));
	TAILQ_INSERT_TAIL(&t->all, e, by_age);
	map_add(&t->by_token, &e->node, chain_of(token));
	t->n++;
	t->bytes += size_of(e);
}

void remembered_tokens_add(struct remembered_tokens *t, struct span token, const struct request *r,
			   struct span access_pattern, const struct peer_identity *who,
			   int64_t lifetime_ms, int64_t boot_ms, int64_t wall_ms)
{
	struct local_key hash = local_key_of(token);
	int64_t end = end_of(token), left = lifetime_ms;
	struct token_holder holder;

	if (end != INT64_MAX && end - wall_ms < left)
		left = end - wall_ms;
	token_holder_set(&holder, who);
	insert(t, &hash, &holder, boot_ms + left, r, access_pattern);
}

int remembered_tokens_open(struct remembered_tokens *t, struct span token, int64_t boot_ms,
			   struct token_grant *g, int64_t *left_ms,
			   char why[ACCESS_PATTERN_WHY_MAX])
{
	struct local_key hash = local_key_of(token);
	struct entry *e = find(t, &hash);
	struct request request;
	struct request_fault fault;

	*g = (struct token_grant){0};
	if (e && e->until <= boot_ms) {
		forget(t, e);
		e = NULL;
	}
	if (!e || request_parse((struct span){e->text, e->n}, &request, &fault) < 0)
		return -EACCES;
	g->holder = e->holder;
	*left_ms = e->until - boot_ms;
	int result = token_grant_read(g, &request, why);
	if (result < 0)
		token_grant_fini(g);
	return result;
}

/* ---- across a restart ----
 *
 * The first line is a title with the mark of the service. Each further line is the request of a
 * token, with more members: the token's hash, its end, and its holder. A MAC of all this follows.
 */

static const char title[] = "hpkvd tokens 1 ";

static void add_title(const struct local_tokens *seal, const struct local_key *service,
		      struct buf *out)
{
	buf_addf(out, "%s", title);
	local_tokens_add_mark(seal, service, out);
	buf_addf(out, "\n");
}

void remembered_tokens_write(const struct remembered_tokens *t, const struct local_tokens *seal,
			     const struct local_key *service, int64_t boot_ms, int64_t wall_ms,
			     struct buf *out)
{
	const struct entry *e;
	struct buf mac = {0};

	add_title(seal, service, out);
	TAILQ_FOREACH (e, &t->all, by_age) {
		buf_add(out, e->text, e->n - 1); /* its brace */
		buf_addf(out, ",\"exp\":%lld,\"hash\":\"",
			 (long long)(wall_ms + e->until - boot_ms));
		base64url_encode((struct span){(const char *)e->token.hash, sizeof(e->token.hash)},
				 out);
		buf_addf(out, "\"");
		local_tokens_add_holder(seal, &e->holder, out);
		buf_addf(out, "}\n");
	}
	local_tokens_add_mac(seal, buf_span(out), &mac);
	buf_add(out, buf_span(&mac).p, buf_len(&mac));
	buf_release(&mac);
}

static bool read_hash(struct span line, struct local_key *token)
{
	struct json_object_reader reader;
	struct json_member m;
	struct buf bytes = {0};

	json_object_begin(&reader, line);
	while (json_object_next(&reader, &m) > 0) {
		if (m.value.type == JSON_STRING && json_string_is(&m.name, SPAN("hash")))
			base64url_decode(json_string_raw(&m.value), &bytes);
	}
	bool whole = buf_len(&bytes) == sizeof(token->hash);
	if (whole)
		memcpy(token->hash, buf_span(&bytes).p, sizeof(token->hash));
	buf_release(&bytes);
	return whole;
}

/* One that has ended meanwhile, or whose local key is gone, is left out. */
static void read_entry(struct remembered_tokens *t, const struct local_tokens *seal,
		       const struct access *access, struct span line, int64_t boot_ms,
		       int64_t wall_ms)
{
	struct local_key token;
	struct token_holder holder;
	struct request request;
	struct request_fault fault;
	int64_t expires;

	if (read_hash(line, &token) &&
	    local_tokens_read_holder(seal, access, line, &holder, &expires) && expires > wall_ms &&
	    request_parse(line, &request, &fault) == 0)
		insert(t, &token, &holder, boot_ms + (expires - wall_ms), &request,
		       request.access_pattern.text);
}

static bool is_sealed(const struct local_tokens *seal, struct span *text)
{
	struct buf mac = {0};

	if (text->n < LOCAL_TOKENS_MAC_TEXT)
		return false;
	text->n -= LOCAL_TOKENS_MAC_TEXT;
	local_tokens_add_mac(seal, *text, &mac);
	bool same = CRYPTO_memcmp(buf_span(&mac).p, text->p + text->n, LOCAL_TOKENS_MAC_TEXT) == 0;
	buf_release(&mac);
	return same;
}

bool remembered_tokens_read(struct remembered_tokens *t, const struct local_tokens *seal,
			    const struct access *access, const struct local_key *service,
			    struct span text, int64_t boot_ms, int64_t wall_ms)
{
	struct buf own = {0};
	const char *end;

	if (!is_sealed(seal, &text))
		return false;
	add_title(seal, service, &own);
	size_t n = buf_len(&own);
	bool ours = text.n >= n && memcmp(text.p, buf_span(&own).p, n) == 0;
	buf_release(&own);
	text = (struct span){text.p + n, ours ? text.n - n : 0};
	while (text.n && (end = memchr(text.p, '\n', text.n))) {
		struct span line = {text.p, (size_t)(end - text.p)};
		read_entry(t, seal, access, line, boot_ms, wall_ms);
		text = (struct span){end + 1, text.n - line.n - 1};
	}
	return true;
}
