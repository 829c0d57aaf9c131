#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "show.h"
#include "visible.h"
#include "top.h"

enum { OPT_DELAY, OPT_COUNT };
enum { DELAY_MS = 1000, DELAY_MAX_MS = 600000 };
enum { ANSWER_MS = 1000 }; /* the default timeout: no key is read while a request is in flight */

struct run {
	struct cli *c;
	int delay_ms;
	long left; /* pages left to show; -1: no limit */
	struct top_sample sample;
	struct top_page page;
};

/* The daemon may go and come back; only the first request needs it. */
static void next_page(struct run *r)
{
	top_ask(r->c, &r->sample, &r->page);
	r->page.colour = r->c->colour;
	if (r->left > 0)
		r->left--;
}

static void print_page(const struct cli *c, const struct top_page *page)
{
	if (c->json)
		return;
	if (c->terminal)
		fputs("\033[H\033[2J", stdout);
	for (unsigned i = 0; i < page->n; i++) {
		show_paint(c, page->lines[i].colour);
		puts(page->lines[i].text);
		show_paint(c, SHOW_PLAIN);
	}
	if (!c->terminal)
		putchar('\n');
}

static int run_plain(struct run *r)
{
	for (;;) {
		print_page(r->c, &r->page);
		if (show_flush())
			return CLI_USAGE;
		if (r->left == 0)
			return CLI_DONE;
		/* Wait for the next page, or until the reader of the output has gone. */
		struct pollfd out = {.fd = STDOUT_FILENO};
		if (poll(&out, 1, r->delay_ms) > 0)
			return CLI_DONE;
		next_page(r);
	}
}

static int run_screen(struct run *r)
{
	if (!top_screen->open())
		return run_plain(r);
	for (;;) {
		top_screen->show(&r->page);
		if (r->left == 0 || !top_screen->wait(r->delay_ms))
			break;
		next_page(r);
	}
	top_screen->close();
	return CLI_DONE;
}

static int run(struct cli *c, int argc, char **argv)
{
	static struct run r;

	(void)argc;
	(void)argv;
	r = (struct run){.c = c, .delay_ms = DELAY_MS, .left = -1};
	if (c->opt[OPT_DELAY] && !cli_time(c->opt[OPT_DELAY], DELAY_MAX_MS, &r.delay_ms))
		return cli_usage(c, "--delay '%s' is not a time of at most 10 minutes, like 5s",
				 visible_name(hpkv_str(c->opt[OPT_DELAY])));
	if (c->opt[OPT_COUNT] && !cli_count(c->opt[OPT_COUNT], 1, 1000000000, &r.left))
		return cli_usage(c, "--count '%s' is not a number of pages",
				 visible_name(hpkv_str(c->opt[OPT_COUNT])));
	const struct hpkv_answer *answer;
	if (c->timeout_ms < 0)
		hpkv_set_timeout(c->hpkv, ANSWER_MS);
	if (hpkv_call(c->hpkv, &(struct hpkv_request){.op = HPKV_PING}, &answer))
		return cli_fail("top", (struct hpkv_bytes){0}, answer);
	next_page(&r);
	bool screen = top_screen && c->terminal && isatty(STDIN_FILENO) && !c->json;
	return screen ? run_screen(&r) : run_plain(&r);
}

const struct command cmd_top = {
	.name = "top",
	.args = "",
	.summary = "watch the daemon at work",
	.help = "Shows the connection to the service, rates, queues and the busiest clients,\n"
		"once a second. q quits. In a pipe each page is followed by an empty line.\n",
	.options = {[OPT_DELAY] = {"delay", 'd', "TIME", "time between two pages (1s)"},
		    [OPT_COUNT] = {"count", 'n', "N", "end after N pages"}},
	.exec = run,
};
