/* cli.h - what the commands of hpkv share: one row of the table each, what the command line says,
 * and how things end.
 *
 * A command is a file with one struct command. main.c reads the options, of all commands and of
 * this one, and calls exec with what is left. Help and completion are made from the same table. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include <hpkv.h>

/* How hpkv ends; part of its interface. When several things fail, the highest. */
enum cli_exit {
	CLI_DONE = 0,
	CLI_NOT_FOUND = 1, /* get, del: no such key; wait: its time is up */
	CLI_USAGE = 2,     /* the command line, or something local: stdin, stdout, memory */
	CLI_REFUSED = 3,   /* by the access rules, or by the service */
	CLI_NO_DAEMON = 4,
	CLI_UNAVAILABLE = 5, /* the service is away, or it took too long. Nothing was changed */
	CLI_UNKNOWN = 6      /* a write that may have been done, or not */
};

enum { CLI_OPTIONS_MAX = 6, CLI_DEFAULT_TIMEOUT_MS = 10000 };

struct cli_option {
	const char *name; /* without its dashes; NULL ends the list */
	char letter;      /* 0: none */
	const char *arg;  /* what its argument is called; NULL: it takes none */
	const char *help;
};

struct cli {
	struct hpkv *hpkv;
	const char *socket;  /* --socket, or NULL */
	int timeout_ms;      /* --timeout, or -1 */
	bool json, raw, nul; /* --json, --raw, -0 */
	bool terminal;       /* stdout is one */
	bool colour;
	const char *opt[CLI_OPTIONS_MAX]; /* the command's own: the argument, "" if it takes none,
					     NULL when it was not given */
	const struct command *command;
};

/* What the words behind a command are, for completion. */
enum cli_words { WORDS_NONE, WORDS_KEYS, WORDS_KEY, WORDS_SHELLS };

struct command {
	const char *name;
	const char *args;    /* for people: "KEY [VALUE]" */
	const char *summary; /* a line of hpkv --help */
	const char *help;    /* the lines of hpkv COMMAND --help between usage and options */
	struct cli_option options[CLI_OPTIONS_MAX + 1];
	int min, max; /* words; max -1: any number */
	bool number;  /* words may be negative numbers */
	enum cli_words words;
	int (*exec)(struct cli *c, int argc, char **argv); /* returns an enum cli_exit */
};

/* All of them, in the order of the help; a row without a name ends it. */
extern const struct command *const cli_commands[];
extern const struct cli_option cli_options[]; /* of all commands */

const struct command *cli_find(const char *name);

/* Says "hpkv: ..." on stderr, one line, whatever is in it. */
void cli_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* … and "see hpkv COMMAND --help"; returns CLI_USAGE. */
int cli_usage(const struct cli *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Says what failed, why, and what to do; returns the exit status. subject: a key, say; p NULL:
 * none. */
int cli_fail(const char *what, struct hpkv_bytes subject, const struct hpkv_answer *answer);

/* Shows an answer's line with --json, and says what went wrong; returns the exit status. */
int cli_answer(const struct cli *c, const char *what, struct hpkv_bytes subject,
	       const struct hpkv_answer *answer);

/* One request, and cli_answer() to it. *answer as of hpkv_call(). */
int cli_call(struct cli *c, const char *what, const struct hpkv_request *q,
	     const struct hpkv_answer **answer);

int cli_exit_of(enum hpkv_result result);

/* "5", "5s", "100ms", "1.5m" into ms, at most most; false: it is none. */
bool cli_time(const char *text, int most, int *ms);
bool cli_count(const char *text, long min, long max, long *out);

long long cli_now_ms(void);
long long cli_left_ms(long long until); /* of it; -1 is for ever, in both */
