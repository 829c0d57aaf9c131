/* heap.h - a binary min-heap of times, whose nodes are embedded in what they time.
 *
 * A request's deadline goes in when it is read and comes out when it is answered, mostly long
 * before: both cost little since deadlines mostly come in rising order, so that a new node stays
 * where it is put. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct heap_node {
	int64_t at;
	size_t place; /* in heap::node, plus one; 0: in no heap */
};

struct heap {
	struct heap_node **node;
	size_t n, size;
};

void heap_add(struct heap *h, struct heap_node *node, int64_t at);
void heap_remove(struct heap *h,
		 struct heap_node *node); /* nothing happens when it is in no heap */
void heap_fini(struct heap *h);           /* frees the heap's own memory, not the nodes */

/* The node with the earliest time; NULL when the heap is empty. */
static inline struct heap_node *heap_first(const struct heap *h)
{
	return h->n ? h->node[0] : NULL;
}
