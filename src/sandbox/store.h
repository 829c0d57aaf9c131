/* store.h - the records of the sandbox, ordered by the bytes of their keys.
 *
 * A skip list: finding, inserting and removing cost the logarithm of its size, and a range is a
 * walk along its lowest level. Keys and values are any bytes, NUL included. What is handed out
 * belongs to the store and is valid until the next change. */
#pragma once

#include "base/span.h"

struct record {
	struct span key, value;
};

struct store;

struct store *store_new(void);
void store_free(struct store *s);

const struct record *store_get(const struct store *s, struct span key); /* NULL: there is none */
void store_set(struct store *s, struct span key, struct span value);    /* copies both */
bool store_delete(struct store *s, struct span key);                    /* false: there was none */

/* The first record whose key is not below this one, and the one behind a record; NULL after the
 * last. */
const struct record *store_from(const struct store *s, struct span key);
const struct record *store_next(const struct record *r);

/* <0, 0, >0 as memcmp: in the order of the store a key stands before those that it is the beginning
 * of. */
int store_compare(struct span a, struct span b);
