#include "daemon/token_secret.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <event2/util.h>

#include "base/log.h"
#include "daemon/state_directory.h"

#define NAME "token-secret"

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

void token_secret_get(unsigned char secret[LOCAL_TOKENS_SECRET])
{
	int directory = state_directory_open();
	const char *why = directory < 0 ? strerror(-directory) : NULL;
	int err = directory < 0 ? directory : read_secret(directory, secret, &why);

	if (err < 0)
		evutil_secure_rng_get_bytes(secret, LOCAL_TOKENS_SECRET);
	if (err == -ENOENT && directory >= 0) {
		err = state_directory_write(directory, NAME, secret, LOCAL_TOKENS_SECRET, true);
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
