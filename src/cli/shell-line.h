/* shell-line.h - parses a command line as a shell would, up to the cursor.
 *
 * Completion needs the words as the command will get them, the typed part of the word at the
 * cursor, and the quotes that are open there. Quotes, escapes, ~, and variables that the
 * environment names (HPKV_VAR_NAME for NAME) are read as bash, zsh and fish do. A part that only
 * the shell can expand ($(...), a glob, another variable) makes its word unknown: nothing is run,
 * and nothing is guessed. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum shell { SHELL_BASH, SHELL_ZSH, SHELL_FISH };
enum shell_quote { QUOTE_NONE, QUOTE_SINGLE, QUOTE_DOUBLE, QUOTE_ANSI /* $'...' */ };

struct shell_word {
	char *text; /* owned, NUL-terminated; an unknown word's text ends before its unknown part */
	size_t n;
	bool unknown, glob; /* glob: the text is complete, but the shell may expand a part of it */
};

struct shell_line {
	struct shell_word
		*words; /* owned; those of the command at the cursor, without redirections */
	size_t n;
	long current; /* the word at the cursor; -1: the cursor is in no word of the command */
	size_t typed; /* that word's bytes before the cursor */
	size_t kept;  /* that word's bytes before the part that is replaced */
	enum shell_quote quote; /* open where that part begins */
};

/* Parses text. cursor and start are the number of bytes before the cursor, and before the part that
 * the shell replaces when it completes. */
void shell_line_read(struct shell_line *line, enum shell shell, const char *text, size_t start,
		     size_t cursor);
void shell_line_free(struct shell_line *line); /* what line owns; line itself is the caller's */

/* Quotes text for a bash command line on which such quotes are open, and appends the closing quote:
 * readline adds one only if there is none, and takes any quote for it. Returns memory that the
 * caller owns. */
char *shell_quote(const char *text, enum shell_quote quote);
