/* top.h - the pages of hpkv top as lines of text, and the screen that shows them. */
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
	char door[16]; /* "http tcp"; "": this daemon does not tell */
};

/* Latencies of requests: seconds in all, and how many requests. */
enum top_latency { TOP_WAIT, TOP_SERVICE, TOP_LATENCIES };

/* The daemon's counters at one time. */
struct top_sample {
	double at_ms; /* 0: no sample yet */
	double ping_ms;
	double pid;
	double stats[TOP_STATS_MAX]; /* -1: this daemon has no such counter */
	double seconds[TOP_LATENCIES], count[TOP_LATENCIES];
	double cache_hits, cache_misses;
	struct top_client clients[TOP_CLIENTS_MAX];
	unsigned n_clients;
};

/* Takes a sample and builds the page. *sample is the previous sample on entry, the new one on
 * return. If a request fails, the page says why. */
void top_ask(struct cli *c, struct top_sample *sample, struct top_page *page);

/* A full screen that shows pages and reads keys. NULL: this build has none. */
struct top_screen {
	bool (*open)(void);
	void (*show)(const struct top_page *page);
	bool (*wait)(int ms); /* false: the user quits, or a signal came */
	void (*close)(void);
};
extern const struct top_screen *const top_screen;
