/* range and ls: read records page by page. Each page begins right behind the last key of the one
 * before.
 *
 * A place between two keys is named by a key, which must not exceed the longest key that the
 * service takes. That is HPKV_KEY_MAX as far as is known. A service with a smaller limit refuses
 * the place; a shorter name of it is tried then. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "field.h"
#include "base/glob.h"
#include "base/mem.h"
#include "show.h"

enum { OPT_LIMIT, OPT_LONG, OPT_EXACT };
enum {
	PAGE = 1000, /* the service's limit */
	KEY_COLUMN_MAX = 48,
	PROGRESS_AFTER_MS = 500,
	PROGRESS_EVERY_MS = 100,
};

struct walk {
	struct cli *c;
	struct hpkv_bytes subject; /* for messages: the first word, if any */
	struct span glob;          /* keys must match it; p NULL: all do */
	bool values;
	long limit; /* records at most; -1: all */
	long shown;
	struct endpoint {
		char *p; /* owned */
		size_t n;
	} from, to,
		last; /* of the next page; last: the last key received, p NULL before the first */
	size_t prefix_n; /* the bytes of to that are the common prefix of the keys */
	long long started, progressed;
	bool progress; /* a progress line is on stderr */
};

/* ---- progress, on a terminal while the output goes elsewhere ---- */

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

/* ---- places ---- */

/* Does the service refuse a key as too long, or as one that it does not take? */
static bool is_too_long(const struct hpkv_answer *a)
{
	return a->result == HPKV_REFUSED && !*a->reason &&
	       (a->code == 400 || a->code == 413 || a->code == 414 || a->code == 431);
}

static struct hpkv_bytes bytes_of(const struct endpoint *place)
{
	return (struct hpkv_bytes){place->p, place->n};
}

static void set_place(struct endpoint *place, struct hpkv_bytes key)
{
	char *p = mem_strndup(key.p, key.n);

	free(place->p);
	*place = (struct endpoint){p, key.n};
}

static int order(struct hpkv_bytes a, struct hpkv_bytes b)
{
	int difference = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);

	return difference ? difference : (a.n > b.n) - (a.n < b.n);
}

/* Sets the end behind all keys with the prefix. The end has the prefix, too, so that an access rule
 * for prefix* allows it. */
static void end_behind_prefix(struct endpoint *to, size_t prefix_n, size_t most)
{
	char *p = mem_alloc(most);
	size_t n = hpkv_key_last((struct hpkv_bytes){to->p, prefix_n}, most, p);

	set_place(to, (struct hpkv_bytes){p, n});
	free(p);
}

/* Sets the next shorter end after a refusal: with room for two characters, for one, for a part of
 * one. false: there is none. */
static bool end_sooner(struct walk *w)
{
	static const size_t rooms[] = {8, 4, 3, 2, 1, 0};

	for (unsigned i = 0; i < sizeof(rooms) / sizeof(rooms[0]); i++) {
		size_t most = w->prefix_n + rooms[i];
		if (most > 0 && most < w->to.n) {
			end_behind_prefix(&w->to, w->prefix_n, most);
			return true;
		}
	}
	return false;
}

/* How the place behind the last key is named. */
enum way {
	WAY_NUL,    /* the key and a NUL, if that is no longer than keys may be */
	WAY_ONE,    /* this service takes no NUL in a key */
	WAY_RAISED, /* no key is longer than this one */
	WAY_N
};

/* Sets the start of the next page. false: it is behind the end. */
static bool go_on(struct walk *w, enum way way)
{
	struct hpkv_bytes last = bytes_of(&w->last);
	size_t most = way != WAY_RAISED && last.n < HPKV_KEY_MAX ? HPKV_KEY_MAX : last.n;
	char *p = mem_alloc(most);
	size_t n = hpkv_key_after(last, most, p);

	if (way == WAY_ONE && n == last.n + 1)
		p[last.n] = '\1';
	set_place(&w->from, (struct hpkv_bytes){p, n});
	free(p);
	return n > 0 && order(bytes_of(&w->from), bytes_of(&w->to)) <= 0;
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

/* Requests the next page, trying each name of its two ends. */
static int ask(struct walk *w, const struct hpkv_answer **page)
{
	long left = w->limit < 0 || w->glob.p ? PAGE : w->limit - w->shown;
	struct hpkv_request q = {.op = HPKV_RANGE, .limit = left < PAGE ? (unsigned)left : PAGE};
	enum way way = WAY_NUL;

	for (;;) {
		q.key = bytes_of(&w->from);
		q.end_key = bytes_of(&w->to);
		int result = hpkv_call(w->c->hpkv, &q, page);
		if (!result || !is_too_long(*page))
			return result;
		if (!w->last.p && !end_sooner(w))
			return result;
		if (w->last.p && (++way == WAY_N || !go_on(w, way)))
			return result;
	}
}

/* 1: there is a next page. 0: this was the last one. -1: the service does not go on. */
static int go_on_behind(struct walk *w, const struct hpkv_answer *page)
{
	const char *name = w->c->command->name;

	if (!page->n_records) {
		end_progress(w);
		cli_say("%s: the service says that there are more records, but returns none", name);
		return -1;
	}
	struct hpkv_bytes key = page->records[page->n_records - 1].key;
	if (order(key, bytes_of(&w->from)) < 0) {
		end_progress(w);
		cli_say("%s: the service returns %s again, which is before the requested start",
			name, show_safe(key));
		return -1;
	}
	set_place(&w->last, key);
	return go_on(w, WAY_NUL);
}

static int walk_pages(struct walk *w)
{
	for (;;) {
		const struct hpkv_answer *page;
		if (ask(w, &page)) {
			end_progress(w);
			return cli_answer(w->c, w->c->command->name, w->subject, page);
		}
		show_page(w, page);
		if (!page->truncated || w->shown == w->limit)
			return CLI_DONE;
		int more = go_on_behind(w, page);
		if (more <= 0)
			return more ? CLI_REFUSED : CLI_DONE;
		if (show_flush()) /* the reader of the output has gone */
			return CLI_USAGE;
		show_progress(w);
	}
}

static int walk(struct walk *w)
{
	const char *limit = w->c->opt[OPT_LIMIT];

	w->limit = -1;
	w->started = cli_now_ms();
	int status = limit && !cli_count(limit, 1, 1000000000, &w->limit)
			     ? cli_usage(w->c, "--limit '%s' is not a number of records",
					 show_safe(hpkv_str(limit)))
			     : walk_pages(w);
	end_progress(w);
	free(w->from.p);
	free(w->to.p);
	free(w->last.p);
	return status;
}

static int run_range(struct cli *c, int argc, char **argv)
{
	struct walk w = {.c = c, .subject = hpkv_str(argv[0]), .values = true};

	(void)argc;
	set_place(&w.from, hpkv_str(argv[0]));
	set_place(&w.to, hpkv_str(argv[1]));
	w.prefix_n = w.to.n;
	int status = walk(&w);
	if (!status && !w.shown && !c->json && (strchr(argv[0], '*') || strchr(argv[1], '*')))
		cli_say("range %s: no records; a * stands for itself here (hpkv ls -l 'GLOB' lists "
			"records)",
			show_safe(w.subject));
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
	/* No key is empty, so a range can't begin at the empty key. */
	set_place(&w.from, literal.n ? (struct hpkv_bytes){literal.p, literal.n}
				     : (struct hpkv_bytes){"\0", 1});
	set_place(&w.to, (struct hpkv_bytes){literal.p, literal.n});
	w.prefix_n = literal.n;
	if (w.prefix_n < HPKV_KEY_MAX)
		end_behind_prefix(&w.to, w.prefix_n, HPKV_KEY_MAX);
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
