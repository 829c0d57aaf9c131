/* draft.h - a configuration in the making: values, the lines that they stand in, and the faults.
 *
 * load.h fills it from the file, references.h resolves paths, names and addresses. */
#pragma once

#include <stdbool.h>
#include <sys/stat.h>

#include "config/config.h"
#include "config/environment.h"
#include "config/settings_table.h"

struct draft {
	const char *path;                             /* of the file */
	bool absent;                                  /* the file is not there, and need not be */
	const struct config_environment *environment; /* may be NULL */
	struct setting_values *values;
	unsigned given[SET_N]; /* the line of each setting; 0: not in the file */
	bool bad[SET_N];       /* its value was refused */
	struct config_report *report;
	struct draft_key {
		struct local_key key;
		unsigned line;
		char *section;
	} * keys; /* of the sections of access rules */
	size_t n_keys;
};

/* path itself, or below dir; dir NULL: the directory of the configuration file. To be freed. */
char *draft_resolve_path(const struct draft *d, const char *dir, const char *path);

/* Reports a fault of this setting, with its line if it has one. */
__attribute__((format(printf, 3, 4))) void draft_fault(struct draft *d, enum setting_id id,
						       const char *format, ...);
/* Reports a fault of a line of the file; line 0: of the file. */
__attribute__((format(printf, 3, 4))) void draft_fault_in_line(struct draft *d, unsigned line,
							       const char *format, ...);
/* A setting's value, from the file or the table of defaults; a fault is reported. */
void draft_set(struct draft *d, enum setting_id id, const char *value);
/* Notes whether others may write the file, which says where the key goes (config::exposed). */
void draft_note_exposure(struct draft *d, const char *path, const struct stat *st,
			 enum config_exposed writable, enum config_exposed foreign);
