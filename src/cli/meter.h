/* meter.h - progress for people, on stderr if that is a terminal and stdout is not: how many
 * records, how fast, and how long the rest takes where that is known, else the present key. */
#pragma once

#include <stdbool.h>

#include <hpkv.h>

struct meter {
	const char *what; /* "record" */
	bool wanted;
	bool shown; /* a line of it stands on stderr */
	long long started, told;
	long first_n;       /* what a former run has done, */
	double first_share; /* which took none of this run's time */
};

void meter_begin(struct meter *m, const char *what, bool wanted);

/* The run begins here, behind what a former run has done. */
void meter_skip(struct meter *m, long n, double share);

/* n so far; share of the whole that is done, 0 to 1, or -1 where nobody knows; at: the present key,
 * or p NULL. Shows nothing in the first half second, and then ten times a second at most. */
void meter_tell(struct meter *m, long n, double share, struct hpkv_bytes at);

/* Takes the line away, so that another may stand there. */
void meter_clear(struct meter *m);
