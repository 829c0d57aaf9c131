/* hpkv - the client of hpkvd for people and scripts (doc/cli.md).
 *
 * Each command is a file with one row of the table below (cli.h); the library (lib/hpkv.h) does the
 * talking. The rooms of this directory: main reads the command line; show writes keys and values;
 * batch asks many things at once; field finds members of the daemon's answers; cmd-NAME are the
 * commands. */
#include <errno.h>
#include <getopt.h>
#include <langinfo.h>
#include <limits.h>
#include <locale.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "commands.h"
#include "help.h"
#include "show.h"

const struct command *const cli_commands[] = {
	&cmd_get,  &cmd_set,   &cmd_patch, &cmd_del,   &cmd_range,      &cmd_ls,
	&cmd_incr, &cmd_watch, &cmd_wait,  &cmd_token, &cmd_status,     &cmd_stats,
	&cmd_ping, &cmd_ready, &cmd_top,   &cmd_raw,   &cmd_completion, NULL,
};

enum { OPT_SOCKET, OPT_TIMEOUT, OPT_JSON, OPT_RAW, OPT_NUL, OPT_HELP, OPT_VERSION };

const struct cli_option cli_options[] = {
	[OPT_SOCKET] = {"socket", 's', "PATH", "the daemon's socket"},
	[OPT_TIMEOUT] = {"timeout", 't', "TIME", "how long it may take: 5s, 100ms, 2m (10s)"},
	[OPT_JSON] = {"json", 'j', NULL, "print the daemon's answers as they are"},
	[OPT_RAW] = {"raw", 'r', NULL, "print values byte for byte"},
	[OPT_NUL] = {"null", '0', NULL, "end values with NUL in place of a line end"},
	[OPT_HELP] = {"help", 'h', NULL, "print this"},
	[OPT_VERSION] = {"version", 'V', NULL, "print the version"},
	{NULL, 0, NULL, NULL},
};

enum { COMMAND_OPTION = 1000, OPTIONS_MAX = 24, LETTERS_MAX = 64 };

/* ---- what the commands share ---- */

const struct command *cli_find(const char *name)
{
	for (unsigned i = 0; cli_commands[i]; i++) {
		if (strcmp(cli_commands[i]->name, name) == 0)
			return cli_commands[i];
	}
	return NULL;
}

void cli_say(const char *format, ...)
{
	char text[1000];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	/* What came from elsewhere must not add lines, or steer the terminal. */
	for (char *at = text; *at; at++) {
		if ((unsigned char)*at < 0x20 || *at == 0x7f)
			*at = ' ';
	}
	fflush(stdout); /* so that the two come in order on a terminal */
	fprintf(stderr, "hpkv: %s\n", text);
}

int cli_usage(const struct cli *c, const char *format, ...)
{
	char text[400];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (c && c->command)
		cli_say("%s: %s; see hpkv %s --help", c->command->name, text, c->command->name);
	else
		cli_say("%s; see hpkv --help", text);
	return CLI_USAGE;
}

int cli_exit_of(enum hpkv_result result)
{
	switch (result) {
	case HPKV_OK:
		return CLI_DONE;
	case HPKV_NOT_FOUND:
		return CLI_NOT_FOUND;
	case HPKV_REFUSED:
		return CLI_REFUSED;
	case HPKV_NO_DAEMON:
		return CLI_NO_DAEMON;
	case HPKV_UNAVAILABLE:
		return CLI_UNAVAILABLE;
	case HPKV_UNKNOWN:
		return CLI_UNKNOWN;
	case HPKV_INVALID:
	case HPKV_BUSY:
	case HPKV_NO_MEMORY:
	case HPKV_CANCELLED:
		break;
	}
	return CLI_USAGE;
}

/* What to do about it; "" if there is nothing to say. */
static const char *advice(const struct hpkv_answer *a)
{
	static char text[80];

	switch (a->result) {
	case HPKV_UNAVAILABLE:
		if (a->retry_after_ms > 0) {
			snprintf(text, sizeof(text), "; nothing was changed, try again in %d.%d s",
				 a->retry_after_ms / 1000, a->retry_after_ms % 1000 / 100);
			return text;
		}
		return "; nothing was changed, try again later (hpkv status says more)";
	case HPKV_UNKNOWN:
		return "; it may have been done or not: look before you repeat it";
	case HPKV_REFUSED:
		return strcmp(a->reason, "forbidden") == 0
			       ? "; see the [access] sections of hpkvd.conf"
			       : "";
	case HPKV_NO_DAEMON:
		return " (--socket or HPKVD_SOCKET names another socket)";
	default:
		return "";
	}
}

int cli_fail(const char *what, struct hpkv_bytes subject, const struct hpkv_answer *a)
{
	const char *why = a->result == HPKV_NOT_FOUND ? "no such key" : a->error;

	cli_say("%s%s%s: %s%s", what, subject.p ? " " : "", subject.p ? show_safe(subject) : "",
		why, advice(a));
	return cli_exit_of(a->result);
}

int cli_call(struct cli *c, const char *what, const struct hpkv_request *q,
	     const struct hpkv_answer **answer)
{
	const struct hpkv_answer *a;

	hpkv_call(c->hpkv, q, &a);
	if (answer)
		*answer = a;
	if (c->json && a->line.n)
		show_line(a->line);
	return a->result ? cli_fail(what, q->key, a) : CLI_DONE;
}

bool cli_time(const char *text, int most, int *ms)
{
	static const struct {
		const char *name;
		double ms;
	} units[] = {{"ms", 1}, {"s", 1000}, {"", 1000}, {"m", 60000}, {"h", 3600000}};
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	double value = strtod(text, &end);
	for (unsigned i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (strcmp(end, units[i].name) != 0)
			continue;
		value *= units[i].ms;
		if (!(value >= 1 && value <= most))
			return false;
		*ms = (int)value;
		return true;
	}
	return false;
}

bool cli_count(const char *text, long min, long max, long *out)
{
	char *end;

	errno = 0;
	long value = strtol(text, &end, 10);
	if (errno || end == text || *end || value < min || value > max)
		return false;
	*out = value;
	return true;
}

long long cli_now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (long long)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- the command line ---- */

/* A table of ours as getopt's, its options returned from first on. */
static int add_options(const struct cli_option *from, int first, struct option *to, char *letters)
{
	int n = 0;

	for (; from[n].name; n++) {
		to[n] = (struct option){from[n].name, from[n].arg ? required_argument : no_argument,
					NULL, first + n};
		if (from[n].letter) {
			size_t at = strlen(letters);
			letters[at] = from[n].letter;
			letters[at + 1] = from[n].arg ? ':' : '\0';
			letters[at + 2] = '\0';
		}
	}
	return n;
}

/* getopt returns a letter for a letter. */
static int number_of(int got, const struct cli_option *from, int first)
{
	for (int i = 0; from[i].name; i++) {
		if (got == first + i || (from[i].letter && got == from[i].letter))
			return i;
	}
	return -1;
}

/* -1: go on; else the exit status. */
static int take_option(struct cli *c, int which, const char *argument)
{
	switch (which) {
	case OPT_SOCKET:
		c->socket = argument;
		return -1;
	case OPT_TIMEOUT:
		if (cli_time(argument, INT_MAX, &c->timeout_ms))
			return -1;
		return cli_usage(c, "'%s' is not a time like 5s, 100ms or 2m",
				 show_safe(hpkv_str(argument)));
	case OPT_JSON:
		c->json = true;
		return -1;
	case OPT_RAW:
		c->raw = true;
		return -1;
	case OPT_NUL:
		c->nul = true;
		return -1;
	case OPT_HELP:
		help_print(c->command);
		return show_flush();
	default:
		printf("hpkv %s\n", hpkv_version());
		return show_flush();
	}
}

static int wrong_option(const struct cli *c, char **argv, int got)
{
	const char *word = show_safe(hpkv_str(argv[optind > 1 ? optind - 1 : 1]));

	if (got == ':')
		return cli_usage(c, "option '%s' needs an argument", word);
	return cli_usage(c, "there is no option '%s' (a word that begins with - goes behind --)",
			 word);
}

/* Reads options from argv[1] on: up to the command when there is none yet, else all there are,
 * after which the words are the last in argv. -1: go on; else the exit status. */
static int read_options(struct cli *c, int argc, char **argv)
{
	enum { OURS = 300 };
	struct option longs[OPTIONS_MAX] = {{0}};
	char letters[LETTERS_MAX] = "";
	int got, status = -1;

	strcpy(letters, c->command ? ":" : "+:");
	int n = add_options(cli_options, OURS, longs, letters);
	if (c->command)
		add_options(c->command->options, COMMAND_OPTION, longs + n, letters);
	opterr = 0;
	optind = 0;
	while (status < 0 && (got = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
		int own = c->command ? number_of(got, c->command->options, COMMAND_OPTION) : -1;
		int ours = number_of(got, cli_options, OURS);
		if (got == '?' || got == ':')
			status = wrong_option(c, argv, got);
		else if (own >= 0)
			c->opt[own] = optarg ? optarg : "";
		else if (ours >= 0)
			status = take_option(c, ours, optarg);
	}
	return status;
}

static bool is_negative_number(const char *word)
{
	return word[0] == '-' && word[1] &&
	       strspn(word + 1, "0123456789.eE+-") == strlen(word + 1) && strcmp(word, "-0") != 0 &&
	       strcmp(word, "--") != 0;
}

/* The socket's path, and what the output is. */
static int set_up(struct cli *c)
{
	const char *no_colour = getenv("NO_COLOR"), *term = getenv("TERM");

	c->terminal = isatty(STDOUT_FILENO);
	c->colour = c->terminal && !(no_colour && *no_colour) && term && strcmp(term, "dumb") != 0;
	c->hpkv = hpkv_new(c->socket);
	if (!c->hpkv) {
		cli_say("%s", hpkv_error(NULL));
		return CLI_USAGE;
	}
	if (c->timeout_ms > 0)
		hpkv_set_timeout(c->hpkv, c->timeout_ms);
	return -1;
}

static int run(struct cli *c, int argc, char **argv)
{
	const struct command *command = c->command;
	char *last = NULL;

	/* getopt would take a negative number for options. */
	if (command->number && argc > 2 && is_negative_number(argv[argc - 1]))
		last = argv[--argc];
	int status = read_options(c, argc, argv);
	if (status >= 0)
		return status;
	if (last)
		argv[argc++] = last;
	argc -= optind;
	argv += optind;
	if (argc < command->min || (command->max >= 0 && argc > command->max))
		return cli_usage(c, "%s; usage: hpkv %s%s%s",
				 argc < command->min ? "a word is missing" : "too many words",
				 command->name, *command->args ? " " : "", command->args);
	status = set_up(c);
	if (status >= 0)
		return status;
	status = command->exec(c, argc, argv);
	int written = show_flush();
	hpkv_free(c->hpkv);
	return status > written ? status : written;
}

/* Keys and values are UTF-8, whatever the terminal is set to. */
static void set_characters(void)
{
	setlocale(LC_CTYPE, "");
	if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0)
		setlocale(LC_CTYPE, "C.UTF-8");
}

int main(int argc, char **argv)
{
	struct cli c = {.timeout_ms = -1};
	int status;

	set_characters();
	status = read_options(&c, argc, argv);
	if (status >= 0)
		return status;
	argc -= optind - 1;
	argv += optind - 1;
	if (argc > 1 && strcmp(argv[1], "help") == 0) {
		c.command = argc > 2 ? cli_find(argv[2]) : NULL;
		help_print(c.command);
		return show_flush();
	}
	if (argc < 2)
		return cli_usage(NULL, "a command is missing");
	c.command = cli_find(argv[1]);
	if (!c.command)
		return cli_usage(NULL, "there is no command '%s'", show_safe(hpkv_str(argv[1])));
	return run(&c, argc - 1, argv + 1);
}
