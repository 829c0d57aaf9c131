#include "clients/socketpath.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"

enum {
	LOCK_TRIES = 50, /* tries to lock the folder, 10 ms apart */

	/* Errors of this room; those of the system are smaller. */
	NO_MEMBER = 4096,
	NO_SUCH_GROUP,
	NO_PROC,

	FCHMODAT2 = 452, /* the number of the system call, which is newer than our headers */
};

static const char *text_of(int err)
{
	return err == -NO_PROC ? "/proc is not mounted, through which this kernel (before 6.6) "
				 "changes the mode of a socket"
			       : strerror(-err);
}

/* The error that the caller gets. */
static int plain(int err)
{
	return err == -NO_MEMBER ? -EPERM : err <= -NO_MEMBER ? -EINVAL : err;
}

/* 0: the path is free. A killed daemon leaves a socket on which nobody listens. */
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
	/* EAGAIN: its backlog is full, so a process has it open. */
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

/* Another daemon holds the lock for microseconds, so we wait for it if we may. Anybody who may open
 * the folder can hold it for longer; this does not keep us from listening. */
static void lock_soon(int fd, const struct socketpath_settings *s)
{
	static const struct timespec pause = {0, 10000000};
	int tries = s->may_wait ? LOCK_TRIES : 1, err;

	while ((err = flock(fd, LOCK_EX | LOCK_NB) < 0 ? errno : 0) == EWOULDBLOCK && --tries)
		nanosleep(&pause, NULL);
	if (err)
		log_warning("%s: its folder can't be locked (%s): should two daemons start at "
			    "once, one may take the path from the other",
			    s->path, strerror(err));
}

/* Two daemons that start at once may both find the stale socket. The lock lets one through at a
 * time and is held until the socket is bound. It is on the folder, so it leaves no file behind. */
static int lock_folder(const struct socketpath_settings *s)
{
	char *folder = mem_strdup(s->path), *slash = strrchr(folder, '/');

	if (slash)
		slash[slash == folder ? 1 : 0] = '\0';
	int fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int err = fd < 0 ? -errno : 0;
	free(folder);
	if (err < 0)
		return err;
	lock_soon(fd, s);
	return fd;
}

/* Opens the file at the path, without following a link, if it is a socket. */
static int hold(const char *path, struct stat *st)
{
	int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return errno == ENOENT ? -ESTALE : -errno;
	if (fstat(fd, st) == 0 && S_ISSOCK(st->st_mode))
		return fd;
	close(fd);
	return -ESTALE;
}

/* Of the opened file. */
static bool give(int fd, gid_t group)
{
	return group == (gid_t)-1 || fchownat(fd, "", (uid_t)-1, group, AT_EMPTY_PATH) == 0;
}

/* The same for the mode, which can be changed through /proc and, since Linux 6.6, directly. */
static bool open_up(int fd, mode_t mode)
{
	char name[40];

	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	if (chmod(name, mode) == 0)
		return true;
	if (errno != ENOENT && errno != ENOTDIR)
		return false;
	if (syscall(FCHMODAT2, fd, "", mode, AT_EMPTY_PATH) == 0)
		return true;
	errno = NO_PROC;
	return false;
}

/* Gives the new socket its group, and its mode unless it has it. */
static int set_up(const struct socketpath_settings *s, struct socketpath *out)
{
	struct stat st;
	int fd = hold(s->path, &st), err = fd < 0 ? fd : 0;

	if (err < 0)
		return err;
	if (st.st_nlink != 1) /* another user's, linked to this place */
		err = -ESTALE;
	else if (!give(fd, s->group))
		err = errno == EPERM ? -NO_MEMBER : errno == EINVAL ? -NO_SUCH_GROUP : -errno;
	else if ((st.st_mode & 0777) != s->mode && !open_up(fd, s->mode))
		err = -errno;
	close(fd);
	*out = (struct socketpath){.dev = st.st_dev, .ino = st.st_ino, .own_group = st.st_gid};
	return err;
}

/* Binds and listens. Mode and group are set before anybody can connect, since it listens only then.
 * bind() gives it the mode, unless a default ACL of the folder gives another one, which is
 * corrected before it listens. */
static int bind_at(int fd, const struct sockaddr_un *at, const struct socketpath_settings *s,
		   struct socketpath *out)
{
	mode_t mask = umask(0777 & ~s->mode);
	int err = bind(fd, (const struct sockaddr *)at, sizeof(*at)) < 0 ? -errno : 0;

	umask(mask);
	if (err < 0)
		return err;
	err = set_up(s, out);
	if (err == 0 && listen(fd, SOCKETPATH_BACKLOG) < 0)
		err = -errno;
	if (err < 0 && err != -ESTALE)
		unlink(s->path);
	return err;
}

static int open_socket(const struct socketpath_settings *s, struct socketpath *out)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};

	if (strlen(s->path) >= sizeof(at.sun_path))
		return -ENAMETOOLONG;
	strcpy(at.sun_path, s->path);
	int lock = lock_folder(s);
	if (lock < 0)
		return lock;
	int fd = -1, err = clear_path(&at);
	if (err == 0) {
		fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		err = fd < 0 ? -errno : bind_at(fd, &at, s, out);
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
	case ESTALE:
		log_error("%s: something else was put in its place while it was made: who else "
			  "may write to its folder?",
			  path);
		break;
	case NO_MEMBER:
		log_error("%s: can't be given to the group %lu ([listen] group): hpkvd is not a "
			  "member of it",
			  path, (unsigned long)s->group);
		break;
	case NO_SUCH_GROUP:
		log_error(
			"%s: can't be given to the group %lu ([listen] group): this user namespace "
			"does not have it",
			path, (unsigned long)s->group);
		break;
	default:
		log_error("%s: can't listen there: %s", path, text_of(err));
	}
}

int socketpath_open(const struct socketpath_settings *settings, struct socketpath *out)
{
	struct socketpath made;
	int fd = open_socket(settings, &made);

	if (fd < 0) {
		explain(settings, fd);
		return plain(fd);
	}
	made.path = mem_strdup(settings->path);
	*out = made;
	return fd;
}

static const char *place_of(const struct socketpath *s)
{
	return s->aside ? s->aside : s->path;
}

static bool is_ours(const struct socketpath *s)
{
	struct stat st;

	return s->path && lstat(place_of(s), &st) == 0 && st.st_dev == s->dev &&
	       st.st_ino == s->ino;
}

bool socketpath_is(const struct socketpath *s, const char *path)
{
	return is_ours(s) && !s->aside && strcmp(s->path, path) == 0;
}

/* Meanwhile it is open only to those that both the former and the new settings let in. */
static int change_access(int fd, const struct stat *before, mode_t mode, gid_t group)
{
	if (open_up(fd, before->st_mode & mode & 0707) && give(fd, group) && open_up(fd, mode))
		return 0;
	int err = -errno;
	give(fd, before->st_gid);
	open_up(fd, before->st_mode & 0777);
	return err;
}

int socketpath_set_access(const struct socketpath *s, mode_t mode, gid_t group)
{
	struct stat st;
	int fd = hold(place_of(s), &st), err = fd < 0 ? fd : 0;

	if (group == (gid_t)-1)
		group = s->own_group;
	if (err == 0 && (st.st_dev != s->dev || st.st_ino != s->ino))
		err = -ESTALE;
	if (err == 0 && ((st.st_mode & 0777) != mode || st.st_gid != group))
		err = change_access(fd, &st, mode, group);
	if (fd >= 0)
		close(fd);
	if (err < 0)
		log_error("%s: can't change its mode and group: %s", s->path, text_of(err));
	return plain(err);
}

static bool move(const char *from, const char *to)
{
	return renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0;
}

void socketpath_step_aside(struct socketpath *s)
{
	char *beside;

	if (!is_ours(s) || s->aside || asprintf(&beside, "%s.%ld", s->path, (long)getpid()) < 0)
		return;
	if (move(s->path, beside))
		s->aside = beside;
	else
		free(beside);
}

void socketpath_step_back(struct socketpath *s)
{
	if (!s->aside || !move(s->aside, s->path))
		return;
	free(s->aside);
	s->aside = NULL;
}

static void forget(struct socketpath *s)
{
	free(s->path);
	free(s->aside);
	s->path = s->aside = NULL;
}

void socketpath_remove(struct socketpath *s)
{
	if (is_ours(s))
		unlink(place_of(s));
	forget(s);
}

char *socketpath_hand_over(struct socketpath *s)
{
	char *text;

	if (asprintf(&text, "%llu:%llu:%lu:%s", (unsigned long long)s->dev,
		     (unsigned long long)s->ino, (unsigned long)s->own_group, place_of(s)) < 0)
		abort();
	forget(s);
	return text;
}

bool socketpath_inherit(const char *text, struct socketpath *out)
{
	unsigned long long dev, ino;
	unsigned long group;
	int n = 0;

	if (sscanf(text, "%llu:%llu:%lu:%n", &dev, &ino, &group, &n) < 3 || text[n] != '/')
		return false;
	*out = (struct socketpath){.path = mem_strdup(text + n),
				   .dev = (dev_t)dev,
				   .ino = (ino_t)ino,
				   .own_group = (gid_t)group};
	if (is_ours(out))
		return true;
	forget(out);
	return false;
}
