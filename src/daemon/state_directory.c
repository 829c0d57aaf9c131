#include "daemon/state_directory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

int state_directory_open(void)
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

/* Under another name first. */
int state_directory_write(int directory, const char *name, const void *bytes, size_t n,
			  bool durable)
{
	char new_name[64];

	snprintf(new_name, sizeof(new_name), "%s.new", name);
	unlinkat(directory, new_name, 0);
	int fd = openat(directory, new_name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	errno = EIO;
	bool good = write(fd, bytes, n) == (ssize_t)n && (!durable || fsync(fd) == 0);
	int err = good ? 0 : -errno;
	close(fd);
	if (!err && renameat(directory, new_name, directory, name) < 0)
		err = -errno;
	if (err)
		unlinkat(directory, new_name, 0);
	return err;
}
