/* logged.h - the log, for tests of what is logged.
 *
 * Between log_begin() and log_end() stderr is a file in memory. Nothing may have been logged
 * before: the log writes to what stderr was at its first line. */
#pragma once

#include "test.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"

static int log_file = -1, former_stderr;

static inline void log_begin(enum log_level level)
{
	if (log_file < 0)
		log_file = memfd_create("log", MFD_CLOEXEC);
	assert_true(log_file >= 0);
	fflush(stderr);
	former_stderr = dup(STDERR_FILENO);
	dup2(log_file, STDERR_FILENO);
	log_set_level(level);
}

/* The log since the last call. */
static inline const char *logged(void)
{
	static char text[16384];
	ssize_t n = pread(log_file, text, sizeof(text) - 1, 0);

	text[n < 0 ? 0 : n] = '\0';
	assert_int_equal(ftruncate(log_file, 0), 0);
	lseek(log_file, 0, SEEK_SET);
	return text;
}

static inline unsigned lines_logged(void)
{
	unsigned n = 0;

	for (const char *p = logged(); (p = strchr(p, '\n')); p++)
		n++;
	return n;
}

static inline void log_end(void)
{
	logged();
	log_set_level(LOG_LEVEL_ERROR);
	dup2(former_stderr, STDERR_FILENO);
	close(former_stderr);
}

#define assert_logged(part)                                                                        \
	do {                                                                                       \
		const char *seen_ = logged();                                                      \
		if (!strstr(seen_, part))                                                          \
			fail_msg("\"%s\" without %s", seen_, part);                                \
	} while (0)
