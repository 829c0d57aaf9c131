/* radix.h - a tree of byte strings that finds all strings that a key begins with, in one walk along
 * the key.
 *
 * It holds patterns by their literal beginnings: for the key "app:user:7" it finds "app:",
 * "app:user:" and "", however many other strings there are. Strings are any bytes, NUL included,
 * and are copied. There is one node for each string and each fork; removing a string removes the
 * nodes that only it needed. No function recurses, so long strings are harmless.
 *
 * A search takes time proportional to the length of the key, whatever the size of the tree. Adding
 * and removing may take the length of the longest string with the same beginning, since that is
 * moved: callers bound the length of strings that peers choose. */
#pragma once

#include <stddef.h>

#include "base/span.h"

struct radix_node;

struct radix {
	struct radix_node *root; /* NULL: empty */
	size_t n;                /* strings */
	size_t nodes;            /* strings and forks: less than two for each string */
};

/* The slot of a string's value; a string that was not there is added with NULL. The slot is valid
 * until the next call that adds or removes. */
void **radix_slot(struct radix *r, struct span text);
void *radix_find(const struct radix *r, struct span text); /* its value; NULL: not there */
/* The string is there; its value stays the caller's. */
void radix_remove(struct radix *r, struct span text);

/* Calls visit with the value of each string that key begins with, shortest first. visit must not
 * change the tree. */
void radix_prefixes(const struct radix *r, struct span key, void (*visit)(void *owner, void *value),
		    void *owner);

void radix_fini(struct radix *r); /* frees the tree, not the values */
