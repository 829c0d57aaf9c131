/* supervisor.h - the parent of exec --watch: starts a command with an environment, and starts it
 * again or signals it when the environment changes.
 *
 * Signals that end programs are passed on to the command; those of a terminal, which the command
 * gets as well, are not. What has ended is reaped, be it an orphan (process 1 of a container). The
 * command's exit status, or the signal that has ended it, is that of hpkv. */
#pragma once

#include "environment.h"
#include "live.h"

struct supervisor_options {
	struct environment_options environment;
	char **argv;
	int signal;   /* what tells it of a change; 0: it is started again */
	int grace_ms; /* between SIGTERM and SIGKILL */
};

/* Returns the exit status, unless a signal has ended the command: then that ends hpkv. */
int supervise(struct cli *c, const struct supervisor_options *options);

/* The exit status of a command that could not be started, which is said. */
int supervisor_not_started(const char *command, int error);
