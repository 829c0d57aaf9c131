/* help.h - hpkv --help, and each command's, made from the table. Both fit a screen of 24 lines. */
#pragma once

#include "cli.h"

void help_print(const struct command *command_or_null);
