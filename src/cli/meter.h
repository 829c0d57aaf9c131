/* meter.h - progress for people, on stderr if that is a terminal and stdout is not: how many
 * records, how fast, and how long the rest takes where that is known. */
#pragma once

#include <stdbool.h>

struct meter {
	const char *what; /* "records" */
	bool wanted;
	bool shown; /* a line of it stands on stderr */
	long long started, told;
};

void meter_begin(struct meter *m, const char *what, bool wanted);

/* n so far; share of the whole that is done, 0 to 1, or -1 where nobody knows. Shows nothing in the
 * first half second, and then ten times a second at most. */
void meter_tell(struct meter *m, long n, double share);

/* Takes the line away, so that another may stand there. */
void meter_clear(struct meter *m);
