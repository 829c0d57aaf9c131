#include "complete.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "show.h"

enum { KEYS_MAX = 200, PATIENCE_S = 2, TIMEOUT_MS = 1500 };

struct asked {
	struct cli *c;
	enum shell shell;
	struct shell_line line;
	char *typed; /* owned; the word at the cursor, up to the cursor */
	const struct command *command;
	bool help;    /* the command is "help" */
	bool astray;  /* the line is wrong, or its command is unknown */
	bool ended;   /* by --: all that follows are words */
	int operands; /* words after the command, so far */
	const char *socket;
	bool any_socket; /* nobody can tell which daemon is meant */
	void (*offer)(struct asked *a, const char *lead, const char *typed);
	size_t lead; /* the typed word's part before an option's argument */
};

/* ---- candidates ---- */

static void put_candidate(const struct asked *a, const char *lead, const char *word,
			  const char *about)
{
	size_t n = strlen(lead);
	char *whole = mem_alloc(n + strlen(word) + 1);

	strcpy(stpcpy(whole, lead), word);
	if (strncmp(whole, a->typed, strlen(a->typed)) != 0) {
		free(whole);
		return;
	}
	if (a->shell == SHELL_BASH) {
		char *quoted = shell_quote(whole + a->line.kept, a->line.quote);
		fputs(quoted, stdout);
		free(quoted);
	} else {
		fputs(whole, stdout);
		if (about)
			printf("\t%s", about);
	}
	putchar('\0');
	free(whole);
}

static void begin(const struct asked *a, bool described)
{
	if (a->shell == SHELL_ZSH) {
		fputs(described ? "described" : "plain", stdout);
		putchar('\0');
	}
}

static void offer_commands(struct asked *a, const char *lead, const char *typed)
{
	(void)typed;
	begin(a, true);
	for (unsigned i = 0; cli_commands[i]; i++)
		put_candidate(a, lead, cli_commands[i]->name, cli_commands[i]->summary);
}

static bool has_option(const struct command *command, const char *name)
{
	for (const struct cli_option *o = command ? command->options : NULL; o && o->name; o++) {
		if (strcmp(o->name, name) == 0)
			return true;
	}
	return false;
}

/* All of these; without those whose names are options of another command. */
static void put_options(const struct asked *a, const struct cli_option *o,
			const struct command *other)
{
	for (; o->name; o++) {
		if (!has_option(other, o->name))
			put_candidate(a, "--", o->name, o->help);
	}
}

static void offer_options(struct asked *a, const char *lead, const char *typed)
{
	(void)lead;
	(void)typed;
	begin(a, true);
	if (a->command)
		put_options(a, a->command->options, NULL);
	put_options(a, cli_options, a->command);
}

static void offer_shells(struct asked *a, const char *lead, const char *typed)
{
	(void)typed;
	begin(a, false);
	put_candidate(a, lead, "bash", NULL);
	put_candidate(a, lead, "zsh", NULL);
	put_candidate(a, lead, "fish", NULL);
}

/* ---- files and sockets ---- */

enum files { FILES_ALL, FILES_FOLDERS, FILES_SOCKETS };

static void put_abstract(struct asked *a, const char *lead)
{
	FILE *in = fopen("/proc/net/unix", "re");
	char *line = NULL;
	size_t size = 0;

	/* Columns: Num RefCount Protocol Flags Type St Inode Path. Listening sockets only. */
	while (in && getline(&line, &size, in) > 0) {
		char *name = strstr(line, " @");
		if (!name || !strstr(line, " 00010000 "))
			continue;
		name[strcspn(name, "\n")] = '\0';
		put_candidate(a, lead, name + 1, NULL);
	}
	free(line);
	if (in)
		fclose(in);
}

static void put_entry(struct asked *a, const char *lead, const char *folder, const char *name,
		      enum files wanted)
{
	char *path;
	struct stat st;

	if (asprintf(&path, "%s%s", folder, name) < 0)
		abort(); /* out of memory */
	bool there = stat(path, &st) == 0;
	if (there && S_ISDIR(st.st_mode)) {
		char *slash;
		if (asprintf(&slash, "%s/", path) < 0)
			abort();
		put_candidate(a, lead, slash, NULL);
		free(slash);
	} else if (wanted == FILES_ALL ||
		   (there && wanted == FILES_SOCKETS && S_ISSOCK(st.st_mode))) {
		put_candidate(a, lead, path, NULL);
	}
	free(path);
}

/* Offers directories, and what is wanted in them. */
static void put_files(struct asked *a, const char *lead, const char *typed, enum files wanted)
{
	const char *slash = strrchr(typed, '/');
	char *folder = mem_strndup(typed, slash ? (size_t)(slash - typed) + 1 : 0);
	const char *last = slash ? slash + 1 : typed;
	DIR *entries = opendir(*folder ? folder : ".");
	struct dirent *entry;
	while (entries && (entry = readdir(entries))) {
		if (entry->d_name[0] != '.' || *last == '.')
			put_entry(a, lead, folder, entry->d_name, wanted);
	}
	if (entries)
		closedir(entries);
	free(folder);
}

static void offer_sockets(struct asked *a, const char *lead, const char *typed)
{
	static const char scheme[] = "unix:";
	char *with_scheme = NULL;

	begin(a, false);
	if (strncmp(typed, scheme, sizeof(scheme) - 1) == 0) {
		typed += sizeof(scheme) - 1;
		if (asprintf(&with_scheme, "%s%s", lead, scheme) < 0)
			abort(); /* out of memory */
		lead = with_scheme;
	}
	if (*typed == '@')
		put_abstract(a, lead);
	put_files(a, lead, typed, FILES_SOCKETS);
	free(with_scheme);
}

static void offer_files(struct asked *a, const char *lead, const char *typed)
{
	begin(a, false);
	put_files(a, lead, typed, FILES_ALL);
}

static void offer_folders(struct asked *a, const char *lead, const char *typed)
{
	begin(a, false);
	put_files(a, lead, typed, FILES_FOLDERS);
}

/* ---- keys ---- */

/* The length without an incomplete character at the end, which is not valid text. */
static size_t whole_characters(const char *text)
{
	size_t n = strlen(text), at = n;

	while (at > 0 && n - at < 4 && ((unsigned char)text[at - 1] & 0xc0) == 0x80)
		at--;
	if (at == 0 || (unsigned char)text[at - 1] < 0xc0)
		return n;
	unsigned char first = (unsigned char)text[at - 1];
	size_t wanted = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
	return n - at + 1 < wanted ? at - 1 : n;
}

static void give_up(int signal_number)
{
	(void)signal_number;
	_exit(CLI_UNAVAILABLE);
}

/* Can the key be on a command line as it is? */
static bool can_be_typed(const struct asked *a, struct hpkv_bytes key)
{
	if (memchr(key.p, '\0', key.n) || (key.p[0] == '-' && !a->ended))
		return false;
	return a->shell != SHELL_FISH ||
	       !memchr(key.p, '\t', key.n); /* a tab begins a description */
}

static void offer_keys(struct asked *a, const char *lead, const char *typed)
{
	struct hpkv_bytes prefix = {typed, whole_characters(typed)};
	char last[HPKV_KEY_MAX];
	size_t most = prefix.n + 8 < HPKV_KEY_MAX ? prefix.n + 8 : HPKV_KEY_MAX;
	struct hpkv_request q = {.op = HPKV_RANGE, .limit = KEYS_MAX, .timeout_ms = TIMEOUT_MS};
	const struct hpkv_answer *page;

	begin(a, false);
	if (a->any_socket || (prefix.n == 0 && *typed))
		return;
	/* fish expands a * even if it is quoted, and completes what that matches. */
	if (a->shell == SHELL_FISH && strchr(typed, '*'))
		return;
	struct hpkv *h = a->socket ? hpkv_new(a->socket) : a->c->hpkv;
	q.key = prefix.n ? prefix : (struct hpkv_bytes){"\0", 1};
	q.end_key = (struct hpkv_bytes){last, hpkv_key_last(prefix, most, last)};
	if (h && q.end_key.n && hpkv_call(h, &q, &page) == HPKV_OK) {
		for (size_t i = 0; i < page->n_records; i++) {
			if (can_be_typed(a, page->records[i].key))
				put_candidate(a, lead, page->records[i].key.p, NULL);
		}
		/* More keys follow that may begin differently: the word stays as it is. */
		if (page->truncated)
			put_candidate(a, lead, typed, NULL);
	}
	if (h != a->c->hpkv)
		hpkv_free(h);
}

/* ---- what the word at the cursor is ---- */

static void offer_nothing(struct asked *a, const char *lead, const char *typed)
{
	(void)lead;
	(void)typed;
	begin(a, false);
}

static void offer_argument(struct asked *a, const struct cli_option *o, size_t lead)
{
	a->offer = strcmp(o->name, "socket") == 0  ? offer_sockets
		   : strcmp(o->arg, "KEY") == 0    ? offer_keys
		   : strcmp(o->arg, "PREFIX") == 0 ? offer_keys
		   : strcmp(o->arg, "FILE") == 0   ? offer_files
						   : offer_nothing;
	a->lead = lead;
}

static void offer_operand(struct asked *a)
{
	static void (*const offers[])(struct asked *, const char *, const char *) = {
		[WORDS_NONE] = offer_nothing,    [WORDS_KEYS] = offer_keys,
		[WORDS_KEY] = offer_keys,        [WORDS_SHELLS] = offer_shells,
		[WORDS_KEY_FOLDER] = offer_keys, [WORDS_FILES] = offer_files,
	};
	bool first = a->operands == 0;

	if (a->astray)
		a->offer = offer_nothing;
	else if (!a->command)
		a->offer = offer_commands;
	else if (a->operands == 1 && a->command->words == WORDS_KEY_FOLDER)
		a->offer = offer_folders;
	else if (first || a->command->words == WORDS_KEYS || a->command->words == WORDS_FILES)
		a->offer = offers[a->command->words];
	else
		a->offer = offer_nothing;
}

/* Finds an option as getopt_long() does: by its name, or by a unique beginning of it. */
static const struct cli_option *find_long(const struct asked *a, const char *name, size_t n)
{
	const struct cli_option *tables[] = {a->command ? a->command->options : NULL, cli_options};
	const struct cli_option *found = NULL;
	unsigned alike = 0;

	for (unsigned i = 0; i < 2; i++) {
		for (const struct cli_option *o = tables[i]; o && o->name; o++) {
			if (strncmp(o->name, name, n) != 0)
				continue;
			if (!o->name[n])
				return o;
			found = o;
			alike++;
		}
	}
	return alike == 1 ? found : NULL;
}

static const struct cli_option *find_letter(const struct asked *a, char letter)
{
	const struct cli_option *tables[] = {a->command ? a->command->options : NULL, cli_options};

	for (unsigned i = 0; i < 2; i++) {
		for (const struct cli_option *o = tables[i]; o && o->name; o++) {
			if (o->letter == letter)
				return o;
		}
	}
	return NULL;
}

/* Finds an option with an argument in a word. *argument points into the word, or to its end if the
 * argument is the next word. */
static const struct cli_option *find_argument(const struct asked *a, const char *word,
					      size_t *argument)
{
	size_t n = strcspn(word, "="), all = strlen(word);
	const struct cli_option *o = NULL;

	if (word[1] == '-') {
		o = find_long(a, word + 2, n - 2);
		*argument = word[n] ? n + 1 : all;
		return o && o->arg ? o : NULL;
	}
	for (size_t i = 1; i < all; i++) {
		o = find_letter(a, word[i]);
		*argument = i + 1;
		if (o && o->arg)
			return o;
	}
	return NULL;
}

static void take_socket(struct asked *a, const struct shell_word *word, size_t from)
{
	a->socket = word->text + from;
	a->any_socket = word->unknown || word->glob || !*a->socket;
}

static bool is_option(const struct asked *a, const char *word)
{
	return word[0] == '-' && word[1] && !a->ended &&
	       !(a->command && a->command->number &&
		 strspn(word + 1, "0123456789.eE+-") == strlen(word + 1) &&
		 strcmp(word, "--") != 0);
}

static void take_operand(struct asked *a, const struct shell_word *word)
{
	if (a->command) {
		a->operands++;
		a->ended |= a->command->verbatim;
	} else if (!a->help && !a->astray) {
		a->ended = false; /* -- ended the options before the command only */
		a->command = cli_find(word->text);
		a->help = strcmp(word->text, "help") == 0;
		a->astray = (!a->command && !a->help) || word->unknown || word->glob;
	}
}

/* May the word be an option that only the shell can see? */
static bool is_veiled(const struct shell_word *word)
{
	return (word->unknown && (!word->n || word->text[0] == '-')) ||
	       (word->glob && strchr("-*?[{=", word->text[0]));
}

/* Takes a word that is not at the cursor. Returns the option whose argument is the next word. */
static const struct cli_option *take_word(struct asked *a, const struct shell_word *word)
{
	const struct cli_option *o;
	size_t argument;

	if (is_veiled(word)) {
		a->any_socket = true;
		take_operand(a, word);
	} else if (!a->ended && strcmp(word->text, "--") == 0) {
		a->ended = true;
	} else if (!is_option(a, word->text)) {
		take_operand(a, word);
	} else if ((o = find_argument(a, word->text, &argument))) {
		bool here = word->text[argument] || word->text[argument - 1] == '=';
		if (!here)
			return o;
		if (strcmp(o->name, "socket") == 0)
			take_socket(a, word, argument);
	}
	return NULL;
}

static void take_current(struct asked *a, const struct shell_word *word)
{
	const struct cli_option *o;
	size_t argument;

	if (a->typed[0] != '-' || a->ended) {
		offer_operand(a);
		take_operand(a, word);
	} else if (strcmp(a->typed, "-") != 0 && strcmp(a->typed, "--") != 0 &&
		   (o = find_argument(a, a->typed, &argument)) &&
		   (a->typed[1] != '-' || a->typed[argument - 1] == '=')) {
		offer_argument(a, o, argument);
	} else {
		a->offer = offer_options;
	}
}

/* Takes a NAME=VALUE before the command. */
static bool take_assignment(struct asked *a, const struct shell_word *word)
{
	static const char *const names[] = {"HPKVD_SOCKET=", "XDG_RUNTIME_DIR="};
	size_t n = strspn(word->text,
			  "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");

	if (n == 0 || word->text[n] != '=')
		return false;
	for (unsigned i = 0; i < 2; i++) {
		if (strncmp(word->text, names[i], n + 1) == 0) {
			word->text[n] = '\0';
			setenv(word->text, word->text + n + 1, 1);
			a->any_socket |= word->unknown;
		}
	}
	return true;
}

static void find_out(struct asked *a)
{
	const struct cli_option *argument_of = NULL;
	size_t i = 0;

	while (i < a->line.n && (long)i != a->line.current && take_assignment(a, &a->line.words[i]))
		i++;
	for (i++; i < a->line.n; i++) { /* after the command's name */
		const struct shell_word *word = &a->line.words[i];
		bool current = (long)i == a->line.current;
		if (argument_of && current)
			offer_argument(a, argument_of, 0);
		else if (argument_of && strcmp(argument_of->name, "socket") == 0)
			take_socket(a, word, 0);
		if (argument_of)
			argument_of = NULL;
		else if (current)
			take_current(a, word);
		else
			argument_of = take_word(a, word);
	}
}

int complete_line(struct cli *c, enum shell shell, const char *left, const char *right,
		  const char *replaced)
{
	struct asked a = {.c = c, .shell = shell, .offer = offer_nothing};
	size_t n = strlen(left), back = strlen(replaced);
	char *text = mem_alloc(n + strlen(right) + 1);

	/* A user waits: the daemon, a directory or the user database may be slow. Nothing is
	 * printed before this. */
	signal(SIGALRM, give_up);
	alarm(PATIENCE_S);
	strcpy(stpcpy(text, left), right);
	/* The part that is replaced ends at the cursor; a shell that does otherwise is not known
	 * here. */
	if (back <= n && strcmp(left + n - back, replaced) == 0) {
		shell_line_read(&a.line, shell, text, n - back, n);
		if (a.line.current >= 0) {
			const struct shell_word *word = &a.line.words[a.line.current];
			a.typed = mem_strndup(word->text, a.line.typed);
			find_out(&a);
			char *lead = mem_strndup(a.typed, a.lead);
			a.offer(&a, lead, a.typed + a.lead);
			free(lead);
			free(a.typed);
		}
		shell_line_free(&a.line);
	}
	free(text);
	return CLI_DONE;
}
