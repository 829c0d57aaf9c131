/* radix.h - a tree of byte strings that finds those that a key begins with, in one walk along the
 * key.
 *
 * For patterns by their literal beginning: "app:" and "app:user:" and "" are all found for the key
 * "app:user:7", however many other strings there are. Strings are any bytes, NUL included, and
 * copied. A node is there for each string and each fork, no more; removing a string removes what it
 * needed. Nothing recurses, so long strings are no danger.
 *
 * A search costs the length of the key, whatever the tree holds. Adding and removing may cost the
 * length of the longest string that begins alike, since that is moved: whoever lets peers choose
 * strings bounds their length. */
#pragma once

#include <stddef.h>

#include "base/span.h"

struct radix_node;

struct radix {
	struct radix_node *root; /* NULL: empty */
	size_t n;                /* strings */
	size_t nodes;            /* for them and the forks: less than two for each string */
};

/* The place where the value of a string stands; a string that was not there is added with NULL. The
 * place is valid until the next call that adds or removes. */
void **radix_place(struct radix *r, struct span text);
void *radix_find(const struct radix *r, struct span text); /* its value; NULL: not there */
void radix_remove(struct radix *r, struct span text);      /* is there; the value is the caller's */

/* Calls visit with the value of each string that key begins with, shortest first. visit must not
 * change the tree. */
void radix_prefixes(const struct radix *r, struct span key, void (*visit)(void *owner, void *value),
		    void *owner);

void radix_fini(struct radix *r); /* frees the tree, not the values */
