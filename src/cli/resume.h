/* resume.h - the file that says how far an export or an import has come: one JSON object.
 *
 * It is replaced as a whole, and is on the disk before the call returns: a program that is killed,
 * or a machine that loses power, leaves the old state or the new one. */
#pragma once

#include "base/buf.h"

/* Reads it. 0; -ENOENT: there is none yet; -EBADMSG: it is no such file; -errno. */
int resume_read(const char *path, struct buf *text);

/* 0 or -errno. */
int resume_write(const char *path, struct span text);
