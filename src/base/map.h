/* map.h - a hash table whose nodes are embedded in what they find.
 *
 * Chains by a 64-bit hash that the caller makes, keyed by a seed where peers choose what is hashed;
 * its lowest bits choose the chain. The table doubles when it holds as many nodes as chains, and
 * goes when its last node does: an empty one owns no memory. What nodes mean, and who frees what
 * they are embedded in, is the caller's business: of the nodes with the right hash it picks the one
 * with the right key. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct map_node {
	struct map_node *next; /* of the chain */
	uint64_t hash;
};

struct map {
	struct map_node **chain; /* mask + 1 of them, or NULL */
	size_t n, mask;          /* nodes; chains less one */
};

/* What a node is embedded in. */
#define map_entry(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))

void map_add(struct map *m, struct map_node *node, uint64_t hash);
void map_remove(struct map *m, struct map_node *node); /* is in m */
void map_fini(struct map *m);                          /* frees the table, not the nodes */

/* A node with this hash, and the next one with the same, in no order; NULL: none. */
struct map_node *map_first(const struct map *m, uint64_t hash);
struct map_node *map_next(const struct map_node *node);

/* All nodes, in no order: begin with a zeroed walk; NULL ends it. Meanwhile the nodes that were
 * returned may be removed and freed, no others, and nothing may be added. */
struct map_walk {
	size_t chain; /* the next to look at */
	struct map_node *next;
};
struct map_node *map_walk(const struct map *m, struct map_walk *w);
