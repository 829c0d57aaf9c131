#include "commands.h"
#include "show.h"
#include "words.h"

enum { OPT_ACCESS, OPT_EXACT };

static int run(struct cli *c, int argc, char **argv)
{
	struct words words;
	const struct hpkv_answer *answer;

	words_sort(&words, argc, argv, c->opt[OPT_EXACT] != NULL);
	struct hpkv_request q = words_request(&words, HPKV_TOKEN);
	if (c->opt[OPT_ACCESS])
		q.value = hpkv_str(c->opt[OPT_ACCESS]);
	int status = cli_call(c, "token", &q, &answer);
	if (!status && !c->json)
		show_value(c, answer->value);
	words_free(&words);
	return status;
}

const struct command cmd_token = {
	.name = "token",
	.args = "[KEY|GLOB]...",
	.summary = "make a token for a browser or another machine",
	.help = "Prints an HPKV token for subscriptions to these keys and globs, and for access\n"
		"to the keys that --access matches. Its user needs no API key. An access rule of\n"
		"the daemon must grant it (token = own or any).\n"
		"\n"
		"  hpkv token 'room:7:*' --access '^room:7:'\n",
	.options = {[OPT_ACCESS] = {"access", 'a', "REGEX",
				    "keys that the token may read and write"},
		    [OPT_EXACT] = {"exact", 'x', NULL, "all words are keys, even with a *"}},
	.min = 0,
	.max = -1,
	.words = WORDS_KEYS,
	.exec = run,
};
