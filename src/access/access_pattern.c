#include "access/access_pattern.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/mem.h"

enum { NESTING_MAX = 100 };

struct access_pattern {
	pcre2_code *code;
	pcre2_match_context *context;
	pcre2_match_data *data;
	bool beyond, told;
};

/* ---- what is JavaScript's ---- */

/* The text as it is scanned. */
struct scan {
	const char *at, *end;
	const char *why; /* NULL: nothing is wrong so far */
	bool in_class;
};

static bool begins(const struct scan *s, const char *literal)
{
	size_t n = strlen(literal);

	return (size_t)(s->end - s->at) >= n && memcmp(s->at, literal, n) == 0;
}

static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static void scan_escape(struct scan *s)
{
	static const char LETTERS[] = "dDwWsSbBnrtfv0cxuk";
	size_t left = (size_t)(s->end - s->at);

	if (left < 2)
		s->why = "a backslash ends it";
	else if (is_letter(s->at[1]) && !strchr(LETTERS, s->at[1]))
		s->why = "a backslash before this letter means nothing to JavaScript";
	else if (s->at[1] == 'c' && (left < 3 || !is_letter(s->at[2])))
		s->why = "no letter stands behind \\c";
	s->at += 2;
}

static void scan_class(struct scan *s)
{
	if (*s->at == ']')
		s->in_class = false;
	else if (begins(s, "[:") || begins(s, "[.") || begins(s, "[="))
		s->why = "a class in brackets within a class means nothing to JavaScript";
	s->at++;
}

static void scan_group(struct scan *s)
{
	static const char *const ALLOWED[] = {"(?:", "(?=", "(?!", "(?<"};
	bool known = !begins(s, "(?");

	for (size_t i = 0; i < sizeof(ALLOWED) / sizeof(*ALLOWED); i++)
		known |= begins(s, ALLOWED[i]);
	if (!known)
		s->why = "this kind of group means nothing to JavaScript";
	if (begins(s, "(*"))
		s->why = "nothing stands before a quantifier";
	s->at++;
}

static void scan_quantifier(struct scan *s, size_t n)
{
	s->at += n;
	if (s->at < s->end && *s->at == '+')
		s->why = "a quantifier stands behind a quantifier";
}

/* {n}, {n,} or {n,m}. From version 10.43 on PCRE2 also takes {,m}, and blanks within any of them,
 * for a quantifier; to JavaScript these are plain characters. */
static void scan_brace(struct scan *s)
{
	const char *p = s->at + 1;
	bool digits = false, blanks = false;
	int commas = 0;

	for (; p < s->end && *p && strchr("0123456789, \t", *p); p++) {
		digits |= *p >= '0' && *p <= '9';
		blanks |= *p == ' ' || *p == '\t';
		commas += *p == ',';
	}
	if (!digits || commas > 1 || p == s->end || *p != '}')
		s->at++;
	else if (blanks || s->at[1] == ',')
		s->why = "braces like these are no quantifier to JavaScript";
	else
		scan_quantifier(s, (size_t)(p - s->at) + 1);
}

static void scan_one(struct scan *s)
{
	if (*s->at == '\\')
		scan_escape(s);
	else if (s->in_class)
		scan_class(s);
	else if (*s->at == '(')
		scan_group(s);
	else if (*s->at == '*' || *s->at == '+' || *s->at == '?')
		scan_quantifier(s, 1);
	else if (*s->at == '{')
		scan_brace(s);
	else {
		/* JavaScript ends a class at its first bracket, and so does PCRE2 as it is set. */
		s->in_class = *s->at == '[';
		s->at++;
	}
}

/* NULL, or what JavaScript would not take, or take for something else than PCRE2 does. */
static const char *foreign(struct span text)
{
	struct scan s = {.at = text.p, .end = text.p + text.n};

	while (!s.why && s.at < s.end)
		scan_one(&s);
	return s.why;
}

/* ---- compiling and matching ---- */

static pcre2_code *compile(struct span text, char why[ACCESS_PATTERN_WHY_MAX])
{
	uint32_t options = PCRE2_UTF | PCRE2_MATCH_INVALID_UTF | PCRE2_ALT_BSUX |
			   PCRE2_ALLOW_EMPTY_CLASS | PCRE2_MATCH_UNSET_BACKREF |
			   PCRE2_DOLLAR_ENDONLY | PCRE2_NEVER_BACKSLASH_C;
	pcre2_compile_context *context = pcre2_compile_context_create(NULL);
	PCRE2_SIZE at;
	int error;

	if (!context)
		mem_refused(sizeof(struct access_pattern));
	pcre2_set_newline(context, PCRE2_NEWLINE_ANYCRLF);
	pcre2_set_parens_nest_limit(context, NESTING_MAX);
	pcre2_code *code = pcre2_compile((PCRE2_SPTR)text.p, text.n, options, &error, &at, context);
	pcre2_compile_context_free(context);
	mem_wipe_stack(); /* the pattern is of a token; nothing else of ours goes so deep */
	if (!code) {
		PCRE2_UCHAR message[100];
		pcre2_get_error_message(error, message, sizeof(message));
		snprintf(why, ACCESS_PATTERN_WHY_MAX, "%s (at byte %zu)", (const char *)message,
			 (size_t)at);
	}
	return code;
}

struct access_pattern *access_pattern_new(struct span text, char why[ACCESS_PATTERN_WHY_MAX])
{
	const char *wrong = text.n > ACCESS_PATTERN_MAX ? "it is too long" : foreign(text);

	if (wrong) {
		snprintf(why, ACCESS_PATTERN_WHY_MAX, "%s", wrong);
		return NULL;
	}
	pcre2_code *code = compile(text.n ? text : SPAN("(?:)"), why);
	if (!code)
		return NULL;
	struct access_pattern *p = mem_zalloc(sizeof(*p));
	p->code = code;
	p->context = pcre2_match_context_create(NULL);
	p->data = pcre2_match_data_create(1, NULL);
	if (!p->context || !p->data)
		mem_refused(sizeof(*p));
	pcre2_set_match_limit(p->context, ACCESS_PATTERN_STEPS);
	pcre2_set_depth_limit(p->context, ACCESS_PATTERN_DEPTH);
	pcre2_set_heap_limit(p->context, ACCESS_PATTERN_HEAP_KB);
	return p;
}

void access_pattern_free(struct access_pattern *p)
{
	if (!p)
		return;
	pcre2_match_data_free(p->data);
	pcre2_match_context_free(p->context);
	pcre2_code_free(p->code);
	free(p);
}

enum access_match access_pattern_match(struct access_pattern *p, struct span key)
{
	if (p->beyond)
		return ACCESS_MATCH_BEYOND;
	int result = pcre2_match(p->code, (PCRE2_SPTR)key.p, key.n, 0, 0, p->data, p->context);

	if (result >= 0)
		return ACCESS_MATCH_YES;
	if (result == PCRE2_ERROR_NOMATCH)
		return ACCESS_MATCH_NO;
	p->beyond = true;
	return ACCESS_MATCH_BEYOND;
}

bool access_pattern_tell(struct access_pattern *p)
{
	bool tell = p->beyond && !p->told;

	p->told |= tell;
	return tell;
}
