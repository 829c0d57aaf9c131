#include "config/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <unistd.h>

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

static int read_into(int fd, size_t max, struct buf *b)
{
	char *room = buf_room(b, max + 1);
	size_t n = 0;

	while (n <= max) {
		ssize_t got = read(fd, room + n, max + 1 - n);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			break;
		n += (size_t)got;
	}
	buf_grew(b, n);
	return n > max ? -EFBIG : 0;
}

/* Room for what the file has now. A large block that is freed makes malloc() keep as much free
 * memory from then on, so room for the most there may be is taken only where that is not known. */
static size_t likely_size(int fd, size_t max)
{
	struct stat st;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size <= 0 ||
	    (uint64_t)st.st_size >= max)
		return max;
	return (size_t)st.st_size;
}

int file_read(int fd, size_t max, struct buf *b)
{
	size_t likely = likely_size(fd, max);
	int error = read_into(fd, likely, b);

	if (error != -EFBIG || likely == max)
		return error;
	buf_wipe(b); /* it has grown meanwhile */
	return lseek(fd, 0, SEEK_SET) < 0 ? -errno : read_into(fd, max, b);
}
