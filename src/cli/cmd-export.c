/* export: records as lines of JSON, with the text of each key and value as the daemon hands it out.
 *
 * With --resume a file says which key was written last, and how long the output was then. What an
 * interrupted export has written behind that is cut off, so that no record is missing or comes
 * twice. Only a regular file can be cut: in a pipe a page of records may come twice. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "commands.h"
#include "field.h"
#include "meter.h"
#include "pages.h"
#include "record.h"
#include "resume.h"
#include "show.h"
#include "visible.h"

enum { OPT_RESUME };

struct export
{
	struct cli *c;
	struct hpkv_bytes prefix;
	struct pages pages;
	struct meter meter;
	long records;
	bool regular;   /* stdout is a file, which can be cut */
	bool whole;     /* a former run has written all */
	struct buf key; /* the last one written, as JSON; empty before that */
};

static int local_fault(const char *what, const char *path, int error)
{
	cli_say("export: %s %s: %s", what, visible_sentence(hpkv_str(path)), strerror(-error));
	return CLI_USAGE;
}

/* ---- the state ---- */

static int save(struct export *e, bool whole)
{
	const char *path = e->c->opt[OPT_RESUME];
	struct buf text = {0};

	if (!path)
		return CLI_DONE;
	if (e->regular && fsync(STDOUT_FILENO))
		return local_fault("can't write the output of", path, -errno);
	buf_addf(&text, "{\"export\":");
	json_add_string(&text, (struct span){e->prefix.p, e->prefix.n});
	buf_addf(&text, ",\"records\":%ld,\"whole\":%s", e->records, whole ? "true" : "false");
	if (e->regular)
		buf_addf(&text, ",\"size\":%lld", (long long)lseek(STDOUT_FILENO, 0, SEEK_END));
	if (buf_len(&e->key)) {
		buf_addf(&text, ",\"last\":");
		buf_add(&text, buf_start(&e->key), buf_len(&e->key));
	}
	buf_addf(&text, "}\n");
	int error = resume_write(path, buf_span(&text));
	buf_release(&text);
	return error ? local_fault("can't write", path, error) : CLI_DONE;
}

static bool is_of_prefix(const struct export *e, struct span state)
{
	struct json_value prefix;

	return field_find(state, "export", &prefix) && prefix.type == JSON_STRING &&
	       json_string_is(&prefix, (struct span){e->prefix.p, e->prefix.n});
}

/* Cuts off what was written behind the state. */
static int cut_output(const struct export *e, struct span state)
{
	double size = field_number(state, "size", -1);
	struct stat st;

	if (!e->regular || size < 0)
		return CLI_DONE;
	if (fstat(STDOUT_FILENO, &st) || (double)st.st_size < size) {
		cli_say("export: the output has %lld bytes, and %.0f were written before: append "
			"to "
			"it (>>FILE)",
			(long long)st.st_size, size);
		return CLI_USAGE;
	}
	if (ftruncate(STDOUT_FILENO, (off_t)size) || lseek(STDOUT_FILENO, 0, SEEK_END) < 0)
		return local_fault("can't cut the output of", e->c->opt[OPT_RESUME], -errno);
	return CLI_DONE;
}

static int take_state(struct export *e, struct span state)
{
	struct json_value last;

	e->records = (long)field_number(state, "records", 0);
	e->whole = field_find(state, "whole", &last) && last.type == JSON_TRUE;
	if (field_find(state, "last", &last) && last.type == JSON_STRING) {
		struct record r = {.key = last};
		struct hpkv_bytes key = record_key(&r);
		buf_add(&e->key, last.text.p, last.text.n);
		pages_skip(&e->pages, key);
		free((char *)(size_t)key.p);
	}
	return cut_output(e, state);
}

static int resume(struct export *e)
{
	const char *path = e->c->opt[OPT_RESUME];
	struct buf text = {0};
	int status = CLI_DONE;

	if (!path)
		return CLI_DONE;
	int error = resume_read(path, &text);
	if (error == -ENOENT) {
		status = save(e, false);
	} else if (error == -EBADMSG || (!error && !is_of_prefix(e, buf_span(&text)))) {
		cli_say("export: %s is no state of an export of this prefix",
			visible_sentence(hpkv_str(path)));
		status = CLI_USAGE;
	} else if (error) {
		status = local_fault("can't read", path, error);
	} else {
		status = take_state(e, buf_span(&text));
	}
	buf_release(&text);
	return status;
}

/* ---- records ---- */

static void write_page(struct export *e, const struct hpkv_answer *page)
{
	struct json_array_reader reader;
	struct json_value records, element;
	struct buf text = {0};
	struct record r;

	if (!field_find((struct span){page->line.p, page->line.n}, "records", &records) ||
	    records.type != JSON_ARRAY)
		return; /* there are none */
	json_array_begin(&reader, &records);
	while (json_array_next(&reader, &element) > 0) {
		if (!record_of(element.text, &r))
			continue;
		record_write(&text, &r);
		if (e->c->terminal) { /* where it must not steer anything */
			struct span line = buf_span(&text);
			show_line(e->c, (struct hpkv_bytes){line.p, line.n - 1});
			buf_take(&text, line.n);
		}
		e->records++;
		buf_release(&e->key);
		buf_add(&e->key, r.key.text.p, r.key.text.n);
	}
	struct span all = buf_span(&text);
	if (all.n)
		fwrite(all.p, 1, all.n, stdout);
	buf_release(&text);
}

static int failed(struct export *e, const struct hpkv_answer *answer)
{
	meter_clear(&e->meter);
	int status = cli_fail("export", e->prefix.n ? e->prefix : (struct hpkv_bytes){0}, answer);
	if (!e->records)
		return status;
	cli_say("export: %s written, the rest is missing", say_count(e->records, "record"));
	return CLI_REFUSED;
}

static int export_pages(struct export *e)
{
	const struct hpkv_answer *page;
	int more;

	while ((more = pages_next(&e->pages, PAGES_MOST, &page)) > 0) {
		write_page(e, page);
		int status = show_flush();
		if (!status)
			status = save(e, e->pages.ended && !e->pages.stuck.result);
		if (status)
			return status;
		meter_tell(&e->meter, e->records, -1, pages_at(&e->pages));
	}
	return more ? failed(e, page) : CLI_DONE;
}

static int run(struct cli *c, int argc, char **argv)
{
	struct export e = {.c = c, .prefix = hpkv_str(argc ? argv[0] : "")};
	struct stat st;

	e.regular = fstat(STDOUT_FILENO, &st) == 0 && S_ISREG(st.st_mode);
	pages_of_prefix(&e.pages, c->hpkv, e.prefix);
	meter_begin(&e.meter, "record", !c->terminal);
	int status = resume(&e);
	meter_skip(&e.meter, e.records, -1);
	if (!status && e.whole)
		cli_say("export: %s says that all is written already: remove it to begin anew",
			visible_sentence(hpkv_str(c->opt[OPT_RESUME])));
	else if (!status)
		status = export_pages(&e);
	/* The state said "to be continued" behind a last page that nothing can follow. */
	if (!status && !e.whole)
		status = save(&e, true);
	meter_clear(&e.meter);
	pages_end(&e.pages);
	buf_release(&e.key);
	return status;
}

const struct command cmd_export = {
	.name = "export",
	.args = "[PREFIX]",
	.summary = "write records as lines of JSON",
	.help = "Writes each record whose key begins with PREFIX, or all records, as a line\n"
		"{\"key\":...,\"value\":...} that import reads. Records that change meanwhile are\n"
		"written as they were before or after. With --resume, FILE says how far it has\n"
		"come: after an interruption, the same command goes on there. The output must be\n"
		"appended to then. Exit status 3: a part is written.\n"
		"\n"
		"  hpkv export app: >app.jsonl\n"
		"  hpkv export app: --resume state >>app.jsonl\n",
	.options = {[OPT_RESUME] = {"resume", 'R', "FILE", "go on where FILE says; keep it"}},
	.min = 0,
	.max = 1,
	.words = WORDS_KEY,
	.exec = run,
};
