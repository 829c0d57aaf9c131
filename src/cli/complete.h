/* complete.h - the candidates for the word at the cursor of a command line. */
#pragma once

#include "cli.h"
#include "shell-line.h"

/* Prints the candidates for the script of cmd-completion.c, each followed by a NUL:
 *
 *   bash        the text that replaces the line between start and cursor, quoted
 *   zsh, fish   the word as the command gets it, followed by a tab and a description if it has one
 *
 * For zsh, "described" or "plain" comes first. Keys are requested from the daemon that the line
 * names, for two seconds at most. There are none if the line does not tell which daemon that is.
 */
int complete_line(struct cli *c, enum shell shell, const char *left, const char *right,
		  const char *replaced);
