#include "daemon/learned_pace.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "daemon/state_file.h"
#include "requests/router.h"

#define NAME "pace"

enum { FRESH_MS = 60000, TEXT_MAX = 80 };

static const double rate_max = 1e6; /* requests/s */

/* The version of the form, thousandths of requests/s, and the time. */
static int write_pace(char text[TEXT_MAX], unsigned rate, unsigned goal, int64_t at_ms)
{
	return snprintf(text, TEXT_MAX, "1 %u %u %" PRId64 "\n", rate, goal, at_ms);
}

void learned_pace_keep(const struct router *r)
{
	char text[TEXT_MAX];
	double rate, goal;

	if (!router_learned_pace(r, clock_mono_ms(), &rate, &goal) || rate > rate_max ||
	    goal > rate_max)
		return;
	int n = write_pace(text, (unsigned)(rate * 1e3), (unsigned)(goal * 1e3), clock_wall_ms());
	int err = state_file_write(NAME, (struct span){text, (size_t)n}, false);
	if (err < 0 && err != -ENOENT)
		log_info("the learned pace is not kept: %s", strerror(-err));
}

/* Is it as write_pace() writes it, and of the last minute? */
static bool read_pace(struct span file, double *rate, double *goal)
{
	char text[TEXT_MAX], again[TEXT_MAX];
	unsigned thousandths, goal_thousandths;
	int64_t at_ms, age_ms;

	snprintf(text, sizeof(text), "%.*s", (int)file.n, file.p);
	if (sscanf(text, "1 %u %u %" SCNd64, &thousandths, &goal_thousandths, &at_ms) != 3)
		return false;
	int n = write_pace(again, thousandths, goal_thousandths, at_ms);
	age_ms = clock_wall_ms() - at_ms;
	*rate = thousandths / 1e3;
	*goal = goal_thousandths / 1e3;
	return span_equal(file, (struct span){again, (size_t)n}) && age_ms >= 0 &&
	       age_ms <= FRESH_MS && *rate >= 1 && *goal > *rate && *goal <= rate_max;
}

void learned_pace_take(struct router *r)
{
	struct buf text = {0};
	const char *why;
	double rate, goal;

	if (state_file_read(NAME, TEXT_MAX - 1, &text, &why) == 0 &&
	    read_pace(buf_span(&text), &rate, &goal))
		router_restore_pace(r, clock_mono_ms(), rate, goal);
	buf_release(&text);
	state_file_remove(NAME);
}
