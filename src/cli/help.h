/* help.h - hpkv --help, and each command's, made from the table. Each fits a screen of 24 lines,
 * the prompt behind it included. */
#pragma once

#include "cli.h"

void help_print(const struct command *command_or_null);
