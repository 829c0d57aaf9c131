#include "base/heap.h"

#include <stdlib.h>

#include "base/mem.h"

static void put(struct heap *h, size_t i, struct heap_node *node)
{
	h->node[i] = node;
	node->index = i + 1;
}

static void sift_up(struct heap *h, size_t i, struct heap_node *node)
{
	while (i > 0) {
		size_t parent = (i - 1) / 2;
		if (h->node[parent]->at <= node->at)
			break;
		put(h, i, h->node[parent]);
		i = parent;
	}
	put(h, i, node);
}

static void sift_down(struct heap *h, size_t i, struct heap_node *node)
{
	for (;;) {
		size_t child = 2 * i + 1;
		if (child >= h->n)
			break;
		if (child + 1 < h->n && h->node[child + 1]->at < h->node[child]->at)
			child++;
		if (node->at <= h->node[child]->at)
			break;
		put(h, i, h->node[child]);
		i = child;
	}
	put(h, i, node);
}

void heap_add(struct heap *h, struct heap_node *node, int64_t at)
{
	if (h->n == h->size) {
		h->size = h->size ? 2 * h->size : 64;
		h->node = mem_resize(h->node, h->size * sizeof(*h->node));
	}
	node->at = at;
	sift_up(h, h->n++, node);
}

void heap_remove(struct heap *h, struct heap_node *node)
{
	if (!node->index)
		return;
	size_t i = node->index - 1;
	node->index = 0;
	struct heap_node *last = h->node[--h->n];
	if (last == node)
		return;
	/* The last node takes the free slot, then moves up or down from there. */
	if (i > 0 && last->at < h->node[(i - 1) / 2]->at)
		sift_up(h, i, last);
	else
		sift_down(h, i, last);
}

void heap_fini(struct heap *h)
{
	free(h->node);
	*h = (struct heap){0};
}
