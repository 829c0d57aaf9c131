/* commands.h - all commands of hpkv; main.c has the table of them. */
#pragma once

#include "cli.h"

extern const struct command cmd_get, cmd_set, cmd_patch, cmd_del, cmd_range, cmd_ls, cmd_incr,
	cmd_watch, cmd_wait, cmd_token, cmd_status, cmd_stats, cmd_ping, cmd_ready, cmd_top,
	cmd_raw, cmd_completion, cmd_export, cmd_import, cmd_exec, cmd_mirror;
