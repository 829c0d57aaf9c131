/* hpkv - the client of hpkvd for people and scripts (doc/cli.md).
 *
 * Each command is a file with one entry of the table below (cli.h); the library (lib/hpkv.h) talks
 * to the daemon. The rooms of this directory: main reads the command line; show prints keys and
 * values; say prints messages; visible makes text harmless; invisible lists characters that a
 * terminal does not show; batch sends one request for each of many keys; field reads members of the
 * daemon's answers; complete finds what may stand at the cursor of a line that shell-line parses;
 * signals handles termination; exec and child run commands; top and top-screen build and show its
 * pages; pages reads ranges page by page; record, lines, resume and meter serve export and import;
 * live keeps records in memory; environment and supervisor serve exec, tree and filename mirror;
 * cmd-NAME are the commands. */
#include <errno.h>
#include <fcntl.h>
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
#include "base/mem.h"
#include "base/output.h"
#include "show.h"
#include "visible.h"
#include "signals.h"

const struct command *const cli_commands[] = {
	&cmd_get,  &cmd_set,    &cmd_patch,      &cmd_del,   &cmd_range,  &cmd_ls,
	&cmd_incr, &cmd_watch,  &cmd_wait,       &cmd_token, &cmd_status, &cmd_stats,
	&cmd_ping, &cmd_ready,  &cmd_top,        &cmd_raw,   &cmd_export, &cmd_import,
	&cmd_exec, &cmd_mirror, &cmd_completion, NULL,
};

enum { OPT_SOCKET, OPT_TIMEOUT, OPT_JSON, OPT_RAW, OPT_NUL, OPT_HELP, OPT_VERSION };

const struct cli_option cli_options[] = {
	[OPT_SOCKET] = {"socket", 's', "PATH", "the daemon's socket: a path or @name"},
	[OPT_TIMEOUT] = {"timeout", 't', "TIME",
			 "how long a request may take: 5s, 100ms, 2m (10s)"},
	[OPT_JSON] = {"json", 'j', NULL, "print the daemon's answers unchanged"},
	[OPT_RAW] = {"raw", 'r', NULL, "print values byte for byte"},
	[OPT_NUL] = {"null", '0', NULL, "end values with NUL instead of a line end"},
	[OPT_HELP] = {"help", 'h', NULL, "print this help"},
	[OPT_VERSION] = {"version", 'V', NULL, "print the version"},
	{NULL, 0, NULL, NULL},
};

/* What getopt returns for an option in its long form: common options, options of the command.
 * Letters are smaller numbers. */
enum { OURS = 300, COMMAND_OPTION = 1000 };
enum { OPTIONS_MAX = 24, LETTERS_MAX = 64 };

/* ---- what the commands share ---- */

const struct command *cli_find(const char *name)
{
	for (unsigned i = 0; cli_commands[i]; i++) {
		if (strcmp(cli_commands[i]->name, name) == 0)
			return cli_commands[i];
	}
	return NULL;
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

/* What the user can do; "" if there is nothing to say. */
static const char *advice(const struct hpkv_answer *a)
{
	static char text[80];
	int wait = a->retry_after_ms / 100 + (a->retry_after_ms % 100 > 0); /* rounded up */

	switch (a->result) {
	case HPKV_UNAVAILABLE:
		if (a->retry_after_ms > 0) {
			snprintf(text, sizeof(text), "; nothing was changed, try again in %d.%d s",
				 wait / 10, wait % 10);
			return text;
		}
		/* Without an answer from hpkvd, hpkv status gets none either. */
		return a->code ? "; nothing was changed, try again later (hpkv status says more)"
			       : "; nothing was changed, try again later";
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

/* A user may not know that only some commands take globs. */
static const char *not_found(struct hpkv_bytes key)
{
	return key.n && memchr(key.p, '*', key.n)
		       ? "no such key; a * stands for itself here (hpkv ls 'GLOB' lists keys)"
		       : "no such key";
}

int cli_fail(const char *what, struct hpkv_bytes subject, const struct hpkv_answer *a)
{
	const char *why = a->result == HPKV_NOT_FOUND ? not_found(subject) : a->error;
	size_t n = strlen(what);

	/* Some sentences of the daemon begin with the same words. */
	if (!subject.p && strncmp(why, what, n) == 0 && strncmp(why + n, ": ", 2) == 0)
		why += n + 2;
	cli_say("%s%s%s: %s%s", what, subject.p ? " " : "", subject.p ? visible_name(subject) : "",
		why, advice(a));
	return cli_exit_of(a->result);
}

int cli_answer(const struct cli *c, const char *what, struct hpkv_bytes subject,
	       const struct hpkv_answer *a)
{
	if (c->json && a->line.n)
		show_line(c, a->line);
	return a->result ? cli_fail(what, subject, a) : CLI_DONE;
}

int cli_call(struct cli *c, const char *what, const struct hpkv_request *q,
	     const struct hpkv_answer **answer)
{
	const struct hpkv_answer *a;

	hpkv_call(c->hpkv, q, &a);
	if (answer)
		*answer = a;
	return cli_answer(c, what, q->key, a);
}

bool cli_time(const char *text, int most, int *ms)
{
	static const struct {
		const char *name;
		double ms;
	} units[] = {{"ms", 1}, {"s", 1000}, {"", 1000}, {"m", 60000}, {"h", 3600000}};
	char *end;

	double value = strtod(text, &end);
	/* strtod() also takes hexadecimal numbers, infinities and NaN. */
	if (*text == '.' || end != text + strspn(text, "0123456789."))
		return false;
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

long long cli_left_ms(long long until)
{
	if (until < 0)
		return -1;
	long long left = until - cli_now_ms();
	return left > 0 ? left : 0;
}

/* ---- the command line ---- */

/* Adds a table of options to getopt's; they return first, first + 1 and so on. */
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

/* The index of an option; getopt returns its letter if that was used. */
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
		return *argument ? -1 : cli_usage(c, "--socket needs a path");
	case OPT_TIMEOUT:
		if (cli_time(argument, INT_MAX, &c->timeout_ms))
			return -1;
		return cli_usage(c, "'%s' is not a time like 5s, 100ms or 2m",
				 visible_name(hpkv_str(argument)));
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
	char letter[] = {'-', (char)optopt, '\0'};
	/* A letter may be one of several in a word that getopt has not passed yet. */
	bool is_letter = optopt && optopt < OURS;
	const char *word = visible_name(hpkv_str(is_letter ? letter : argv[optind - 1]));

	if (got == ':')
		return cli_usage(c, "option '%s' needs an argument", word);
	return cli_usage(c, "there is no option '%s' (a word that begins with - goes behind --)",
			 word);
}

/* Reads options from argv[1] on: up to the command if that is not known yet, else all, which moves
 * the words to the end of argv. -1: go on; else the exit status. */
static int read_options(struct cli *c, int argc, char **argv)
{
	struct option longs[OPTIONS_MAX] = {{0}};
	char letters[LETTERS_MAX] = "";
	int got, status = -1;

	strcpy(letters, c->command && !c->command->verbatim ? ":" : "+:");
	/* The command's first: one may have the name of one of all commands. */
	int n = c->command ? add_options(c->command->options, COMMAND_OPTION, longs, letters) : 0;
	add_options(cli_options, OURS, longs + n, letters);
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
	static const char digits[] = "0123456789";

	if (word[0] != '-' || strcmp(word, "-0") == 0)
		return false;
	word += word[1] == '.' ? 2 : 1;
	return *word && strchr(digits, *word) && !word[strspn(word, "0123456789.eE+-")];
}

/* Reads the options of a command whose words may be negative numbers. These are hidden from getopt,
 * which would take them for options. */
static int read_options_among_numbers(struct cli *c, int argc, char **argv)
{
	char **hidden = mem_alloc((size_t)argc * sizeof(*hidden));
	int n = 0;

	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
		if (is_negative_number(argv[i])) {
			hidden[n++] = argv[i];
			*argv[i] = '+';
		}
	}
	int status = read_options(c, argc, argv);
	while (n > 0)
		*hidden[--n] = '-';
	free(hidden);
	return status;
}

/* Makes the handle, and finds out what stdout is. -1: go on; else the exit status. */
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
	int status = command->number ? read_options_among_numbers(c, argc, argv)
				     : read_options(c, argc, argv);

	if (status >= 0)
		return status;
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
	int written = show_end();
	hpkv_free(c->hpkv);
	return status > written ? status : written;
}

/* Keys and values are UTF-8, whatever the locale of the terminal is. */
static void set_characters(void)
{
	setlocale(LC_CTYPE, "");
	if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0)
		setlocale(LC_CTYPE, "C.UTF-8");
}

/* Opens closed standard files so that using them fails. Otherwise the daemon's socket would get
 * such a number, and be written to. */
static void fill_standard_files(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
		if (fcntl(fd, F_GETFD) < 0 &&
		    open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0)
			exit(CLI_USAGE);
	}
}

static int show_help(struct cli *c, const char *name)
{
	c->command = name ? cli_find(name) : NULL;
	if (name && !c->command)
		return cli_usage(NULL, "there is no command '%s'", visible_name(hpkv_str(name)));
	help_print(c->command);
	return show_flush();
}

int main(int argc, char **argv)
{
	struct cli c = {.timeout_ms = -1};
	int status;

	fill_standard_files();
	output_keep_all(&stdout);
	output_keep_all(&stderr);
	signals_begin();
	set_characters();
	status = read_options(&c, argc, argv);
	if (status >= 0)
		return status;
	argc -= optind - 1;
	argv += optind - 1;
	if (argc > 1 && strcmp(argv[1], "help") == 0)
		return show_help(&c, argv[2]);
	if (argc < 2)
		return cli_usage(NULL, "a command is missing");
	c.command = cli_find(argv[1]);
	if (!c.command)
		return cli_usage(NULL, "there is no command '%s'", visible_name(hpkv_str(argv[1])));
	return run(&c, argc - 1, argv + 1);
}
