#include "base/glob.h"

struct span glob_literal(struct span glob)
{
	const char *star = glob.n ? memchr(glob.p, '*', glob.n) : NULL;

	return (struct span){glob.p, star ? (size_t)(star - glob.p) : glob.n};
}

bool glob_is_prefix(struct span glob)
{
	return glob_literal(glob).n + 1 == glob.n;
}

/* The literal behind the last *; there is a *. */
static struct span last_literal(struct span glob)
{
	const char *star = memrchr(glob.p, '*', glob.n), *end = glob.p + glob.n;

	return (struct span){star + 1, (size_t)(end - star) - 1};
}

/* Are the literals of a glob that ends with * in the text, one behind the other? Matching each
 * literal at its first position leaves the most text for the rest, so no other position is ever
 * tried. That, and memmem(), which is linear itself, keep the time from being the product of the
 * lengths. */
static bool stand_in_order(struct span glob, struct span text)
{
	const char *at = text.p, *end = text.p + text.n;

	while (glob.n > 0) {
		struct span literal = glob_literal(glob);
		at = memmem(at, (size_t)(end - at), literal.p, literal.n);
		if (!at)
			return false;
		at += literal.n;
		glob.p += literal.n + 1;
		glob.n -= literal.n + 1;
	}
	return true;
}

bool glob_matches(struct span glob, struct span key)
{
	struct span first = glob_literal(glob);

	if (first.n == glob.n)
		return span_equal(glob, key);
	struct span last = last_literal(glob);
	if (key.n < first.n + last.n)
		return false;
	/* An empty span may have p NULL, and C does not allow adding even 0 to NULL. */
	const char *at = key.n ? key.p : "", *end = at + key.n;
	if (!span_equal(first, (struct span){at, first.n}) ||
	    !span_equal(last, (struct span){end - last.n, last.n}))
		return false;
	/* The middle parts: of the glob from behind the first * to the last *, which may be the
	 * same. */
	struct span inner = {first.p + first.n + 1, glob.n - first.n - 1 - last.n};
	return stand_in_order(inner, (struct span){at + first.n, key.n - first.n - last.n});
}
