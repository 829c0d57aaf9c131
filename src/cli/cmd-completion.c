/* completion: the scripts that shells load, and the candidates that these ask for.
 *
 * A script passes the line unchanged, and the variables that it names (shell-line.h). The
 * candidates are found here, from the same option tables (complete.h). All names in a script begin
 * with _hpkv, because the line may use any other name. */
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "complete.h"
#include "visible.h"

static const char bash[] =
	"# bash completion for hpkv: eval \"$(hpkv completion bash)\"\n"
	"_hpkv() {\n"
	"\tlocal _hpkv_left=${COMP_LINE:0:COMP_POINT} _hpkv_right=${COMP_LINE:COMP_POINT} "
	"_hpkv_rest _hpkv_name _hpkv_word=$2\n"
	"\tif [[ -n ${BASH_ALIASES[$1]-} && $_hpkv_left == \"$1\"[[:space:]]* ]]; then\n"
	"\t\t_hpkv_left=${BASH_ALIASES[$1]}${_hpkv_left#\"$1\"}\n"
	"\tfi\n"
	"\t# Another function (sudo's, time's) names a word of COMP_WORDS; the part that bash\n"
	"\t# replaces begins after its quote or divider.\n"
	"\tif [[ -n ${FUNCNAME[1]-} ]]; then\n"
	"\t\t_hpkv_word=${COMP_WORDS[COMP_CWORD]-}\n"
	"\t\twhile [[ $_hpkv_left != *\"$_hpkv_word\" ]]; do\n"
	"\t\t\t_hpkv_word=${_hpkv_word%?}\n"
	"\t\tdone\n"
	"\t\twhile [[ -n $_hpkv_word && $COMP_WORDBREAKS == *\"${_hpkv_word:0:1}\"* ]]; do\n"
	"\t\t\t_hpkv_word=${_hpkv_word:1}\n"
	"\t\tdone\n"
	"\tfi\n"
	"\tCOMPREPLY=()\n"
	"\tmapfile -d '' -t COMPREPLY < <(\n"
	"\t\t_hpkv_rest=$_hpkv_left$_hpkv_right\n"
	"\t\twhile [[ $_hpkv_rest =~ [$][{]?([A-Za-z_][A-Za-z_0-9]*)(.*) ]]; do\n"
	"\t\t\t_hpkv_name=${BASH_REMATCH[1]} _hpkv_rest=${BASH_REMATCH[2]}\n"
	"\t\t\texport \"HPKV_VAR_$_hpkv_name=${!_hpkv_name-}\"\n"
	"\t\tdone\n"
	"\t\thpkv completion bash -- \"$_hpkv_left\" \"$_hpkv_right\" \"$_hpkv_word\"\n"
	"\t) 2>/dev/null\n"
	"\t[[ ${COMPREPLY[0]-} != */ ]] || compopt -o nospace 2>/dev/null\n"
	"}\n"
	"complete -F _hpkv hpkv\n";

static const char zsh[] =
	"#compdef hpkv\n"
	"# zsh completion for hpkv: hpkv completion zsh >DIRECTORY-OF-FPATH/_hpkv\n"
	"_hpkv() {\n"
	"\tlocal _hpkv_left=\"${(j: :)words[1,CURRENT-1]} $QIPREFIX$IPREFIX$PREFIX\"\n"
	"\tlocal _hpkv_right=\"$SUFFIX$ISUFFIX$QISUFFIX ${(j: :)words[CURRENT+1,-1]}\"\n"
	"\tlocal _hpkv_name _hpkv_rest _hpkv_word\n"
	"\tlocal -a _hpkv_before _hpkv_list _hpkv_shown\n"
	"\t# What is set for this command alone.\n"
	"\tfor _hpkv_word in ${(z)LBUFFER}; do\n"
	"\t\tcase $_hpkv_word in\n"
	"\t\t\t(';'|'|'|'||'|'&'|'&&'|'|&') _hpkv_before=() ;;\n"
	"\t\t\t(HPKVD_SOCKET=*|XDG_RUNTIME_DIR=*) _hpkv_before+=($_hpkv_word) ;;\n"
	"\t\tesac\n"
	"\tdone\n"
	"\t_hpkv_left=\"${(j: :)_hpkv_before} $_hpkv_left\"\n"
	"\t_hpkv_list=(\"${(@0)$(\n"
	"\t\t_hpkv_rest=$_hpkv_left$_hpkv_right\n"
	"\t\twhile [[ $_hpkv_rest =~ '[$][{]?([A-Za-z_][A-Za-z_0-9]*)' ]]; do\n"
	"\t\t\t_hpkv_name=$match[1] _hpkv_rest=${_hpkv_rest[MEND+1,-1]}\n"
	"\t\t\t[[ ${(Pt)_hpkv_name} == *(array|association)* ]] || export "
	"\"HPKV_VAR_$_hpkv_name=${(P)_hpkv_name}\"\n"
	"\t\tdone\n"
	"\t\thpkv completion zsh -- \"$_hpkv_left\" \"$_hpkv_right\" '' 2>/dev/null\n"
	"\t)}\")\n"
	"\t[[ -n $_hpkv_list[-1] ]] || shift -p _hpkv_list\n"
	"\t_hpkv_word=$_hpkv_list[1]\n"
	"\tshift _hpkv_list 2>/dev/null || return 1\n"
	"\tif [[ $_hpkv_word == described ]]; then\n"
	"\t\t_hpkv_shown=(\"${(@)_hpkv_list/$'\\t'/  -- }\")\n"
	"\t\tcompadd -l -d _hpkv_shown -- \"${(@)_hpkv_list%%$'\\t'*}\"\n"
	"\telse\n"
	"\t\t# A folder goes on.\n"
	"\t\t[[ $_hpkv_list[1] != */ ]] || _hpkv_shown=(-S '')\n"
	"\t\t# Before a closing quote zsh would put the space into the quotes.\n"
	"\t\t[[ -z $QISUFFIX ]] || _hpkv_shown=(-S '')\n"
	"\t\t# Behind a quoted quote, too.\n"
	"\t\t[[ $compstate[quote] != \"'\" || $PREFIX != *\"'\\\\''\" ]] || _hpkv_shown=(-S '')\n"
	"\t\tcompadd \"${(@)_hpkv_shown}\" -- \"${(@)_hpkv_list}\"\n"
	"\tfi\n"
	"}\n"
	"\n"
	"if [[ $zsh_eval_context == *loadautofunc* ]]; then\n"
	"\t_hpkv \"$@\"\n"
	"else\n"
	"\tcompdef _hpkv hpkv\n"
	"fi\n";

static const char fish[] =
	"# fish completion for hpkv: hpkv completion fish | source\n"
	"function __hpkv_words\n"
	"\tset -l __hpkv_left (commandline -cp | string collect)\n"
	"\tset -l __hpkv_all (commandline -p | string collect)\n"
	"\tset -l __hpkv_right (string sub -s (math 1 + (string length -- \"$__hpkv_left\")) -- "
	"\"$__hpkv_all\" | string collect)\n"
	"\tfor __hpkv_name in (string match -ra '\\$\\w+' -- \"$__hpkv_all\" | string sub -s 2)\n"
	"\t\tif test (count $$__hpkv_name) -le 1\n"
	"\t\t\tset -fx HPKV_VAR_$__hpkv_name $$__hpkv_name\n"
	"\t\tend\n"
	"\tend\n"
	"\thpkv completion fish -- \"$__hpkv_left\" \"$__hpkv_right\" '' 2>/dev/null\n"
	"end\n"
	"complete -c hpkv -f -a '(__hpkv_words | string split0)'\n";

static int run(struct cli *c, int argc, char **argv)
{
	static const struct {
		const char *name, *script;
	} shells[] = {[SHELL_BASH] = {"bash", bash},
		      [SHELL_ZSH] = {"zsh", zsh},
		      [SHELL_FISH] = {"fish", fish}};

	for (unsigned i = 0; i < sizeof(shells) / sizeof(shells[0]); i++) {
		if (strcmp(argv[0], shells[i].name) != 0)
			continue;
		if (argc == 4)
			return complete_line(c, (enum shell)i, argv[1], argv[2], argv[3]);
		fputs(shells[i].script, stdout);
		return CLI_DONE;
	}
	return cli_usage(c, "'%s' is not one of bash, zsh and fish",
			 visible_name(hpkv_str(argv[0])));
}

const struct command cmd_completion = {
	.name = "completion",
	.args = "bash|zsh|fish",
	.summary = "print a script that completes commands and keys",
	.help = "Prints a script for the shell that completes commands, options and keys. Keys\n"
		"come from the daemon.\n"
		"\n"
		"  eval \"$(hpkv completion bash)\"          # in ~/.bashrc\n"
		"  hpkv completion zsh >~/.zfunc/_hpkv     # a directory of fpath\n"
		"  hpkv completion fish | source           # in config.fish\n",
	.min = 1,
	.max = 4, /* the script passes the line before and behind the cursor, and the part that is
		     replaced */
	.words = WORDS_SHELLS,
	.exec = run,
};
