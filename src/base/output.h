/* output.h - stdout and stderr of the programs: what they take is written, all of it, or it is
 * known why not.
 *
 * An open file may be non-blocking although nobody here wanted that: the flag belongs to the file,
 * which a shell, ssh or node may share. stdio then drops what the file does not take at once; the
 * streams of this room wait for it. hpkvd's log does not use it: it must never wait. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Puts a stream that waits in the place of *stream, which is stdout or stderr and on which nothing
 * has been written yet. After a write that failed it writes nothing more. Without memory *stream
 * stays as it is. */
void output_keep_all(FILE **stream);

/* Writes what stdout still holds. 0, or -errno of its first write that failed. */
int output_finish(void);

/* The same for those who only print a text and end: says on stderr what failed, unless the
 * reader has gone. EXIT_SUCCESS or EXIT_FAILURE. */
int output_end(const char *program);

/* Does such an error mean that the reader has gone, of which nobody needs to be told? */
bool output_is_unread(int error);

/* Writes n bytes to a descriptor that may be non-blocking. 0 or -errno. */
int output_write(int fd, const void *bytes, size_t n);
