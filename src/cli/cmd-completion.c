/* completion: scripts for shells, made from the table of commands, so that they can't fall behind
 * it. */
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "show.h"

/* Text within single quotes of a shell. */
static void put_quoted(const char *text)
{
	putchar('\'');
	for (; *text; text++) {
		if (*text == '\'')
			fputs("'\\''", stdout);
		else
			putchar(*text);
	}
	putchar('\'');
}

static void put_options(const struct cli_option *o)
{
	for (; o->name; o++)
		printf(" --%s", o->name);
}

/* ---- bash ---- */

static const char bash_head[] = "# bash completion for hpkv: eval \"$(hpkv completion bash)\"\n"
				"_hpkv_keys() {\n"
				"\tlocal keys key\n"
				"\tmapfile -t keys < <(hpkv \"${socket[@]}\" --timeout 2s ls "
				"--limit 200 -- \"$1\" 2>/dev/null)\n"
				"\tfor key in \"${keys[@]}\"; do\n"
				"\t\tprintf -v key %q \"$key\"\n"
				"\t\tCOMPREPLY+=(\"$key\")\n"
				"\tdone\n"
				"}\n"
				"\n"
				"_hpkv() {\n"
				"\t# Keys have colons in them, at which readline divides words: so "
				"the line is divided here.\n"
				"\tlocal line=${COMP_LINE:0:COMP_POINT} cur words word command='' "
				"options='' what='' i socket=()\n"
				"\tread -ra words <<<\"$line\"\n"
				"\tcur=${line##*[[:space:]]}\n"
				"\t[[ -n $cur ]] && unset 'words[-1]'\n"
				"\tfor ((i = 1; i < ${#words[@]}; i++)); do\n"
				"\t\tword=${words[i]}\n"
				"\t\tcase $word in\n"
				"\t\t-s | --socket)\n"
				"\t\t\tsocket=(--socket \"${words[i + 1]-}\")\n"
				"\t\t\t((i++))\n"
				"\t\t\t;;\n"
				"\t\t-t | --timeout) ((i++)) ;;\n"
				"\t\t-*) ;;\n"
				"\t\t*) [[ -n $command ]] || command=$word ;;\n"
				"\t\tesac\n"
				"\tdone\n"
				"\tCOMPREPLY=()\n"
				"\tcase ${words[-1]} in\n"
				"\t-s | --socket)\n"
				"\t\tmapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n"
				"\t\treturn\n"
				"\t\t;;\n"
				"\t-t | --timeout) return ;;\n"
				"\tesac\n"
				"\tcase $command in\n";

static const char bash_tail[] =
	"\tesac\n"
	"\tif [[ $cur == -* ]]; then\n"
	"\t\tmapfile -t COMPREPLY < <(compgen -W \"$options\" -- \"$cur\")\n"
	"\telif [[ $what == keys ]]; then\n"
	"\t\t_hpkv_keys \"$cur\"\n"
	"\telse\n"
	"\t\tmapfile -t COMPREPLY < <(compgen -W \"$what\" -- \"$cur\")\n"
	"\tfi\n"
	"\t# What stands before the last colon is not part of the word that readline replaces.\n"
	"\tif [[ $cur == *:* && $COMP_WORDBREAKS == *:* ]]; then\n"
	"\t\tword=${cur%\"${cur##*:}\"}\n"
	"\t\tCOMPREPLY=(\"${COMPREPLY[@]#\"$word\"}\")\n"
	"\tfi\n"
	"}\n"
	"complete -F _hpkv hpkv\n";

static const char *bash_words(const struct command *command)
{
	switch (command->words) {
	case WORDS_KEYS:
	case WORDS_KEY:
		return "keys";
	case WORDS_SHELLS:
		return "'bash zsh fish'";
	case WORDS_NONE:
		break;
	}
	return "''";
}

static void bash(void)
{
	fputs(bash_head, stdout);
	printf("\t'')\n\t\twhat='");
	for (unsigned i = 0; cli_commands[i]; i++)
		printf("%s%s", i ? " " : "", cli_commands[i]->name);
	printf("'\n\t\toptions='");
	put_options(cli_options);
	printf("'\n\t\t;;\n");
	for (unsigned i = 0; cli_commands[i]; i++) {
		printf("\t%s)\n\t\twhat=%s\n\t\toptions='", cli_commands[i]->name,
		       bash_words(cli_commands[i]));
		put_options(cli_commands[i]->options);
		put_options(cli_options);
		printf("'\n\t\t;;\n");
	}
	fputs(bash_tail, stdout);
}

/* ---- zsh ---- */

static const char zsh_head[] =
	"#compdef hpkv\n"
	"# zsh completion for hpkv: hpkv completion zsh >DIRECTORY-OF-FPATH/_hpkv\n"
	"_hpkv_keys() {\n"
	"\tlocal -a keys\n"
	"\t# What is quoted on the line is not in the key.\n"
	"\tkeys=(${(f)\"$(hpkv $socket --timeout 2s ls --limit 200 -- \"${(Q)PREFIX}\" "
	"2>/dev/null)\"})\n"
	"\tcompadd -a keys\n"
	"}\n"
	"\n"
	"_hpkv() {\n"
	"\tlocal context state state_descr line\n"
	"\ttypeset -A opt_args\n"
	"\tlocal -a commands all socket\n"
	"\tall=(\n";

/* An option as _arguments takes it, under each of its names. */
static void zsh_option(const struct cli_option *o)
{
	char text[200], spec[300];
	const char *equals = o->arg ? "=" : "", *plus = o->arg ? "+" : "";

	snprintf(text, sizeof(text), "%s", o->help);
	for (char *at = text; *at; at++) { /* what means something there */
		if (*at == ':' || *at == '[' || *at == ']')
			*at = ' ';
	}
	printf("\t\t");
	if (o->letter)
		printf("'(-%c --%s)'{-%c%s,--%s%s}", o->letter, o->name, o->letter, plus, o->name,
		       equals);
	else
		printf("--%s%s", o->name, equals);
	snprintf(spec, sizeof(spec), "[%s]%s%s%s", text, o->arg ? ":" : "", o->arg ? o->arg : "",
		 !o->arg                     ? ""
		 : strcmp(o->name, "socket") ? ":"
					     : ":_files");
	put_quoted(spec);
	putchar('\n');
}

static void zsh_command(const struct command *command)
{
	static const char *const words[] = {
		[WORDS_NONE] = "",
		[WORDS_KEYS] = " '*:key:_hpkv_keys'",
		[WORDS_KEY] = " '1:key:_hpkv_keys'",
		[WORDS_SHELLS] = " '1:shell:(bash zsh fish)'",
	};

	printf("\t%s)\n\t\tall+=(\n", command->name);
	for (const struct cli_option *o = command->options; o->name; o++)
		zsh_option(o);
	printf("\t\t)\n\t\t_arguments $all%s\n\t\t;;\n", words[command->words]);
}

static void zsh(void)
{
	char text[200];

	fputs(zsh_head, stdout);
	for (const struct cli_option *o = cli_options; o->name; o++)
		zsh_option(o);
	printf("\t)\n\tcommands=(\n");
	for (unsigned i = 0; cli_commands[i]; i++) {
		snprintf(text, sizeof(text), "%s:%s", cli_commands[i]->name,
			 cli_commands[i]->summary);
		printf("\t\t");
		put_quoted(text);
		putchar('\n');
	}
	printf("\t)\n"
	       "\t_arguments -C $all '1:command:->command' '*::word:->words'\n"
	       "\t[[ $state == command ]] && _describe command commands && return\n"
	       "\t[[ $state == words ]] || return\n"
	       "\tlocal at=${(Q)${opt_args[-s]:-$opt_args[--socket]}}\n"
	       "\t[[ -z $at ]] || socket=(--socket $at)\n"
	       "\tcase $words[1] in\n");
	for (unsigned i = 0; cli_commands[i]; i++)
		zsh_command(cli_commands[i]);
	printf("\tesac\n}\n\n"
	       "if [[ $zsh_eval_context == *loadautofunc* ]]; then\n\t_hpkv \"$@\"\nelse\n"
	       "\tcompdef _hpkv hpkv\nfi\n");
}

/* ---- fish ---- */

static void fish_options(const struct cli_option *o, const char *command)
{
	for (; o->name; o++) {
		printf("complete -c hpkv");
		if (command)
			printf(" -n '__fish_seen_subcommand_from %s'", command);
		printf(" -l %s", o->name);
		if (o->letter)
			printf(" -s %c", o->letter);
		if (o->arg)
			printf(strcmp(o->name, "socket") ? " -x" : " -r -F");
		printf(" -d ");
		put_quoted(o->help);
		putchar('\n');
	}
}

static void fish_command(const struct command *command)
{
	printf("complete -c hpkv -n __fish_use_subcommand -a %s -d ", command->name);
	put_quoted(command->summary);
	putchar('\n');
	fish_options(command->options, command->name);
	if (command->words == WORDS_KEYS || command->words == WORDS_KEY)
		printf("complete -c hpkv -n '__fish_seen_subcommand_from %s' -a '(__hpkv_keys)'\n",
		       command->name);
	if (command->words == WORDS_SHELLS)
		printf("complete -c hpkv -n '__fish_seen_subcommand_from %s' -a 'bash zsh fish'\n",
		       command->name);
}

static void fish(void)
{
	printf("# fish completion for hpkv: hpkv completion fish | source\n"
	       "function __hpkv_keys\n"
	       "\t# What is quoted on the line is not in the key.\n"
	       "\thpkv --timeout 2s ls --limit 200 -- (string unescape -- (commandline -ct)) "
	       "2>/dev/null\n"
	       "end\n"
	       "complete -c hpkv -f\n");
	fish_options(cli_options, NULL);
	for (unsigned i = 0; cli_commands[i]; i++)
		fish_command(cli_commands[i]);
}

static int run(struct cli *c, int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*print)(void);
	} shells[] = {{"bash", bash}, {"zsh", zsh}, {"fish", fish}};

	(void)argc;
	for (unsigned i = 0; i < sizeof(shells) / sizeof(shells[0]); i++) {
		if (strcmp(argv[0], shells[i].name) == 0) {
			shells[i].print();
			return CLI_DONE;
		}
	}
	return cli_usage(c, "'%s' is none of bash, zsh and fish", show_safe(hpkv_str(argv[0])));
}

const struct command cmd_completion = {
	.name = "completion",
	.args = "bash|zsh|fish",
	.summary = "print a script that completes commands and keys",
	.help = "Prints a script for the shell that completes commands, options, and keys:\n"
		"these are asked of the daemon.\n"
		"\n"
		"  eval \"$(hpkv completion bash)\"          # in ~/.bashrc\n"
		"  hpkv completion zsh >~/.zfunc/_hpkv     # a directory of fpath\n"
		"  hpkv completion fish | source           # in config.fish\n",
	.min = 1,
	.max = 1,
	.words = WORDS_SHELLS,
	.exec = run,
};
