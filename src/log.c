#include "log.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct {
	const char *name;
	char priority; /* syslog(3) */
} levels[] = {
	[LOG_LEVEL_ERROR] = {"error", '3'},   [LOG_LEVEL_WARNING] = {"warning", '4'},
	[LOG_LEVEL_NOTICE] = {"notice", '5'}, [LOG_LEVEL_INFO] = {"info", '6'},
	[LOG_LEVEL_DEBUG] = {"debug", '7'},
};
_Static_assert(sizeof(levels) / sizeof(levels[0]) == LOG_LEVEL_N, "a name for each level");

static enum log_level current = LOG_LEVEL_INFO;

void log_set_level(enum log_level level)
{
	current = level;
}

enum log_level log_level(void)
{
	return current;
}

const char *log_level_name(enum log_level level)
{
	return levels[level].name;
}

bool log_level_parse(const char *name, enum log_level *level)
{
	for (int i = 0; i < LOG_LEVEL_N; i++) {
		if (strcmp(name, levels[i].name) == 0) {
			*level = (enum log_level)i;
			return true;
		}
	}
	return false;
}

/* JOURNAL_STREAM names the device and inode of the journal's socket; stderr may have been
 * redirected since, so only a match counts (systemd.exec(5)). */
static bool stderr_is_journal(void)
{
	static int answer = -1;
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat st;

	if (answer < 0)
		answer = stream && sscanf(stream, "%llu:%llu", &dev, &ino) == 2 &&
			 fstat(STDERR_FILENO, &st) == 0 && st.st_dev == dev && st.st_ino == ino;
	return answer;
}

/* Copies text to out with all but printable ASCII as \xNN, cutting what does not fit. Returns the
 * length. */
static size_t escape(char *out, size_t size, const char *text)
{
	size_t n = 0;

	for (; *text && n + 5 < size; text++) {
		unsigned char c = (unsigned char)*text;
		if (c >= 0x20 && c < 0x7f)
			out[n++] = (char)c;
		else
			n += (size_t)snprintf(out + n, size - n, "\\x%02x", c);
	}
	return n;
}

/* Whoever reads our lines may have stopped: then they are lost, rather than everything waits. */
static bool can_write(void)
{
	struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};

	return poll(&p, 1, 0) != 0; /* what is wrong with it, write() may say */
}

/* One write() a line, so that lines of several processes do not mix. What cannot be written is
 * lost: there is nobody to tell, but how many they were. */
static void write_line(enum log_level level, const char *text)
{
	char line[1200];
	size_t n = 0;

	if (stderr_is_journal())
		n = (size_t)snprintf(line, sizeof(line), "<%c>", levels[level].priority);
	else
		n = (size_t)snprintf(line, sizeof(line), "hpkvd: %s: ", levels[level].name);
	n += escape(line + n, sizeof(line) - n - 1, text);
	line[n++] = '\n';
	ssize_t written = write(STDERR_FILENO, line, n);
	(void)written;
}

void log_line(enum log_level level, const char *format, ...)
{
	static unsigned lost; /* lines */
	int saved = errno;
	char text[1024];
	va_list args;

	if (can_write()) {
		if (lost) {
			snprintf(text, sizeof(text), "%u lines were lost here: nobody read them",
				 lost);
			lost = 0;
			write_line(LOG_LEVEL_WARNING, text);
		}
		va_start(args, format);
		vsnprintf(text, sizeof(text), format, args);
		va_end(args);
		write_line(level, text);
	} else {
		lost++;
	}
	errno = saved;
}
