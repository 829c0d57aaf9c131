/* exec.h - runs the command of watch --exec for one change.
 *
 * The command's environment has HPKV_EVENT (set, delete), HPKV_TIMESTAMP, HPKV_SKIPPED and
 * HPKV_KEY, and HPKV_VALUE unless the key was deleted. A key or value that holds a NUL or is too
 * long fits in no variable. The command is not run then, because it would take a missing variable
 * for an empty one. Its stdin holds the value. With object, its stdin holds the change as the
 * daemon sent it, and HPKV_VALUE is not set. */
#pragma once

#include <stdbool.h>

#include "cli.h"

/* Runs the command to its end and prints an error if that fails. CLI_DONE, whatever the command's
 * exit status is; CLI_USAGE: it was not run. */
int exec_command(const char *command, bool object, const struct hpkv_event *e);
