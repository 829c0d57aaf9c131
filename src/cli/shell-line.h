/* shell-line.h - a command line as a shell would read it, up to where its user has come.
 *
 * For completion: the words as the command will get them, what has been typed of the word at the
 * cursor, and within which quotes that stands. Quotes, escapes, ~, and variables that are told in
 * the environment (HPKV_VAR_NAME for NAME) are read as bash, zsh and fish do. What only the shell
 * itself could tell ($(...), a glob, a variable that was not told) makes a word unknown: nothing is
 * ever run, and nothing guessed. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum shell { SHELL_BASH, SHELL_ZSH, SHELL_FISH };
enum shell_quote { QUOTE_NONE, QUOTE_SINGLE, QUOTE_DOUBLE, QUOTE_ANSI /* $'...' */ };

struct shell_word {
	char *text; /* owned, ended by a NUL; of an unknown word what comes before that */
	size_t n;
	bool unknown, glob; /* glob: all is there, and some of it may stand for other text */
};

struct shell_line {
	struct shell_word *words; /* owned; the command's alone, redirections left out */
	size_t n;
	long current; /* the word at the cursor; -1: it is nothing that the command gets */
	size_t typed; /* of its bytes, those before the cursor */
	size_t kept;  /* … and those before the place that is replaced */
	enum shell_quote quote; /* there */
};

/* text: the line; cursor and start: how many of its bytes are before the cursor, and before what
 * the shell replaces when it completes. */
void shell_line_read(struct shell_line *line, enum shell shell, const char *text, size_t start,
		     size_t cursor);
void shell_line_free(struct shell_line *line);

/* The text as it is to stand on a line of bash within such quotes, so that it means itself, and the
 * quote that ends it: readline adds one only if there is none, and takes any for that one. Owned by
 * the caller. */
char *shell_quote(const char *text, enum shell_quote quote);
