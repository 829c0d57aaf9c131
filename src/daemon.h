/* daemon.h - wires the rooms together and runs until a signal ends it.
 *
 * It owns the event loop, the signals, reload (SIGHUP), the orderly end and what systemd is told.
 * main has read the command line, the environment and the configuration before. */
#pragma once

#include <stdbool.h>

#include "config.h"
#include "log.h"

struct daemon_options {
	const char *config_path; /* read again on SIGHUP; NULL: config_default_path() */
	bool config_required;    /* its absence is an error */
	struct config *config;   /* the first load; ownership passes */
	struct config_environment
		*environment; /* for later loads; stays the caller's and outlives the run */
	bool level_forced; /* --log-level was given: level beats the file's, also after a reload */
	enum log_level level;
};

/* Returns the exit status: 0 after SIGTERM or SIGINT, 1 after a failure, which it has logged. */
int daemon_run(struct daemon_options *options);
