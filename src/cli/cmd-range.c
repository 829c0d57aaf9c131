/* range and ls: read records page by page (pages.h) and print them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "field.h"
#include "base/glob.h"
#include "base/mem.h"
#include "meter.h"
#include "pages.h"
#include "show.h"
#include "visible.h"

enum { OPT_LIMIT, OPT_LONG, OPT_EXACT };
enum { KEY_COLUMN_MAX = 48 };

struct walk {
	struct cli *c;
	struct hpkv_bytes subject; /* for messages: the first word, if any */
	struct span glob;          /* keys must match it; p NULL: all do */
	bool values;
	long limit; /* records at most; -1: all */
	long shown;
	struct pages pages;
	struct meter meter;
};

/* ---- records ---- */

static size_t key_column(const struct hpkv_answer *page)
{
	size_t column = 0;

	for (size_t i = 0; i < page->n_records; i++) {
		size_t width = visible_width(page->records[i].key);
		if (width > column && width <= KEY_COLUMN_MAX)
			column = width;
	}
	return column;
}

static bool matches(const struct walk *w, struct hpkv_bytes key)
{
	return !w->glob.p || glob_matches(w->glob, (struct span){key.p, key.n});
}

static bool record_matches(const struct walk *w, const struct json_value *record)
{
	struct json_value key;

	if (!field_find(record->text, "key", &key) || key.type != JSON_STRING)
		return false;
	char *plain = mem_alloc(key.text.n);
	bool answer = matches(w, (struct hpkv_bytes){plain, json_string_decode(&key, plain)});
	free(plain);
	return answer;
}

/* Prints the page's line with only the records that match. Returns how many. */
static long show_matching_line(const struct walk *w, const struct hpkv_answer *page)
{
	struct span line = {page->line.p, page->line.n};
	struct json_array_reader reader;
	struct json_value records, record;
	char *text = NULL;
	size_t n = 0;
	long count = 0;
	FILE *out = open_memstream(&text, &n);

	if (!out || !field_find(line, "records", &records))
		abort(); /* out of memory: an answer with records has them */
	fputs("{\"code\":200,\"records\":[", out);
	json_array_begin(&reader, &records);
	while (json_array_next(&reader, &record) > 0) {
		if (w->shown + count == w->limit || !record_matches(w, &record))
			continue;
		fputs(count++ ? "," : "", out);
		fwrite(record.text.p, 1, record.text.n, out);
	}
	fprintf(out, "],\"count\":%ld,\"truncated\":%s}", count,
		page->truncated ? "true" : "false");
	fclose(out);
	show_line(w->c, (struct hpkv_bytes){text, n});
	free(text);
	return count;
}

static void show_page(struct walk *w, const struct hpkv_answer *page)
{
	size_t column = w->c->terminal && w->values ? key_column(page) : 0;

	if (w->c->json && w->glob.p) {
		w->shown += show_matching_line(w, page);
		return;
	}
	for (size_t i = 0; i < page->n_records && w->shown != w->limit; i++) {
		struct hpkv_record r = page->records[i];
		if (!matches(w, r.key))
			continue;
		w->shown++;
		if (!w->c->json)
			show_record(w->c, r.key, w->values ? r.value : (struct hpkv_bytes){0},
				    w->values ? column : 0);
	}
	if (w->c->json)
		show_line(w->c, page->line);
}

/* ---- pages ---- */

static int walk_pages(struct walk *w)
{
	const struct hpkv_answer *page;
	int more = 1;

	while (w->shown != w->limit) {
		long left = w->limit < 0 || w->glob.p ? PAGES_MOST : w->limit - w->shown;
		more = pages_next(&w->pages, left < PAGES_MOST ? (unsigned)left : PAGES_MOST,
				  &page);
		if (more <= 0)
			break;
		show_page(w, page);
		if (!w->pages.ended && show_flush()) /* the reader of the output has gone */
			return CLI_USAGE;
		meter_tell(&w->meter, w->shown, -1, pages_at(&w->pages));
	}
	if (more >= 0)
		return CLI_DONE;
	meter_clear(&w->meter);
	/* The last page is not the answer that says why there is no other. */
	return page == &w->pages.stuck ? cli_fail(w->c->command->name, (struct hpkv_bytes){0}, page)
				       : cli_answer(w->c, w->c->command->name, w->subject, page);
}

static int walk(struct walk *w)
{
	const char *limit = w->c->opt[OPT_LIMIT];

	w->limit = -1;
	meter_begin(&w->meter, "record", !w->c->terminal);
	int status = limit && !cli_count(limit, 1, 1000000000, &w->limit)
			     ? cli_usage(w->c, "--limit '%s' is not a number of records",
					 visible_name(hpkv_str(limit)))
			     : walk_pages(w);
	meter_clear(&w->meter);
	pages_end(&w->pages);
	return status;
}

static int run_range(struct cli *c, int argc, char **argv)
{
	struct walk w = {.c = c, .subject = hpkv_str(argv[0]), .values = true};

	(void)argc;
	pages_of_range(&w.pages, c->hpkv, hpkv_str(argv[0]), hpkv_str(argv[1]));
	int status = walk(&w);
	if (!status && !w.shown && !c->json && (strchr(argv[0], '*') || strchr(argv[1], '*')))
		cli_say("range %s: no records; a * stands for itself here (hpkv ls -l 'GLOB' lists "
			"records)",
			visible_name(w.subject));
	return status;
}

static int run_ls(struct cli *c, int argc, char **argv)
{
	struct walk w = {.c = c, .subject = hpkv_str(argc ? argv[0] : NULL)};
	const char *word = argc ? argv[0] : "";
	struct span glob = {word, strlen(word)}, literal = glob_literal(glob);

	w.values = c->opt[OPT_LONG] != NULL;
	if (c->opt[OPT_EXACT])
		literal = glob;
	else if (literal.n < glob.n && !glob_is_prefix(glob))
		w.glob = glob;
	pages_of_prefix(&w.pages, c->hpkv, (struct hpkv_bytes){literal.p, literal.n});
	return walk(&w);
}

#define LIMIT [OPT_LIMIT] = {"limit", 'n', "N", "print at most N records"}

const struct command cmd_range = {
	.name = "range",
	.args = "FROM TO",
	.summary = "print the records from one key to another",
	.help = "Prints the keys and values from FROM to TO, both included, in byte order of the\n"
		"keys, however many there are. A * stands for itself. Columns are aligned on a\n"
		"terminal. In a pipe each record is a line KEY<TAB>VALUE, in which line ends and\n"
		"tabs are \\n, \\r and \\t.\n",
	.options = {LIMIT},
	.min = 2,
	.max = 2,
	.words = WORDS_KEYS,
	.exec = run_range,
};

const struct command cmd_ls = {
	.name = "ls",
	.args = "[PREFIX|GLOB]",
	.summary = "list the keys that begin with PREFIX, or match GLOB",
	.help = "Lists the keys that begin with PREFIX, or all keys, however many there are.\n"
		"--long prints their values, too, as range does. A word with a * in it is a\n"
		"glob that the whole key must match: * stands for any characters. With --exact\n"
		"a * stands for itself.\n"
		"\n"
		"  hpkv ls user:\n"
		"  hpkv ls 'user:*:name'\n"
		"  hpkv ls user: -0 | xargs -0 hpkv get\n",
	.options = {LIMIT, [OPT_LONG] = {"long", 'l', NULL, "print the values too"},
		    [OPT_EXACT] = {"exact", 'x', NULL, "PREFIX may contain a *"}},
	.min = 0,
	.max = 1,
	.words = WORDS_KEY,
	.exec = run_ls,
};
