/* cli.h - what the commands of hpkv share: the table of commands, the parsed command line, messages
 * and exit statuses.
 *
 * Each command is a file with one struct command. main.c parses the common options and the
 * command's own, then calls exec with the remaining words. Help and completion are generated from
 * the same table. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include <hpkv.h>

#include "say.h"

/* Exit statuses, part of the interface. When several things fail, the highest counts. */
enum cli_exit {
	CLI_DONE = 0,
	CLI_NOT_FOUND = 1, /* get, del: no such key; wait: the time is up */
	CLI_USAGE = 2,     /* wrong usage, or a local failure: stdin, stdout, memory */
	CLI_REFUSED = 3,   /* by the access rules or by the service */
	CLI_NO_DAEMON = 4,
	CLI_UNAVAILABLE =
		5, /* no connection to the service, or no answer in time; nothing was changed */
	CLI_UNKNOWN = 6 /* a write with an unknown outcome */
};

enum { CLI_OPTIONS_MAX = 8, CLI_DEFAULT_TIMEOUT_MS = 10000 };

struct cli_option {
	const char *name; /* without its dashes; NULL ends the list */
	char letter;      /* 0: none */
	const char *arg;  /* the name of its argument; NULL: it takes none */
	const char *help;
};

struct cli {
	struct hpkv *hpkv;
	const char *socket;  /* --socket, or NULL */
	int timeout_ms;      /* --timeout, or -1 */
	bool json, raw, nul; /* --json, --raw, -0 */
	bool terminal;       /* stdout is one */
	bool colour;
	const char *opt[CLI_OPTIONS_MAX]; /* the command's own options: the argument, "" for an
					     option without one, NULL if not given */
	const struct command *command;
};

/* What the words of a command name, for completion. */
enum cli_words {
	WORDS_NONE,
	WORDS_KEYS,
	WORDS_KEY, /* the first; the others can't be completed */
	WORDS_SHELLS,
	WORDS_KEY_FOLDER, /* a key, then a directory */
	WORDS_FILES
};

struct command {
	const char *name;
	const char *args;    /* as usage shows them: "KEY [VALUE]" */
	const char *summary; /* its line in hpkv --help */
	const char *help;    /* the text of hpkv COMMAND --help between usage and options */
	struct cli_option options[CLI_OPTIONS_MAX + 1];
	int min, max;  /* how many words; max -1: any number */
	bool number;   /* words may be negative numbers */
	bool verbatim; /* from the first word on, nothing is an option */
	enum cli_words words;
	int (*exec)(struct cli *c, int argc, char **argv); /* returns an enum cli_exit */
};

/* All commands, in the order of the help; NULL ends the list. */
extern const struct command *const cli_commands[];
extern const struct cli_option cli_options[]; /* common to all commands */

/* The command of this name, or NULL. */
const struct command *cli_find(const char *name);

/* Prints a usage error that ends in "see hpkv COMMAND --help". Returns CLI_USAGE. */
int cli_usage(const struct cli *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Prints what failed, why, and what to do. Returns the exit status. subject is what the request was
 * about, a key say; its p may be NULL. */
int cli_fail(const char *what, struct hpkv_bytes subject, const struct hpkv_answer *answer);

/* Prints the answer's line with --json, and an error message if the request failed. Returns the
 * exit status. */
int cli_answer(const struct cli *c, const char *what, struct hpkv_bytes subject,
	       const struct hpkv_answer *answer);

/* Sends one request and passes its answer to cli_answer(). *answer is as from hpkv_call(). */
int cli_call(struct cli *c, const char *what, const struct hpkv_request *q,
	     const struct hpkv_answer **answer);

/* The exit status for a result. */
int cli_exit_of(enum hpkv_result result);

/* Parses a time such as "5", "5s", "100ms" or "1.5m" into ms, at most most. false: it is none. */
bool cli_time(const char *text, int most, int *ms);

/* Parses a whole number from min to max. false: it is none. */
bool cli_count(const char *text, long min, long max, long *out);

long long cli_now_ms(void);             /* of the monotonic clock */
long long cli_left_ms(long long until); /* ms until then; -1 means for ever in both */
