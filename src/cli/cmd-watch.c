#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock-text.h"
#include "commands.h"
#include "exec.h"
#include "base/mem.h"
#include "codec/json.h"
#include "show.h"
#include "visible.h"
#include "words.h"

enum { OPT_EXEC, OPT_INITIAL, OPT_COUNT, OPT_EXACT, OPT_STDIN, OPT_NO_RECONNECT };

struct watch {
	struct cli *c;
	struct words words; /* what is watched */
	long left;          /* changes left to print; -1: no limit */
	int status;
	bool lost, upstream_lost; /* connections that changes come over, of hpkv and of hpkvd */
};

/* ---- output ---- */

static void show_change_to_people(const struct cli *c, const struct hpkv_event *e)
{
	char when[CLOCK_TEXT_MAX];

	clock_text(when, e->timestamp, 0);
	show_part(c, hpkv_str(when), SHOW_DIM);
	show_pad(2);
	show_part(c, e->key, SHOW_KEY);
	show_pad(2);
	show_part(c, e->value.p ? e->value : hpkv_str("(deleted)"),
		  e->value.p ? SHOW_PLAIN : SHOW_BAD);
	if (e->skipped) {
		show_paint(c, SHOW_DIM);
		printf("  (%llu before it skipped)", (unsigned long long)e->skipped);
		show_paint(c, SHOW_PLAIN);
	}
	putchar('\n');
}

static void show_change(const struct cli *c, const struct hpkv_event *e)
{
	char when[CLOCK_TEXT_MAX];

	if (c->json) {
		show_line(c, e->line);
		return;
	}
	if (c->raw || c->nul) {
		/* No stored value is empty, so an empty one means that the key was deleted. */
		show_record(c, e->key, c->nul && !e->value.p ? hpkv_str("") : e->value, 0);
	} else if (c->terminal) {
		show_change_to_people(c, e);
		return;
	} else {
		clock_text(when, e->timestamp, 1);
		printf("%s\t", when);
		show_record(c, e->key, e->value, 0);
	}
	if (e->skipped)
		cli_say("watch: %s was not read fast enough: %llu changes before "
			"this one are "
			"skipped",
			visible_name(e->key), (unsigned long long)e->skipped);
}

static void tell_gap(const struct hpkv_event *e)
{
	char since[CLOCK_TEXT_MAX], until[CLOCK_TEXT_MAX];

	if (e->key.p) {
		cli_say("watch: changes of %s may have been missed", visible_name(e->key));
	} else {
		clock_text(since, e->since, 0);
		clock_text(until, e->until, 0);
		cli_say("watch: changes of %s from %s to %s may have been missed",
			visible_name(e->pattern), since, until);
	}
}

/* Runs one command at a time. Nothing is read meanwhile, so the daemon keeps the latest change of
 * each key. */
static void on_change(struct watch *w, const struct hpkv_event *e)
{
	const char *command = w->c->opt[OPT_EXEC];

	if (w->left == 0)
		return;
	if (!command)
		show_change(w->c, e);
	else if (exec_command(command, w->c->opt[OPT_STDIN] != NULL, e) > w->status)
		w->status = CLI_USAGE;
	if (w->left > 0)
		w->left--;
}

/* The state that the daemon's lines of type "connection" tell, over restarts of the daemon: either
 * changes come, or they do not. */
static bool is_connected(struct watch *w, const struct hpkv_event *e)
{
	switch (e->type) {
	case HPKV_EVENT_UPSTREAM_LOST:
	case HPKV_EVENT_UPSTREAM_BACK:
		w->upstream_lost = e->type == HPKV_EVENT_UPSTREAM_LOST;
		break;
	case HPKV_EVENT_LOST:
	case HPKV_EVENT_BACK:
		w->lost = e->type == HPKV_EVENT_LOST;
		break;
	case HPKV_EVENT_CHANGE:
	case HPKV_EVENT_GAP:
	case HPKV_EVENT_DROPPED:
	case HPKV_EVENT_OTHER:
		break;
	}
	return !w->lost && !w->upstream_lost;
}

static bool is_about_connection(const struct hpkv_event *e)
{
	return e->type == HPKV_EVENT_UPSTREAM_LOST || e->type == HPKV_EVENT_UPSTREAM_BACK ||
	       e->type == HPKV_EVENT_LOST || e->type == HPKV_EVENT_BACK;
}

static struct hpkv_bytes json_of_gap(char *out, const struct hpkv_event *e)
{
	size_t n = (size_t)sprintf(out, "{\"type\":\"gap\",\"pattern\":\"");

	n += json_escape((struct span){e->pattern.p, e->pattern.n}, out + n);
	n += (size_t)sprintf(out + n, "\",\"since\":%lld,\"until\":%lld}", (long long)e->since,
			     (long long)e->until);
	return (struct hpkv_bytes){out, n};
}

/* Prints an event as the daemon's line. Events of the library's own, which stand for a restart of
 * the daemon, look like the daemon's, so that each "disconnected" is followed by a "connected". */
static void show_json(struct watch *w, const struct hpkv_event *e)
{
	bool before = !w->lost && !w->upstream_lost, now = is_connected(w, e);
	char line[120];

	if (e->type == HPKV_EVENT_GAP && e->pattern.p && !e->line.n) {
		char *room = mem_alloc(6 * e->pattern.n + sizeof(line));
		show_line(w->c, json_of_gap(room, e));
		free(room);
	} else if (now != before && !e->line.n) {
		snprintf(line, sizeof(line),
			 "{\"type\":\"connection\",\"state\":\"%s\",\"timestamp\":%lld}",
			 now ? "connected" : "disconnected", (long long)e->timestamp);
		show_line(w->c, hpkv_str(line));
	} else if (e->line.n && (now != before || !is_about_connection(e))) {
		show_line(w->c, e->line);
	}
}

static void on_lost(struct watch *w, const struct hpkv_event *e)
{
	if (!w->c->opt[OPT_NO_RECONNECT]) {
		cli_say("watch: %s; trying again", e->text);
		return;
	}
	cli_say("watch: %s", e->text);
	w->status = CLI_NO_DAEMON;
	w->left = 0;
}

static void on_event(void *arg, const struct hpkv_event *e)
{
	struct watch *w = arg;

	switch (e->type) {
	case HPKV_EVENT_CHANGE:
		on_change(w, e);
		return;
	case HPKV_EVENT_GAP:
		tell_gap(e);
		break;
	case HPKV_EVENT_UPSTREAM_LOST:
		cli_say("watch: hpkvd has lost its connection to the service and reconnects");
		break;
	case HPKV_EVENT_UPSTREAM_BACK:
		cli_say("watch: hpkvd is connected to the service again");
		break;
	case HPKV_EVENT_LOST:
		on_lost(w, e);
		break;
	case HPKV_EVENT_BACK:
		cli_say("watch: connected to hpkvd again; changes in between may have been missed, "
			"the current values of keys follow");
		break;
	case HPKV_EVENT_DROPPED:
		cli_say("watch: %s is not watched any more: %s",
			visible_name(e->key.p ? e->key : e->pattern), e->text);
		w->status = CLI_REFUSED;
		if (!words_remove(&w->words, e->pattern.p, e->key.p ? e->key : e->pattern))
			w->left = 0;
		break;
	case HPKV_EVENT_OTHER:
		break;
	}
	if (w->c->json)
		show_json(w, e);
}

/* Runs until the count is reached, no subscription is left, or the reader of the output has gone.
 */
static int follow(struct watch *w)
{
	struct pollfd p[2] = {{.fd = hpkv_fd(w->c->hpkv), .events = POLLIN},
			      {.fd = w->c->opt[OPT_EXEC] ? -1 : STDOUT_FILENO}};

	while (w->left != 0) {
		if (poll(p, 2, -1) < 0)
			continue;
		if (p[0].revents)
			hpkv_process(w->c->hpkv);
		if (show_flush())
			return CLI_USAGE;
		if (p[1].revents) /* a pipe or socket without a reader, or a closed terminal */
			break;
	}
	return w->status;
}

static int run(struct cli *c, int argc, char **argv)
{
	struct watch w = {.c = c, .left = -1};

	if (c->opt[OPT_COUNT] && !cli_count(c->opt[OPT_COUNT], 1, 1000000000, &w.left))
		return cli_usage(c, "--count '%s' is not a number of changes",
				 visible_name(hpkv_str(c->opt[OPT_COUNT])));
	if (c->opt[OPT_STDIN] && !c->opt[OPT_EXEC])
		return cli_usage(c, "--stdin needs --exec");
	hpkv_set_reconnect(c->hpkv, !c->opt[OPT_NO_RECONNECT]);
	words_sort(&w.words, argc, argv, c->opt[OPT_EXACT] != NULL);
	struct hpkv_request q = words_request(&w.words, HPKV_SUBSCRIBE);
	q.initial = c->opt[OPT_INITIAL] != NULL;
	const struct hpkv_answer *answer;
	hpkv_on_event(c->hpkv, on_event, &w);
	int status = hpkv_call(c->hpkv, &q, &answer)
			     ? cli_answer(c, "watch", hpkv_str(argv[0]), answer)
			     : CLI_DONE;
	if (show_flush() && !status)
		status = CLI_USAGE;
	if (!status)
		status = follow(&w);
	words_free(&w.words);
	return status;
}

const struct command cmd_watch = {
	.name = "watch",
	.args = "KEY|GLOB...",
	.summary = "print each change as it happens",
	.help = "Prints each change of the keys and globs (* stands for any characters) with its\n"
		"time, until interrupted. In a pipe: TIME<TAB>KEY<TAB>VALUE, without VALUE when\n"
		"the key was deleted. It survives restarts of hpkvd; gaps are reported on stderr.\n"
		"--exec runs CMD in a shell for each change, one at a time. CMD has HPKV_KEY,\n"
		"HPKV_VALUE, HPKV_EVENT (set, delete), HPKV_TIMESTAMP and HPKV_SKIPPED (number of\n"
		"changes that this one replaces) set, and the value on its stdin. A key or value\n"
		"that no variable can hold (with a NUL, or longer than 100 KiB) is skipped; the\n"
		"exit status is 2 then. With --stdin, CMD gets the change as JSON on its stdin,\n"
		"and no HPKV_VALUE.\n"
		"\n"
		"  hpkv watch 'user:*'\n"
		"  hpkv watch config --exec 'systemctl reload app'\n",
	.options = {[OPT_EXEC] = {"exec", 'e', "CMD", "run CMD instead of printing"},
		    [OPT_INITIAL] = {"initial", 'i', NULL,
				     "print the current values of keys first"},
		    [OPT_COUNT] = {"count", 'n', "N", "end after N changes"},
		    [OPT_EXACT] = {"exact", 'x', NULL, "all words are keys, even with a *"},
		    [OPT_STDIN] = {"stdin", 0, NULL, "CMD gets the change as JSON on stdin"},
		    [OPT_NO_RECONNECT] = {"no-reconnect", 0, NULL, "end with 4 when hpkvd ends"}},
	.min = 1,
	.max = -1,
	.words = WORDS_KEYS,
	.exec = run,
};
