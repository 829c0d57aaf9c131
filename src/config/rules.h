/* rules.h - the [access NAME] sections of the configuration file into the rules of access.h.
 *
 * Knows the settings of such a section (one table) and turns the names of users and groups into
 * numbers. What is wrong is told with its line; then the rules are of no use. */
#pragma once

#include <stdbool.h>

#include "access/access.h"

struct rules_reader {
	/* What is wrong: "[access web] user: there is no user 'wbe'". */
	void (*fault)(void *owner, unsigned line, const char *what);
	/* What has no effect: it names somebody whom the kernel can't tell from others. */
	void (*warning)(void *owner, unsigned line, const char *what);
	void *owner;
	struct access_rules *rules;     /* NULL: no section so far */
	struct rules_section *section;  /* the one that settings belong to now; or NULL */
	struct rules_section *sections; /* all of them, the last one first */
	unsigned n;
};

/* Is this what stands between the brackets of such a section? */
bool rules_is_section(const char *header);
void rules_section(struct rules_reader *r, unsigned line, const char *header);
/* Of the section that came last. */
void rules_setting(struct rules_reader *r, unsigned line, const char *name, const char *value);

/* The end of the file. The rules are the caller's; NULL: there is no such section. */
struct access_rules *rules_finish(struct rules_reader *r);
