#include "base/outq.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum {
	SMALLEST = 4,
	SHORT = 512, /* bytes: up to here a copy costs less than a part of its own */
};

static struct outq_slot *at(const struct outq *q, uint32_t i)
{
	return &q->ring[(q->head + i) & (q->size - 1)];
}

static void grow(struct outq *q)
{
	uint32_t size = q->size ? 2 * q->size : SMALLEST;
	struct outq_slot *ring = mem_alloc(size * sizeof(*ring));

	for (uint32_t i = 0; i < q->n; i++)
		ring[i] = *at(q, i);
	free(q->ring);
	q->ring = ring;
	q->size = size;
	q->head = 0;
}

void outq_push(struct outq *q, struct shared_line *shared)
{
	size_t before = buf_len(&q->own) - q->before;

	if (q->n == q->size)
		grow(q);
	*at(q, q->n++) = (struct outq_slot){shared_line_ref(shared), before};
	q->before += before;
	q->shared_bytes += shared->n;
}

static size_t least(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* Shared lines stand between whole own lines, each with its newline. */
size_t outq_first_line(const struct outq *q, size_t enough)
{
	struct span own = buf_span(&q->own);

	if (q->n)
		own.n = at(q, 0)->before;
	if (own.n) {
		const char *end = memchr(own.p, '\n', least(own.n, enough));
		return end ? (size_t)(end - own.p) + 1 : enough;
	}
	return q->n ? at(q, 0)->shared->n - q->written : 0;
}

/* The iovecs that are filled. */
struct parts {
	struct iovec *iov;
	int n, max;
	char *room; /* for copies */
	size_t left;
	bool grows; /* the last one is a copy: the next copy lies behind it */
};

/* False: there is no iovec left. */
static bool add_part(struct parts *p, struct span s, bool may_copy)
{
	bool copies = may_copy && s.n <= SHORT && s.n <= p->left;

	if (!s.n)
		return true;
	if (p->n == p->max && !(copies && p->grows))
		return false;
	if (copies) {
		s.p = memcpy(p->room, s.p, s.n);
		p->room += s.n;
		p->left -= s.n;
	}
	if (copies && p->grows)
		p->iov[p->n - 1].iov_len += s.n;
	else
		p->iov[p->n++] = (struct iovec){.iov_base = (void *)(uintptr_t)s.p, .iov_len = s.n};
	p->grows = copies;
	return true;
}

int outq_gather(const struct outq *q, struct iovec *iov, int max, char *room, size_t size)
{
	struct parts parts = {.iov = iov, .max = max, .room = room, .left = size};
	struct span own = buf_span(&q->own);
	size_t written = q->written;
	bool many = q->n > 1;

	for (uint32_t i = 0; i < q->n; i++) {
		const struct outq_slot *slot = at(q, i);
		struct span line = shared_line_span(slot->shared);
		if (!add_part(&parts, (struct span){own.p, slot->before}, many))
			return parts.n;
		own = (struct span){own.p ? own.p + slot->before : NULL, own.n - slot->before};
		line = (struct span){line.p + written, line.n - written};
		if (!add_part(&parts, line, many && !slot->shared->secret))
			return parts.n;
		written = 0;
	}
	add_part(&parts, own, many);
	return parts.n;
}

void outq_take(struct outq *q, size_t n)
{
	while (n && q->n) {
		struct outq_slot *first = at(q, 0);
		size_t own = least(n, first->before);
		first->before -= own;
		q->before -= own;
		buf_take(&q->own, own);
		n -= own;
		size_t line = least(n, first->shared->n - q->written);
		q->written += (uint32_t)line;
		q->shared_bytes -= line;
		n -= line;
		if (q->written < first->shared->n)
			return;
		shared_line_unref(first->shared);
		q->written = 0;
		q->head++;
		q->n--;
	}
	buf_take(&q->own, n);
}

void outq_trim(struct outq *q)
{
	buf_release(&q->own);
	free(q->ring);
	*q = (struct outq){.n = 0};
}

void outq_fini(struct outq *q)
{
	for (uint32_t i = 0; i < q->n; i++)
		shared_line_unref(at(q, i)->shared);
	outq_trim(q);
}
