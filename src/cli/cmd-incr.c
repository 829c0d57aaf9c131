#include "commands.h"
#include "show.h"

static int run(struct cli *c, int argc, char **argv)
{
	struct hpkv_request q = {.op = HPKV_INCREMENT, .key = hpkv_str(argv[0])};
	const struct hpkv_answer *answer;

	if (argc > 1)
		q.value = hpkv_str(argv[1]);
	int status = cli_call(c, "incr", &q, &answer);
	if (!status && !c->json)
		show_value(c, answer->value);
	return status;
}

const struct command cmd_incr = {
	.name = "incr",
	.args = "KEY [BY]",
	.summary = "add a number (1) to a key; print the sum",
	.help = "Adds BY (1) to the number that the key holds, atomically, and prints the sum. A\n"
		"missing key counts as 0. BY may be negative.\n"
		"\n"
		"  hpkv incr visits\n"
		"  hpkv incr stock:7 -3\n",
	.min = 1,
	.max = 2,
	.number = true,
	.words = WORDS_KEY,
	.exec = run,
};
