#include "daemon/learned_pace.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "daemon/state_directory.h"
#include "requests/router.h"

#define NAME "pace"

enum { FRESH_S = 60, TEXT_MAX = 64, RATE_MAX = 1000000 };

/* Thousandths of requests/s: "1" is the version of the form. */
static const char form[] = "1 %u %u\n";

void learned_pace_keep(const struct router *r)
{
	char text[TEXT_MAX];
	double rate, goal;

	if (!router_learned_pace(r, clock_mono_ms(), &rate, &goal) || rate > RATE_MAX ||
	    goal > RATE_MAX)
		return;
	int directory = state_directory_open();
	if (directory < 0)
		return;
	int n = snprintf(text, sizeof(text), form, (unsigned)(rate * 1e3), (unsigned)(goal * 1e3));
	int err = state_directory_write(directory, NAME, text, (size_t)n, false);
	if (err < 0)
		log_info("the learned pace is not kept: %s", strerror(-err));
	close(directory);
}

/* Is it a file of ours, of the last minute? */
static bool is_fresh(int fd)
{
	struct stat st;
	time_t now = time(NULL);

	return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid() &&
	       st.st_mtime <= now && now - st.st_mtime <= FRESH_S;
}

static bool read_pace(int fd, double *rate, double *goal)
{
	char text[TEXT_MAX], again[TEXT_MAX];
	unsigned thousandths, goal_thousandths;
	ssize_t n = is_fresh(fd) ? read(fd, text, sizeof(text) - 1) : -1;

	if (n <= 0)
		return false;
	text[n] = '\0';
	if (sscanf(text, form, &thousandths, &goal_thousandths) != 2)
		return false;
	snprintf(again, sizeof(again), form, thousandths, goal_thousandths);
	*rate = thousandths / 1e3;
	*goal = goal_thousandths / 1e3;
	return strcmp(text, again) == 0 && *rate >= 1 && *goal > *rate && *goal <= RATE_MAX;
}

void learned_pace_take(struct router *r)
{
	double rate, goal;
	int directory = state_directory_open();

	if (directory < 0)
		return;
	int fd = openat(directory, NAME, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd >= 0) {
		if (read_pace(fd, &rate, &goal))
			router_restore_pace(r, clock_mono_ms(), rate, goal);
		close(fd);
		unlinkat(directory, NAME, 0);
	}
	close(directory);
}
