#include "words.h"

#include <stdlib.h>
#include <string.h>

#include "mem.h"

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

void words_free(struct words *w)
{
	free(w->keys);
	free(w->patterns);
	*w = (struct words){0};
}
