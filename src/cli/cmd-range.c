/* range and ls: records page by page, the next beginning behind the last key of the one before. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "mem.h"
#include "show.h"

enum { OPT_LIMIT, OPT_LONG };
enum {
	PAGE = 1000, /* the service's most */
	KEY_COLUMN_MAX = 48,
	PROGRESS_AFTER_MS = 500,
	PROGRESS_EVERY_MS = 100,
};

struct walk {
	struct cli *c;
	struct hpkv_bytes subject; /* for messages: the first word, if there is one */
	bool values;
	long limit; /* records at most; -1: all */
	long shown;
	char *from; /* the next page's first key; owned */
	size_t from_n;
	long long started, progressed;
	bool progress; /* a line of it stands on stderr */
};

/* ---- progress, for whoever waits at a terminal while the output goes elsewhere ---- */

static void show_progress(struct walk *w)
{
	long long now = cli_now_ms();

	if (w->c->terminal || !isatty(STDERR_FILENO) || now - w->started < PROGRESS_AFTER_MS ||
	    now - w->progressed < PROGRESS_EVERY_MS)
		return;
	w->progressed = now;
	w->progress = true;
	fprintf(stderr, "\rhpkv: %ld records ...", w->shown);
}

static void end_progress(struct walk *w)
{
	if (w->progress)
		fprintf(stderr, "\r\033[K");
	w->progress = false;
}

/* ---- records ---- */

static size_t key_column(const struct hpkv_answer *page)
{
	size_t column = 0;

	for (size_t i = 0; i < page->n_records; i++) {
		size_t width = show_width(page->records[i].key);
		if (width > column && width <= KEY_COLUMN_MAX)
			column = width;
	}
	return column;
}

static void show_page(struct walk *w, const struct hpkv_answer *page)
{
	size_t column = w->c->terminal && w->values ? key_column(page) : 0;

	for (size_t i = 0; i < page->n_records && w->shown != w->limit; i++, w->shown++) {
		struct hpkv_record r = page->records[i];
		if (w->c->json)
			continue;
		if (w->values)
			show_record(w->c, r.key, r.value, column);
		else
			show_record(w->c, r.key, (struct hpkv_bytes){0}, 0);
	}
	if (w->c->json)
		show_line(w->c, page->line);
}

/* From the smallest key behind this one. false: that is no way forward. */
static bool go_on_behind(struct walk *w, struct hpkv_bytes key)
{
	size_t n = key.n < w->from_n ? key.n : w->from_n;
	int order = memcmp(key.p, w->from, n);

	if (order < 0 || (order == 0 && key.n < w->from_n)) {
		end_progress(w);
		cli_say("%s: the service goes back to %s, behind which it was asked to go on",
			w->c->command->name, show_safe(key));
		return false;
	}
	w->from = mem_resize(w->from, key.n + 1);
	memcpy(w->from, key.p, key.n);
	w->from[key.n] = '\0';
	w->from_n = key.n + 1;
	return true;
}

static int walk_pages(struct walk *w, struct hpkv_bytes to)
{
	for (;;) {
		long left = w->limit < 0 ? PAGE : w->limit - w->shown;
		struct hpkv_request q = {.op = HPKV_RANGE,
					 .key = {w->from, w->from_n},
					 .end_key = to,
					 .limit = left < PAGE ? (unsigned)left : PAGE};
		const struct hpkv_answer *page;
		if (hpkv_call(w->c->hpkv, &q, &page)) {
			end_progress(w);
			return cli_answer(w->c, w->c->command->name, w->subject, page);
		}
		show_page(w, page);
		if (!page->truncated || w->shown == w->limit)
			return CLI_DONE;
		if (!page->n_records) {
			end_progress(w);
			cli_say("%s: the service says that there is more, and hands out none of it",
				w->c->command->name);
			return CLI_REFUSED;
		}
		if (!go_on_behind(w, page->records[page->n_records - 1].key))
			return CLI_REFUSED;
		if (show_flush()) /* nobody is there to read the rest */
			return CLI_USAGE;
		show_progress(w);
	}
}

static int walk(struct cli *c, const char *word, bool values, struct hpkv_bytes from,
		struct hpkv_bytes to)
{
	struct walk w = {.c = c,
			 .subject = hpkv_str(word),
			 .values = values,
			 .limit = -1,
			 .started = cli_now_ms()};

	if (c->opt[OPT_LIMIT] && !cli_count(c->opt[OPT_LIMIT], 1, 1000000000, &w.limit))
		return cli_usage(c, "--limit '%s' is not a number of records",
				 show_safe(hpkv_str(c->opt[OPT_LIMIT])));
	w.from = mem_strndup(from.p, from.n);
	w.from_n = from.n;
	int status = walk_pages(&w, to);
	end_progress(&w);
	free(w.from);
	return status;
}

static int run_range(struct cli *c, int argc, char **argv)
{
	(void)argc;
	return walk(c, argv[0], true, hpkv_str(argv[0]), hpkv_str(argv[1]));
}

static int run_ls(struct cli *c, int argc, char **argv)
{
	/* Behind all that begins with the prefix: it begins with it as well, so that an access rule
	 * for prefix* allows it, and goes on with a character that no key has. */
	static const char last[] = "\xf4\x8f\xbf\xbf\xf4\x8f\xbf\xbf";
	const char *prefix = argc ? argv[0] : "";
	char *to = mem_alloc(strlen(prefix) + sizeof(last));

	strcpy(stpcpy(to, prefix), last);
	/* No key is empty, so that is not where a range may begin. */
	struct hpkv_bytes from = *prefix ? hpkv_str(prefix) : (struct hpkv_bytes){"\0", 1};
	int status = walk(c, argc ? argv[0] : NULL, c->opt[OPT_LONG] != NULL, from, hpkv_str(to));
	free(to);
	return status;
}

#define LIMIT [OPT_LIMIT] = {"limit", 'n', "N", "N records at most"}

const struct command cmd_range = {
	.name = "range",
	.args = "FROM TO",
	.summary = "print the records from one key to another",
	.help = "Prints keys and values from FROM to TO, both included, in the order of the\n"
		"keys' bytes; all of them, however many there are. On a terminal they are\n"
		"aligned; in a pipe each is KEY<TAB>VALUE on a line, in which line ends and\n"
		"tabs are \\n, \\r and \\t.\n",
	.options = {LIMIT},
	.min = 2,
	.max = 2,
	.words = WORDS_KEYS,
	.exec = run_range,
};

const struct command cmd_ls = {
	.name = "ls",
	.args = "[PREFIX]",
	.summary = "list the keys that begin with PREFIX",
	.help = "Lists the keys that begin with PREFIX, or all; with --long their values too,\n"
		"as range prints them. All of them, however many there are.\n"
		"\n"
		"  hpkv ls user:\n"
		"  hpkv ls user: -0 | xargs -0 hpkv get\n",
	.options = {LIMIT, [OPT_LONG] = {"long", 'l', NULL, "print the values too"}},
	.min = 0,
	.max = 1,
	.words = WORDS_KEY,
	.exec = run_ls,
};
