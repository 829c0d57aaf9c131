#include "store.h"

#include <stdint.h>
#include <stdlib.h>

#include "base/mem.h"

/* Each level holds about a quarter of the nodes of the level below, so 16 levels suffice for four
 * thousand million records. */
enum { LEVELS = 16 };

struct node {
	struct record record; /* first: store_next() casts a record back to its node */
	unsigned levels;
	struct node *next[]; /* as many as levels */
};

struct store {
	struct node *head; /* no record: precedes the first one at every level */
	uint64_t random;   /* state of the generator that draws levels */
};

static struct node *node_new(unsigned levels)
{
	struct node *node = mem_zalloc(sizeof(*node) + levels * sizeof(struct node *));

	node->levels = levels;
	return node;
}

static void node_free(struct node *node)
{
	free((char *)node->record.key.p);
	free((char *)node->record.value.p);
	free(node);
}

static struct span copy(struct span text)
{
	return (struct span){mem_strndup(text.p ? text.p : "", text.n), text.n};
}

struct store *store_new(void)
{
	struct store *s = mem_zalloc(sizeof(*s));

	s->head = node_new(LEVELS);
	s->random = (uintptr_t)s->head | 1;
	return s;
}

void store_free(struct store *s)
{
	for (struct node *node = s->head, *next; node; node = next) {
		next = node->next[0];
		node_free(node);
	}
	free(s);
}

/* xorshift64: random enough to keep the list balanced. */
static unsigned draw_levels(struct store *s)
{
	unsigned levels = 1;

	s->random ^= s->random << 13;
	s->random ^= s->random >> 7;
	s->random ^= s->random << 17;
	for (uint64_t bits = s->random; levels < LEVELS && (bits & 3) == 0; bits >>= 2)
		levels++;
	return levels;
}

int store_compare(struct span a, struct span b)
{
	size_t n = a.n < b.n ? a.n : b.n;
	int order = n ? memcmp(a.p, b.p, n) : 0;

	return order ? order : (a.n > b.n) - (a.n < b.n);
}

/* Finds the node with the key, or else its successor. path, unless NULL, gets the link that leads
 * there at each level. */
static struct node *find(const struct store *s, struct span key, struct node **path[LEVELS])
{
	struct node *at = s->head;

	for (unsigned level = LEVELS; level-- > 0;) {
		while (at->next[level] && store_compare(at->next[level]->record.key, key) < 0)
			at = at->next[level];
		if (path)
			path[level] = &at->next[level];
	}
	return at->next[0];
}

static bool holds(const struct node *node, struct span key)
{
	return node && span_equal(node->record.key, key);
}

const struct record *store_get(const struct store *s, struct span key)
{
	struct node *node = find(s, key, NULL);

	return holds(node, key) ? &node->record : NULL;
}

void store_set(struct store *s, struct span key, struct span value)
{
	struct node **path[LEVELS];
	struct node *node = find(s, key, path);
	struct span fresh = copy(value); /* first: value may be a part of the old one */

	if (holds(node, key)) {
		free((char *)node->record.value.p);
		node->record.value = fresh;
		return;
	}
	node = node_new(draw_levels(s));
	node->record = (struct record){copy(key), fresh};
	for (unsigned level = 0; level < node->levels; level++) {
		node->next[level] = *path[level];
		*path[level] = node;
	}
}

bool store_delete(struct store *s, struct span key)
{
	struct node **path[LEVELS];
	struct node *node = find(s, key, path);

	if (!holds(node, key))
		return false;
	for (unsigned level = 0; level < node->levels; level++)
		*path[level] = node->next[level];
	node_free(node);
	return true;
}

const struct record *store_from(const struct store *s, struct span key)
{
	struct node *node = find(s, key, NULL);

	return node ? &node->record : NULL;
}

const struct record *store_next(const struct record *r)
{
	const struct node *node = (const struct node *)r;

	return node->next[0] ? &node->next[0]->record : NULL;
}
