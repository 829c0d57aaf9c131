/* What the rules allow lies inside their globs, as a matcher that is too simple to be wrong has it:
 * each key, each key of a pattern, each key of a range, and each key of a token's access pattern.
 */
#include "access/access.h"

#include "fuzz.h"
#include "base/glob.h"

/* Lines: read globs, write globs (spaces between them), then texts that are tried. */
const struct span fuzz_seeds[] = {
	SPAN("app:* *:log a*b*c\napp:* b\napp:1\napp:*:log\napp:a\napp:z\na*c\n*"),
	SPAN("* ** a\n*a a* *a* aa*aa\na\naa\naaa\naaaa\na*a\n"),
	SPAN("ab* abc* abcd\nabc abcd*\nab\nabc\nabd\nabcd*\nabd*\n^(.|a)$\n"),
};
const size_t fuzz_n_seeds = sizeof(fuzz_seeds) / sizeof(fuzz_seeds[0]);

enum { TEXTS_MAX = 12, TEXT_MAX = 24, KEY_MAX = 400 };

struct texts {
	struct span list[TEXTS_MAX];
	size_t n;
};

struct rules {
	struct access_rules *access;
	struct texts globs[ACCESS_RIGHT_N];
	struct peer peer;
};

static struct span cut(struct span *rest, char at)
{
	const char *end = rest->n ? memchr(rest->p, at, rest->n) : NULL;
	struct span text = {rest->p, end ? (size_t)(end - rest->p) : rest->n};

	rest->p += text.n + (end != NULL);
	rest->n -= text.n + (end != NULL);
	return text;
}

/* Those that are short enough for all of this to come to an end. */
static void split(struct span all, char at, struct texts *out)
{
	while (all.n && out->n < TEXTS_MAX) {
		struct span text = cut(&all, at);
		size_t stars = 0;
		for (size_t i = 0; i < text.n; i++)
			stars += text.p[i] == '*';
		if (text.n && text.n <= TEXT_MAX && stars <= 3)
			out->list[out->n++] = text;
	}
}

static bool matches(const char *glob, size_t n, const char *key, size_t m)
{
	if (n == 0)
		return m == 0;
	if (*glob != '*')
		return m && *glob == *key && matches(glob + 1, n - 1, key + 1, m - 1);
	for (size_t i = 0; i <= m; i++) {
		if (matches(glob + 1, n - 1, key + i, m - i))
			return true;
	}
	return false;
}

static bool any_matches(const struct texts *globs, struct span key)
{
	for (size_t i = 0; i < globs->n; i++) {
		if (matches(globs->list[i].p, globs->list[i].n, key.p, key.n))
			return true;
	}
	return false;
}

/* Some of the keys that a pattern matches: its stars become a few bytes, each another few. */
static void expand(struct span pattern, unsigned how, char *key, size_t *n)
{
	static const char *const runs[] = {"", "a", "bc", "*", "\n", "a:", ":log", "\xff"};

	*n = 0;
	for (size_t i = 0; i < pattern.n; i++) {
		if (pattern.p[i] != '*') {
			key[(*n)++] = pattern.p[i];
			continue;
		}
		const char *run = runs[how % 8];
		memcpy(key + *n, run, strlen(run));
		*n += strlen(run);
		how /= 8;
	}
}

static void check_inside(const struct texts *globs, struct span pattern)
{
	char key[KEY_MAX];
	size_t n;

	for (unsigned how = 0; how < 8 * 8 * 8; how++) {
		expand(pattern, how, key, &n);
		must(any_matches(globs, (struct span){key, n}));
	}
}

static int compare(struct span a, struct span b)
{
	size_t n = a.n < b.n ? a.n : b.n;
	int order = n ? memcmp(a.p, b.p, n) : 0;

	return order ? order : (a.n > b.n) - (a.n < b.n);
}

/* Keys between the two: each of the texts, and what is a byte longer than a beginning of the ends.
 */
static void check_range(const struct rules *r, struct span first, struct span last,
			const struct texts *texts)
{
	static const char bytes[] = {0, 1, 'a', 'm', '*', 127, (char)255};
	char key[TEXT_MAX + 1];

	if (!access_allows_range(&r->peer, first, last))
		return;
	for (size_t i = 0; i < texts->n; i++) {
		struct span k = texts->list[i];
		must(compare(k, first) < 0 || compare(last, k) < 0 ||
		     any_matches(&r->globs[ACCESS_READ], k));
	}
	for (size_t n = 0; n <= first.n; n++) {
		memcpy(key, first.p, n);
		for (size_t i = 0; i < sizeof(bytes); i++) {
			struct span k = {key, n + 1};
			key[n] = bytes[i];
			must(compare(k, first) < 0 || compare(last, k) < 0 ||
			     any_matches(&r->globs[ACCESS_READ], k));
		}
	}
}

/* The next alternative of the access pattern as a glob. */
static bool next_alternative(struct span *rest, char *glob, size_t *n)
{
	static const struct span any = SPAN("[\\s\\S]*");

	*n = 0;
	if (!rest->n)
		return false;
	while (rest->n && rest->p[0] != '|') {
		size_t step = 1;
		if (rest->n >= any.n && memcmp(rest->p, any.p, any.n) == 0) {
			glob[(*n)++] = '*';
			step = any.n;
		} else if (rest->p[0] == '\\') {
			must(rest->n > 1);
			glob[(*n)++] = rest->p[1];
			step = 2;
		} else {
			must(!memchr("^$.?+()[]{}*", rest->p[0], 12));
			glob[(*n)++] = rest->p[0];
		}
		*rest = (struct span){rest->p + step, rest->n - step};
	}
	if (rest->n)
		*rest = (struct span){rest->p + 1, rest->n - 1};
	return true;
}

static void check_token(const struct rules *r)
{
	static const struct span nothing = SPAN("^(?:a^)$");
	struct buf out = {0};
	char glob[TEXT_MAX];
	size_t n;

	access_token_pattern(&r->peer, &out);
	struct span rest = buf_span(&out);
	must(rest.n >= 6 && memcmp(rest.p, "^(?:", 4) == 0);
	must(memcmp(rest.p + rest.n - 2, ")$", 2) == 0);
	bool none = span_equal(rest, nothing);
	rest = (struct span){rest.p + 4, rest.n - 6};
	while (!none && next_alternative(&rest, glob, &n)) {
		check_inside(&r->globs[ACCESS_READ], (struct span){glob, n});
		check_inside(&r->globs[ACCESS_WRITE], (struct span){glob, n});
	}
	buf_release(&out);
}

static void make(struct rules *r, struct access *a, struct span *rest)
{
	static const struct peer_identity who = {.known = true, .uid = 1};

	r->access = access_rules_new();
	for (enum access_right right = 0; right < ACCESS_RIGHT_N; right++) {
		struct access_section *s = access_rules_add(r->access, "");
		access_section_user(s, who.uid);
		split(cut(rest, '\n'), ' ', &r->globs[right]);
		for (size_t i = 0; i < r->globs[right].n; i++)
			access_section_glob(s, right, r->globs[right].list[i]);
	}
	access_set(a, r->access);
	access_admit(a, &r->peer, &who);
}

static void check(const struct rules *r, const struct texts *texts)
{
	check_token(r);
	for (size_t i = 0; i < texts->n; i++) {
		struct span text = texts->list[i];
		for (enum access_right right = 0; right < ACCESS_RIGHT_N; right++) {
			bool allowed = access_allows(&r->peer, right, text);
			must(allowed == any_matches(&r->globs[right], text));
			if (allowed)
				check_inside(&r->globs[right], text);
		}
		for (size_t j = 0; j < texts->n; j++)
			check_range(r, text, texts->list[j], texts);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct stats stats = {0};
	struct access *a = access_new(&stats);
	struct rules r = {0};
	struct span rest = {(const char *)data, size};
	struct texts texts = {0};

	make(&r, a, &rest);
	split(rest, '\n', &texts);
	check(&r, &texts);
	access_leave(&r.peer);
	access_free(a);
	access_rules_free(r.access);
	return 0;
}
