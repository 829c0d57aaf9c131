/* state_file.h - small files in $STATE_DIRECTORY that only the daemon may read: what outlives it.
 *
 * A file that others may read or write is not trusted. One is written whole or not at all. */
#pragma once

#include <stdbool.h>

#include "base/buf.h"
#include "base/span.h"

/* 0: files can be kept, or no directory is named, so none is wanted; else -errno. */
int state_file_check(void);
/* Appends the file's bytes. 0; -ENOENT: there is no directory, or no file; another -errno with
 * *why, a phrase. -EFBIG: it has more than max bytes. */
int state_file_read(const char *name, size_t max, struct buf *out, const char **why);
/* 0; -ENOENT: there is no directory; another -errno. durable: waits until the disk has it. */
int state_file_write(const char *name, struct span bytes, bool durable);
void state_file_remove(const char *name);
