/* inifile.h - INI text into sections and settings, each with the number of its line.
 *
 * The only user of inih, and the place where that library's leniency ends. inih as distributions
 * build it forgets to tell the line, cuts names and lines at a length fixed when it was compiled,
 * glues an indented line to the value before, ignores what follows a section's ], and says of all
 * bad lines only which is the first. Here every line is looked at before inih gets it, so that
 * whatever cannot be understood is reported, and nothing is dropped or guessed.
 *
 * Comments begin with ; or # at the start of a line, or with ; after white space behind a value. */
#pragma once

#include "base/span.h"

enum { INIFILE_LINE_MAX = 4096 }; /* bytes, comments and the white space around not counted */

struct inifile_ops {
	void (*section)(void *owner, unsigned line, const char *name);
	/* Of the section last told, "" before the first. The strings are valid during the call. */
	void (*setting)(void *owner, unsigned line, const char *name, const char *value);
	/* The line cannot be understood; what is a sentence's rest: "is not of the form 'name =
	 * value'". */
	void (*fault)(void *owner, unsigned line, const char *what);
};

/* Tells everything in the order of the text. 0, or -ENOMEM. */
int inifile_parse(struct span text, const struct inifile_ops *ops, void *owner);
