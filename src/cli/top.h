/* top.h - what hpkv top shows, as lines of text; the screen is another file's business. */
#pragma once

#include "cli.h"
#include "show.h"

enum { TOP_LINE_MAX = 200, TOP_LINES_MAX = 48, TOP_CLIENTS_MAX = 10, TOP_STATS_MAX = 16 };

struct top_line {
	char text[TOP_LINE_MAX];
	enum show_colour colour;
	bool reverse; /* a heading */
};

struct top_page {
	bool colour;
	struct top_line lines[TOP_LINES_MAX];
	unsigned n;
};

struct top_client {
	double id, pid, uid, requests, unanswered, subscriptions, output;
};

/* Where requests spend their time: a sum of seconds, and of how many requests. */
enum top_latency { TOP_WAIT, TOP_SERVICE, TOP_LATENCIES };

/* What the daemon said at one time. */
struct top_sample {
	double at_ms; /* 0: there is none yet */
	double ping_ms;
	double pid;
	double stats[TOP_STATS_MAX]; /* -1: this daemon does not count it */
	double seconds[TOP_LATENCIES], count[TOP_LATENCIES];
	struct top_client clients[TOP_CLIENTS_MAX];
	unsigned n_clients;
};

/* Asks the daemon and writes the page; *sample is what was known before, and becomes what is known
 * now. A failure is a page, too. */
void top_ask(struct cli *c, struct top_sample *sample, struct top_page *page);

/* A screen that shows pages and takes keys. NULL: this build, or this terminal, has none. */
struct top_screen {
	bool (*open)(void);
	void (*show)(const struct top_page *page);
	bool (*wait)(int ms); /* false: the user wants to leave, or a signal came */
	void (*close)(void);
};
extern const struct top_screen *const top_screen;
