/* map.h - a hash table with nodes embedded in the objects that it finds.
 *
 * Chained, by a 64-bit hash that the caller computes, with a seed where peers choose the keys; the
 * lowest bits choose the chain. The table doubles when it has as many nodes as chains, and is freed
 * with its last node: an empty map owns no memory. The caller owns the objects and compares keys:
 * several nodes may have the same hash. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct map_node {
	struct map_node *next; /* of the chain */
	uint64_t hash;
};

struct map {
	struct map_node **chain; /* mask + 1 of them, or NULL */
	size_t n, mask;          /* nodes; number of chains less one */
};

/* The object that a node is embedded in. */
#define map_entry(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))

/* Adds and removes a node. */
void map_add(struct map *m, struct map_node *node, uint64_t hash);
void map_remove(struct map *m, struct map_node *node); /* the node is in m */
void map_fini(struct map *m);                          /* frees the table, not the nodes */

/* A node with this hash, and the next one with the same hash, in no order; NULL: no more. */
struct map_node *map_first(const struct map *m, uint64_t hash);
struct map_node *map_next(const struct map_node *node);

/* Walks all nodes, in no order: start with a zeroed walk; NULL ends it. During a walk the nodes
 * that were returned may be removed and freed, no others, and nothing may be added. */
struct map_walk {
	size_t chain; /* to visit next */
	struct map_node *next;
};
struct map_node *map_walk(const struct map *m, struct map_walk *w);
