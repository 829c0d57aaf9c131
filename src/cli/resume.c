#include "resume.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/output.h"
#include "codec/json.h"

enum { SIZE_MAX_BYTES = 16384 };

static int read_file(const char *path, struct buf *text)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), error = fd < 0 ? -errno : 0;

	while (!error && buf_len(text) <= SIZE_MAX_BYTES) {
		ssize_t n = read(fd, buf_room(text, 4096), 4096);
		if (n == 0)
			break;
		if (n > 0)
			buf_grew(text, (size_t)n);
		else if (errno != EINTR)
			error = -errno;
	}
	if (fd >= 0)
		close(fd);
	return error;
}

int resume_read(const char *path, struct buf *text)
{
	struct json_object_reader reader;
	struct json_member member;
	int more, error = read_file(path, text);

	if (error)
		return error;
	json_object_begin(&reader, buf_span(text));
	while ((more = json_object_next(&reader, &member)) > 0)
		;
	return more < 0 ? -EBADMSG : 0;
}

/* The folder that the name stands in, so that the exchange is on the disk as well. */
static int sync_folder(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *folder = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
	int fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	int error = fd < 0 || fsync(fd) ? -errno : 0;

	if (fd >= 0)
		close(fd);
	free(folder);
	return error == -EINVAL ? 0 : error; /* a file system that can't */
}

int resume_write(const char *path, struct span text)
{
	char *next;

	if (asprintf(&next, "%s.new", path) < 0)
		return -ENOMEM;
	int fd = open(next, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
	int error = fd < 0 ? -errno : output_write(fd, text.p, text.n);
	if (!error && fsync(fd))
		error = -errno;
	if (fd >= 0 && close(fd) && !error)
		error = -errno;
	if (!error && rename(next, path))
		error = -errno;
	if (error && fd >= 0)
		unlink(next);
	free(next);
	return error ? error : sync_folder(path);
}
