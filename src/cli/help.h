/* help.h - prints the help of hpkv and of each command, generated from the table. Each fits on a
 * screen of 24 lines, the prompt behind it included. */
#pragma once

#include "cli.h"

/* NULL: the help of hpkv itself. */
void help_print(const struct command *command_or_null);
