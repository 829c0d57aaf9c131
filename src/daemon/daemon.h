/* daemon.h - the life of the daemon: start, run until a signal, end.
 *
 * Owns the event loop, the signals and the watchdog of the service manager. The rooms and how they
 * are joined are in wiring.h, SIGHUP is in reload.h, SIGTERM in shutdown.h. main.c has read the
 * command line, the environment and the configuration before. */
#pragma once

#include <stdbool.h>

#include "config/load.h"
#include "base/log.h"
#include "daemon/restart.h"

struct daemon_options {
	struct config *config;       /* ownership passes */
	struct config_source source; /* where a reload reads it; its texts outlive the daemon */
	bool level_forced;           /* --log-level was given: level overrides the file's */
	enum log_level level;
	struct restart_program program; /* for SIGUSR2; outlives the daemon */
};

/* Call it before the settings are read, which may take a while: from then on SIGTERM and SIGINT end
 * the process with status 0, and a SIGHUP waits for daemon_run(). */
void daemon_expect_signals(void);

/* Returns the exit status: 0 after SIGTERM or SIGINT, 1 after a failure, which it has logged. */
int daemon_run(const struct daemon_options *options);
