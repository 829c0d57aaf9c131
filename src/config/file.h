/* file.h - small files, read whole and at once: the configuration, the key, trust anchors.
 *
 * What an administrator names may be anything: a directory, a FIFO nobody writes to, /dev/zero. So
 * the limit is checked while reading, and whoever wants a regular file gets one without being
 * blocked by what is not. */
#pragma once

#include <stddef.h>
#include <sys/stat.h>

#include "base/buf.h"

enum file_kind {
	FILE_REGULAR, /* anything else is -EINVAL, found without waiting for it */
	FILE_AT_ONCE, /* a FIFO that nobody writes to is empty, and what has nothing yet -EAGAIN */
	FILE_ANY      /* waits for whoever is to write to it */
};

/* A descriptor, or -errno. Directories are -EISDIR. */
int file_open(const char *path, enum file_kind kind, struct stat *st);

/* Appends up to max bytes to b. 0, or -EFBIG when there are more, or another -errno. The bytes
 * never lie anywhere but in b, and b is not moved while they come: whoever reads a secret has one
 * place to wipe. */
int file_read(int fd, size_t max, struct buf *b);
