/* heap.h - a binary min-heap of times, with nodes embedded in the objects that they time.
 *
 * A request's deadline is added when the request is read and removed when it is answered, usually
 * long before it is due. Both are cheap: deadlines mostly come in rising order, so a new node stays
 * where it is added. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct heap_node {
	int64_t at;
	size_t index; /* index in heap::node, plus one; 0: in no heap */
};

struct heap {
	struct heap_node **node;
	size_t n, size;
};

/* The node is the caller's; it must be in no heap. */
void heap_add(struct heap *h, struct heap_node *node, int64_t at);
void heap_remove(struct heap *h, struct heap_node *node); /* does nothing to a node in no heap */
void heap_fini(struct heap *h); /* frees the heap's own memory, not the nodes */

/* The node with the earliest time; NULL when the heap is empty. */
static inline struct heap_node *heap_first(const struct heap *h)
{
	return h->n ? h->node[0] : NULL;
}
