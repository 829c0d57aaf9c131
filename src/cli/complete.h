/* complete.h - what may stand at the cursor of a command line. */
#pragma once

#include "cli.h"
#include "shell-line.h"

/* Prints it for the script of cmd-completion.c, each with a NUL behind it:
 *
 *   bash        what replaces the line between start and cursor, quoted
 *   zsh, fish   words as the command gets them; those that have one with a tab and a description
 *
 * For zsh, "described" or "plain" comes first. Keys are asked of the daemon that the line names,
 * for two seconds at most; if the line does not tell which one it is, there are none. */
int complete_line(struct cli *c, enum shell shell, const char *left, const char *right,
		  const char *replaced);
