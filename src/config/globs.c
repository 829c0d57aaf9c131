#include "config/globs.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { GLOBS_MAX = 64 }; /* of both together: each key is compared with them */

static const char blanks[] = " \t";

static void add(struct config_words *words, const char *word, size_t n)
{
	words->word = mem_resize(words->word, (words->n + 1) * sizeof(*words->word));
	words->word[words->n++] = mem_strndup(word, n);
}

static void split(struct config_words *words, const char *text)
{
	for (;;) {
		text += strspn(text, blanks);
		size_t n = strcspn(text, blanks);
		if (!n)
			return;
		add(words, text, n);
		text += n;
	}
}

/* A text and one * behind it. */
static bool is_prefix_glob(const char *word)
{
	const char *star = strchr(word, '*');

	return star && star[1] == '\0';
}

static bool begins_as(const char *word, const char *other)
{
	size_t n = strlen(other) - 1; /* without its * */

	return strncmp(word, other, n) == 0;
}

/* A mirror inside another one would hold its keys twice. */
static void check_mirror(struct draft *d, const struct config_words *mirrors, size_t i)
{
	const char *word = mirrors->word[i];

	if (!is_prefix_glob(word)) {
		draft_fault(d, SET_CACHE_MIRROR,
			    "'%.*s' is not a text with one * at its end, and no other",
			    setting_shown(word), word);
		return;
	}
	for (size_t k = 0; k < i; k++) {
		const char *other = mirrors->word[k];
		if (!is_prefix_glob(other) || (!begins_as(word, other) && !begins_as(other, word)))
			continue;
		draft_fault(d, SET_CACHE_MIRROR, "'%.*s' and '%.*s': one lies inside the other",
			    setting_shown(other), other, setting_shown(word), word);
		return;
	}
}

void globs_resolve(struct draft *d)
{
	struct config *c = &d->values->config;

	if (!d->bad[SET_CACHE_KEYS])
		split(&c->cache.keys, c->cache.keys_text);
	if (!d->bad[SET_CACHE_MIRROR])
		split(&c->cache.mirrors, c->cache.mirror_text);
	for (size_t i = 0; i < c->cache.mirrors.n; i++)
		check_mirror(d, &c->cache.mirrors, i);
	if (c->cache.keys.n + c->cache.mirrors.n > GLOBS_MAX)
		draft_fault(d, c->cache.keys.n ? SET_CACHE_KEYS : SET_CACHE_MIRROR,
			    "keys and mirror have %zu globs together, and may have %d",
			    c->cache.keys.n + c->cache.mirrors.n, GLOBS_MAX);
}
