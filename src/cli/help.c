#include "help.h"

#include <stdio.h>
#include <string.h>

enum { ARGS_COLUMN = 26, OPTIONS_COLUMN = 20, ROW_MAX = 120 };

static void print_row(const char *left, const char *right, int column)
{
	printf("  %-*s %s\n", column, left, right);
}

static void print_commands(void)
{
	char left[ROW_MAX];

	printf("usage: hpkv [OPTION]... COMMAND [WORD]...     hpkv COMMAND --help explains one\n");
	for (unsigned i = 0; cli_commands[i]; i++) {
		const struct command *c = cli_commands[i];
		snprintf(left, sizeof(left), "%s %s", c->name, c->args);
		print_row(left, c->summary, ARGS_COLUMN);
	}
	printf("  -s, --socket PATH  else $HPKVD_SOCKET, $XDG_RUNTIME_DIR/hpkvd.sock, or /run's\n"
	       "  -t, --timeout TIME like 5s, 100ms, 2m    -j, --json  the daemon's answers\n"
	       "  -r, --raw          values byte for byte  -0, --null  a NUL behind each\n"
	       "exit status: 0 done, 1 not found, 2 usage, 3 refused, 4 no daemon,\n"
	       "             5 service away or too slow, 6 a write's outcome is unknown\n");
}

static void print_option(const struct cli_option *o)
{
	char left[ROW_MAX], letter[8] = "    ";

	if (o->letter)
		snprintf(letter, sizeof(letter), "-%c, ", o->letter);
	snprintf(left, sizeof(left), "%s--%s%s%s", letter, o->name, o->arg ? " " : "",
		 o->arg ? o->arg : "");
	print_row(left, o->help, OPTIONS_COLUMN);
}

void help_print(const struct command *command)
{
	if (!command) {
		print_commands();
		return;
	}
	printf("usage: hpkv %s [OPTION]...%s%s\n\n%s\n", command->name, *command->args ? " " : "",
	       command->args, command->help);
	for (const struct cli_option *o = command->options; o->name; o++)
		print_option(o);
	printf("Options of all commands: hpkv --help\n");
}
