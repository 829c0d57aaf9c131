#include "config/inifile.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <ini.h>

struct parser {
	const struct inifile_ops *ops;
	void *owner;
	const char *at, *end; /* the part of the text that is not read yet */
	unsigned line;
	char clean[INIFILE_LINE_MAX +
		   1]; /* the line without comment, line end and white space around it */
	bool waiting;  /* inih has got a line, and has not called on_setting() for it yet */
};

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f';
}

/* The length of the UTF-8 sequence at p, 0 if it is invalid: overlong forms, surrogates and code
 * points beyond U+10FFFF are (RFC 3629). */
static size_t utf8_length(const unsigned char *p, size_t n)
{
	static const struct {
		unsigned char first, last, low, high; /* of the first byte, and of the second */
		unsigned char length;
	} forms[] = {
		{0x00, 0x7f, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2},
		{0xe0, 0xe0, 0xa0, 0xbf, 3}, {0xe1, 0xec, 0x80, 0xbf, 3},
		{0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
		{0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4},
		{0xf4, 0xf4, 0x80, 0x8f, 4},
	};

	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		if (p[0] < forms[i].first || p[0] > forms[i].last)
			continue;
		size_t length = forms[i].length;
		if (n < length || (length > 1 && (p[1] < forms[i].low || p[1] > forms[i].high)))
			return 0;
		for (size_t j = 2; j < length; j++) {
			if ((p[j] & 0xc0) != 0x80)
				return 0;
		}
		return length;
	}
	return 0;
}

/* Values go into logs, paths and JSON, so only valid text passes. */
static const char *text_fault(struct span s)
{
	const unsigned char *p = (const unsigned char *)s.p;

	for (size_t i = 0, step; i < s.n; i += step) {
		step = utf8_length(p + i, s.n - i);
		if (!step)
			return "is not valid UTF-8";
		if ((p[i] < 0x20 && p[i] != '\t') || p[i] == 0x7f)
			return "has a control character in it";
	}
	return NULL;
}

static struct span trim(struct span s)
{
	while (s.n && is_blank(s.p[s.n - 1]))
		s.n--;
	while (s.n && is_blank(s.p[0]))
		s = (struct span){s.p + 1, s.n - 1};
	return s;
}

/* Finds comments as inih does. A comment does not count for the limit and may hold any bytes. */
static struct span without_comment(struct span s)
{
	s = trim(s);
	if (s.n && (s.p[0] == '#' || s.p[0] == ';'))
		s.n = 0;
	for (size_t i = 1; i < s.n; i++) {
		if (s.p[i] == ';' && is_blank(s.p[i - 1])) {
			s.n = i;
			break;
		}
	}
	return trim(s);
}

/* The next line of the text, without its LF. A byte order mark before the first line is skipped. */
static struct span next_line(struct parser *p)
{
	const char *lf = memchr(p->at, '\n', (size_t)(p->end - p->at));
	struct span line = {p->at, (size_t)((lf ? lf : p->end) - p->at)};

	p->at = lf ? lf + 1 : p->end;
	if (++p->line == 1 && line.n >= 3 && memcmp(line.p, "\xef\xbb\xbf", 3) == 0)
		line = (struct span){line.p + 3, line.n - 3};
	return line;
}

/* inih would drop text behind the ], and does not tell of a section without settings. */
static const char *tell_section(struct parser *p)
{
	char *close = strchr(p->clean, ']');

	if (!close || close[1])
		return "is not of the form '[section]'";
	*close = '\0';
	p->ops->section(p->owner, p->line, p->clean + 1);
	return NULL;
}

/* Takes a line into p->clean. Returns its fault, or NULL. */
static const char *take_line(struct parser *p)
{
	struct span line = without_comment(next_line(p));
	const char *fault = text_fault(line);

	p->clean[0] = '\0';
	if (fault)
		return fault;
	if (line.n > INIFILE_LINE_MAX)
		return "is longer than 4096 bytes";
	memcpy(p->clean, line.p, line.n);
	p->clean[line.n] = '\0';
	if (p->clean[0] == '[')
		return tell_section(p);
	/* inih would take a colon for an equals sign. */
	return p->clean[strcspn(p->clean, "=:")] == ':' ? "is not of the form 'name = value'"
							: NULL;
}

static void settle(struct parser *p)
{
	if (p->waiting)
		p->ops->fault(p->owner, p->line, "is not of the form 'name = value'");
	p->waiting = false;
}

/* Reads for inih, as fgets() would. Each line is a setting or empty; it is unindented, so that inih
 * takes none for a continuation, and cut to inih's buffer, whose size depends on its build.
 * on_setting() takes the value from p->clean, where it is whole. */
static char *read_line(char *out, int size, void *stream)
{
	struct parser *p = stream;

	settle(p);
	if (p->at == p->end || size < 3)
		return NULL;
	const char *fault = take_line(p);
	if (fault)
		p->ops->fault(p->owner, p->line, fault);
	size_t n = 0;
	if (!fault && p->clean[0] != '[') {
		n = strlen(p->clean);
		p->waiting = n > 0;
	}
	if (n > (size_t)size - 3)
		n = (size_t)size - 3;
	memcpy(out, p->clean, n);
	memcpy(out + n, "\n", 2);
	return out;
}

static int on_setting(void *user, const char *section, const char *name, const char *value)
{
	struct parser *p = user;

	(void)section; /* inih cuts it to 50 bytes; tell_section() has told it whole */
	if (!value || !name[0])
		return 0;
	p->waiting = false;
	/* inih takes the first = or : for the separator. */
	const char *whole = p->clean + strcspn(p->clean, "=:") + 1;
	p->ops->setting(p->owner, p->line, name, whole + strspn(whole, " \t"));
	return 1;
}

int inifile_parse(struct span text, const struct inifile_ops *ops, void *owner)
{
	struct parser p = {.ops = ops, .owner = owner, .at = text.p, .end = text.p + text.n};

	/* A positive result counts bad lines, all reported by now. */
	if (ini_parse_stream(read_line, &p, on_setting, &p) == -2)
		return -ENOMEM;
	settle(&p);
	return 0;
}
