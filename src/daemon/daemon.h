/* daemon.h - wires the rooms together and runs until a signal ends it.
 *
 * It owns the event loop, the signals, the orderly end and what systemd is told. main has read the
 * command line, the environment and the configuration before. At a SIGHUP the configuration is read
 * again: all of it is taken over while clients and requests go on, or, if anything is wrong with
 * it, nothing. */
#pragma once

#include <stdbool.h>

#include "config/config.h"
#include "base/log.h"

struct daemon_options {
	struct config *config;       /* ownership passes */
	struct config_source source; /* where it is from, for a reload; outlives the daemon */
	bool level_forced;           /* --log-level was given: level beats the file's */
	enum log_level level;
};

/* Before the settings are read, which may take a while: SIGTERM and SIGINT end the process with 0,
 * as they do later, and a SIGHUP waits for daemon_run(). */
void daemon_expect_signals(void);

/* Returns the exit status: 0 after SIGTERM or SIGINT, 1 after a failure, which it has logged. */
int daemon_run(struct daemon_options *options);
