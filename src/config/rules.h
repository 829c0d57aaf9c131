/* rules.h - the [access NAME] sections of the configuration file into the rules of access.h.
 *
 * One table has the settings of such a section. Names of users and groups become numbers. A fault
 * is told with its line, and makes the rules invalid. */
#pragma once

#include <stdbool.h>

#include "access/access.h"

struct rules_reader {
	/* "[access web] user: there is no user 'wbe'". */
	void (*fault)(void *owner, unsigned line, const char *text);
	/* The setting has no effect: it names a user whom the kernel can't tell from others. */
	void (*warning)(void *owner, unsigned line, const char *text);
	/* Reads the key of this file, for the section. False: there is no key, which it has told.
	 */
	bool (*key)(void *owner, unsigned line, const char *section, const char *path,
		    struct local_key *out);
	void *owner;
	struct access_rules *rules;     /* NULL: no section so far */
	struct rules_section *section;  /* the present one; NULL: none, or it was refused */
	struct rules_section *sections; /* all of them, the last one first */
	unsigned n;
};

/* header: the text between the brackets. */
bool rules_is_section(const char *header);
void rules_section(struct rules_reader *r, unsigned line, const char *header);
/* A setting of the section that came last. */
void rules_setting(struct rules_reader *r, unsigned line, const char *name, const char *value);

/* The end of the file. The rules are the caller's; NULL: there is no such section. */
struct access_rules *rules_finish(struct rules_reader *r);
