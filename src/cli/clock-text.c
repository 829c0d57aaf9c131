#include "clock-text.h"

#include <stdio.h>
#include <time.h>

void clock_text(char out[CLOCK_TEXT_MAX], int64_t ms, int with_date)
{
	int rest = (int)(ms % 1000) + (ms % 1000 < 0 ? 1000 : 0);
	time_t seconds = (time_t)(ms / 1000 - (ms % 1000 < 0));
	struct tm t;
	char zone[8] = "", date[24];

	/* Prints the number of a time beyond all calendars. */
	if (!localtime_r(&seconds, &t) || !strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &t)) {
		snprintf(out, CLOCK_TEXT_MAX, "%lld", (long long)ms);
		return;
	}
	if (!with_date) {
		snprintf(out, CLOCK_TEXT_MAX, "%02d:%02d:%02d.%03d", t.tm_hour, t.tm_min, t.tm_sec,
			 rest);
		return;
	}
	strftime(zone, sizeof(zone), "%z", &t); /* +0100 */
	snprintf(out, CLOCK_TEXT_MAX, "%s.%03d%.3s:%s", date, rest, zone, zone + 3);
}

void clock_duration(char out[CLOCK_TEXT_MAX], double ms)
{
	long long s = ms < 1e15 ? (long long)(ms / 1000) : 0;

	if (ms < 1000 || ms >= 1e15)
		snprintf(out, CLOCK_TEXT_MAX, "%.0f ms", ms);
	else if (s < 60)
		snprintf(out, CLOCK_TEXT_MAX, "%lld s", s);
	else if (s < 3600)
		snprintf(out, CLOCK_TEXT_MAX, "%lld min %lld s", s / 60, s % 60);
	else if (s < 86400)
		snprintf(out, CLOCK_TEXT_MAX, "%lld h %lld min", s / 3600, s % 3600 / 60);
	else
		snprintf(out, CLOCK_TEXT_MAX, "%lld d %lld h", s / 86400, s % 86400 / 3600);
}
