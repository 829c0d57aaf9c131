#include "shell-line.h"

#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { NAME_MAX_BYTES = 200 };

struct reader {
	enum shell shell;
	const char *text;
	size_t n, at, start, cursor;
	struct shell_line *line;
	struct shell_word word; /* the word that is being read */
	bool within;            /* a word has begun */
	bool real;              /* it is a word even if empty */
	bool target;            /* it is the target of a redirection */
	bool has_cursor;        /* the cursor is in it */
	bool has_start;
	enum shell_quote quote;
};

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\n';
}

static bool is_name(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '_';
}

static char peek(const struct reader *r, size_t i)
{
	return r->at + i < r->n ? r->text[r->at + i] : '\0';
}

/* ---- words ---- */

static void add(struct reader *r, char c)
{
	r->within = true;
	if (r->word.unknown) /* the rest of an unknown word is of no use */
		return;
	r->word.text = mem_resize(r->word.text, r->word.n + 2);
	r->word.text[r->word.n++] = c;
	r->word.text[r->word.n] = '\0';
}

static void add_literal(struct reader *r, char c)
{
	r->real = true;
	add(r, c);
}

static void add_unknown(struct reader *r)
{
	r->within = r->real = r->word.unknown = true;
}

static void end_word(struct reader *r)
{
	struct shell_line *line = r->line;

	if (!r->within)
		return;
	if ((r->word.n || r->real) && !r->target) {
		if (!r->word.text)
			r->word.text = mem_strdup("");
		line->words = mem_resize(line->words, (line->n + 1) * sizeof(*line->words));
		line->words[line->n] = r->word;
		if (r->has_cursor)
			line->current = (long)line->n;
		line->n++;
	} else {
		free(r->word.text);
	}
	r->word = (struct shell_word){0};
	r->within = r->real = r->target = r->has_cursor = r->has_start = false;
}

/* Forgets what was read so far: it belongs to another command. */
static void forget(struct reader *r)
{
	end_word(r);
	shell_line_free(r->line);
	*r->line = (struct shell_line){.current = -1};
}

/* Notes the state before the byte at r->at is read. */
static void mark(struct reader *r)
{
	if (r->at == r->start) {
		r->line->kept = r->word.n;
		r->line->quote = r->quote;
		r->has_start = true;
	}
	if (r->at == r->cursor) {
		r->within = r->real = true;
		r->line->typed = r->word.n;
		/* If the replaced part begins in an earlier word, the shell divides the line
		 * differently. */
		r->has_cursor = r->has_start && !r->word.unknown;
	}
}

/* ---- expansions ---- */

/* The value of a variable from the environment; NULL: it is not known. */
static const char *value_of(const char *name, size_t n)
{
	char variable[NAME_MAX_BYTES + 16];

	if (n > NAME_MAX_BYTES)
		return NULL;
	snprintf(variable, sizeof(variable), "HPKV_VAR_%.*s", (int)n, name);
	return getenv(variable);
}

/* bash splits an unquoted value into words and expands globs in it. */
static void add_value(struct reader *r, const char *value)
{
	bool divided = r->shell == SHELL_BASH && r->quote == QUOTE_NONE;

	r->within = true;
	if (r->quote != QUOTE_NONE)
		r->real = true;
	for (; *value; value++) {
		if (divided && is_blank(*value)) {
			if (r->word.n)
				end_word(r);
			continue;
		}
		if (divided && strchr("*?[", *value))
			r->word.glob = true;
		add(r, *value);
	}
}

/* Reads a variable or another expansion that begins with $. */
static void read_dollar(struct reader *r)
{
	size_t limit = r->at < r->cursor ? r->cursor : r->n;
	bool braces = peek(r, 1) == '{';
	size_t from = r->at + 1 + braces, to = from;

	while (to < limit && is_name(r->text[to]))
		to++;
	bool named = to > from && !(r->text[from] >= '0' && r->text[from] <= '9') &&
		     (!braces || (to < limit && r->text[to] == '}')) &&
		     (braces || to == r->n || r->text[to] != '[');
	char next = peek(r, 1);
	if (named) {
		const char *value = value_of(r->text + from, to - from);
		if (value)
			add_value(r, value);
		else
			add_unknown(r);
		r->at = to + braces;
	} else if (next == '\0' || r->at + 1 == r->cursor || is_blank(next) ||
		   strchr("\"'/:.,%=+~^]}", next)) {
		add_literal(r, '$');
		r->at++;
	} else {
		add_unknown(r);
		r->at++;
	}
}

/* Reads a ~ that begins a word. */
static void read_tilde(struct reader *r)
{
	char name[NAME_MAX_BYTES];
	size_t to = r->at + 1, n;
	const char *home = NULL;

	while (to < r->n && to != r->cursor && !is_blank(r->text[to]) && r->text[to] != '/')
		to++;
	n = to - r->at - 1;
	if (n == 0) {
		home = getenv("HOME");
	} else if (n < sizeof(name)) {
		snprintf(name, sizeof(name), "%.*s", (int)n, r->text + r->at + 1);
		struct passwd *user = getpwnam(name);
		home = user ? user->pw_dir : NULL;
	}
	if (!home) {
		add_literal(r, '~');
		r->at++;
		return;
	}
	while (*home)
		add_literal(r, *home++);
	r->at = to;
}

/* Skips a substitution, from behind its opening parenthesis or backtick to behind its end. */
static void skip_command(struct reader *r, char close)
{
	unsigned depth = 1;

	add_unknown(r);
	for (; r->at < r->n && depth; r->at++) {
		mark(r);
		if (r->text[r->at] == close)
			depth--;
		else if (close == ')' && r->text[r->at] == '(')
			depth++;
	}
}

/* ---- escapes ---- */

static void add_character(struct reader *r, unsigned long c)
{
	if (c < 0x80) {
		add_literal(r, (char)c);
	} else if (c < 0x800) {
		add_literal(r, (char)(0xc0 | c >> 6));
		add_literal(r, (char)(0x80 | (c & 0x3f)));
	} else if (c < 0x10000) {
		add_literal(r, (char)(0xe0 | c >> 12));
		add_literal(r, (char)(0x80 | (c >> 6 & 0x3f)));
		add_literal(r, (char)(0x80 | (c & 0x3f)));
	} else {
		add_literal(r, (char)(0xf0 | (c >> 18 & 7)));
		add_literal(r, (char)(0x80 | (c >> 12 & 0x3f)));
		add_literal(r, (char)(0x80 | (c >> 6 & 0x3f)));
		add_literal(r, (char)(0x80 | (c & 0x3f)));
	}
}

/* Reads a number of at most so many digits. A number that the cursor cuts is incomplete, and left
 * out. */
static void read_number(struct reader *r, int base, size_t most, bool bytes)
{
	char digits[16] = "";
	size_t n = 0, limit = r->at < r->cursor ? r->cursor : r->n;

	while (n < most && r->at + n < limit &&
	       strchr(base == 8 ? "01234567" : "0123456789abcdefABCDEF", r->text[r->at + n])) {
		digits[n] = r->text[r->at + n];
		n++;
	}
	r->at += n;
	if (n < most && r->at == r->cursor)
		return;
	unsigned long c = strtoul(digits, NULL, base);
	if (bytes)
		add_literal(r, (char)c);
	else
		add_character(r, c);
}

/* Reads an escape from behind its backslash, in $'...' and unquoted in fish. */
static void read_escape(struct reader *r)
{
	static const char names[] = "abefnrtv", values[] = "\a\b\033\f\n\r\t\v";
	char c = r->text[r->at];
	const char *name = strchr(names, c);

	if (name) {
		add_literal(r, values[name - names]);
		r->at++;
	} else if (c >= '0' && c <= '7') {
		read_number(r, 8, 3, true);
	} else if (c == 'x' || c == 'X' || c == 'u' || c == 'U') {
		r->at++;
		read_number(r, 16, c == 'u' ? 4 : c == 'U' ? 8 : 2, c == 'x' || c == 'X');
	} else if (c == 'c') {
		r->at++;
		if (r->at < r->n)
			add_literal(r, (char)(r->text[r->at++] & 0x1f));
	} else if (c == 'E' && r->shell != SHELL_FISH) {
		add_literal(r, '\033');
		r->at++;
	} else {
		if (r->quote == QUOTE_ANSI && !strchr("\\'\"?", c))
			add_literal(r, '\\');
		add_literal(r, c);
		r->at++;
	}
}

/* Reads a backslash that is not literal. */
static void read_backslash(struct reader *r)
{
	r->at++;
	r->within = true;
	mark(r);
	if (r->at >= r->n)
		return;
	char c = r->text[r->at];
	bool same = r->shell == SHELL_FISH && r->quote == QUOTE_NONE;
	if (c == '\n') {
		r->at++;
	} else if (same || r->quote == QUOTE_ANSI) {
		read_escape(r);
	} else {
		if (r->quote == QUOTE_DOUBLE &&
		    !strchr(r->shell == SHELL_FISH ? "\"$\\" : "\"$\\`", c))
			add_literal(r, '\\');
		if (r->quote == QUOTE_SINGLE && c != '\'' && c != '\\')
			add_literal(r, '\\');
		add_literal(r, c);
		r->at++;
	}
}

/* ---- the line ---- */

static void read_quoted(struct reader *r)
{
	static const char ends[] = {
		[QUOTE_SINGLE] = '\'', [QUOTE_DOUBLE] = '"', [QUOTE_ANSI] = '\''};
	char c = r->text[r->at];

	if (c == ends[r->quote]) {
		r->quote = QUOTE_NONE;
		r->at++;
	} else if (c == '\\' && (r->quote != QUOTE_SINGLE || r->shell == SHELL_FISH)) {
		read_backslash(r);
	} else if (c == '$' && r->quote == QUOTE_DOUBLE) {
		if (peek(r, 1) == '(') {
			r->at += 2;
			skip_command(r, ')');
		} else {
			read_dollar(r);
		}
	} else if (c == '`' && r->quote == QUOTE_DOUBLE && r->shell != SHELL_FISH) {
		r->at++;
		skip_command(r, '`');
	} else {
		add_literal(r, c);
		r->at++;
	}
}

/* Reads a redirection, from < or > on. */
static void read_redirection(struct reader *r)
{
	if (r->word.n && strspn(r->word.text, "0123456789") == r->word.n)
		r->target = true; /* the descriptor is no word */
	end_word(r);
	while (r->at < r->n && strchr("<>&|!", r->text[r->at])) {
		r->at++;
		mark(r);
	}
	if (peek(r, 0) == '(') {
		r->at++;
		skip_command(r, ')');
		return;
	}
	while (r->at < r->n && is_blank(r->text[r->at]) && r->at != r->cursor)
		r->at++;
	r->target = r->within = true;
}

/* Does this character end the command, or begin another? */
static bool divides(const struct reader *r, char c)
{
	if (c == '&' && peek(r, 1) == '>')
		return false;
	return c == ';' || c == '|' || c == '&' || c == '\n' ||
	       (r->shell != SHELL_FISH && (c == '(' || c == ')'));
}

static void open_quote(struct reader *r, enum shell_quote quote, size_t n)
{
	r->quote = quote;
	r->within = r->real = true;
	r->at += n;
}

/* Reads a character that is special when unquoted. false: it is not special. */
static bool read_special(struct reader *r, char c)
{
	char next = peek(r, 1);
	bool like_sh = r->shell != SHELL_FISH, first = !r->within || (r->has_cursor && !r->word.n);

	if (c == '\\')
		read_backslash(r);
	else if (c == '\'')
		open_quote(r, QUOTE_SINGLE, 1);
	else if (c == '"')
		open_quote(r, QUOTE_DOUBLE, 1);
	else if (c == '$' && like_sh && next == '\'' && r->at + 1 != r->cursor)
		open_quote(r, QUOTE_ANSI, 2);
	else if (c == '$' && r->shell == SHELL_BASH && next == '"')
		open_quote(r, QUOTE_DOUBLE, 2);
	else if ((c == '$' && next == '(') || (c == '(' && !like_sh)) {
		r->at += c == '$' ? 2 : 1;
		skip_command(r, ')');
	} else if (c == '`' && like_sh) {
		r->at++;
		skip_command(r, '`');
	} else if (c == '$')
		read_dollar(r);
	else if (c == '~' && first)
		read_tilde(r);
	else if (c == '<' || c == '>' || (c == '&' && next == '>'))
		read_redirection(r);
	else
		return false;
	return true;
}

static void read_plain(struct reader *r, char c)
{
	/* zsh expands =name to a path, and may expand the ~ in name=~. */
	if (strchr("*?[{", c) ||
	    (r->shell == SHELL_ZSH && c == '=' && (!r->within || peek(r, 1) == '~')))
		r->word.glob = true;
	add_literal(r, c);
	r->at++;
}

void shell_line_read(struct shell_line *line, enum shell shell, const char *text, size_t start,
		     size_t cursor)
{
	struct reader r = {.shell = shell,
			   .text = text,
			   .n = strlen(text),
			   .start = start,
			   .cursor = cursor,
			   .line = line};

	*line = (struct shell_line){.current = -1};
	while (r.at < r.n) {
		mark(&r);
		char c = text[r.at];
		if (r.quote != QUOTE_NONE) {
			read_quoted(&r);
		} else if (divides(&r, c)) {
			if (r.at >= cursor)
				break;
			forget(&r);
			r.at++;
		} else if (is_blank(c)) {
			end_word(&r);
			r.at++;
		} else if (c == '#' && !r.within && shell != SHELL_ZSH) {
			break; /* a comment */
		} else if (!read_special(&r, c)) {
			read_plain(&r, c);
		}
	}
	if (r.at == r.n)
		mark(&r);
	end_word(&r);
}

void shell_line_free(struct shell_line *line)
{
	for (size_t i = 0; i < line->n; i++)
		free(line->words[i].text);
	free(line->words);
	line->words = NULL;
	line->n = 0;
}

/* ---- quoting ---- */

static bool is_plain(unsigned char c)
{
	return c >= 0x80 || is_name((char)c) || (c && strchr("@%+=:,./-", c));
}

static bool is_control(const char *text)
{
	unsigned char c = (unsigned char)text[0], second = (unsigned char)text[1];

	return c < 0x20 || c == 0x7f || (c == 0xc2 && second >= 0x80 && second < 0xa0);
}

/* Writes a run of control characters within quotes that show them. */
static const char *put_controls(FILE *out, const char *text, bool within)
{
	static const char names[] = "abtnvfr";

	fputs(within ? "" : "$'", out);
	while (*text && is_control(text)) {
		for (int n = (unsigned char)*text == 0xc2 ? 2 : 1; n > 0; n--, text++) {
			unsigned char c = (unsigned char)*text;
			if (c >= 7 && c <= 13)
				fprintf(out, "\\%c", names[c - 7]);
			else
				fprintf(out, "\\%03o", c);
		}
	}
	fputs(within ? "" : "'", out);
	return text;
}

char *shell_quote(const char *text, enum shell_quote quote)
{
	static const char marks[] = {
		[QUOTE_SINGLE] = '\'', [QUOTE_DOUBLE] = '"', [QUOTE_ANSI] = '\''};
	char *quoted = NULL;
	size_t n = 0;
	FILE *out = open_memstream(&quoted, &n);

	if (!out)
		abort(); /* no memory */
	while (*text) {
		char c = *text;
		bool leave = (quote == QUOTE_SINGLE || quote == QUOTE_DOUBLE) &&
			     (is_control(text) || (c == '!' && quote == QUOTE_DOUBLE) ||
			      (c == '\'' && quote == QUOTE_SINGLE));
		if (leave)
			fputc(marks[quote], out);
		if (is_control(text)) {
			text = put_controls(out, text, quote == QUOTE_ANSI);
		} else {
			/* readline takes \' within $'...' for the closing quote. */
			if (quote == QUOTE_ANSI && c == '\'')
				fputs("\\047", out);
			else if (leave || (quote == QUOTE_NONE && !is_plain((unsigned char)c)) ||
				 (quote == QUOTE_DOUBLE && strchr("\"$`\\", c)) ||
				 (quote == QUOTE_ANSI && c == '\\'))
				fprintf(out, "\\%c", c);
			else
				fputc(c, out);
			text++;
		}
		if (leave)
			fputc(marks[quote], out);
	}
	if (quote != QUOTE_NONE)
		fputc(marks[quote], out);
	fclose(out);
	return quoted;
}
