/* log.h - one line to stderr per event, with the priority prefix <N> that systemd's journal reads
 * when stderr is the journal. The only mutable global state of the program is behind this header:
 * the level, how to write, and how many lines were lost.
 *
 * Logging never waits for the reader. A stderr that is a pipe or a terminal is opened once more at
 * the first line, so that non-blocking mode does not affect other processes that share it; on a
 * socket each call says so. A line that nobody takes, or that a full disk or a file size limit
 * refuses, is lost. The number of lost lines is logged once there is room again.
 *
 * All but printable ASCII is escaped here, so peers cannot forge lines or terminal codes. errno is
 * preserved: logging never changes what the next line sees. Callers keep secrets out of log lines.
 */
#pragma once

#include <stdbool.h>

enum log_level {
	LOG_LEVEL_ERROR,
	LOG_LEVEL_WARNING,
	LOG_LEVEL_NOTICE,
	LOG_LEVEL_INFO,
	LOG_LEVEL_DEBUG,
	LOG_LEVEL_N
};

/* The least important level that is logged, and the names of levels. */
void log_set_level(enum log_level level);
enum log_level log_level(void);
const char *log_level_name(enum log_level level);
bool log_level_parse(const char *name, enum log_level *level);

/* Moves the descriptor of the log's own, if it has one, to a number from this on. 0, or -errno. */
int log_stay_above(int number);

/* Logs a line, whatever the level; mostly called through log_at(). */
void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The arguments are not evaluated when the level is off. */
#define log_at(level, ...)                                                                         \
	do {                                                                                       \
		if ((level) <= log_level())                                                        \
			log_line((level), __VA_ARGS__);                                            \
	} while (0)

#define log_error(...) log_at(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_at(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_notice(...) log_at(LOG_LEVEL_NOTICE, __VA_ARGS__)
#define log_info(...) log_at(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_at(LOG_LEVEL_DEBUG, __VA_ARGS__)
