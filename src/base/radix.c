#include "base/radix.h"

#include <stdlib.h>

#include "base/mem.h"

/* A node stands for the bytes from the root to its end. It is the end of a string, or a fork with
 * at least two children, or both.
 *
 * Its children are an array sorted by their first byte, which is different for each. Searching an
 * array takes eight steps at most; a list of siblings would take up to 256 for each byte of a key,
 * if the strings are chosen for that. The array has no spare room: moving 2 KiB at most for a new
 * child costs less than spare room in every node, most of which have no child. */
struct radix_node {
	void *value; /* NULL in a mere fork */
	struct radix_node **child;
	unsigned children;
	bool is_string;
	size_t n; /* bytes of text: 0 only in the root */
	char text[];
};

static struct span behind(struct span text, size_t n)
{
	/* An empty span may have p NULL, and C does not allow adding even 0 to NULL. */
	return (struct span){n ? text.p + n : text.p, text.n - n};
}

static size_t common_length(struct span a, struct span b)
{
	size_t n = 0;

	while (n < a.n && n < b.n && a.p[n] == b.p[n])
		n++;
	return n;
}

static struct span text_of(const struct radix_node *node)
{
	return (struct span){node->text, node->n};
}

/* --- nodes and their children --- */

static struct radix_node *node_new(struct radix *r, struct span text)
{
	struct radix_node *node = mem_alloc(sizeof(*node) + text.n);

	*node = (struct radix_node){.n = text.n};
	if (text.n)
		memcpy(node->text, text.p, text.n);
	r->nodes++;
	return node;
}

static void node_free(struct radix *r, struct radix_node *node)
{
	free(node->child);
	free(node);
	r->nodes--;
}

static unsigned char first_byte(const struct radix_node *node)
{
	return (unsigned char)node->text[0];
}

/* The index of the child that begins with this byte, or where it would be inserted. */
static unsigned child_index(const struct radix_node *node, char byte)
{
	unsigned low = 0, high = node->children;

	while (low < high) {
		unsigned middle = (low + high) / 2;
		if (first_byte(node->child[middle]) < (unsigned char)byte)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static bool child_is_at(const struct radix_node *node, unsigned index, char byte)
{
	return index < node->children && node->child[index]->text[0] == byte;
}

/* Opens a gap among the children, to be filled at once. */
static void child_gap(struct radix_node *node, unsigned index)
{
	node->child = mem_resize(node->child, (node->children + 1) * sizeof(*node->child));
	memmove(node->child + index + 1, node->child + index,
		(node->children - index) * sizeof(*node->child));
	node->child[index] = NULL;
	node->children++;
}

static void child_drop(struct radix_node *node, unsigned index)
{
	node->children--;
	memmove(node->child + index, node->child + index + 1,
		(node->children - index) * sizeof(*node->child));
	if (node->children > 0) {
		node->child = mem_resize(node->child, node->children * sizeof(*node->child));
	} else {
		free(node->child);
		node->child = NULL;
	}
}

/* A new node with the first n bytes, above the rest of this one. */
static struct radix_node *split(struct radix *r, struct radix_node *node, size_t n)
{
	struct radix_node *upper = node_new(r, (struct span){node->text, n});

	node->n -= n;
	memmove(node->text, node->text + n, node->n);
	child_gap(upper, 0);
	upper->child[0] = mem_resize(node, sizeof(*node) + node->n);
	return upper;
}

/* Merges a superfluous node with its only child. */
static struct radix_node *join(struct radix *r, struct radix_node *upper)
{
	size_t n = upper->n + upper->child[0]->n;
	struct radix_node *node = mem_resize(upper->child[0], sizeof(*node) + n);

	memmove(node->text + upper->n, node->text, node->n);
	memcpy(node->text, upper->text, upper->n);
	node->n = n;
	node_free(r, upper);
	return node;
}

/* --- strings --- */

void **radix_slot(struct radix *r, struct span text)
{
	struct radix_node **at = &r->root;

	while (*at) {
		size_t common = common_length(text_of(*at), text);
		if (common < (*at)->n)
			*at = split(r, *at, common);
		text = behind(text, common);
		if (text.n == 0)
			break;
		unsigned index = child_index(*at, text.p[0]);
		if (!child_is_at(*at, index, text.p[0]))
			child_gap(*at, index);
		at = &(*at)->child[index];
	}
	if (!*at)
		*at = node_new(r, text);
	if (!(*at)->is_string)
		r->n++;
	(*at)->is_string = true;
	return &(*at)->value;
}

/* Enters the node if text begins with it, and takes those bytes off the text; else NULL. */
static struct radix_node *enter(struct radix_node *node, struct span *text)
{
	if (!node || text->n < node->n ||
	    !span_equal(text_of(node), (struct span){text->p, node->n}))
		return NULL;
	*text = behind(*text, node->n);
	return node;
}

/* The next node on the path along text; NULL at its end or where the tree does not go on with it.
 */
static struct radix_node *descend(const struct radix_node *node, struct span *text)
{
	if (text->n == 0)
		return NULL;
	unsigned index = child_index(node, text->p[0]);
	return index < node->children ? enter(node->child[index], text) : NULL;
}

void *radix_find(const struct radix *r, struct span text)
{
	struct radix_node *node = enter(r->root, &text);

	while (node && text.n > 0)
		node = descend(node, &text);
	return node ? node->value : NULL;
}

void radix_prefixes(const struct radix *r, struct span key, void (*visit)(void *owner, void *value),
		    void *owner)
{
	struct radix_node *node = enter(r->root, &key);

	for (; node; node = descend(node, &key)) {
		if (node->is_string)
			visit(owner, node->value);
	}
}

void radix_remove(struct radix *r, struct span text)
{
	struct radix_node **at = &r->root, **above = NULL;
	unsigned index = 0;

	for (text = behind(text, (*at)->n); text.n > 0; text = behind(text, (*at)->n)) {
		above = at;
		index = child_index(*at, text.p[0]);
		at = &(*at)->child[index];
	}
	r->n--;
	(*at)->is_string = false;
	(*at)->value = NULL;
	if ((*at)->children == 0) {
		node_free(r, *at);
		*at = NULL;
		if (!above)
			return;
		child_drop(*above, index);
		at = above;
	}
	/* The string's node, or the fork above it, may be superfluous now. */
	if ((*at)->children == 1 && !(*at)->is_string)
		*at = join(r, *at);
}

void radix_fini(struct radix *r)
{
	/* Nodes to be freed are linked through their values, which are not needed any more. */
	struct radix_node *next = r->root;

	if (next)
		next->value = NULL;
	while (next) {
		struct radix_node *node = next;
		next = node->value;
		for (unsigned i = 0; i < node->children; i++) {
			node->child[i]->value = next;
			next = node->child[i];
		}
		node_free(r, node);
	}
	*r = (struct radix){0};
}
