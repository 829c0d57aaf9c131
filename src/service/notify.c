#include "service/notify.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/timer.h"

enum { RETRY_MS = 200, TEXT_MAX = 512 };

/* Messages, in the order in which they are sent. */
enum message { RELOADING, READY, STOPPING, STATUS, ALIVE, MESSAGE_N };

struct notify {
	struct sockaddr_un at;
	socklen_t at_size; /* 0: there is no manager */
	struct event *retry;
	bool due[MESSAGE_N];
	bool failed; /* a failure was logged */
	char text[MESSAGE_N][TEXT_MAX];
};

static void find_manager(struct notify *n)
{
	const char *name = getenv("NOTIFY_SOCKET");
	size_t size = name ? strlen(name) : 0;

	if (size == 0)
		return;
	if ((name[0] != '/' && name[0] != '@') || size < 2 || size >= sizeof(n->at.sun_path)) {
		log_warning(
			"NOTIFY_SOCKET: %s is neither a path nor an abstract socket: the service "
			"manager is not notified",
			name);
		return;
	}
	n->at.sun_family = AF_UNIX;
	memcpy(n->at.sun_path, name, size + 1);
	n->at_size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size);
	if (name[0] == '@')
		n->at.sun_path[0] = '\0'; /* the name has no NUL behind it */
	else
		n->at_size++;
}

/* 0, or -errno; -EAGAIN: its socket is full. */
static int tell(const struct notify *n, const char *text)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int err = fd < 0 ? -errno : 0;

	if (fd >= 0 && sendto(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT,
			      (const struct sockaddr *)&n->at, n->at_size) < 0)
		err = -errno;
	if (fd >= 0)
		close(fd);
	return err;
}

/* May the same call succeed later? */
static bool passes(int err)
{
	return err == -EAGAIN || err == -EINTR || err == -ENOBUFS || err == -ENOMEM ||
	       err == -EMFILE || err == -ENFILE;
}

static void tell_all(struct notify *n)
{
	for (int i = 0; i < MESSAGE_N; i++) {
		int err = n->due[i] ? tell(n, n->text[i]) : 0;
		if (passes(err)) {
			timer_start(n->retry, RETRY_MS);
			return;
		}
		n->due[i] = false; /* a message that can never be sent is dropped */
		if (err < 0 && !n->failed)
			log_warning("NOTIFY_SOCKET: the service manager can't be notified: %s",
				    strerror(-err));
		n->failed |= err < 0;
	}
}

static void on_retry(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	tell_all(arg);
}

struct notify *notify_new(struct event_base *base)
{
	struct notify *n = mem_zalloc(sizeof(*n));

	find_manager(n);
	n->retry = timer_new(base, on_retry, n);
	return n;
}

void notify_free(struct notify *n)
{
	if (!n)
		return;
	event_free(n->retry);
	free(n);
}

static void say(struct notify *n, enum message which, const char *text)
{
	if (!n->at_size)
		return;
	snprintf(n->text[which], sizeof(n->text[which]), "%s", text);
	n->due[which] = true;
	if (!event_pending(n->retry, EV_TIMEOUT, NULL))
		tell_all(n);
}

void notify_ready(struct notify *n)
{
	say(n, READY, "READY=1");
}

void notify_status(struct notify *n, const char *text)
{
	char line[TEXT_MAX];

	snprintf(line, sizeof(line), "STATUS=%s", text);
	say(n, STATUS, line);
}

/* The time tells the manager which signal this answers (Type=notify-reload). A READY that is left
 * of an earlier reload is dropped: the manager would take it for the end of this one. */
void notify_reloading(struct notify *n)
{
	char text[80];
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	snprintf(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%" PRIu64,
		 (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000);
	n->due[READY] = false;
	say(n, RELOADING, text);
}

void notify_stopping(struct notify *n)
{
	say(n, STOPPING, "STOPPING=1");
}

void notify_alive(struct notify *n)
{
	say(n, ALIVE, "WATCHDOG=1");
}

/* As sd_watchdog_enabled(3). */
uint64_t notify_watchdog_us(void)
{
	const char *us = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
	char *end;

	if (!us || us[0] < '0' || us[0] > '9')
		return 0;
	if (pid && strtoll(pid, NULL, 10) != getpid())
		return 0;
	errno = 0;
	unsigned long long n = strtoull(us, &end, 10);
	return *end || errno || n == ULLONG_MAX ? 0 : n;
}
