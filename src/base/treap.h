/* treap.h - nodes in the order of their keys, embedded in what they find.
 *
 * A binary search tree whose shape is drawn by lot: a node with a greater priority is nearer to the
 * root, so with random priorities (a keyed hash of the key will do) the depth is logarithmic,
 * whatever order keys come in. Keys are byte strings in byte order; no two nodes have the same one.
 * Nothing recurses. Owns no memory: nodes belong to whoever embeds them. */
#pragma once

#include <stdint.h>

#include "base/span.h"

struct treap_node {
	struct treap_node *left, *right;
};

struct treap {
	struct treap_node *root; /* NULL: empty */
	struct span (*key)(const struct treap_node *node);
	uint64_t (*priority)(const struct treap_node *node); /* never changes */
};

/* Less than, equal to or greater than 0, as memcmp(); a beginning comes before what goes on. */
int treap_compare(struct span a, struct span b);

void treap_add(struct treap *t, struct treap_node *node);    /* its key is not there */
void treap_remove(struct treap *t, struct treap_node *node); /* is there */

/* The first node whose key is not before this one, or (after) behind it; NULL: none. */
struct treap_node *treap_from(const struct treap *t, struct span key);
struct treap_node *treap_after(const struct treap *t, struct span key);
