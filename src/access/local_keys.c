#include "access/local_keys.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include "base/mem.h"

struct local_key local_key_of(struct span text)
{
	struct local_key key;

	SHA256((const unsigned char *)text.p, text.n, key.hash);
	return key;
}

bool local_key_same(const struct local_key *a, const struct local_key *b)
{
	return CRYPTO_memcmp(a->hash, b->hash, sizeof(a->hash)) == 0;
}

bool local_keys_find(const struct local_keys *k, const struct local_key *key, uint32_t *section)
{
	bool found = false;

	for (size_t i = 0; i < k->n; i++) {
		if (!local_key_same(&k->entry[i].key, key))
			continue;
		found = true;
		*section = k->entry[i].section;
	}
	return found;
}

bool local_keys_add(struct local_keys *k, struct local_key key, uint32_t section, uint32_t *there)
{
	if (local_keys_find(k, &key, there))
		return false;
	k->entry = mem_resize(k->entry, (k->n + 1) * sizeof(*k->entry));
	k->entry[k->n++] = (struct local_keys_entry){key, section};
	return true;
}

bool local_keys_same(const struct local_keys *a, const struct local_keys *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++) {
		if (!local_key_same(&a->entry[i].key, &b->entry[i].key) ||
		    a->entry[i].section != b->entry[i].section)
			return false;
	}
	return true;
}

void local_keys_fini(struct local_keys *k)
{
	free(k->entry);
	*k = (struct local_keys){0};
}
