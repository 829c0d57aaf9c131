#include "base/outq.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum {
	SMALLEST = 4,
	SHORT = 512, /* bytes: up to here a copy costs less than a part of its own */
};

static struct outq_slot *at(struct outq_ring *r, uint32_t i)
{
	return &r->slot[(r->head + i) & (r->size - 1)];
}

static bool has_shared(const struct outq *q)
{
	return q->ring && q->ring->n;
}

static void grow(struct outq *q)
{
	struct outq_ring *former = q->ring;
	uint32_t size = former ? 2 * former->size : SMALLEST;
	struct outq_ring *r = mem_alloc(sizeof(*r) + size * sizeof(r->slot[0]));

	*r = former ? *former : (struct outq_ring){.n = 0};
	r->size = size;
	r->head = 0;
	for (uint32_t i = 0; i < r->n; i++)
		r->slot[i] = *at(former, i);
	free(former);
	q->ring = r;
}

void outq_push(struct outq *q, struct shared_line *shared)
{
	if (!q->ring || q->ring->n == q->ring->size)
		grow(q);
	struct outq_ring *r = q->ring;
	size_t before = buf_len(&q->own) - r->before;
	*at(r, r->n++) = (struct outq_slot){shared_line_ref(shared), before};
	r->before += before;
	r->bytes += shared->n;
}

static size_t least(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* Shared lines stand between whole own lines, each with its newline. */
size_t outq_first_line(const struct outq *q, size_t enough)
{
	struct span own = buf_span(&q->own);

	if (has_shared(q))
		own.n = at(q->ring, 0)->before;
	if (own.n) {
		const char *end = memchr(own.p, '\n', least(own.n, enough));
		return end ? (size_t)(end - own.p) + 1 : enough;
	}
	return has_shared(q) ? at(q->ring, 0)->shared->n - q->ring->written : 0;
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
	struct outq_ring *r = q->ring;
	uint32_t n = r ? r->n : 0;
	size_t written = r ? r->written : 0;
	bool many = n > 1;

	for (uint32_t i = 0; i < n; i++) {
		const struct outq_slot *slot = at(r, i);
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
	struct outq_ring *r = q->ring;

	while (n && has_shared(q)) {
		struct outq_slot *first = at(r, 0);
		size_t own = least(n, first->before);
		first->before -= own;
		r->before -= own;
		buf_take(&q->own, own);
		n -= own;
		size_t line = least(n, first->shared->n - r->written);
		r->written += (uint32_t)line;
		r->bytes -= line;
		n -= line;
		if (r->written < first->shared->n)
			return;
		shared_line_unref(first->shared);
		r->written = 0;
		r->head++;
		r->n--;
	}
	buf_take(&q->own, n);
}

void outq_trim(struct outq *q)
{
	buf_release(&q->own);
	free(q->ring);
	q->ring = NULL;
}

void outq_fini(struct outq *q)
{
	for (uint32_t i = 0; has_shared(q) && i < q->ring->n; i++)
		shared_line_unref(at(q->ring, i)->shared);
	outq_trim(q);
}
