#include "lines.h"

#include <errno.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK = 65536 };

#define FNV_BASIS UINT64_C(0xcbf29ce484222325)
#define FNV_PRIME UINT64_C(0x100000001b3)

int lines_fill(struct lines *l)
{
	if (buf_len(&l->bytes) > LINES_LONGEST)
		return -EFBIG;
	ssize_t n = read(STDIN_FILENO, buf_room(&l->bytes, CHUNK), CHUNK);
	if (n < 0 && errno == EAGAIN) /* as others have left it */
		poll(&(struct pollfd){.fd = STDIN_FILENO, .events = POLLIN}, 1, -1);
	else if (n < 0 && errno != EINTR)
		return -errno;
	l->ended = n == 0;
	if (n > 0)
		buf_grew(&l->bytes, (size_t)n);
	return 0;
}

static void take(struct lines *l, size_t n)
{
	struct span bytes = buf_span(&l->bytes);
	uint64_t hash = l->n ? l->hash : FNV_BASIS;

	for (size_t i = 0; i < n; i++)
		hash = (hash ^ (unsigned char)bytes.p[i]) * FNV_PRIME;
	l->hash = hash;
	l->n++;
	l->taken += (int64_t)n;
	l->searched = 0;
	/* What is taken stays where it is until more is read. */
	buf_take(&l->bytes, n);
}

bool lines_next(struct lines *l, struct span *line)
{
	struct span bytes = buf_span(&l->bytes);
	const char *end = bytes.n > l->searched
				  ? memchr(bytes.p + l->searched, '\n', bytes.n - l->searched)
				  : NULL;

	if (!end) {
		l->searched = bytes.n;
		if (!l->ended || !bytes.n)
			return false;
	}
	line->p = bytes.p;
	line->n = end ? (size_t)(end - bytes.p) : bytes.n;
	take(l, line->n + (end != NULL));
	if (line->n && line->p[line->n - 1] == '\r')
		line->n--;
	return true;
}

int64_t lines_size(void)
{
	struct stat st;
	off_t at = lseek(STDIN_FILENO, 0, SEEK_CUR);

	return fstat(STDIN_FILENO, &st) == 0 && S_ISREG(st.st_mode) && at >= 0 ? st.st_size - at
									       : -1;
}

void lines_free(struct lines *l)
{
	buf_release(&l->bytes);
}
