/* Local tokens and remembered ones: what goes in comes out, until the end; what was altered, cut or
 * made elsewhere opens nothing; and no more is kept than the bounds say. */
#include "../test.h"

#include <errno.h>
#include <stdio.h>

#include "access/access.h"
#include "access/base64url.h"
#include "access/local_tokens.h"
#include "access/remembered_tokens.h"
#include "base/log.h"
#include "base/mem.h"

enum { NOW = 1000000 };

struct world {
	struct stats stats;
	struct access *access;
	struct local_tokens *local;
	struct local_key key;
};

static struct world *world_new(void)
{
	static const unsigned char SECRET[LOCAL_TOKENS_SECRET] = "a secret";
	struct world *w = mem_zalloc(sizeof(*w));

	log_set_level(LOG_LEVEL_ERROR);
	w->access = access_new(&w->stats);
	w->local = local_tokens_new(SECRET);
	w->key = local_key_of(SPAN("the local key of a test"));
	access_set_key(w->access, &w->key);
	return w;
}

static void world_free(struct world *w)
{
	local_tokens_free(w->local);
	access_free(w->access);
	free(w);
}

static struct request request_of(const char *line)
{
	struct request r;
	struct request_fault fault;

	if (request_parse(span_of(line), &r, &fault) < 0)
		fail_msg("%s: %s", line, fault.text);
	return r;
}

static const gid_t GROUPS[] = {5, 6, 4294967294u};
static const struct peer_identity ADA = {
	.known = true, .pid = 7, .uid = 1000, .gid = 100, .groups = GROUPS, .n_groups = 3};

#define WISH                                                                                       \
	"{\"op\":\"token\",\"subscribeKeys\":[\"a\",\"b:*\",\"\\u0000\\ud800\"],"                  \
	"\"subscribePatterns\":[\"c\",\"*\"],\"accessPattern\":\"^[ab]\\\\u003A\"}"

static void make(struct world *w, const char *wish, const struct peer_identity *who,
		 struct buf *token)
{
	struct request r = request_of(wish);
	char why[ACCESS_PATTERN_WHY_MAX];

	if (local_tokens_make(w->local, &r, who, NOW, token, why) != 0)
		fail_msg("%s", why);
}

static int open_at(struct world *w, struct span token, int64_t now, struct token_grant *g,
		   int64_t *left)
{
	struct span copy = copy_of(token);
	int result = local_tokens_open(w->local, w->access, copy, now, g, left);

	free_copy(copy);
	return result;
}

static void assert_is_the_wish(const struct token_grant *g)
{
	struct buf line = {0};

	token_grant_subscribe(g, (struct span){0}, &line);
	assert_span(buf_span(&line),
		    "{\"op\":\"subscribe\",\"keys\":[\"a\",\"\\u0000\\ud800\",\"c\"],"
		    "\"patterns\":[\"b:*\",\"*\"]}");
	buf_release(&line);
	assert_false(g->has_regex);
	assert_int_equal(access_pattern_match(g->pattern, SPAN("b:1")), ACCESS_MATCH_YES);
	assert_int_equal(access_pattern_match(g->pattern, SPAN("c:1")), ACCESS_MATCH_NO);
}

static void a_local_token_grants_what_was_asked_for(void **state)
{
	struct world *w = world_new();
	struct buf token = {0};
	struct token_grant g;
	int64_t left;

	(void)state;
	make(w, WISH, &ADA, &token);
	assert_true(local_token_is(buf_span(&token)));
	assert_true(local_token_is(SPAN("hpkvd1.")));
	assert_false(local_token_is(SPAN("hpkvd1")));
	assert_false(local_token_is(SPAN("head.payload.sign")));
	assert_int_equal(open_at(w, buf_span(&token), NOW + 1, &g, &left), 0);
	assert_int_equal(left, LOCAL_TOKENS_LIFE_MS - 1);
	assert_is_the_wish(&g);
	struct peer_identity who = token_holder_identity(&g.holder);
	assert_true(who.known && !who.by_key && !who.key);
	assert_int_equal(who.uid, 1000);
	assert_int_equal(who.gid, 100);
	assert_int_equal(who.n_groups, 3);
	assert_memory_equal(who.groups, GROUPS, sizeof(GROUPS));
	token_grant_fini(&g);
	buf_release(&token);
	world_free(w);
}

static void a_local_token_may_be_for_nothing(void **state)
{
	static const struct peer_identity SOMEBODY[] = {
		{.uid = (uid_t)-1, .gid = (gid_t)-1},
		{.by_key = true, .uid = (uid_t)-1, .gid = (gid_t)-1}}; /* with no key at all */
	struct world *w = world_new();
	struct token_grant g;
	int64_t left;

	(void)state;
	for (size_t i = 0; i < COUNT(SOMEBODY); i++) {
		struct buf token = {0}, line = {0};
		make(w, "{\"op\":\"token\"}", &SOMEBODY[i], &token);
		assert_int_equal(open_at(w, buf_span(&token), NOW, &g, &left), 0);
		token_grant_subscribe(&g, (struct span){0}, &line);
		assert_int_equal(buf_len(&line), 0);
		assert_null(g.pattern);
		assert_false(g.holder.known || g.holder.by_key);
		assert_true(g.holder.uid == (uid_t)-1 && g.holder.gid == (gid_t)-1);
		token_grant_fini(&g);
		buf_release(&token);
	}
	world_free(w);
	local_tokens_free(NULL);
}

/* The service has no empty key. A subscribe request with one would be refused, and the others with
 * it. */
static void an_empty_name_is_left_out(void **state)
{
	struct world *w = world_new();
	struct buf token = {0}, line = {0};
	struct token_grant g;
	int64_t left;

	(void)state;
	make(w, "{\"op\":\"token\",\"subscribeKeys\":[\"\",\"a\"],\"subscribePatterns\":[\"\"]}",
	     &ADA, &token);
	assert_int_equal(open_at(w, buf_span(&token), NOW, &g, &left), 0);
	token_grant_subscribe(&g, (struct span){0}, &line);
	assert_span(buf_span(&line), "{\"op\":\"subscribe\",\"keys\":[\"a\"],\"patterns\":[]}");
	token_grant_fini(&g);
	buf_release(&line);
	buf_release(&token);
	world_free(w);
}

static void a_local_token_ends(void **state)
{
	struct world *w = world_new();
	struct buf token = {0};
	struct token_grant g;
	int64_t left;

	(void)state;
	make(w, WISH, &ADA, &token);
	assert_int_equal(open_at(w, buf_span(&token), NOW + LOCAL_TOKENS_LIFE_MS - 1, &g, &left),
			 0);
	assert_int_equal(left, 1);
	token_grant_fini(&g);
	assert_int_equal(open_at(w, buf_span(&token), NOW + LOCAL_TOKENS_LIFE_MS, &g, &left),
			 -EACCES);
	buf_release(&token);
	world_free(w);
}

static void an_altered_or_cut_token_opens_nothing(void **state)
{
	struct world *w = world_new();
	struct buf token = {0};
	struct token_grant g;
	int64_t left;

	(void)state;
	make(w, WISH, &ADA, &token);
	size_t n = buf_len(&token);
	for (size_t i = 0; i < n; i++) {
		char before = buf_start(&token)[i];
		buf_start(&token)[i] = before == 'A' ? 'B' : 'A';
		assert_int_equal(open_at(w, buf_span(&token), NOW, &g, &left), -EACCES);
		buf_start(&token)[i] = before;
		assert_int_equal(open_at(w, (struct span){buf_start(&token), i}, NOW, &g, &left),
				 -EACCES);
	}
	buf_add(&token, "A", 1);
	assert_int_equal(open_at(w, buf_span(&token), NOW, &g, &left), -EACCES);
	assert_int_equal(open_at(w, (struct span){buf_start(&token), n}, NOW, &g, &left), 0);
	token_grant_fini(&g);
	buf_release(&token);
	world_free(w);
}

/* A token with this prefix and payload, as if it was made here. */
static void sign(struct world *w, const char *prefix, const char *payload, struct buf *token)
{
	struct buf mac = {0};

	buf_clear(token);
	buf_addf(token, "%s", prefix);
	base64url_encode(span_of(payload), token);
	local_tokens_add_mac(w->local, buf_span(token), &mac);
	buf_addf(token, ".%.*s", (int)buf_len(&mac), buf_start(&mac));
	buf_release(&mac);
}

static void what_is_signed_has_to_be_a_token(void **state)
{
	static const struct {
		const char *prefix, *payload;
		bool opens;
	} CASES[] = {
		{"hpkvd1.", "{\"op\":\"token\",\"exp\":2000000,\"ids\":[0,0]}", true},
		{"hpkvd1.", "{\"op\":\"token\",\"exp\":2000000,\"ids\":[1]}", false},
		{"hpkvd1.", "{\"op\":\"token\",\"exp\":2000000,\"ids\":[1,-1]}", false},
		{"hpkvd1.", "{\"op\":\"token\",\"exp\":2000000,\"ids\":[1,\"2\"]}", false},
		{"hpkvd1.", "{\"op\":\"token\",\"exp\":2000000,\"ids\":{\"a\":1}}", false},
		{"hpkvd1.", "{\"op\":\"token\",\"exp\":2000000,\"ids\":[1,2],\"ids\":[1,2]}",
		 false},
		{"hpkvd1.", "{\"op\":\"token\",\"exp\":\"2000000\"}", false},
		{"hpkvd1.", "{\"op\":\"token\"}", false},
		{"hpkvd1.", "{\"op\":\"ping\",\"exp\":2000000}", false},
		{"hpkvd1.", "{\"op\":\"token\",\"exp\":2000000", false},
		{"hpkvd2.", "{\"op\":\"token\",\"exp\":2000000}", false},
		{"hpkvd1.", "", false},
		{"hpkvd1", "", false},
	};
	struct world *w = world_new();
	struct buf token = {0};
	struct token_grant g;
	int64_t left;

	(void)state;
	for (size_t i = 0; i < COUNT(CASES); i++) {
		sign(w, CASES[i].prefix, CASES[i].payload, &token);
		int result = open_at(w, buf_span(&token), NOW, &g, &left);
		if (result != (CASES[i].opens ? 0 : -EACCES))
			fail_msg("%s%s: %d", CASES[i].prefix, CASES[i].payload, result);
		if (result == 0)
			token_grant_fini(&g);
	}
	buf_release(&token);
	world_free(w);
}

static void more_groups_than_a_token_has_are_refused(void **state)
{
	struct world *w = world_new();
	struct buf payload = {0}, token = {0};
	struct token_grant g;
	int64_t left;

	(void)state;
	for (int n = TOKEN_HOLDER_GROUPS_MAX; n <= TOKEN_HOLDER_GROUPS_MAX + 1; n++) {
		buf_clear(&payload);
		buf_addf(&payload, "{\"op\":\"token\",\"exp\":2000000,\"ids\":[1,2");
		for (int i = 0; i < n; i++)
			buf_addf(&payload, ",%d", i);
		buf_addf(&payload, "]}");
		buf_add(&payload, "", 1);
		sign(w, "hpkvd1.", buf_start(&payload), &token);
		bool opens = open_at(w, buf_span(&token), NOW, &g, &left) == 0;
		assert_int_equal(opens, n == TOKEN_HOLDER_GROUPS_MAX);
		if (opens)
			token_grant_fini(&g);
	}
	buf_release(&payload);
	buf_release(&token);
	world_free(w);
}

static void a_holder_that_was_written_is_read(void **state)
{
	struct world *w = world_new();
	struct token_holder who, read;
	struct buf text = {0};
	int64_t expires;

	(void)state;
	token_holder_set(&who, &ADA);
	buf_addf(&text, "{\"exp\":0");
	local_tokens_add_holder(w->local, &who, &text);
	buf_addf(&text, "}");
	assert_true(
		local_tokens_read_holder(w->local, w->access, buf_span(&text), &read, &expires));
	assert_int_equal(expires, 0);
	assert_true(read.known && read.uid == 1000 && read.gid == 100 && read.n_groups == 3);
	assert_true(local_tokens_read_holder(w->local, w->access, SPAN("{\"exp\":7}"), &read,
					     &expires));
	assert_int_equal(expires, 7);
	assert_true(!read.known && read.uid == (uid_t)-1 && read.gid == (gid_t)-1);
	assert_false(local_tokens_read_holder(w->local, w->access, SPAN("{\"exp\":-1}"), &read,
					      &expires));
	buf_release(&text);
	world_free(w);
}

static void a_token_of_another_host_opens_nothing(void **state)
{
	static const unsigned char OTHER[LOCAL_TOKENS_SECRET] = "another secret";
	struct world *w = world_new();
	struct local_tokens *elsewhere = local_tokens_new(OTHER);
	struct buf token = {0};
	struct token_grant g;
	int64_t left;

	(void)state;
	make(w, WISH, &ADA, &token);
	assert_int_equal(local_tokens_open(elsewhere, w->access, buf_span(&token), NOW, &g, &left),
			 -EACCES);
	local_tokens_free(elsewhere);
	buf_release(&token);
	world_free(w);
}

static void a_token_goes_with_its_local_key(void **state)
{
	struct world *w = world_new();
	struct peer_identity who = {
		.by_key = true, .key = &w->key, .uid = (uid_t)-1, .gid = (gid_t)-1};
	struct local_key other = local_key_of(SPAN("another local key"));
	struct buf token = {0}, payload = {0};
	struct token_grant g;
	int64_t left;

	(void)state;
	make(w, WISH, &who, &token);
	assert_int_equal(open_at(w, buf_span(&token), NOW, &g, &left), 0);
	assert_true(g.holder.by_key && g.holder.has_key && !g.holder.known);
	assert_true(local_key_same(&g.holder.key, &w->key));
	token_grant_fini(&g);
	access_set_key(w->access, &other);
	assert_int_equal(open_at(w, buf_span(&token), NOW, &g, &left), -EACCES);
	access_set_key(w->access, NULL);
	assert_int_equal(open_at(w, buf_span(&token), NOW, &g, &left), -EACCES);
	/* The token tells nobody the key's hash. */
	struct span middle = {buf_start(&token) + 7, buf_len(&token) - 7 - 44};
	assert_true(base64url_decode(middle, &payload));
	assert_null(
		memmem(buf_start(&payload), buf_len(&payload), w->key.hash, sizeof(w->key.hash)));
	buf_release(&token);
	buf_release(&payload);
	world_free(w);
}

static void a_key_among_the_rules_is_found(void **state)
{
	struct world *w = world_new();
	struct access_rules *rules = access_rules_new();
	struct access_section *s = access_rules_add(rules, "app");
	struct local_key other = local_key_of(SPAN("one that is somebody else's"));
	struct peer_identity who = {
		.by_key = true, .key = &w->key, .uid = (uid_t)-1, .gid = (gid_t)-1};
	const char *where;
	struct buf token = {0};
	struct token_grant g;
	int64_t left;

	(void)state;
	assert_true(access_section_key(s, other, &where));
	assert_true(access_section_key(s, w->key, &where));
	access_set(w->access, rules);
	access_set_key(w->access, NULL);
	make(w, WISH, &who, &token);
	assert_int_equal(open_at(w, buf_span(&token), NOW, &g, &left), 0);
	assert_true(local_key_same(&g.holder.key, &w->key));
	token_grant_fini(&g);
	buf_release(&token);
	access_set(w->access, NULL);
	access_rules_free(rules);
	world_free(w);
}

static void what_can_not_be_in_a_token_is_named(void **state)
{
	struct world *w = world_new();
	struct buf token = {0}, wish = {0};
	char why[ACCESS_PATTERN_WHY_MAX];

	(void)state;
	struct request r = request_of("{\"op\":\"token\",\"accessPattern\":\"(\"}");
	assert_int_equal(local_tokens_make(w->local, &r, &ADA, NOW, &token, why), -EINVAL);
	assert_non_null(strstr(why, "accessPattern: "));
	buf_addf(&wish, "{\"op\":\"token\",\"subscribeKeys\":[\"0\"");
	for (int i = 0; i < 1000; i++)
		buf_addf(&wish, ",\"a longer key %d\"", i);
	buf_addf(&wish, "]}");
	buf_add(&wish, "", 1);
	r = request_of(buf_start(&wish));
	assert_int_equal(local_tokens_make(w->local, &r, &ADA, NOW, &token, why), -EINVAL);
	assert_non_null(strstr(why, "too many"));
	buf_release(&token);
	buf_release(&wish);
	world_free(w);
}

static void base64url_is_its_own_reverse(void **state)
{
	char bytes[64];

	(void)state;
	for (size_t n = 0; n < sizeof(bytes); n++) {
		struct buf text = {0}, back = {0};
		for (size_t i = 0; i < n; i++)
			bytes[i] = (char)(i * 251 + n);
		base64url_encode((struct span){bytes, n}, &text);
		assert_null(buf_len(&text) ? memchr(buf_start(&text), '=', buf_len(&text)) : NULL);
		assert_true(base64url_decode(buf_span(&text), &back));
		assert_true(span_equal(buf_span(&back), (struct span){bytes, n}));
		buf_release(&text);
		buf_release(&back);
	}
	struct buf out = {0};
	assert_false(base64url_decode(SPAN("a"), &out));
	assert_false(base64url_decode(SPAN("a!bc"), &out));
	buf_release(&out);
}

/* ---- tokens of the service ---- */

static int find(struct remembered_tokens *t, const char *token, int64_t now, int64_t *left)
{
	struct token_grant g;
	char why[ACCESS_PATTERN_WHY_MAX];
	int result = remembered_tokens_open(t, span_of(token), now, &g, left, why);

	if (result == 0)
		token_grant_fini(&g);
	return result;
}

static void a_token_is_remembered_for_its_lifetime(void **state)
{
	struct remembered_tokens *t = remembered_tokens_new();
	struct request r = request_of(WISH);
	struct token_grant g;
	char why[ACCESS_PATTERN_WHY_MAX];
	int64_t left;

	(void)state;
	remembered_tokens_add(t, SPAN("opaque"), &r, r.access_pattern.text, &ADA, 5000, 100, NOW);
	assert_int_equal(remembered_tokens_open(t, SPAN("opaque"), 101, &g, &left, why), 0);
	assert_int_equal(left, 4999);
	assert_is_the_wish(&g);
	assert_int_equal(g.holder.uid, 1000);
	token_grant_fini(&g);
	assert_int_equal(find(t, "opaqu", 101, &left), -EACCES);
	assert_int_equal(find(t, "", 101, &left), -EACCES);
	assert_int_equal(find(t, "opaque", 5100, &left), -EACCES);
	assert_int_equal(remembered_tokens_count(t), 0);
	remembered_tokens_free(t);
}

/* header.{"exp":N}.signature */
static void add_jwt(struct remembered_tokens *t, long long exp, struct buf *token)
{
	struct request r = request_of("{\"op\":\"token\",\"subscribePatterns\":[\"^a\",\"b\"]}");
	struct buf payload = {0};

	buf_addf(&payload, "{\"iat\":1,\"exp\":%lld}", exp);
	buf_addf(token, "head.");
	base64url_encode(buf_span(&payload), token);
	buf_addf(token, ".sign");
	buf_release(&payload);
	remembered_tokens_add(t, buf_span(token), &r, SPAN("\"(?i)\""), &ADA, 5000, 100, NOW);
	buf_add(token, "", 1);
}

static void its_own_end_may_come_sooner(void **state)
{
	static const struct {
		long long exp;
		int64_t left; /* -1: it opens nothing */
	} CASES[] = {{NOW / 1000 + 3, 3000},
		     {NOW / 1000 + 9, 5000},
		     {NOW / 1000 - 1, -1},
		     {1796044477639, 5000}};

	(void)state;
	for (size_t i = 0; i < COUNT(CASES); i++) {
		struct remembered_tokens *t = remembered_tokens_new();
		struct token_grant g;
		char why[ACCESS_PATTERN_WHY_MAX];
		struct buf token = {0};
		int64_t left;
		add_jwt(t, CASES[i].exp, &token);
		/* Its access pattern is none here, which is told apart from a token that is
		 * unknown. */
		assert_int_equal(
			remembered_tokens_open(t, span_of(buf_start(&token)), 100, &g, &left, why),
			CASES[i].left < 0 ? -EACCES : -EINVAL);
		if (CASES[i].left >= 0)
			assert_int_equal(left, CASES[i].left);
		buf_release(&token);
		remembered_tokens_free(t);
	}
}

static void regular_expressions_are_noticed(void **state)
{
	struct remembered_tokens *t = remembered_tokens_new();
	struct request r =
		request_of("{\"op\":\"token\",\"subscribePatterns\":[\"\\u005ea\",\"b\"]}");
	struct token_grant g;
	char why[ACCESS_PATTERN_WHY_MAX];
	int64_t left;

	(void)state;
	remembered_tokens_add(t, SPAN("x"), &r, (struct span){0}, &ADA, 5000, 100, NOW);
	assert_int_equal(remembered_tokens_open(t, SPAN("x"), 100, &g, &left, why), 0);
	assert_true(g.has_regex);
	assert_span(buf_span(&g.keys), "\"b\"");
	token_grant_fini(&g);
	remembered_tokens_clear(t);
	assert_int_equal(find(t, "x", 100, &left), -EACCES);
	remembered_tokens_free(t);
}

static void the_oldest_are_forgotten(void **state)
{
	struct remembered_tokens *t = remembered_tokens_new();
	struct request r = request_of("{\"op\":\"token\"}");
	char token[32];
	int64_t left;

	(void)state;
	for (int i = 0; i < REMEMBERED_TOKENS_MAX + 10; i++) {
		snprintf(token, sizeof(token), "token %d", i);
		remembered_tokens_add(t, span_of(token), &r, (struct span){0}, &ADA, 5000, 0, NOW);
		/* Told twice, it is known once. */
		remembered_tokens_add(t, span_of(token), &r, (struct span){0}, &ADA, 5000, 0, NOW);
	}
	assert_int_equal(remembered_tokens_count(t), REMEMBERED_TOKENS_MAX);
	assert_int_equal(find(t, "token 9", 1, &left), -EACCES);
	assert_int_equal(find(t, "token 10", 1, &left), 0);
	struct buf long_wish = {0};
	buf_addf(&long_wish, "{\"op\":\"token\",\"subscribeKeys\":[\"%0*d\"]}", 60000, 0);
	buf_add(&long_wish, "", 1);
	r = request_of(buf_start(&long_wish));
	for (int i = 0; i < 100; i++) {
		snprintf(token, sizeof(token), "long %d", i);
		remembered_tokens_add(t, span_of(token), &r, (struct span){0}, &ADA, 5000, 0, NOW);
	}
	assert_true(remembered_tokens_count(t) <= REMEMBERED_TOKENS_BYTES_MAX / 60000);
	assert_int_equal(find(t, "long 99", 1, &left), 0);
	buf_release(&long_wish);
	remembered_tokens_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_local_token_grants_what_was_asked_for),
		cmocka_unit_test(a_local_token_may_be_for_nothing),
		cmocka_unit_test(an_empty_name_is_left_out),
		cmocka_unit_test(a_local_token_ends),
		cmocka_unit_test(an_altered_or_cut_token_opens_nothing),
		cmocka_unit_test(what_is_signed_has_to_be_a_token),
		cmocka_unit_test(more_groups_than_a_token_has_are_refused),
		cmocka_unit_test(a_holder_that_was_written_is_read),
		cmocka_unit_test(a_token_of_another_host_opens_nothing),
		cmocka_unit_test(a_token_goes_with_its_local_key),
		cmocka_unit_test(a_key_among_the_rules_is_found),
		cmocka_unit_test(what_can_not_be_in_a_token_is_named),
		cmocka_unit_test(base64url_is_its_own_reverse),
		cmocka_unit_test(a_token_is_remembered_for_its_lifetime),
		cmocka_unit_test(its_own_end_may_come_sooner),
		cmocka_unit_test(regular_expressions_are_noticed),
		cmocka_unit_test(the_oldest_are_forgotten),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
