#include "socketpath.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "mem.h"

enum {
	BACKLOG = 4096,
	LOCK_TRIES = 50, /* for the folder, 10 ms apart */
};

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

/* Whoever has the lock as we do holds it for microseconds, so it is waited for. Whoever holds it
 * longer is none of ours, for anybody who may open the folder can: that is no reason not to start.
 */
static void lock_soon(int fd, const char *path)
{
	static const struct timespec pause = {0, 10000000};

	for (int i = 0; i < LOCK_TRIES; i++) {
		if (flock(fd, LOCK_EX | LOCK_NB) == 0)
			return;
		if (errno != EWOULDBLOCK && errno != EINTR)
			break;
		nanosleep(&pause, NULL);
	}
	log_warning(
		"%s: its folder can't be locked (%s): should two daemons start at once, one may "
		"take the path from the other",
		path, strerror(errno));
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
	if (err < 0)
		return err;
	lock_soon(fd, path);
	return fd;
}

/* Whoever may write to the folder may have put something else in the place of the socket: what a
 * link leads to is not touched. */
static bool give(const char *path, gid_t group)
{
	return group == (gid_t)-1 || lchown(path, (uid_t)-1, group) == 0;
}

static bool open_up(const char *path, mode_t mode)
{
	return fchmodat(AT_FDCWD, path, mode, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Binds and listens. The mode is right before anybody can connect: the socket is made for its owner
 * alone, gets its group and then its mode, and only then listens. */
static int bind_at(int fd, const struct sockaddr_un *at, const struct socketpath_settings *s)
{
	mode_t mask = umask(0177);
	int err = bind(fd, (const struct sockaddr *)at, sizeof(*at)) < 0 ? -errno : 0;

	umask(mask);
	if (err < 0)
		return err;
	if (!give(s->path, s->group) || !open_up(s->path, s->mode) || listen(fd, BACKLOG) < 0) {
		err = -errno;
		unlink(s->path);
	}
	return err;
}

static int open_socket(const struct socketpath_settings *s)
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

static void explain(const struct socketpath_settings *s, int err)
{
	const char *path = s->path, *setting = s->setting;

	switch (-err) {
	case EADDRINUSE:
		log_error("%s: another daemon is listening there: stop it, or choose another %s",
			  path, setting);
		break;
	case EEXIST:
		log_error("%s: there is something that is not a socket: remove it, or choose "
			  "another %s",
			  path, setting);
		break;
	case ENOENT:
		log_error("%s: its folder does not exist: make it, or choose another %s", path,
			  setting);
		break;
	default:
		log_error("%s: can't listen there: %s", path, strerror(-err));
	}
}

int socketpath_open(const struct socketpath_settings *settings, struct socketpath *out)
{
	struct stat st = {0};
	int fd = open_socket(settings);

	if (fd < 0) {
		explain(settings, fd);
		return fd;
	}
	*out = (struct socketpath){.path = mem_strdup(settings->path)};
	if (lstat(out->path, &st) == 0) {
		out->dev = st.st_dev;
		out->ino = st.st_ino;
	}
	return fd;
}

static bool is_ours(const struct socketpath *s)
{
	struct stat st;

	return s->path && lstat(s->path, &st) == 0 && st.st_dev == s->dev && st.st_ino == s->ino;
}

bool socketpath_is(const struct socketpath *s, const char *path)
{
	return is_ours(s) && strcmp(s->path, path) == 0;
}

/* On the way it is open to those only whom both the former settings and the new ones let in. */
int socketpath_set_access(const struct socketpath *s, mode_t mode, gid_t group)
{
	struct stat st;
	int err = lstat(s->path, &st) < 0 ? -errno : 0;

	if (err == 0 && (st.st_mode & 0777) == mode && (group == (gid_t)-1 || group == st.st_gid))
		return 0;
	if (err == 0 && (!open_up(s->path, st.st_mode & mode & 0707) || !give(s->path, group) ||
			 !open_up(s->path, mode)))
		err = -errno;
	if (err < 0)
		log_error("%s: can't change its mode and group: %s", s->path, strerror(-err));
	return err;
}

void socketpath_remove(struct socketpath *s)
{
	if (is_ours(s))
		unlink(s->path);
	free(s->path);
	s->path = NULL;
}
