#include "daemon/token_secret.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <event2/util.h>

#include "base/log.h"

#define NAME "token-secret"
#define NEW_NAME NAME ".new"

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

/* NULL, or why this file can't be trusted. */
static const char *fault_of(int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return "is no regular file";
	if (st.st_uid != geteuid() && st.st_uid != 0)
		return "belongs to another user";
	if (st.st_mode & 077)
		return "may be read or written by others (its mode should be 0600)";
	return st.st_size == LOCAL_TOKENS_SECRET ? NULL : "has not the length of a secret";
}

/* 0; -ENOENT: there is no file. Another -errno, with *why. */
static int read_secret(int directory, unsigned char secret[LOCAL_TOKENS_SECRET], const char **why)
{
	int fd = openat(directory, NAME, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0) {
		int err = -errno;
		*why = strerror(-err);
		return err;
	}
	*why = fault_of(fd);
	if (!*why && read(fd, secret, LOCAL_TOKENS_SECRET) != LOCAL_TOKENS_SECRET)
		*why = "can't be read";
	close(fd);
	return *why ? -EINVAL : 0;
}

/* Whole or not at all: under another name first. */
static int write_secret(int directory, const unsigned char secret[LOCAL_TOKENS_SECRET])
{
	unlinkat(directory, NEW_NAME, 0);
	int fd = openat(directory, NEW_NAME, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	errno = EIO;
	bool good = write(fd, secret, LOCAL_TOKENS_SECRET) == LOCAL_TOKENS_SECRET && fsync(fd) == 0;
	int err = good ? 0 : -errno;
	close(fd);
	if (!err && renameat(directory, NEW_NAME, directory, NAME) < 0)
		err = -errno;
	if (err)
		unlinkat(directory, NEW_NAME, 0);
	return err;
}

void token_secret_get(unsigned char secret[LOCAL_TOKENS_SECRET])
{
	int directory = open_directory();
	const char *why = directory < 0 ? strerror(-directory) : NULL;
	int err = directory < 0 ? directory : read_secret(directory, secret, &why);

	if (err < 0)
		evutil_secure_rng_get_bytes(secret, LOCAL_TOKENS_SECRET);
	if (err == -ENOENT && directory >= 0) {
		err = write_secret(directory, secret);
		why = strerror(-err);
	} else if (err == -ENOENT) {
		err = 0; /* nobody has asked for it to be kept */
	}
	if (err < 0)
		log_warning("local tokens end with this process: token-secret in $STATE_DIRECTORY "
			    "can't be used: %s",
			    why);
	if (directory >= 0)
		close(directory);
}
