/* load.h - the configuration file, the environment and the key file, as one struct config.
 *
 * config_load() gives either a config in which every value is in its range, every name is resolved
 * and the key is read, or texts that name file, line and setting of all faults. There is no third
 * way and no silent default. It changes nothing outside, so a reload can try a new file while the
 * old settings stay in force. It does not watch files. */
#pragma once

#include <stdbool.h>

#include "config/config.h"
#include "config/environment.h"

struct config_source {
	const char *path; /* NULL: config_default_path() */
	bool required; /* true: a missing file is a fault; false: it is as good as an empty one */
	bool filled;   /* an empty file is a fault */
	bool at_once;  /* a FIFO is not waited for until somebody writes to it */
	const struct config_environment *environment; /* may be NULL */
};

/* Where the packaged file lies: $(sysconfdir)/hpkvd/hpkvd.conf */
const char *config_default_path(void);

/* 0: *out is a new config, owned by the caller. -EINVAL (wrong) or another -errno (the file could
 * not be read): report holds at least one text. */
int config_load(const struct config_source *source, struct config **out,
		struct config_report *report);
