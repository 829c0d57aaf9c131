/* file.h - small files, read whole and at once: the configuration, the key, trust anchors.
 *
 * What an administrator names may be anything: a directory, a FIFO nobody writes to, /dev/zero. So
 * the limit is checked while reading, and whoever wants a regular file gets one without being
 * blocked by what is not. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

#include "buf.h"

/* A descriptor, or -errno. Directories are -EISDIR. With regular_only anything but a regular file
 * is -EINVAL, found without waiting for it. */
int file_open(const char *path, bool regular_only, struct stat *st);

/* Appends up to max bytes to b. 0, or -EFBIG when there are more, or another -errno. The bytes
 * never lie anywhere but in b, and b is not moved while they come: whoever reads a secret has one
 * place to wipe. */
int file_read(int fd, size_t max, struct buf *b);
