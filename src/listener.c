#include "listener.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <fcntl.h>

#include "log.h"
#include "mem.h"

enum {
	BACKLOG = 4096,
	LOCK_TRIES = 200, /* for the folder, 10 ms apart */
	ACCEPTS_MAX = 64, /* in one turn of the loop */
	PAUSE_MS = 1000,  /* until accepting is tried again without a hint */
};

struct listener {
	int fd;
	char *path;
	dev_t dev; /* of the path that we have made, to remove no other */
	ino_t ino;
	struct event *readable, *retry;
	bool paused;
	listener_accepted *accepted;
	void *owner;
	struct stats *stats;
};

/* ---- the path ---- */

/* 0: the path is free now. A socket on which nobody listens is what a killed daemon leaves behind.
 */
static int clear_path(const struct sockaddr_un *at)
{
	struct stat st;
	int err = 0;

	if (lstat(at->sun_path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	/* EAGAIN: its backlog is full, so somebody holds it. */
	if (connect(fd, (const struct sockaddr *)at, sizeof(*at)) == 0 || errno == EAGAIN)
		err = -EADDRINUSE;
	else if (errno != ECONNREFUSED && errno != ENOENT)
		err = -errno;
	close(fd);
	if (err == 0 && unlink(at->sun_path) < 0 && errno != ENOENT)
		err = -errno;
	if (err == 0)
		log_notice("replaced %s, which a daemon that is gone had left", at->sun_path);
	return err;
}

/* Whoever has the lock as we do holds it for microseconds, so it is waited for; but not for ever,
 * since anybody who may open the folder can hold it. */
static int lock_soon(int fd)
{
	static const struct timespec pause = {0, 10000000};

	for (int i = 0; i < LOCK_TRIES; i++) {
		if (flock(fd, LOCK_EX | LOCK_NB) == 0)
			return 0;
		if (errno != EWOULDBLOCK && errno != EINTR)
			return -errno;
		nanosleep(&pause, NULL);
	}
	return -EBUSY;
}

/* Two daemons that start at once both find the stale socket: the lock lets one through at a time,
 * and it is held for as long as it takes to bind. It lies on the folder, so it leaves no file
 * behind. */
static int lock_folder(const char *path)
{
	char *folder = mem_strdup(path), *slash = strrchr(folder, '/');

	if (slash)
		slash[slash == folder ? 1 : 0] = '\0';
	int fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int err = fd < 0 ? -errno : 0;
	free(folder);
	if (err == 0 && (err = lock_soon(fd)) < 0)
		close(fd);
	return err < 0 ? err : fd;
}

/* Binds and listens. The mode is right before anybody can connect: the socket is made for its owner
 * alone, gets its group and then its mode, and only then listens. */
static int bind_at(int fd, const struct sockaddr_un *at, const struct listener_settings *s)
{
	mode_t mask = umask(0177);
	int err = bind(fd, (const struct sockaddr *)at, sizeof(*at)) < 0 ? -errno : 0;

	umask(mask);
	if (err < 0)
		return err;
	if ((s->group != (gid_t)-1 && chown(s->path, (uid_t)-1, s->group) < 0) ||
	    chmod(s->path, s->mode) < 0 || listen(fd, BACKLOG) < 0) {
		err = -errno;
		unlink(s->path);
	}
	return err;
}

static int open_socket(const struct listener_settings *s)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};

	if (strlen(s->path) >= sizeof(at.sun_path))
		return -ENAMETOOLONG;
	strcpy(at.sun_path, s->path);
	int lock = lock_folder(s->path);
	if (lock < 0)
		return lock;
	int fd = -1, err = clear_path(&at);
	if (err == 0) {
		fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		err = fd < 0 ? -errno : bind_at(fd, &at, s);
	}
	close(lock);
	if (err < 0 && fd >= 0)
		close(fd);
	return err < 0 ? err : fd;
}

static void explain(const char *path, int err)
{
	switch (-err) {
	case EADDRINUSE:
		log_error("%s: another daemon is listening there: stop it, or choose another "
			  "[listen] socket",
			  path);
		break;
	case EEXIST:
		log_error("%s: there is something that is not a socket: remove it, or choose "
			  "another [listen] socket",
			  path);
		break;
	case EBUSY:
		log_error("%s: its folder is locked by another process (flock)", path);
		break;
	case ENOENT:
		log_error(
			"%s: its folder does not exist: make it, or choose another [listen] socket",
			path);
		break;
	default:
		log_error("%s: can't listen there: %s", path, strerror(-err));
	}
}

/* ---- accepting ---- */

void listener_pause(struct listener *l, const char *why)
{
	if (l->stats->accept_pauses++ == 0)
		log_warning("accepting pauses: %s (raise LimitNOFILE= or ulimit -n, or lower "
			    "max_clients)",
			    why);
	l->paused = true;
	event_del(l->readable);
}

/* The descriptor that is missing may be another process's to close, so it is tried again without a
 * hint. */
static void out_of_descriptors(struct listener *l, int error)
{
	static const struct timeval later = {PAUSE_MS / 1000, PAUSE_MS % 1000 * 1000};

	listener_pause(l, strerror(error));
	event_add(l->retry, &later);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct listener *l = arg;

	(void)what;
	for (int i = 0; i < ACCEPTS_MAX && !l->paused; i++) {
		int client = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (client >= 0) {
			l->accepted(l->owner, client);
			continue;
		}
		if (errno == EINTR || errno == ECONNABORTED)
			continue;
		if (errno != EAGAIN)
			out_of_descriptors(l, errno);
		return;
	}
}

static void on_retry(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	listener_resume(arg);
}

void listener_resume(struct listener *l)
{
	if (!l->paused)
		return;
	l->paused = false;
	event_del(l->retry);
	event_add(l->readable, NULL);
}

int listener_new(struct event_base *base, const struct listener_settings *settings,
		 listener_accepted *accepted, void *owner, struct stats *stats,
		 struct listener **out)
{
	struct stat st = {0};
	int fd = open_socket(settings);

	if (fd < 0) {
		explain(settings->path, fd);
		return fd;
	}
	struct listener *l = mem_zalloc(sizeof(*l));
	l->fd = fd;
	l->path = mem_strdup(settings->path);
	if (lstat(l->path, &st) == 0) {
		l->dev = st.st_dev;
		l->ino = st.st_ino;
	}
	l->accepted = accepted;
	l->owner = owner;
	l->stats = stats;
	l->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, l);
	l->retry = event_new(base, -1, 0, on_retry, l);
	event_add(l->readable, NULL);
	*out = l;
	return 0;
}

static bool path_is_ours(const struct listener *l)
{
	struct stat st;

	return lstat(l->path, &st) == 0 && st.st_dev == l->dev && st.st_ino == l->ino;
}

bool listener_is_at(const struct listener *l, const char *path)
{
	return strcmp(l->path, path) == 0 && path_is_ours(l);
}

/* On the way it is open to those only whom both the former settings and the new ones let in. */
int listener_set_access(struct listener *l, const struct listener_settings *s)
{
	struct stat st;
	int err = lstat(l->path, &st) < 0 ? -errno : 0;

	if (err == 0 && (st.st_mode & 0777) == s->mode &&
	    (s->group == (gid_t)-1 || s->group == st.st_gid))
		return 0;
	if (err == 0 && (chmod(l->path, st.st_mode & s->mode & 0707) < 0 ||
			 (s->group != (gid_t)-1 && chown(l->path, (uid_t)-1, s->group) < 0) ||
			 chmod(l->path, s->mode) < 0))
		err = -errno;
	if (err < 0)
		log_error("%s: can't change its mode and group: %s", l->path, strerror(-err));
	return err;
}

void listener_free(struct listener *l)
{
	if (!l)
		return;
	event_free(l->readable);
	event_free(l->retry);
	if (path_is_ours(l))
		unlink(l->path);
	close(l->fd);
	free(l->path);
	free(l);
}

void listener_retire(struct listener *l)
{
	int client;

	if (!l)
		return;
	if (path_is_ours(l)) /* nobody else comes */
		unlink(l->path);
	while ((client = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0 ||
	       errno == EINTR || errno == ECONNABORTED) {
		if (client >= 0)
			l->accepted(l->owner, client);
	}
	listener_free(l);
}
