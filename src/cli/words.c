#include "words.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

void words_sort(struct words *w, int argc, char **argv, bool exact)
{
	size_t n = argc > 0 ? (size_t)argc : 1;

	*w = (struct words){.keys = mem_zalloc(n * sizeof(*w->keys)),
			    .patterns = mem_zalloc(n * sizeof(*w->patterns))};
	for (int i = 0; i < argc; i++) {
		if (!exact && strchr(argv[i], '*'))
			w->patterns[w->n_patterns++] = hpkv_str(argv[i]);
		else
			w->keys[w->n_keys++] = hpkv_str(argv[i]);
	}
}

struct hpkv_request words_request(const struct words *w, enum hpkv_op op)
{
	return (struct hpkv_request){.op = op,
				     .keys = w->keys,
				     .n_keys = w->n_keys,
				     .patterns = w->patterns,
				     .n_patterns = w->n_patterns};
}

static size_t remove_from(struct hpkv_bytes *list, size_t n, struct hpkv_bytes name)
{
	size_t kept = 0;

	for (size_t i = 0; i < n; i++) {
		if (list[i].n != name.n || memcmp(list[i].p, name.p, name.n) != 0)
			list[kept++] = list[i];
	}
	return kept;
}

bool words_remove(struct words *w, bool pattern, struct hpkv_bytes name)
{
	if (pattern)
		w->n_patterns = remove_from(w->patterns, w->n_patterns, name);
	else
		w->n_keys = remove_from(w->keys, w->n_keys, name);
	return w->n_keys || w->n_patterns;
}

void words_free(struct words *w)
{
	free(w->keys);
	free(w->patterns);
	*w = (struct words){0};
}
