#include "base/treap.h"

#include <string.h>

int treap_compare(struct span a, struct span b)
{
	size_t n = a.n < b.n ? a.n : b.n;
	int c = n ? memcmp(a.p, b.p, n) : 0;

	return c ? c : (a.n > b.n) - (a.n < b.n);
}

void treap_add(struct treap *t, struct treap_node *node)
{
	struct span key = t->key(node);
	uint64_t priority = t->priority(node);
	struct treap_node **place = &t->root, **left = &node->left, **right = &node->right, *n;

	while ((n = *place) && t->priority(n) >= priority)
		place = treap_compare(key, t->key(n)) < 0 ? &n->left : &n->right;
	*place = node;
	/* The former subtree is split into the nodes before the new one and those behind it. */
	while (n) {
		if (treap_compare(t->key(n), key) < 0) {
			*left = n;
			left = &n->right;
			n = n->right;
		} else {
			*right = n;
			right = &n->left;
			n = n->left;
		}
	}
	*left = *right = NULL;
}

void treap_remove(struct treap *t, struct treap_node *node)
{
	struct span key = t->key(node);
	struct treap_node **place = &t->root, *left = node->left, *right = node->right;

	while (*place != node)
		place = treap_compare(key, t->key(*place)) < 0 ? &(*place)->left : &(*place)->right;
	while (left && right) {
		if (t->priority(left) >= t->priority(right)) {
			*place = left;
			place = &left->right;
			left = left->right;
		} else {
			*place = right;
			place = &right->left;
			right = right->left;
		}
	}
	*place = left ? left : right;
}

static struct treap_node *find(const struct treap *t, struct span key, int least)
{
	struct treap_node *n = t->root, *found = NULL;

	while (n) {
		if (treap_compare(t->key(n), key) >= least) {
			found = n;
			n = n->left;
		} else {
			n = n->right;
		}
	}
	return found;
}

struct treap_node *treap_from(const struct treap *t, struct span key)
{
	return find(t, key, 0);
}

struct treap_node *treap_after(const struct treap *t, struct span key)
{
	return find(t, key, 1);
}
