/* file.h - small files, read whole and at once: the configuration, the key, trust anchors.
 *
 * A configured path may lead to anything: a directory, a FIFO without a writer, /dev/zero. So the
 * limit of the size is checked while reading, and FILE_REGULAR never blocks. */
#pragma once

#include <stddef.h>
#include <sys/stat.h>

#include "base/buf.h"

enum file_kind {
	FILE_REGULAR, /* other kinds are -EINVAL, found without waiting */
	FILE_AT_ONCE, /* a FIFO without a writer is empty; one with a writer but no bytes -EAGAIN */
	FILE_ANY      /* waits for the writer of a FIFO */
};

/* A descriptor, or -errno. Directories are -EISDIR. */
int file_open(const char *path, enum file_kind kind, struct stat *st);

/* Reads up to max bytes into b, which is empty. 0, or -EFBIG when there are more, or another
 * -errno. The bytes lie in b only: a reader of a secret has one place to wipe. */
int file_read(int fd, size_t max, struct buf *b);
