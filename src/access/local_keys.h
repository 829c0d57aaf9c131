/* local_keys.h - the keys by which clients without a user are known: those on TCP.
 *
 * A key belongs to a section of the access rules, or, where there are no rules, to none. Only
 * hashes are kept, and a key that is presented is compared with every one of them, so that the time
 * it takes says nothing of any key. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/span.h"

enum { LOCAL_KEY_MIN = 16 }; /* bytes */
#define LOCAL_KEYS_NO_SECTION UINT32_MAX

struct local_key {
	unsigned char hash[32];
};

/* Of what a file holds, or a client has presented. */
struct local_key local_key_of(struct span text);

bool local_key_same(const struct local_key *a, const struct local_key *b); /* in constant time */

struct local_keys {
	struct local_keys_entry {
		struct local_key key;
		uint32_t section; /* its number, or LOCAL_KEYS_NO_SECTION */
	} * entry;
	size_t n;
};

/* False: the key is there already, in the section *there. */
bool local_keys_add(struct local_keys *k, struct local_key key, uint32_t section, uint32_t *there);
void local_keys_fini(struct local_keys *k);
/* Is it one of them? Then *section is its section. */
bool local_keys_find(const struct local_keys *k, const struct local_key *key, uint32_t *section);
bool local_keys_same(const struct local_keys *a, const struct local_keys *b);
