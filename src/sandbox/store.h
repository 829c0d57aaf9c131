/* store.h - the records of the sandbox, ordered by the bytes of their keys.
 *
 * A skip list: finding, inserting and deleting take logarithmic time, and a range walks along its
 * lowest level. Keys and values are any bytes, NUL included. Returned records belong to the store
 * and are valid until the next change. */
#pragma once

#include "base/span.h"

struct record {
	struct span key, value;
};

struct store;

/* An empty store; store_free() frees its records, too. */
struct store *store_new(void);
void store_free(struct store *s);

const struct record *store_get(const struct store *s, struct span key); /* NULL: there is none */
void store_set(struct store *s, struct span key, struct span value);    /* copies both */
bool store_delete(struct store *s, struct span key);                    /* false: there was none */

/* The first record at or above a key, and the successor of a record. NULL: there is none. */
const struct record *store_from(const struct store *s, struct span key);
const struct record *store_next(const struct record *r);

/* Compares keys, as memcmp() does. A key precedes those that it is a prefix of. */
int store_compare(struct span a, struct span b);
