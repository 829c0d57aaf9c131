#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "base/printable.h"

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

/* ---- writing without waiting ---- */

/* How to write without waiting for a reader that may have stopped: */
enum channel {
	CHANNEL_UNKNOWN,
	CHANNEL_FILE,     /* write() never waits */
	CHANNEL_SOCKET,   /* send() is told not to wait */
	CHANNEL_OWN,      /* an open file description of our own, with O_NONBLOCK */
	CHANNEL_POLLED,   /* shared with other processes: write only as much as there is room for */
	CHANNEL_TERMINAL, /* the same, but poll() does not say how much room: an alarm interrupts
			     write() */
};

enum { ALARM_US = 20000, STUCK_MS = 1000 };

static enum channel channel;
static int out = STDERR_FILENO;
static int64_t
	stuck_until; /* a terminal for which the alarm went off: nothing more is written to it */

static bool is_same_file(int fd, const struct stat *st)
{
	unsigned a, b;
	struct stat other;

	if (S_ISCHR(st->st_mode) && ioctl(fd, TIOCGDEV, &a) == 0 &&
	    ioctl(STDERR_FILENO, TIOCGDEV, &b) == 0)
		return a == b; /* /dev/tty is a terminal by another name */
	return fstat(fd, &other) == 0 && other.st_dev == st->st_dev && other.st_ino == st->st_ino;
}

/* Another open file description of the same pipe or terminal. Setting O_NONBLOCK on the inherited
 * one would set it for the shell, too. */
static bool open_own(const struct stat *st)
{
	char terminal[64] = "";
	const char *const names[] = {"/proc/self/fd/2", terminal, "/dev/tty"};
	size_t n = 1;

	if (S_ISCHR(st->st_mode) && isatty(STDERR_FILENO)) {
		n = sizeof(names) / sizeof(names[0]);
		if (ttyname_r(STDERR_FILENO, terminal, sizeof(terminal)) != 0)
			terminal[0] = '\0';
	}
	for (size_t i = 0; i < n; i++) {
		int fd = open(names[i], O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
		if (fd >= 0 && is_same_file(fd, st)) {
			out = fd;
			return true;
		}
		if (fd >= 0)
			close(fd);
	}
	return false;
}

static enum channel find_channel(void)
{
	struct stat st;
	int flags = fcntl(STDERR_FILENO, F_GETFL);

	if (fstat(STDERR_FILENO, &st) < 0 || S_ISREG(st.st_mode) || S_ISBLK(st.st_mode))
		return CHANNEL_FILE;
	if (S_ISSOCK(st.st_mode))
		return CHANNEL_SOCKET;
	if (flags >= 0 && flags & O_NONBLOCK)
		return CHANNEL_FILE; /* the owner of the description has set it */
	if (open_own(&st))
		return CHANNEL_OWN;
	return isatty(STDERR_FILENO) ? CHANNEL_TERMINAL : CHANNEL_POLLED;
}

static bool can_write(void)
{
	struct pollfd p = {.fd = out, .events = POLLOUT};

	return poll(&p, 1, 0) != 0; /* write() will report the error */
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void on_alarm(int number)
{
	(void)number;
}

/* A terminal that has room, if only for one byte, and that another user owns, so that it can't be
 * opened again: write() is interrupted by an alarm. */
static ssize_t write_with_alarm(const char *line, size_t n)
{
	/* Repeats, in case the first alarm comes before write() has begun. */
	static const struct itimerval soon = {{0, ALARM_US}, {0, ALARM_US}}, never;
	struct sigaction action = {.sa_handler = on_alarm}, before; /* no SA_RESTART */

	if (now_ms() < stuck_until) {
		errno = EAGAIN;
		return -1;
	}
	sigaction(SIGALRM, &action, &before);
	setitimer(ITIMER_REAL, &soon, NULL);
	ssize_t written = write(out, line, n);
	int err = errno;
	setitimer(ITIMER_REAL, &never, NULL);
	sigaction(SIGALRM, &before, NULL);
	if (written < (ssize_t)n)
		stuck_until = now_ms() + STUCK_MS;
	errno = written < 0 && err == EINTR ? EAGAIN : err;
	return written;
}

static ssize_t write_now(const char *line, size_t n)
{
	if (channel == CHANNEL_UNKNOWN)
		channel = find_channel();
	if (channel == CHANNEL_SOCKET)
		return send(out, line, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (channel >= CHANNEL_POLLED && !can_write()) {
		errno = EAGAIN;
		return -1;
	}
	return channel == CHANNEL_TERMINAL ? write_with_alarm(line, n) : write(out, line, n);
}

int log_stay_above(int number)
{
	if (channel != CHANNEL_OWN || out >= number)
		return 0;
	int fd = fcntl(out, F_DUPFD_CLOEXEC, number);
	if (fd < 0)
		return -errno;
	close(out);
	out = fd;
	return 0;
}

/* ---- lines ---- */

static struct {
	unsigned long n; /* lines that could not be written */
	int why;         /* errno of the last one */
	bool cut;        /* the beginning of the line was written */
} lost;

/* One write() a line, so that lines of several processes do not mix. A line that can't be written
 * is lost, and counted. */
static bool write_line(enum log_level level, const char *text)
{
	char line[1200];
	size_t n = 0, taken;

	if (lost.cut) /* ends the unfinished last line */
		line[n++] = '\n';
	if (stderr_is_journal())
		n += (size_t)snprintf(line + n, sizeof(line) - n, "<%c>", levels[level].priority);
	else
		n += (size_t)snprintf(line + n, sizeof(line) - n,
				      "hpkvd: %s: ", levels[level].name);
	n += printable_copy((struct span){text, strlen(text)}, line + n, sizeof(line) - n - 1,
			    &taken);
	line[n++] = '\n';
	ssize_t written = write_now(line, n);
	if (written == (ssize_t)n) {
		lost.cut = false;
		return true;
	}
	lost.why = written < 0 ? errno : EAGAIN;
	lost.cut |= written > 0;
	lost.n++;
	return false;
}

/* Have all lost lines been reported? */
static bool tell_lost(void)
{
	char text[200];
	unsigned long n = lost.n;

	if (n == 0)
		return true;
	snprintf(text, sizeof(text), "%lu lines were lost here: %s", n,
		 lost.why == EAGAIN ? "nobody read them" : strerror(lost.why));
	lost.n = 0;
	if (write_line(LOG_LEVEL_WARNING, text))
		return true;
	lost.n = n; /* unknown whether this line was written */
	return false;
}

void log_line(enum log_level level, const char *format, ...)
{
	int saved = errno;
	char text[1024];
	va_list args;

	if (tell_lost()) {
		va_start(args, format);
		vsnprintf(text, sizeof(text), format, args);
		va_end(args);
		write_line(level, text);
	} else {
		lost.n++;
	}
	errno = saved;
}
