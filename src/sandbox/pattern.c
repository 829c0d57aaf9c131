#include "pattern.h"

#include <errno.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/glob.h"
#include "base/mem.h"

enum { TEXT_MAX = 1024, REPEAT_MAX = 1000 };

#define ANYTHING SPAN("[\\s\\S]")

/* regcomp() expands every repetition, so that (((a{255}){255}){255}) would take all memory. This
 * bounds the product of the counts in braces. */
static bool repeats_are_small(struct span text)
{
	unsigned long product = 1, count = 0;
	bool inside = false;

	for (size_t i = 0; i < text.n; i++) {
		char c = text.p[i];
		if (c == '\\') {
			i++; /* an escaped character is literal */
		} else if (c == '{') {
			inside = true;
			count = 0;
		} else if (inside && c >= '0' && c <= '9') {
			count = count * 10 + (unsigned long)(c - '0');
		} else if (inside) {
			product *= count ? count : 1;
			count = 0;
			inside = c != '}';
		}
		if (count > REPEAT_MAX || product > REPEAT_MAX)
			return false;
	}
	return true;
}

static bool begins_with(struct span text, size_t at, struct span what)
{
	return text.n - at >= what.n && memcmp(text.p + at, what.p, what.n) == 0;
}

/* Translates JavaScript's syntax to POSIX. Inside brackets \d adds to the set; [\s\S] is the usual
 * way to write any character. */
static void add_translated(struct buf *out, struct span text)
{
	bool in_set = false;

	for (size_t i = 0; i < text.n; i++) {
		char c = text.p[i], next = i + 1 < text.n ? text.p[i + 1] : '\0';
		if (!in_set && begins_with(text, i, ANYTHING)) {
			buf_addf(out, "([^a]|a)");
			i += ANYTHING.n - 1;
		} else if (c == '\\' && (next == 'd' || (next == 'D' && !in_set))) {
			buf_addf(out, in_set ? "0-9" : next == 'd' ? "[0-9]" : "[^0-9]");
			i++;
		} else if (c == '\\' && !in_set) {
			buf_add(out, text.p + i, next ? 2 : 1);
			i += next != '\0';
		} else if (c == '.' && !in_set) {
			buf_addf(out,
				 "[^\n\r]"); /* a POSIX dot would match a line end, and no NUL */
		} else if (c == '(' && next == '?' && i + 2 < text.n && text.p[i + 2] == ':') {
			buf_add(out, "(", 1);
			i += 2;
		} else {
			in_set = c == '[' || (in_set && c != ']');
			buf_add(out, &c, 1);
		}
	}
	buf_add(out, "", 1);
}

int pattern_init_regex(struct pattern *p, struct span text, const char **why)
{
	struct buf translated = {0};
	int failed;

	*p = (struct pattern){.kind = PATTERN_REGEX};
	if (text.n > TEXT_MAX || !repeats_are_small(text)) {
		*why = "a pattern is too large";
		return -EINVAL;
	}
	if (memchr(text.p, '\0', text.n)) {
		*why = "a regular expression with \\u0000";
		return -EINVAL;
	}
	add_translated(&translated, text);
	failed = regcomp(&p->regex, buf_span(&translated).p, REG_EXTENDED | REG_NOSUB);
	buf_release(&translated);
	if (failed) {
		*why = "a pattern is not a valid regular expression";
		return -EINVAL;
	}
	return 0;
}

int pattern_init(struct pattern *p, struct span text, const char **why)
{
	if (text.n == 0 || text.n > TEXT_MAX) {
		*why = text.n ? "a pattern is too large" : "a pattern is empty";
		return -EINVAL;
	}
	if (text.p[0] == '^')
		return pattern_init_regex(p, text, why);
	*p = (struct pattern){
		.kind = memchr(text.p, '*', text.n) ? PATTERN_GLOB : PATTERN_EXACT,
		.text = mem_strndup(text.p, text.n),
		.n = text.n,
	};
	return 0;
}

void pattern_fini(struct pattern *p)
{
	if (p->kind == PATTERN_REGEX)
		regfree(&p->regex);
	free(p->text);
}

bool pattern_matches(const struct pattern *p, struct span key)
{
	struct span text = {p->text, p->n};
	regmatch_t whole = {.rm_so = 0, .rm_eo = (regoff_t)key.n};

	switch (p->kind) {
	case PATTERN_EXACT:
		return span_equal(text, key);
	case PATTERN_GLOB:
		return glob_matches(text, key);
	case PATTERN_REGEX: /* REG_STARTEND: the key may hold NUL */
		return regexec(&p->regex, key.p, 1, &whole, REG_STARTEND) == 0;
	}
	return false;
}
