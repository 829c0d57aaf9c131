#include "burst.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

void burst_begin(struct burst *b)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	b->timestamp = (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
	b->written = bench_now_ns();
}

static char *put(char *p, struct span s)
{
	memcpy(p, s.p, s.n);
	return p + s.n;
}

/* Always as many digits as there is place for. */
static char *put_number(char *p, size_t digits, uint64_t n)
{
	for (size_t i = digits; i-- > 0; n /= 10)
		p[i] = (char)('0' + n % 10);
	return p + digits;
}

static bool read_number(const char *p, size_t digits, uint64_t *n)
{
	unsigned wrong = 0;

	*n = 0;
	for (size_t i = 0; i < digits; i++) {
		unsigned digit = (unsigned char)p[i] - '0';
		wrong |= digit > 9;
		*n = *n * 10 + digit;
	}
	return !wrong;
}

void burst_next(struct burst *b, char text[BURST_TEXT])
{
	char *p = put(text, SPAN(BURST_HEAD));

	p = put_number(p, BURST_NUMBER, b->next++);
	p = put_number(p, BURST_WRITTEN, (uint64_t)b->written);
	p = put(p, SPAN(BURST_MIDDLE));
	p = put_number(p, BURST_TIMESTAMP, (uint64_t)b->timestamp);
	*p = '}';
}

/* Steps over what has to lie at *p. */
static bool skip(const char **p, struct span s)
{
	bool there = memcmp(*p, s.p, s.n) == 0;

	*p += s.n;
	return there;
}

bool burst_read(struct span text, uint64_t *number, int64_t *written)
{
	const char *p = text.p;
	uint64_t time;

	if (text.n != BURST_TEXT || !skip(&p, SPAN(BURST_HEAD)) ||
	    !read_number(p, BURST_NUMBER, number) ||
	    !read_number(p + BURST_NUMBER, BURST_WRITTEN, &time))
		return false;
	*written = (int64_t)time;
	p += BURST_NUMBER + BURST_WRITTEN;
	return skip(&p, SPAN(BURST_MIDDLE)) && p[BURST_TIMESTAMP] == '}';
}

int burst_take_order(struct buf *in, unsigned *n)
{
	struct span text = buf_span(in);
	const char *end = text.n ? memchr(text.p, '\n', text.n) : NULL;
	uint64_t wanted;

	if (!end)
		return text.n < 16 ? 0 : -1;
	size_t digits = (size_t)(end - text.p);
	if (!digits || digits > 9 || !read_number(text.p, digits, &wanted) || wanted > BURST_MAX)
		return -1;
	buf_take(in, digits + 1);
	*n = (unsigned)wanted;
	return 1;
}

void burst_order(int fd, unsigned n)
{
	char order[16];
	int length = snprintf(order, sizeof order, "%u\n", n);

	if (write(fd, order, (size_t)length) != length)
		bench_die("the publisher takes no orders: %s", strerror(errno));
}
