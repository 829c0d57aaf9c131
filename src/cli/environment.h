/* environment.h - variables made of records, for exec.
 *
 * A key's name without the prefix becomes the variable's: what is no letter, digit or _ is a _, and
 * a _ goes before a digit that it would begin with. Members of a JSON object become variables in
 * the same way: strings as their text, anything else as its JSON text. Errors: two records with one
 * name, an empty name, a value that holds a NUL, and more than the kernel lets a program start
 * with. A program must not start with half of its configuration. */
#pragma once

#include <stdbool.h>

#include <hpkv.h>

struct environment {
	char **variables; /* "NAME=value", sorted by name; owned, as each of them is */
	size_t n;
};

struct environment_options {
	const char *prefix; /* NULL: records are not wanted */
	const char *object; /* the key of a JSON object, or NULL */
	bool upcase;
	char *const *argv; /* of the command, which shares the kernel's room with the variables */
};

enum { ENVIRONMENT_WHY_MAX = 400 };

/* Of records, with the object's among them. false: why says what is wrong; *e is empty then. */
bool environment_make(struct environment *e, const struct environment_options *options,
		      const struct hpkv_record *records, size_t n, char why[ENVIRONMENT_WHY_MAX]);

bool environment_equal(const struct environment *a, const struct environment *b);
void environment_free(struct environment *e);

/* The program's own environment with these variables in place of its own of these names. Free the
 * list, not what it points to. */
char **environment_join(const struct environment *e);
