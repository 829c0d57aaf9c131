#include "base/map.h"

#include <stdlib.h>

#include "base/mem.h"

enum { FEWEST = 16 }; /* chains; always a power of two */

static struct map_node **chain_of(const struct map *m, uint64_t hash)
{
	return &m->chain[hash & m->mask];
}

static void put(struct map *m, struct map_node *node)
{
	struct map_node **chain = chain_of(m, node->hash);

	node->next = *chain;
	*chain = node;
}

static void grow(struct map *m)
{
	struct map old = *m;
	struct map_walk walk = {0};
	size_t chains = old.chain ? 2 * (old.mask + 1) : FEWEST;

	m->chain = mem_zalloc(chains * sizeof(*m->chain));
	m->mask = chains - 1;
	for (struct map_node *node; (node = map_walk(&old, &walk));)
		put(m, node);
	free(old.chain);
}

void map_add(struct map *m, struct map_node *node, uint64_t hash)
{
	if (!m->chain || m->n > m->mask)
		grow(m);
	node->hash = hash;
	put(m, node);
	m->n++;
}

void map_remove(struct map *m, struct map_node *node)
{
	struct map_node **at = chain_of(m, node->hash);

	while (*at != node)
		at = &(*at)->next;
	*at = node->next;
	if (--m->n == 0)
		map_fini(m);
}

void map_fini(struct map *m)
{
	free(m->chain);
	*m = (struct map){0};
}

static struct map_node *find(struct map_node *from, uint64_t hash)
{
	while (from && from->hash != hash)
		from = from->next;
	return from;
}

struct map_node *map_first(const struct map *m, uint64_t hash)
{
	return m->chain ? find(*chain_of(m, hash), hash) : NULL;
}

struct map_node *map_next(const struct map_node *node)
{
	return find(node->next, node->hash);
}

struct map_node *map_walk(const struct map *m, struct map_walk *w)
{
	/* The next node is looked up before this one is returned: the caller may free this one, and
	 * with the last node the table goes. */
	while (!w->next && m->chain && w->chain <= m->mask)
		w->next = m->chain[w->chain++];
	struct map_node *node = w->next;
	if (node)
		w->next = node->next;
	return node;
}
