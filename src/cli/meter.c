#include "meter.h"

#include <stdio.h>
#include <unistd.h>

#include "clock-text.h"
#include "cli.h"

enum { AFTER_MS = 500, EVERY_MS = 100 };

void meter_begin(struct meter *m, const char *what, bool wanted)
{
	*m = (struct meter){
		.what = what, .wanted = wanted && isatty(STDERR_FILENO), .started = cli_now_ms()};
}

void meter_tell(struct meter *m, long n, double share)
{
	long long now = cli_now_ms(), spent = now - m->started;
	char rest[CLOCK_TEXT_MAX];

	if (!m->wanted || spent < AFTER_MS || now - m->told < EVERY_MS)
		return;
	m->told = now;
	m->shown = true;
	fprintf(stderr, "\r\033[Khpkv: %ld %s, %.0f/s", n, m->what,
		(double)n * 1000 / (double)spent);
	if (share > 0 && share <= 1) {
		clock_duration(rest, (double)spent * (1 - share) / share);
		fprintf(stderr, ", %.0f%%, %s left", share * 100, rest);
	}
}

void meter_clear(struct meter *m)
{
	if (m->shown)
		fprintf(stderr, "\r\033[K");
	m->shown = false;
	m->told = 0;
}
