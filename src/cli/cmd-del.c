#include "batch.h"
#include "commands.h"

static int show(struct cli *c, struct hpkv_bytes key, const struct hpkv_answer *answer)
{
	return cli_answer(c, "del", key, answer);
}

static int run(struct cli *c, int argc, char **argv)
{
	return batch_run(c, HPKV_DELETE, argc, argv, show);
}

const struct command cmd_del = {
	.name = "del",
	.args = "KEY...",
	.summary = "delete keys",
	.help = "Deletes each key. Missing keys are reported on stderr, and the exit status is 1;\n"
		"the others are deleted all the same.\n",
	.min = 1,
	.max = -1,
	.words = WORDS_KEYS,
	.exec = run,
};
