/* The access rules: who is named by them, which keys, ranges and patterns lie inside globs (all
 * short ones, against what the words mean), what each operation needs, and the pattern that is
 * written for a token. */
#include "../logged.h"
#include "../test.h"

#include <stdio.h>

#include "access/access.h"
#include "base/glob.h"
#include "base/log.h"
#include "base/mem.h"

struct world {
	struct stats stats;
	struct access *access;
	struct access_rules *rules;
	struct peer peer;
	const char *name; /* of the next section */
};

static const struct peer_identity nobody = {.known = true, .uid = 65534, .gid = 65534};

static struct world *world_new(void)
{
	struct world *w = mem_zalloc(sizeof(*w));

	log_set_level(LOG_LEVEL_ERROR);
	w->access = access_new(&w->stats);
	w->peer.number = 1;
	w->name = "test";
	return w;
}

/* A section for this user: globs separated by spaces. */
static struct access_section *add(struct world *w, uid_t uid, const char *read, const char *write)
{
	const char *const lists[] = {[ACCESS_READ] = read, [ACCESS_WRITE] = write};

	if (!w->rules)
		w->rules = access_rules_new();
	struct access_section *s = access_rules_add(w->rules, w->name);
	access_section_user(s, uid);
	for (int right = 0; right < ACCESS_RIGHT_N; right++) {
		for (const char *p = lists[right]; *p;) {
			size_t n = strcspn(p, " ");
			struct span glob = copy_of((struct span){p, n});
			access_section_glob(s, (enum access_right)right, glob);
			free_copy(glob);
			p += n + strspn(p + n, " ");
		}
	}
	return s;
}

static void admit(struct world *w, const struct peer_identity *who)
{
	access_set(w->access, w->rules);
	access_admit(w->access, &w->peer, who);
}

static void world_free(struct world *w)
{
	access_leave(&w->peer);
	access_free(w->access);
	access_rules_free(w->rules);
	free(w);
}

/* A world whose client has these globs. */
static struct world *world_with(const char *read, const char *write)
{
	struct world *w = world_new();

	add(w, nobody.uid, read, write);
	admit(w, &nobody);
	return w;
}

static const char *forbids_at(struct world *w, const char *line, int64_t now)
{
	struct request request;
	struct request_fault fault;
	struct span copy = copy_of(span_of(line));

	if (request_parse(copy, &request, &fault) < 0)
		fail_msg("%s: %s", line, fault.text);
	const char *why = access_forbids(w->access, &w->peer, &request, now);
	free_copy(copy);
	return why;
}

static const char *forbids(struct world *w, const char *line)
{
	return forbids_at(w, line, 1);
}

static void assert_forbidden(struct world *w, const char *line, const char *want)
{
	const char *why = forbids(w, line);

	if (!why)
		fail_msg("%s is allowed", line);
	else if (strcmp(why, want) != 0)
		fail_msg("%s instead of %s", why, want);
}

static void assert_allowed(struct world *w, const char *line)
{
	const char *why = forbids(w, line);

	if (why)
		fail_msg("%s: %s", line, why);
}

/* ---- who ---- */

static bool reads(struct world *w, const struct peer_identity *who, const char *key)
{
	admit(w, who);
	return access_allows(&w->peer, ACCESS_READ, span_of(key));
}

static void sections_are_for_those_whom_they_name(void **state)
{
	static const gid_t groups[] = {5, 900, 7};
	struct world *w = world_new();

	(void)state;
	access_section_group(add(w, 100, "one", ""), 900);
	access_section_user(add(w, 101, "two", ""), 100);
	access_section_group(add(w, 102, "three", ""), 901);
	static const struct peer_identity rows[] = {
		{.known = true, .uid = 100, .gid = 1},
		{.known = true, .uid = 101, .gid = 1},
		{.known = true, .uid = 7, .gid = 900},
		{.known = true, .uid = 7, .gid = 1, .groups = groups, .n_groups = 3},
		{.known = true, .uid = 900, .gid = 100},
		{.known = true, .uid = 0, .gid = 0},
		{.known = false, .uid = 100, .gid = 900, .groups = groups, .n_groups = 3},
		{.known = true, .uid = 102, .gid = 901, .groups = groups, .n_groups = 3},
		{.known = true, .uid = 7, .gid = 1, .groups = groups + 1, .n_groups = 1},
	};
	static const bool want[][3] = {
		{true, true, false},   {false, true, false},  {true, false, false},
		{true, false, false},  {false, false, false}, {false, false, false},
		{false, false, false}, {true, false, true},   {true, false, false}};
	for (size_t i = 0; i < COUNT(rows); i++) {
		assert_int_equal(reads(w, &rows[i], "one"), want[i][0]);
		assert_int_equal(reads(w, &rows[i], "two"), want[i][1]);
		assert_int_equal(reads(w, &rows[i], "three"), want[i][2]);
	}
	world_free(w);
}

static void many_names_are_found(void **state)
{
	struct world *w = world_new();

	(void)state;
	for (uid_t section = 0; section < 100; section++) {
		char glob[16];
		snprintf(glob, sizeof(glob), "k%u", (unsigned)section);
		struct access_section *s = add(w, 100000 + section, glob, "");
		for (uid_t uid = 0; uid < 50; uid++)
			access_section_user(s, (uid * 7919 + section) % 1000);
	}
	for (uid_t uid = 0; uid < 1000; uid++) {
		struct peer_identity who = {.known = true, .uid = uid};
		admit(w, &who);
		for (uid_t section = 0; section < 100; section++) {
			char key[16];
			bool want = false;
			snprintf(key, sizeof(key), "k%u", (unsigned)section);
			for (uid_t i = 0; i < 50; i++)
				want |= (i * 7919 + section) % 1000 == uid;
			assert_int_equal(access_allows(&w->peer, ACCESS_READ, span_of(key)), want);
		}
	}
	world_free(w);
}

static void the_order_of_names_does_not_matter(void **state)
{
	static const char *const keys[] = {"a", "b", "c", "d"};
	static const uid_t uids[] = {9, 5, 7, 1};
	struct world *w = world_new();

	(void)state;
	for (size_t i = 0; i < COUNT(uids); i++)
		add(w, uids[i], keys[i], "");
	for (size_t i = 0; i < COUNT(uids); i++) {
		struct peer_identity who = {.known = true, .uid = uids[i]};
		for (size_t k = 0; k < COUNT(keys); k++)
			assert_int_equal(reads(w, &who, keys[k]), i == k);
	}
	world_free(w);
}

static void without_rules_everything_is_allowed_but_tokens(void **state)
{
	struct world *w = world_new();

	(void)state;
	admit(w, &nobody);
	assert_null(w->peer.access.view);
	assert_allowed(w, "{\"op\":\"set\",\"key\":\"x\",\"value\":\"\"}");
	assert_allowed(w, "{\"op\":\"range\",\"key\":\"\",\"endKey\":\"z\"}");
	assert_true(access_allows_range(&w->peer, SPAN(""), SPAN("z")));
	assert_allowed(w, "{\"op\":\"subscribe\",\"pattern\":\"*\"}");
	assert_allowed(w, "{\"op\":\"token\",\"local\":true}");
	assert_forbidden(w, "{\"op\":\"search\",\"body\":{}}",
			 "no access rule lets this client use HPKV Nexus");
	assert_forbidden(w, "{\"op\":\"token\"}",
			 "token: no access rule lets this client mint tokens");
	access_set_keyless(w->access, true);
	assert_forbidden(w, "{\"op\":\"token\"}", "token: this hpkvd has no API key");
	world_free(w);
}

static void rules_that_are_replaced_count_no_more(void **state)
{
	struct world *w = world_with("a", "");
	struct access_rules *before = w->rules;

	(void)state;
	w->rules = NULL;
	add(w, nobody.uid, "b", "");
	access_set(w->access, w->rules);
	assert_true(access_allows(&w->peer, ACCESS_READ, SPAN("a"))); /* until it is admitted */
	access_admit(w->access, &w->peer, &nobody);
	access_rules_free(before);
	assert_false(access_allows(&w->peer, ACCESS_READ, SPAN("a")));
	assert_true(access_allows(&w->peer, ACCESS_READ, SPAN("b")));
	access_set(w->access, NULL);
	access_admit(w->access, &w->peer, &nobody);
	assert_true(access_allows(&w->peer, ACCESS_READ, SPAN("c")));
	assert_null(w->peer.budget.budgets);
	world_free(w);
}

static struct access_rules *some_rules(unsigned change)
{
	struct access_rules *r = access_rules_new();
	struct access_section *s = access_rules_add(r, change == 1 ? "other" : "name");

	access_section_user(s, change == 2 ? 8 : 7);
	access_section_group(s, change == 3 ? 8 : 7);
	access_section_glob(s, ACCESS_READ, change == 4 ? SPAN("b") : SPAN("a"));
	access_section_glob(s, change == 5 ? ACCESS_READ : ACCESS_WRITE, SPAN("a"));
	access_section_token(s, change == 6 ? ACCESS_TOKEN_ANY : ACCESS_TOKEN_OWN);
	if (change == 7)
		access_section_user(s, 9);
	s = access_rules_add(r, "second");
	access_section_glob(s, ACCESS_READ, SPAN("a"));
	access_section_glob(s, ACCESS_READ, SPAN("b"));
	access_section_glob(s, ACCESS_READ, change == 9 ? SPAN("d") : SPAN("c"));
	if (change == 10)
		access_section_nexus(s);
	access_section_limits(s, &(struct budget_limits){.rate = change == 11 ? 2 : 1});
	if (change == 8)
		access_rules_add(r, "more");
	return r;
}

static void rules_are_compared(void **state)
{
	struct access_rules *some = some_rules(0), *other;

	(void)state;
	assert_true(access_rules_same(NULL, NULL));
	assert_false(access_rules_same(some, NULL));
	assert_false(access_rules_same(NULL, some));
	for (unsigned change = 0; change <= 11; change++) {
		other = some_rules(change);
		assert_int_equal(access_rules_same(some, other), change == 0);
		access_rules_free(other);
	}
	access_rules_free(some);
}

static void sections_that_name_nobody_are_idle(void **state)
{
	const char *other;
	struct access_rules *r = access_rules_new();
	struct access_section *s[4];

	(void)state;
	for (size_t i = 0; i < COUNT(s); i++) {
		s[i] = access_rules_add(r, i ? "some" : "first");
		assert_true(access_section_is_idle(s[i]));
	}
	assert_false(access_rules_have_keys(NULL));
	assert_false(access_rules_have_keys(r));
	access_section_user(s[0], 7);
	access_section_group(s[1], 7);
	assert_true(access_section_key(s[2], local_key_of(SPAN("a local key")), &other));
	for (size_t i = 0; i < COUNT(s); i++)
		assert_int_equal(access_section_is_idle(s[i]), i == 3);
	assert_true(access_rules_have_keys(r));
	assert_false(access_section_key(s[0], local_key_of(SPAN("a local key")), &other));
	assert_string_equal(other, "some");
	access_rules_free(r);
}

static void as_many_sections_as_there_may_be(void **state)
{
	struct world *w = world_new();

	(void)state;
	for (int i = 0; i < ACCESS_SECTIONS_MAX; i++)
		add(w, i == ACCESS_SECTIONS_MAX - 1 ? nobody.uid : 1, "last", "");
	assert_true(reads(w, &nobody, "last"));
	assert_null(access_lacks_room(w->access, &nobody));
	world_free(w);
}

static struct peer_identity with_key(const struct local_key *key)
{
	return (struct peer_identity){
		.by_key = true, .key = key, .uid = (uid_t)-1, .gid = (gid_t)-1};
}

static bool is_key(const void *arg, const struct local_key *key)
{
	return local_key_same(arg, key);
}

static void keys_belong_to_sections_or_are_the_open_one(void **state)
{
	struct local_key key[3], found;
	const char *other;
	struct world *w = world_new();

	(void)state;
	for (int i = 0; i < 3; i++)
		key[i] = local_key_of((struct span){&"abc"[i], 1});
	struct peer_identity who[] = {with_key(&key[0]), with_key(&key[1]), with_key(&key[2])};
	assert_false(access_knows(w->access, &key[2]));
	assert_false(access_find_key(w->access, is_key, &key[2], &found));
	access_set_key(w->access, &key[2]);
	assert_true(access_knows(w->access, &key[2]));
	assert_false(access_knows(w->access, &key[1]));
	assert_true(access_find_key(w->access, is_key, &key[2], &found));
	for (int i = 0; i < 2; i++)
		assert_true(access_section_key(add(w, 1, i ? "b" : "a", ""), key[i], &other));
	assert_true(reads(w, &who[0], "a") && !reads(w, &who[0], "b"));
	assert_true(reads(w, &who[1], "b") && !reads(w, &who[1], "a"));
	assert_false(reads(w, &who[2], "a") || reads(w, &who[2], "b"));
	for (int i = 0; i < 3; i++) { /* the open one does not count where there are rules */
		assert_int_equal(access_knows(w->access, &key[i]), i < 2);
		assert_int_equal(access_find_key(w->access, is_key, &key[i], &found), i < 2);
		assert_true(i == 2 || local_key_same(&found, &key[i]));
	}
	world_free(w);
}

/* ---- budgets ---- */

static void budgets_outlive_their_rules(void **state)
{
	struct world *w = world_new();
	size_t n;

	(void)state;
	for (unsigned i = 1; i <= 2; i++) {
		w->name = i == 1 ? "one" : "two";
		access_section_limits(add(w, nobody.uid, "", ""),
				      &(struct budget_limits){.max_clients = i});
	}
	admit(w, &nobody);
	struct budget *const *b = access_budgets(w->access, &n), *two = b[1];
	assert_int_equal(n, 2);
	assert_int_equal(b[0]->clients, 1);
	assert_int_equal(b[0]->limits.max_clients, 1);
	assert_int_equal(two->clients, 1);
	struct budget *one = b[0];
	struct access_rules *before = w->rules;
	w->rules = NULL;
	for (int i = 0; i < 3; i++) {
		w->name = i == 0 ? "new" : i == 1 ? "two" : "one";
		access_section_limits(add(w, nobody.uid, "", ""),
				      &(struct budget_limits){.max_clients = 9});
	}
	admit(w, &nobody);
	access_rules_free(before);
	b = access_budgets(w->access, &n);
	assert_string_equal(b[0]->name, "new");
	assert_ptr_equal(b[1], two);
	assert_ptr_equal(b[2], one);
	assert_int_equal(two->limits.max_clients, 9);
	assert_int_equal(two->clients, 1);
	access_leave(&w->peer);
	assert_int_equal(two->clients, 0);
	world_free(w);
}

static void a_section_may_be_full_of_clients(void **state)
{
	static const struct peer_identity another = {.known = true, .uid = 5, .gid = 5};
	size_t n;

	(void)state;
	for (size_t place = 0; place < 2; place++) { /* of the small one */
		struct world *w = world_new();
		assert_null(access_lacks_room(w->access, &nobody));
		for (size_t i = 0; i < 2; i++) {
			struct access_section *s = add(w, nobody.uid, "", "");
			if (i == place)
				access_section_limits(s, &(struct budget_limits){.max_clients = 1});
			w->name = "another";
		}
		access_set(w->access, w->rules);
		assert_null(access_lacks_room(w->access, &nobody));
		access_admit(w->access, &w->peer, &nobody);
		assert_null(access_lacks_room(w->access, &another));
		const struct budget *b = access_lacks_room(w->access, &nobody);
		assert_ptr_equal(b, access_budgets(w->access, &n)[place]);
		assert_int_equal(b->refused[BUDGET_TOO_MANY_CLIENTS], 1);
		world_free(w);
	}
}

/* ---- globs ---- */

enum { TEXTS_MAX = 2000 };

/* All texts of up to n of these characters. */
static size_t all_texts(const char *alphabet, size_t n, char texts[][8])
{
	size_t count = 1, begin = 0, letters = strlen(alphabet);

	texts[0][0] = '\0';
	for (size_t length = 1; length <= n; length++) {
		size_t end = count;
		for (size_t i = begin; i < end; i++) {
			for (size_t c = 0; c < letters; c++) {
				memcpy(texts[count], texts[i], length - 1);
				texts[count][length - 1] = alphabet[c];
				texts[count++][length] = '\0';
			}
		}
		begin = end;
	}
	assert_true(count <= TEXTS_MAX);
	return count;
}

/* Does every key of the inner glob match the outer one? Keys of up to four characters, one of which
 * is in no glob, show every difference of globs of up to four. */
static bool lies_inside(const char *inner, const char *outer, char keys[][8], size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct span key = span_of(keys[i]);
		if (glob_matches(span_of(inner), key) && !glob_matches(span_of(outer), key))
			return false;
	}
	return true;
}

static void a_pattern_is_allowed_if_all_its_keys_are(void **state)
{
	static char outer[TEXTS_MAX][8], inner[TEXTS_MAX][8], keys[TEXTS_MAX][8];
	size_t n_outer = all_texts("ab*", 4, outer), n_inner = all_texts("ab*", 4, inner),
	       n_keys = all_texts("abc", 4, keys), allowed = 0;

	(void)state;
	for (size_t i = 1; i < n_outer; i++) {
		struct world *w = world_with(outer[i], "");
		for (size_t j = 0; j < n_inner; j++) {
			bool seen = access_allows(&w->peer, ACCESS_READ, span_of(inner[j]));
			if (seen != lies_inside(inner[j], outer[i], keys, n_keys))
				fail_msg("%s is %s inside %s", inner[j], seen ? "taken for" : "not",
					 outer[i]);
			allowed += seen;
		}
		world_free(w);
	}
	assert_true(allowed > 1000);
}

static void a_range_is_allowed_if_all_between_its_ends_are(void **state)
{
	static char globs[TEXTS_MAX][8], ends[TEXTS_MAX][8], keys[TEXTS_MAX][8];
	size_t n_globs = all_texts("a\xff*", 3, globs), n_ends = all_texts("a\xff", 3, ends),
	       n_keys = all_texts("\x01"
				  "ab\xff",
				  4, keys);
	size_t allowed = 0, refused = 0;

	(void)state;
	for (size_t g = 1; g < n_globs; g++) {
		struct world *w = world_with(globs[g], "");
		for (size_t i = 0; i < n_ends * n_ends; i++) {
			const char *first = ends[i / n_ends], *last = ends[i % n_ends];
			bool all = true;
			for (size_t k = 0; k < n_keys; k++) /* strcmp() compares bytes unsigned */
				all &= strcmp(keys[k], first) < 0 || strcmp(keys[k], last) > 0 ||
				       glob_matches(span_of(globs[g]), span_of(keys[k]));
			bool seen = access_allows_range(&w->peer, span_of(first), span_of(last));
			if (seen && !all)
				fail_msg("%s to %s is taken for inside %s", first, last, globs[g]);
			/* What is refused for want of order is of no use to anybody. */
			if (!seen && all && strcmp(first, last) <= 0)
				fail_msg("%s to %s is not inside %s", first, last, globs[g]);
			allowed += seen;
			refused += !seen;
		}
		world_free(w);
	}
	assert_true(allowed > 500 && refused > 500);
}

static void one_glob_has_to_hold_all_of_a_range(void **state)
{
	struct world *w = world_with("a* b* ab:* x*z exact", "c*");

	(void)state;
	assert_true(access_allows_range(&w->peer, SPAN("a"), SPAN("azz")));
	assert_true(access_allows_range(&w->peer, SPAN("ab:1"), SPAN("ab:2")));
	assert_true(access_allows_range(&w->peer, SPAN("xyz"), SPAN("xyz")));
	assert_true(access_allows_range(&w->peer, SPAN("exact"), SPAN("exact")));
	assert_false(access_allows_range(&w->peer, SPAN("a"), SPAN("b")));
	assert_false(access_allows_range(&w->peer, SPAN("xaz"), SPAN("xbz")));
	assert_false(access_allows_range(&w->peer, SPAN("c1"), SPAN("c2")));
	assert_false(access_allows_range(&w->peer, SPAN("exact"), SPAN("exact\0")));
	assert_true(access_allows_range(&w->peer, SPAN("a\0\xff"), SPAN("a\xff\0")));
	struct span shorter = copy_of(SPAN("az")), longer = copy_of(SPAN("azz"));
	assert_true(access_allows_range(&w->peer, shorter, longer));
	assert_true(access_allows_range(&w->peer, longer, shorter));
	free_copy(shorter);
	free_copy(longer);
	world_free(w);
}

static void many_globs_are_searched(void **state)
{
	struct buf globs = {0};

	(void)state;
	for (int i = 0; i < 1000; i++)
		buf_addf(&globs, "%sk%d:*", i ? " " : "", i);
	buf_add(&globs, "", 1);
	struct world *w = world_with(buf_span(&globs).p, "k7:*:x");
	for (int i = 0; i < 2000; i++) {
		char key[16];
		snprintf(key, sizeof(key), "k%d:", i);
		assert_int_equal(access_allows(&w->peer, ACCESS_READ, span_of(key)), i < 1000);
	}
	assert_true(access_allows(&w->peer, ACCESS_WRITE, SPAN("k7::x")));
	assert_false(access_allows(&w->peer, ACCESS_WRITE, SPAN("k7:x")));
	buf_release(&globs);
	world_free(w);
}

/* ---- operations ---- */

static void each_operation_needs_its_right(void **state)
{
	struct world *w = world_with("r*", "w*");

	(void)state;
	assert_allowed(w, "{\"op\":\"get\",\"key\":\"r\"}");
	assert_forbidden(w, "{\"op\":\"get\",\"key\":\"w\"}",
			 "get: no access rule lets this client read \"w\"");
	assert_allowed(w, "{\"op\":\"increment\",\"key\":\"w\"}");
	assert_forbidden(w, "{\"op\":\"increment\",\"key\":\"r\"}",
			 "increment: no access rule lets this client write \"r\"");
	assert_forbidden(w, "{\"op\":\"set\",\"key\":\"r\",\"value\":1}",
			 "set: no access rule lets this client write \"r\"");
	assert_forbidden(w, "{\"op\":\"patch\",\"key\":\"r\",\"value\":1}",
			 "patch: no access rule lets this client write \"r\"");
	assert_forbidden(w, "{\"op\":\"delete\",\"key\":\"r\"}",
			 "delete: no access rule lets this client write \"r\"");
	assert_allowed(w, "{\"op\":\"range\",\"key\":\"r1\",\"endKey\":\"r2\"}");
	assert_forbidden(w, "{\"op\":\"range\",\"key\":\"r1\",\"endKey\":\"s\"}",
			 "range: no access rule lets this client read all from \"r1\" to \"s\"");
	assert_allowed(w, "{\"op\":\"subscribe\",\"keys\":[\"r1\",\"r2\"],\"pattern\":\"r*\"}");
	assert_forbidden(w, "{\"op\":\"subscribe\",\"keys\":[\"r1\",\"w\"],\"pattern\":\"r*\"}",
			 "subscribe: no access rule lets this client read \"w\"");
	assert_forbidden(w, "{\"op\":\"subscribe\",\"key\":\"r\",\"patterns\":[\"r*\",\"*\"]}",
			 "subscribe: no access rule lets this client read \"*\"");
	assert_forbidden(w,
			 "{\"op\":\"subscribe\",\"key\":\"w\",\"pattern\":\"r*\",\"keys\":[\"r\"]}",
			 "subscribe: no access rule lets this client read \"w\"");
	assert_forbidden(w, "{\"op\":\"subscribe\",\"pattern\":\"*\",\"keys\":[\"r\"]}",
			 "subscribe: no access rule lets this client read \"*\"");
	assert_allowed(w, "{\"op\":\"unsubscribe\",\"pattern\":\"*\"}");
	assert_allowed(w, "{\"op\":\"ping\"}");
	assert_allowed(w, "{\"op\":\"status\"}");
	assert_allowed(w, "{\"op\":\"stats\"}");
	assert_forbidden(w, "{\"op\":\"query\",\"body\":{}}",
			 "no access rule lets this client use HPKV Nexus");
	assert_int_equal(w->stats.requests_forbidden, 11);
	access_section_nexus(add(w, nobody.uid, "", ""));
	add(w, nobody.uid, "", "");
	admit(w, &nobody);
	assert_allowed(w, "{\"op\":\"query\",\"body\":{}}");
	world_free(w);
}

static void keys_are_compared_decoded(void **state)
{
	struct world *w = world_with("app:* \xc3\xa9", "");

	(void)state;
	assert_allowed(w, "{\"op\":\"get\",\"key\":\"a\\u0070p\\u003a\\u0000\"}");
	assert_allowed(w, "{\"op\":\"get\",\"key\":\"\\u00e9\"}");
	assert_allowed(w, "{\"op\":\"range\",\"key\":\"\\u0061pp:\",\"endKey\":\"app\\u003a~\"}");
	assert_forbidden(w, "{\"op\":\"get\",\"key\":\"app\\u003b\"}",
			 "get: no access rule lets this client read \"app;\"");
	assert_forbidden(w, "{\"op\":\"get\",\"key\":\"a\\\"\\n\\u001b\"}",
			 "get: no access rule lets this client read \"a\\\"\\n\\u001b\"");
	world_free(w);
}

static void long_names_are_cut_between_characters(void **state)
{
	struct world *w = world_with("", "");
	char line[4096];

	(void)state;
	for (size_t n = 70; n < 90; n++) {
		for (int with = 0; with < 3; with++) {
			static const char *const character[] = {"\xc3\xa9", "\xf0\x9f\x98\x80",
								"\\u0001"};
			size_t at = (size_t)sprintf(line, "{\"op\":\"get\",\"key\":\"");
			memset(line + at, 'x', n);
			at += n;
			for (int i = 0; i < 40; i++)
				at += (size_t)sprintf(line + at, "%s", character[with]);
			sprintf(line + at, "\"}");
			const char *why = forbids(w, line);
			assert_non_null(why);
			assert_true(strlen(why) < 150);
			assert_non_null(strstr(why, "...\""));
			const char *end = strstr(why, "...\"");
			assert_true(end[-1] == 'x' || end[-1] == '\xa9' || end[-1] == '\x80' ||
				    memcmp(end - 6, "\\u0001", 6) == 0);
		}
	}
	world_free(w);
}

static void names_are_cut_where_their_escaped_form_is_long(void **state)
{
	static char line[4096], want[256];
	struct world *w = world_with("", "");

	(void)state;
	sprintf(line, "{\"op\":\"get\",\"key\":\"%0*d\"}", 80, 0);
	sprintf(want, "get: no access rule lets this client read \"%0*d\"", 80, 0);
	assert_forbidden(w, line, want); /* just fits */
	sprintf(line, "{\"op\":\"get\",\"key\":\"%0*d\\u0001\xf0\x9f\x98\x80\"}", 71, 0);
	sprintf(want, "get: no access rule lets this client read \"%0*d\\u0001...\"", 71, 0);
	assert_forbidden(w, line, want);
	sprintf(line, "{\"op\":\"range\",\"key\":\"%0*d\",\"endKey\":\"%0*d\"}", 1000, 1, 1000, 2);
	sprintf(want,
		"range: no access rule lets this client read all from \"%0*d...\" to \"%0*d...\"",
		80, 0, 80, 0);
	assert_forbidden(w, line, want);
	world_free(w);
}

/* ---- the log ---- */

static void refusals_are_logged_up_to_a_rate(void **state)
{
	static const char GET[] = "{\"op\":\"get\",\"key\":\"x\"}";
	struct world *w = world_with("", "");

	(void)state;
	w->peer.pid = 7, w->peer.uid = 65534;
	log_begin(LOG_LEVEL_WARNING);
	for (int i = 0; i < 10; i++)
		forbids_at(w, GET, 100000);
	assert_int_equal(lines_logged(), 0);
	log_set_level(LOG_LEVEL_NOTICE);
	forbids_at(w, GET, 100000);
	assert_logged(
		"client 1 (pid 7, uid 65534): forbidden: get: no access rule lets this client "
		"read \"x\"\n");
	for (int i = 0; i < 7; i++)
		forbids_at(w, GET, 100000);
	assert_int_equal(lines_logged(), 4); /* a burst of five */
	forbids_at(w, GET, 109999);
	assert_int_equal(lines_logged(), 0);
	forbids_at(w, GET, 110000);
	assert_logged("access rules: 4 more refusals than are logged\n");
	forbids_at(w, GET, 120000);
	assert_int_equal(lines_logged(), 1); /* without that */
	/* All clients together. */
	int64_t now = 1000000;
	for (int i = 0; i < 60; i++, w->peer.access.refusals_at = 0)
		forbids_at(w, GET, now);
	assert_int_equal(lines_logged(), 50);
	forbids_at(w, GET, now + 199);
	assert_int_equal(lines_logged(), 0);
	w->peer.access.refusals_at = 0;
	forbids_at(w, GET, now + 200);
	assert_logged("11 more refusals");
	log_end();
	world_free(w);
}

static void the_log_names_the_section_of_a_key(void **state)
{
	struct local_key key = local_key_of(SPAN("a key"));
	struct peer_identity who = with_key(&key);
	struct world *w = world_new();
	const char *other;

	(void)state;
	w->name = "first";
	assert_true(access_section_key(add(w, 1, "a", ""), key, &other));
	log_begin(LOG_LEVEL_NOTICE);
	admit(w, &who);
	assert_non_null(forbids(w, "{\"op\":\"get\",\"key\":\"x\"}"));
	assert_logged("client 1 (the local key of [access first]): forbidden: get: ");
	access_log_ended(w->access, &w->peer, SPAN("topic"), 2);
	assert_logged("forbidden: a subscription ends: no access rule lets this client read "
		      "\"topic\" any more\n");
	admit(w, &nobody); /* whom no section names */
	assert_non_null(forbids(w, "{\"op\":\"get\",\"key\":\"x\"}"));
	assert_logged("client 1 (pid 0, uid 0): forbidden: ");
	access_set(w->access, NULL);
	access_admit(w->access, &w->peer, &who); /* an open key is no section's */
	assert_non_null(forbids(w, "{\"op\":\"token\"}"));
	assert_logged("client 1 (pid 0, uid 0): forbidden: ");
	log_end();
	world_free(w);
}

static void what_a_token_can_not_hold_is_warned_of(void **state)
{
	struct world *w = world_new();

	(void)state;
	log_begin(LOG_LEVEL_NOTICE);
	w->name = "short";
	access_section_token(add(w, 1, "a*", "b"), ACCESS_TOKEN_OWN);
	w->name = "quiet";
	access_section_token(add(w, 1, "a", "b"), ACCESS_TOKEN_ANY);
	access_section_token(add(w, 1, "a*", "a* a"), ACCESS_TOKEN_OWN);
	w->name = "loud";
	access_section_token(add(w, 1, "a*", "a b c"), ACCESS_TOKEN_OWN);
	admit(w, &nobody);
	const char *text = logged();
	assert_non_null(strstr(text, "[access short] token: b is to be written"));
	assert_non_null(strstr(text, "[access loud] token: b is to be written"));
	assert_null(strstr(text, "quiet"));
	assert_null(strstr(text, "token: c")); /* one of them is enough */
	log_end();
	world_free(w);
}

/* ---- clients with a token ---- */

static void a_client_with_a_token_gets_no_other(void **state)
{
	struct world *w = world_new();

	(void)state;
	access_section_token(add(w, nobody.uid, "a*", "a*"), ACCESS_TOKEN_ANY);
	admit(w, &nobody);
	assert_allowed(w, "{\"op\":\"token\"}");
	access_bind(&w->peer, NULL);
	assert_forbidden(w, "{\"op\":\"token\"}",
			 "token: a client that has come with a token may not have another");
	assert_allowed(w, "{\"op\":\"subscribe\",\"pattern\":\"a*\"}");
	assert_non_null(forbids(w, "{\"op\":\"get\",\"key\":\"b\"}"));
	world_free(w);
}

static void operations_have_to_match_the_access_pattern(void **state)
{
	char why[ACCESS_PATTERN_WHY_MAX];
	struct access_pattern *pattern = access_pattern_new(SPAN("^a(?:x|x)*$"), why);
	struct world *w = world_new();

	(void)state;
	access_section_nexus(add(w, nobody.uid, "*", "*"));
	admit(w, &nobody);
	access_bind(&w->peer, pattern);
	assert_allowed(w, "{\"op\":\"get\",\"key\":\"ax\"}");
	assert_allowed(w, "{\"op\":\"range\",\"key\":\"a\",\"endKey\":\"ax\"}");
	assert_allowed(w, "{\"op\":\"subscribe\",\"key\":\"a\",\"keys\":[\"ax\"]}");
	assert_allowed(w, "{\"op\":\"subscribe\",\"keys\":[\"ax\"]}");
	assert_allowed(w, "{\"op\":\"subscribe\",\"key\":\"a\"}");
	assert_allowed(w, "{\"op\":\"unsubscribe\",\"pattern\":\"*\"}");
	assert_allowed(w, "{\"op\":\"ping\"}");
	assert_forbidden(w, "{\"op\":\"set\",\"key\":\"b\",\"value\":1}",
			 "set: \"b\" is not within the access pattern of the token");
	static const char *const no[] = {
		"{\"op\":\"get\",\"key\":\"b\"}",
		"{\"op\":\"patch\",\"key\":\"b\",\"value\":{}}",
		"{\"op\":\"delete\",\"key\":\"b\"}",
		"{\"op\":\"increment\",\"key\":\"b\"}",
		"{\"op\":\"range\",\"key\":\"b\",\"endKey\":\"ax\"}",
		"{\"op\":\"range\",\"key\":\"a\",\"endKey\":\"b\"}",
		"{\"op\":\"subscribe\",\"key\":\"b\",\"keys\":[\"a\"]}",
		"{\"op\":\"subscribe\",\"key\":\"a\",\"keys\":[\"b\",\"a\"]}",
		"{\"op\":\"subscribe\",\"pattern\":\"a\"}",
		"{\"op\":\"subscribe\",\"patterns\":[\"a\"]}",
		"{\"op\":\"search\",\"body\":{}}",
		"{\"op\":\"query\",\"body\":{}}",
	};
	for (size_t i = 0; i < COUNT(no); i++)
		if (!forbids(w, no[i]))
			fail_msg("%s is allowed", no[i]);
	log_begin(LOG_LEVEL_WARNING);
	assert_non_null(forbids(w, "{\"op\":\"get\",\"key\":\"b\"}"));
	assert_int_equal(lines_logged(), 0);
	for (int i = 0; i < 2; i++) { /* too long for the bounds: told once */
		assert_non_null(
			forbids(w, "{\"op\":\"get\",\"key\":\"axxxxxxxxxxxxxxxxxxxxxxxxx!\"}"));
		assert_int_equal(lines_logged(), i == 0);
	}
	log_end();
	world_free(w);
	access_pattern_free(pattern);
}

/* ---- tokens ---- */

static void local_tokens_are_for_those_who_may_read(void **state)
{
	struct world *w = world_with("", "w*");

	(void)state;
	add(w, nobody.uid, "", "");
	admit(w, &nobody);
	assert_forbidden(w, "{\"op\":\"token\",\"local\":true}",
			 "token: no access rule lets this client read anything");
	add(w, nobody.uid, "r*", "");
	admit(w, &nobody);
	assert_allowed(w, "{\"op\":\"token\",\"local\":true,\"subscribeKeys\":[\"r\"],"
			  "\"accessPattern\":\"x\"}");
	assert_forbidden(w, "{\"op\":\"token\",\"local\":true,\"subscribeKeys\":[\"w\"]}",
			 "token: no access rule lets this client read \"w\"");
	access_section_token(add(w, nobody.uid, "", "w*"), ACCESS_TOKEN_OWN);
	admit(w, &nobody);
	assert_allowed(w, "{\"op\":\"token\"}");
	world_free(w);
	w = world_with("r", "");
	assert_allowed(w, "{\"op\":\"token\",\"local\":true}");
	world_free(w);
}

static void a_token_may_be_for_writing_alone(void **state)
{
	struct world *w = world_new();

	(void)state;
	access_section_token(add(w, nobody.uid, "", "w*"), ACCESS_TOKEN_OWN);
	admit(w, &nobody);
	assert_allowed(w, "{\"op\":\"token\"}");
	world_free(w);
}

static void own_tokens_are_judged(void **state)
{
	struct world *w = world_new();

	(void)state;
	access_section_token(add(w, nobody.uid, "r* ^x", "w*"), ACCESS_TOKEN_OWN);
	admit(w, &nobody);
	assert_int_equal(access_token(&w->peer), ACCESS_TOKEN_OWN);
	assert_allowed(w, "{\"op\":\"token\"}");
	assert_allowed(w, "{\"op\":\"token\",\"subscribeKeys\":[\"r\",\"r*\"],"
			  "\"subscribePatterns\":[\"r\\u002a\"]}");
	assert_forbidden(w, "{\"op\":\"token\",\"subscribeKeys\":[\"r\",\"w\"]}",
			 "token: no access rule lets this client read \"w\"");
	assert_forbidden(w, "{\"op\":\"token\",\"subscribePatterns\":[\"*\"]}",
			 "token: no access rule lets this client read \"*\"");
	assert_non_null(forbids(w, "{\"op\":\"token\",\"subscribeKeys\":[\"\\u005ex\"]}"));
	assert_non_null(forbids(w, "{\"op\":\"token\",\"subscribePatterns\":[\"r\",\"^x\"]}"));
	assert_non_null(forbids(w, "{\"op\":\"token\",\"accessPattern\":\"^$\"}"));
	world_free(w);
}

static void any_tokens_are_not(void **state)
{
	struct world *w = world_new();

	(void)state;
	access_section_token(add(w, nobody.uid, "", ""), ACCESS_TOKEN_OWN);
	access_section_token(add(w, nobody.uid, "", ""), ACCESS_TOKEN_ANY);
	access_section_token(add(w, nobody.uid, "", ""), ACCESS_TOKEN_NO);
	admit(w, &nobody);
	assert_int_equal(access_token(&w->peer), ACCESS_TOKEN_ANY);
	assert_allowed(w,
		       "{\"op\":\"token\",\"subscribeKeys\":[\"^.*\"],\"accessPattern\":\".*\"}");
	world_free(w);
}

static void the_pattern_of_a_token_says_what_may_be_written(void **state)
{
	static const struct {
		const char *globs, *pattern;
	} rows[] = {
		{"", "^(?:a^)$"},
		{"a", "^(?:a)$"},
		{"*", "^(?:[\\s\\S]*)$"},
		{"app:* b", "^(?:app:[\\s\\S]*|b)$"},
		{"a***b", "^(?:a[\\s\\S]*b)$"},
		{"\\^$.|?+()[]{}", "^(?:\\\\\\^\\$\\.\\|\\?\\+\\(\\)\\[\\]\\{\\})$"},
		{"!\"#%&',-/:;<=>@_`~", "^(?:!\"#%&',-/:;<=>@_`~)$"},
		{"\xc3\xa9*", "^(?:\xc3\xa9[\\s\\S]*)$"},
		{"app:1 app:* app:*:x app:*", "^(?:app:[\\s\\S]*)$"},
		{"b b a*c a**c abc", "^(?:b|a[\\s\\S]*c)$"},
		{"b a b", "^(?:b|a)$"},
		{"**", "^(?:[\\s\\S]*)$"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct world *w = world_with("*", rows[i].globs);
		struct buf pattern = {0};
		access_token_pattern(&w->peer, &pattern);
		assert_span(buf_span(&pattern), rows[i].pattern);
		buf_release(&pattern);
		world_free(w);
	}
}

static void what_may_not_be_read_is_in_no_pattern(void **state)
{
	static const struct {
		const char *read, *write, *pattern;
	} rows[] = {
		{"app:* q:x wr* bb b*", "w* app:* *:x b", "^(?:b|app:[\\s\\S]*|q:x|wr[\\s\\S]*)$"},
		{"app:*", "* app:*", "^(?:app:[\\s\\S]*)$"},
		{"b* *a *z", "a*", "^(?:a^)$"},
		{"", "a", "^(?:a^)$"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct world *w = world_with(rows[i].read, rows[i].write);
		struct buf pattern = {0};
		access_token_pattern(&w->peer, &pattern);
		assert_span(buf_span(&pattern), rows[i].pattern);
		buf_release(&pattern);
		world_free(w);
	}
}

static void the_pattern_is_that_of_all_sections(void **state)
{
	struct world *w = world_with("a", "a");
	struct buf pattern = {0};

	(void)state;
	add(w, nobody.uid, "b c", "b");
	admit(w, &nobody);
	access_token_pattern(&w->peer, &pattern);
	assert_span(buf_span(&pattern), "^(?:a|b)$");
	buf_release(&pattern);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sections_are_for_those_whom_they_name),
		cmocka_unit_test(many_names_are_found),
		cmocka_unit_test(the_order_of_names_does_not_matter),
		cmocka_unit_test(without_rules_everything_is_allowed_but_tokens),
		cmocka_unit_test(rules_that_are_replaced_count_no_more),
		cmocka_unit_test(rules_are_compared),
		cmocka_unit_test(sections_that_name_nobody_are_idle),
		cmocka_unit_test(as_many_sections_as_there_may_be),
		cmocka_unit_test(keys_belong_to_sections_or_are_the_open_one),
		cmocka_unit_test(budgets_outlive_their_rules),
		cmocka_unit_test(a_section_may_be_full_of_clients),
		cmocka_unit_test(a_pattern_is_allowed_if_all_its_keys_are),
		cmocka_unit_test(a_range_is_allowed_if_all_between_its_ends_are),
		cmocka_unit_test(one_glob_has_to_hold_all_of_a_range),
		cmocka_unit_test(many_globs_are_searched),
		cmocka_unit_test(each_operation_needs_its_right),
		cmocka_unit_test(keys_are_compared_decoded),
		cmocka_unit_test(long_names_are_cut_between_characters),
		cmocka_unit_test(names_are_cut_where_their_escaped_form_is_long),
		cmocka_unit_test(refusals_are_logged_up_to_a_rate),
		cmocka_unit_test(the_log_names_the_section_of_a_key),
		cmocka_unit_test(what_a_token_can_not_hold_is_warned_of),
		cmocka_unit_test(a_client_with_a_token_gets_no_other),
		cmocka_unit_test(operations_have_to_match_the_access_pattern),
		cmocka_unit_test(local_tokens_are_for_those_who_may_read),
		cmocka_unit_test(a_token_may_be_for_writing_alone),
		cmocka_unit_test(own_tokens_are_judged),
		cmocka_unit_test(any_tokens_are_not),
		cmocka_unit_test(the_pattern_of_a_token_says_what_may_be_written),
		cmocka_unit_test(what_may_not_be_read_is_in_no_pattern),
		cmocka_unit_test(the_pattern_is_that_of_all_sections),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
