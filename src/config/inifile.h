/* inifile.h - INI text into sections and settings, each with the number of its line.
 *
 * The only user of inih, which is too lenient for a configuration that guards a key. As
 * distributions build it, inih does not tell the line, cuts names and lines at a length fixed when
 * it was compiled, adds an indented line to the value before, ignores text behind a section's ],
 * and reports only the first of several bad lines. So this room checks every line before inih gets
 * it: a line that can't be understood is reported, and nothing is dropped or guessed.
 *
 * Comments begin with ; or # at the start of a line, or with ; after white space behind a value. */
#pragma once

#include "base/span.h"

enum { INIFILE_LINE_MAX = 4096 }; /* bytes, not counting comments and white space around */

struct inifile_ops {
	void (*section)(void *owner, unsigned line, const char *name);
	/* Belongs to the section told last; before the first to "". The strings are valid during
	 * the call. */
	void (*setting)(void *owner, unsigned line, const char *name, const char *value);
	/* The line can't be understood. predicate continues the sentence "the line ...": "is not of
	 * the form 'name = value'". */
	void (*fault)(void *owner, unsigned line, const char *predicate);
};

/* Calls ops in the order of the text. 0, or -ENOMEM. */
int inifile_parse(struct span text, const struct inifile_ops *ops, void *owner);
