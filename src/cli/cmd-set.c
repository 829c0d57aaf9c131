/* set and patch: a value from the command line, or from stdin. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "base/mem.h"
#include "show.h"

enum { OPT_CHOMP };
enum { STDIN_MAX = 16 << 20, FIRST_SIZE = 65536 };

/* Reads all of stdin. p NULL: it failed, and an error was printed. */
static struct hpkv_bytes read_stdin(void)
{
	size_t n = 0, size = FIRST_SIZE;
	char *p = mem_alloc(size);

	while (n <= STDIN_MAX) {
		ssize_t got = read(STDIN_FILENO, p + n, size - n);
		if (got == 0)
			return (struct hpkv_bytes){p, n};
		if (got < 0 && errno == EAGAIN) { /* another program has made it non-blocking */
			poll(&(struct pollfd){.fd = STDIN_FILENO, .events = POLLIN}, 1, -1);
			continue;
		}
		if (got < 0 && errno != EINTR) {
			cli_say("can't read stdin: %s", strerror(errno));
			free(p);
			return (struct hpkv_bytes){0};
		}
		n += got > 0 ? (size_t)got : 0;
		if (n == size)
			p = mem_resize(p, size *= 2);
	}
	cli_say("stdin holds more than 16 MiB: too long for a value");
	free(p);
	return (struct hpkv_bytes){0};
}

static int store(struct cli *c, enum hpkv_op op, int argc, char **argv)
{
	bool from_stdin = argc < 2 || strcmp(argv[1], "-") == 0;
	struct hpkv_request q = {.op = op, .key = hpkv_str(argv[0])};

	if (!from_stdin) {
		q.value = hpkv_str(argv[1]);
		return cli_call(c, c->command->name, &q, NULL);
	}
	if (isatty(STDIN_FILENO))
		fprintf(stderr, "hpkv: type the value, then Ctrl-D on a line of its own\n");
	struct hpkv_bytes value = q.value = read_stdin();
	if (!value.p)
		return CLI_USAGE;
	if (c->opt[OPT_CHOMP] && q.value.n && q.value.p[q.value.n - 1] == '\n')
		q.value.n--;
	int status = cli_call(c, c->command->name, &q, NULL);
	free((char *)(size_t)value.p);
	return status;
}

static int run_set(struct cli *c, int argc, char **argv)
{
	return store(c, HPKV_SET, argc, argv);
}

static int run_patch(struct cli *c, int argc, char **argv)
{
	return store(c, HPKV_PATCH, argc, argv);
}

#define CHOMP                                                                                      \
	{                                                                                          \
		[OPT_CHOMP] = { "chomp", 'c', NULL, "remove one line end at the end of stdin" }    \
	}

const struct command cmd_set = {
	.name = "set",
	.args = "KEY [VALUE]",
	.summary = "store a value, from stdin if it is - or missing",
	.help = "Stores a value under a key and replaces the old one. Without VALUE, or with -,\n"
		"the value is all of stdin, to the last byte: echo adds a line end, which\n"
		"--chomp removes. Keys and values are UTF-8; encode other data, as base64 say.\n"
		"\n"
		"  hpkv set user:1 '{\"name\":\"Ada\"}'\n"
		"  base64 -w0 photo.jpg | hpkv set photo\n",
	.options = CHOMP,
	.min = 1,
	.max = 2,
	.number = true,
	.words = WORDS_KEY,
	.exec = run_set,
};

const struct command cmd_patch = {
	.name = "patch",
	.args = "KEY [VALUE]",
	.summary = "merge a JSON object into a value, or append",
	.help = "If VALUE and the stored value are JSON objects, the members of VALUE are merged\n"
		"into the stored one. Otherwise VALUE is appended. VALUE may come from stdin, as\n"
		"with set.\n"
		"\n"
		"  hpkv patch user:1 '{\"city\":\"London\"}'\n",
	.options = CHOMP,
	.min = 1,
	.max = 2,
	.number = true,
	.words = WORDS_KEY,
	.exec = run_patch,
};
