/* output.h - stdout and stderr of the programs: everything is written, or the error is known.
 *
 * An open file may be non-blocking although this program did not ask for it: the flag belongs to
 * the file, which a shell, ssh or node may share. stdio then drops what the file does not take at
 * once; the streams of this room wait instead. hpkvd's log does not use them: it must never wait.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Replaces *stream, which is stdout or stderr and unused so far, by a stream that waits. After a
 * write that failed the stream writes nothing more. Without memory *stream stays as it is. */
void output_keep_all(FILE **stream);

/* Writes what stdout still buffers. 0, or -errno of the first write that failed. */
int output_finish(void);

/* The same for programs that only print a text and exit: reports a failure on stderr, unless the
 * reader has gone. Returns EXIT_SUCCESS or EXIT_FAILURE. */
int output_end(const char *program);

/* Does this error mean that the reader has gone, which needs no message? */
bool output_is_unread(int error);

/* Writes n bytes to a descriptor that may be non-blocking. 0 or -errno. */
int output_write(int fd, const void *bytes, size_t n);
