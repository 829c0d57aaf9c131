#include "batch.h"
#include "commands.h"
#include "show.h"

static int show(struct cli *c, struct hpkv_bytes key, const struct hpkv_answer *answer)
{
	int status = cli_answer(c, "get", key, answer);

	if (!status && !c->json)
		show_value(c, answer->value);
	return status;
}

static int run(struct cli *c, int argc, char **argv)
{
	return batch_run(c, HPKV_GET, argc, argv, show);
}

const struct command cmd_get = {
	.name = "get",
	.args = "KEY...",
	.summary = "print the values of keys",
	.help = "Prints the value of each key, one per line, in the order of the keys. On a\n"
		"terminal, control characters are shown as \\n, \\x1b and so on. In a pipe a\n"
		"value is printed unchanged, followed by a line end; --raw omits that. Missing\n"
		"keys are reported on stderr, and the exit status is 1.\n"
		"--fresh asks the service, also for values that the daemon remembers.\n",
	.options = {[BATCH_FRESH] = {"fresh", 0, NULL, "ask the service, not the daemon's memory"}},
	.min = 1,
	.max = -1,
	.words = WORDS_KEYS,
	.exec = run,
};
