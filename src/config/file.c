#include "config/file.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

enum { FIRST = 4096 }; /* bytes to read at first */

int file_open(const char *path, enum file_kind kind, struct stat *st)
{
	/* O_NONBLOCK: else open() would wait for the writer of a FIFO. Regular files ignore it. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | (kind == FILE_ANY ? 0 : O_NONBLOCK));
	int error = 0;

	if (fd < 0)
		return -errno;
	if (fstat(fd, st) < 0)
		error = -errno;
	else if (S_ISDIR(st->st_mode))
		error = -EISDIR;
	else if (kind == FILE_REGULAR && !S_ISREG(st->st_mode))
		error = -EINVAL;
	if (!error)
		return fd;
	close(fd);
	return error;
}

/* The bytes lie in b only: it may be a secret. */
static void double_room(struct buf *b)
{
	struct buf larger = {0};

	buf_room(&larger, 2 * buf_size(b));
	buf_add(&larger, buf_start(b), buf_len(b));
	buf_wipe(b);
	*b = larger;
}

/* Most files are much smaller than they may be. */
int file_read(int fd, size_t max, struct buf *b)
{
	buf_room(b, FIRST);
	while (buf_len(b) <= max) {
		if (!buf_has_room(b, 1))
			double_room(b);
		ssize_t got = read(fd, buf_room(b, 1), buf_size(b) - buf_len(b));
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			return 0;
		buf_grew(b, (size_t)got);
	}
	return -EFBIG;
}
