/* exec.h - the command of watch --exec: what it is given of a change.
 *
 * HPKV_EVENT (set, delete) and HPKV_TIMESTAMP are always in its environment, HPKV_KEY as well, and
 * HPKV_VALUE unless the key was deleted. A variable that can't hold its text (a NUL, too long)
 * would be missing, and the command would take that for an empty one; so it is not run then. Its
 * stdin holds the value; or the object, as the daemon sent it, and there is no HPKV_VALUE then. */
#pragma once

#include <stdbool.h>

#include "cli.h"

/* Runs it to its end. Says what went wrong. CLI_DONE, whatever the command's status is; CLI_USAGE:
 * it was not run. */
int exec_command(const char *command, bool object, const struct hpkv_event *e);
