#include "daemon/state_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The first of the directories that systemd names, opened; -ENOENT: it names none. */
static int open_directory(void)
{
	const char *list = getenv("STATE_DIRECTORY");
	size_t n = list ? strcspn(list, ":") : 0;
	char path[4096];

	if (n == 0)
		return -ENOENT;
	if (n >= sizeof(path))
		return -ENAMETOOLONG;
	memcpy(path, list, n);
	path[n] = '\0';
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int state_file_check(void)
{
	const char *list = getenv("STATE_DIRECTORY");
	int directory = list && *list ? open_directory() : -1, err = 0;

	if (!list || !*list)
		return 0;
	if (directory < 0)
		return directory;
	if (faccessat(directory, ".", W_OK | X_OK, AT_EACCESS) < 0)
		err = -errno;
	close(directory);
	return err;
}

/* NULL, or why this file can't be trusted. */
static const char *fault_of(int fd, size_t *size)
{
	struct stat st;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return "is no regular file";
	if (st.st_uid != geteuid() && st.st_uid != 0)
		return "belongs to another user";
	*size = (size_t)st.st_size;
	return st.st_mode & 077 ? "may be read or written by others (its mode should be 0600)"
				: NULL;
}

static int read_all(int fd, size_t n, struct buf *out)
{
	char *room = buf_room(out, n);
	size_t got = 0;

	while (got < n) {
		ssize_t more = read(fd, room + got, n - got);
		if (more < 0 && errno == EINTR)
			continue;
		if (more <= 0)
			return more < 0 ? -errno : -EIO;
		got += (size_t)more;
	}
	buf_grew(out, n);
	return 0;
}

static int read_file(int fd, size_t max, struct buf *out, const char **why)
{
	size_t size = 0;
	int err = -EACCES;

	*why = fault_of(fd, &size);
	if (*why)
		return err;
	err = size > max ? -EFBIG : read_all(fd, size, out);
	*why = err == -EFBIG ? "is too long" : strerror(-err);
	return err;
}

int state_file_read(const char *name, size_t max, struct buf *out, const char **why)
{
	int directory = open_directory();
	int fd = directory < 0
			 ? -1
			 : openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	int err = directory < 0 ? directory : fd < 0 ? -errno : 0;

	*why = strerror(-err);
	if (err == 0)
		err = read_file(fd, max, out, why);
	if (fd >= 0)
		close(fd);
	if (directory >= 0)
		close(directory);
	return err;
}

static int write_all(int fd, struct span bytes, bool durable)
{
	while (bytes.n) {
		ssize_t n = write(fd, bytes.p, bytes.n);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		bytes = (struct span){bytes.p + n, bytes.n - (size_t)n};
	}
	return durable && fsync(fd) < 0 ? -errno : 0;
}

/* Under another name first. */
static int write_file(int directory, const char *name, struct span bytes, bool durable)
{
	char new_name[64];

	snprintf(new_name, sizeof(new_name), "%s.new", name);
	unlinkat(directory, new_name, 0);
	int fd = openat(directory, new_name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	int err = write_all(fd, bytes, durable);
	close(fd);
	if (!err && renameat(directory, new_name, directory, name) < 0)
		err = -errno;
	if (err)
		unlinkat(directory, new_name, 0);
	return err;
}

int state_file_write(const char *name, struct span bytes, bool durable)
{
	int directory = open_directory();

	if (directory < 0)
		return directory;
	int err = write_file(directory, name, bytes, durable);
	close(directory);
	return err;
}

void state_file_remove(const char *name)
{
	int directory = open_directory();

	if (directory < 0)
		return;
	unlinkat(directory, name, 0);
	close(directory);
}
