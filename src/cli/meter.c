#include "meter.h"

#include <stdio.h>
#include <unistd.h>

#include "clock-text.h"
#include "cli.h"
#include "visible.h"

enum { AFTER_MS = 500, EVERY_MS = 100, KEY_MAX = 45 };

void meter_begin(struct meter *m, const char *what, bool wanted)
{
	*m = (struct meter){
		.what = what, .wanted = wanted && isatty(STDERR_FILENO), .started = cli_now_ms()};
}

void meter_skip(struct meter *m, long n, double share)
{
	m->first_n = n;
	m->first_share = share > 0 ? share : 0;
	m->started = cli_now_ms();
}

void meter_tell(struct meter *m, long n, double share, struct hpkv_bytes at)
{
	long long now = cli_now_ms(), spent = now - m->started;
	char rest[CLOCK_TEXT_MAX], key[KEY_MAX];

	if (!m->wanted || spent < AFTER_MS || now - m->told < EVERY_MS)
		return;
	m->told = now;
	m->shown = true;
	fprintf(stderr, "\r\033[Khpkv: %s, %.0f/s", say_count(n, m->what),
		(double)(n - m->first_n) * 1000 / (double)spent);
	if (share > m->first_share && share <= 1) {
		clock_duration(rest, (double)spent * (1 - share) / (share - m->first_share));
		fprintf(stderr, ", %.0f%%, %s left", share * 100, rest);
	} else if (at.p) {
		fprintf(stderr, ", at %s", visible_text(key, sizeof(key), at));
	}
}

void meter_clear(struct meter *m)
{
	if (m->shown)
		fprintf(stderr, "\r\033[K");
	m->shown = false;
	m->told = 0;
}
