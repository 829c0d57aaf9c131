/* Tokens as they come back from clients, and as the service makes them. The first byte says what
 * the rest is:
 *
 *   r   text that a client shows: opens nothing, since nobody but this process has signed it
 *   s   the payload of a local token, which is signed here as hpkvd would: it opens, or it doesn't
 *   m   a request for a token: the local token that is made of it grants what was asked for
 *   j   a line that is the payload of a token of the service, and a request: it is remembered
 *   a   the service's answer to a request for a token */
#include <errno.h>

#include <openssl/hmac.h>

#include "access/access.h"
#include "access/base64url.h"
#include "access/local_tokens.h"
#include "access/remembered_tokens.h"
#include "fuzz.h"
#include "transport/token_answer.h"

#include "base/log.h"
#include "base/secret.h"

#define LISTS "\"subscribeKeys\":[\"a\",\"b*\",\"^c\"],\"subscribePatterns\":[\"*\",\"d\"]"

#define TEN "1,2,3,4,5,6,7,8,9,0,"
#define THIRTY TEN TEN TEN

const struct span fuzz_seeds[] = {
	SPAN("rhpkvd1.eyJvcCI6InRva2VuIn0.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
	SPAN("s{\"op\":\"token\",\"exp\":9000,\"ids\":[1,2,3,4294967295]," LISTS
	     ",\"accessPattern\":\"^a\"}"),
	SPAN("s{\"op\":\"token\",\"exp\":9000,\"ids\":[1,2,3],\"ids\":[4,5,6,7],"
	     "\"localKey\":\"x\"}"),
	SPAN("s{\"op\":\"token\",\"exp\":9000,\"ids\":[" THIRTY "1],\"ids\":[" THIRTY THIRTY "1]}"),
	SPAN("s{\"op\":\"token\",\"exp\":1e300,\"ids\":[1]}"),
	SPAN("m{\"op\":\"token\"," LISTS ",\"accessPattern\":\"[a-z]{1,3}$\"}"),
	SPAN("m{\"op\":\"token\",\"subscribeKeys\":[\"\",\"b*\"],\"subscribePatterns\":[\"\"]}"),
	SPAN("j{\"exp\":2000000000}\n{\"op\":\"token\"," LISTS "}"),
	SPAN("j{\"exp\":1}\n{\"op\":\"token\",\"accessPattern\":\"(\"}"),
	SPAN("a{\"token\":\"a.b.c\",\"expiresIn\":7200}"),
	SPAN("a{\"token\":\"\\u0061\\u0000\",\"token\":\"b\",\"expiresIn\":1e99}"),
};
const size_t fuzz_n_seeds = sizeof(fuzz_seeds) / sizeof(fuzz_seeds[0]);

enum { NOW = 1000, BOOT = 5, LIFETIME = 700 };

static const unsigned char secret[LOCAL_TOKENS_SECRET] = "the secret of a test";
static const gid_t groups[] = {3, 4294967295u};
static const struct peer_identity who = {
	.known = true, .uid = 1, .gid = 2, .groups = groups, .n_groups = 2};

/* What a grant subscribes to is a request that hpkvd accepts of anybody. */
static void check_grant(const struct token_grant *g)
{
	struct buf line = {0};
	struct request r;
	struct request_fault fault;

	must(g->holder.n_groups <= TOKEN_HOLDER_GROUPS_MAX);
	token_grant_subscribe(g, (struct span){0}, &line);
	if (buf_len(&line)) {
		must(request_parse(buf_span(&line), &r, &fault) == 0);
		must(r.op == OP_SUBSCRIBE);
	}
	if (g->pattern)
		must(access_pattern_match(g->pattern, SPAN("abc")) <= ACCESS_MATCH_BEYOND);
	buf_release(&line);
}

static int open_local(const struct local_tokens *t, struct span text, struct token_grant *g)
{
	struct stats stats = {0};
	struct access *access = access_new(&stats);
	int64_t left = -1;
	int result = local_tokens_open(t, access, text, NOW, g, &left);

	must(result == -EACCES || (result == 0 && left > 0));
	must(result == 0 || (!g->pattern && !g->keys.memory && !g->globs.memory));
	access_free(access);
	return result;
}

static void check_raw(const struct local_tokens *t, struct span text)
{
	struct token_grant g;

	must(open_local(t, text, &g) == -EACCES);
}

static void check_signed(const struct local_tokens *t, struct span payload)
{
	struct token_grant g;
	struct buf token = {0};
	unsigned char mac[32];
	unsigned n = sizeof(mac);

	buf_addf(&token, "%s", LOCAL_TOKEN_PREFIX);
	base64url_encode(payload, &token);
	HMAC(EVP_sha256(), secret, sizeof(secret), (const unsigned char *)buf_span(&token).p,
	     buf_len(&token), mac, &n);
	buf_addf(&token, ".");
	base64url_encode((struct span){(const char *)mac, n}, &token);
	if (open_local(t, buf_span(&token), &g) == 0)
		check_grant(&g);
	token_grant_fini(&g);
	buf_release(&token);
}

static void check_same(const struct token_grant *a, const struct token_grant *b)
{
	must(span_equal(buf_span(&a->keys), buf_span(&b->keys)));
	must(span_equal(buf_span(&a->globs), buf_span(&b->globs)));
	must(!a->pattern == !b->pattern);
}

static void check_made(const struct local_tokens *t, struct span line)
{
	struct request r;
	struct request_fault fault;
	struct token_grant asked = {0}, got;
	struct buf token = {0};
	char why[ACCESS_PATTERN_WHY_MAX] = "";

	if (request_parse(line, &r, &fault) < 0 || r.op != OP_TOKEN)
		return;
	int result = local_tokens_make(t, &r, &who, NOW, &token, why);
	must(result == 0 || (result == -EINVAL && why[0]));
	if (result == 0) {
		must(open_local(t, buf_span(&token), &got) == 0);
		must(token_grant_read(&asked, &r, why) == 0);
		check_same(&asked, &got);
		check_grant(&got);
		must(got.holder.known && got.holder.uid == 1 && got.holder.gid == 2);
		must(got.holder.n_groups == 2 && got.holder.groups[1] == groups[1]);
		token_grant_fini(&got);
		token_grant_fini(&asked);
	}
	buf_release(&token);
}

static void check_remembered(struct span text)
{
	const char *lf = text.n ? memchr(text.p, '\n', text.n) : NULL;
	struct request r;
	struct request_fault fault;
	struct token_grant g;
	struct buf token = {0};
	char why[ACCESS_PATTERN_WHY_MAX] = "";
	int64_t left = 0;

	if (!lf ||
	    request_parse((struct span){lf + 1, text.n - (size_t)(lf + 1 - text.p)}, &r, &fault) <
		    0 ||
	    r.op != OP_TOKEN)
		return;
	buf_addf(&token, "a.");
	base64url_encode((struct span){text.p, (size_t)(lf - text.p)}, &token);
	buf_addf(&token, ".b");
	struct remembered_tokens *t = remembered_tokens_new();
	remembered_tokens_add(t, buf_span(&token), &r, r.access_pattern.text, &who, LIFETIME, BOOT,
			      NOW);
	must(remembered_tokens_count(t) == 1);
	int result = remembered_tokens_open(t, buf_span(&token), BOOT, &g, &left, why);
	must(result == 0 || result == -EACCES || (result == -EINVAL && why[0]));
	must(result < 0 || (left > 0 && left <= LIFETIME));
	if (result == 0)
		check_grant(&g);
	token_grant_fini(&g);
	must(remembered_tokens_open(t, buf_span(&token), BOOT + LIFETIME, &g, &left, why) ==
	     -EACCES);
	must(remembered_tokens_count(t) == 0 || result == -EACCES);
	remembered_tokens_free(t);
	buf_release(&token);
}

static void check_answer(struct span text)
{
	int expires_in_s = 0;
	char *token = token_answer_read(text, &expires_in_s);

	must(expires_in_s >= 0);
	for (size_t i = 0; token && (i == 0 || token[i]); i++)
		must(token[i] > ' ' && token[i] < 0x7f);
	secret_free(&token);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span rest = {(const char *)data + 1, size ? size - 1 : 0};
	struct local_tokens *t = local_tokens_new(secret);

	log_set_level(LOG_LEVEL_ERROR);
	switch (size ? data[0] : 0) {
	case 'r':
		check_raw(t, rest);
		break;
	case 's':
		check_signed(t, rest);
		break;
	case 'm':
		check_made(t, rest);
		break;
	case 'j':
		check_remembered(rest);
		break;
	case 'a':
		check_answer(rest);
		break;
	}
	local_tokens_free(t);
	return 0;
}
