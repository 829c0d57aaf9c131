#include "base/output.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* stdio does not tell later why a write failed. One each for stdout and stderr. */
struct sink {
	int fd;
	int error;
};

static struct sink sinks[] = {{STDOUT_FILENO, 0}, {STDERR_FILENO, 0}};

int output_write(int fd, const void *bytes, size_t n)
{
	const char *at = bytes;

	while (n > 0) {
		ssize_t put = write(fd, at, n);
		if (put > 0) {
			at += put;
			n -= (size_t)put;
		} else if (put == 0) {
			return -EIO;
		} else if (errno == EAGAIN) {
			struct pollfd p = {.fd = fd, .events = POLLOUT};
			poll(&p, 1, -1); /* the next write reports the error */
		} else if (errno != EINTR) {
			return -errno;
		}
	}
	return 0;
}

/* As fopencookie() wants it: 0 is failure. */
static ssize_t put(void *cookie, const char *bytes, size_t n)
{
	struct sink *sink = cookie;

	if (!sink->error)
		sink->error = -output_write(sink->fd, bytes, n);
	errno = sink->error;
	return sink->error ? 0 : (ssize_t)n;
}

void output_keep_all(FILE **stream)
{
	cookie_io_functions_t functions = {.write = put};
	bool errors = *stream == stderr;
	FILE *f = fopencookie(&sinks[errors], "w", functions);

	if (!f)
		return;
	if (errors)
		setvbuf(f, NULL, _IONBF, 0);
	*stream = f;
}

int output_finish(void)
{
	errno = 0;
	if (fflush(stdout) == 0 && !ferror(stdout))
		return 0;
	return sinks[0].error ? -sinks[0].error : errno ? -errno : -EIO;
}

bool output_is_unread(int error)
{
	return error == -EPIPE || error == -ECONNRESET;
}

int output_end(const char *program)
{
	int error = output_finish();

	if (error && !output_is_unread(error))
		fprintf(stderr, "%s: can't write the output: %s\n", program, strerror(-error));
	return error ? EXIT_FAILURE : EXIT_SUCCESS;
}
