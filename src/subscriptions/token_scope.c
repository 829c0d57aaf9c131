#include "subscriptions/token_scope.h"

#include <stdlib.h>

#include "base/glob.h"
#include "codec/json.h"
#include "base/mem.h"

/* Method. Entries are sorted by their literals, so everything that a "prefix*" covers stands right
 * behind it. One sweep finds the items that each wanted string stands for (a part). After that
 * there are runs of neighbouring parts, and each run is one string of the list. Runs are merged
 * where neighbours have the longest common prefix; these are the forks of the tree of literals, the
 * deepest first. When nothing is left to merge, no two runs begin with the same character. A run is
 * then left out as a whole: without some of its items its string would be longer, or at most one
 * byte (the *) shorter. */

/* An item as the service reads it. */
struct entry {
	struct span literal; /* the prefix of all keys that it matches */
	struct token_scope_item *item;
	bool glob;   /* a * matches any run; else it is literal */
	bool prefix; /* "literal*" */
};

/* One wanted string: its entry, then equal entries, then the entries that it covers as a
 * "prefix*". */
struct part {
	size_t first, end; /* in work::entry */
	size_t size;       /* in the list, with a comma */
	size_t common; /* length of the prefix, in whole characters, that its literal shares with
			  the one before */
};

/* A run: parts that one string of the list stands for. Its fields are in its first part, except
 * first, which is in its last part; merging only looks at the ends of runs. */
struct run {
	size_t first, end; /* in work::part */
	size_t prefix;     /* length of the prefix of its glob; 0: its only part's own string */
	size_t size;       /* length in the list, with a comma; 0: left out */
};

struct work {
	struct entry *entry;
	size_t n_entries;
	struct part *part;
	struct run *run; /* valid where a part is an end of a run */
	size_t n;        /* parts */
	size_t sum;      /* sum over all runs */
	size_t budget;
	struct buf plain, json; /* scratch: a string and its JSON text */
};

/* --- bytes --- */

static int compare(struct span a, struct span b)
{
	size_t n = a.n < b.n ? a.n : b.n;
	int order = n ? memcmp(a.p, b.p, n) : 0;

	return order ? order : (a.n > b.n) - (a.n < b.n);
}

static bool begins_with(struct span text, struct span prefix)
{
	return text.n >= prefix.n && (!prefix.n || memcmp(text.p, prefix.p, prefix.n) == 0);
}

/* Is this position inside a character (of UTF-8, or the three bytes of a lone surrogate)? */
static bool is_within_character(struct span text, size_t at)
{
	return at < text.n && ((unsigned char)text.p[at] & 0xc0) == 0x80;
}

/* Rounded down to whole characters. The common bytes are equal, so either both texts are inside a
 * character or neither is. */
static size_t common_length(struct span a, struct span b)
{
	size_t n = 0;

	while (n < a.n && n < b.n && a.p[n] == b.p[n])
		n++;
	while (n && is_within_character(a, n))
		n--;
	return n;
}

/* --- spelling --- */

#define ANY_RUN SPAN("([^a]|a)*") /* . may not match a newline */

static bool is_regex(struct span text)
{
	return text.n && text.p[0] == '^';
}

/* Writes a literal as a regular expression. */
static void add_escaped(struct buf *out, struct span literal)
{
	static const char special[] = "\\^$.*+?()[]{}|";

	for (size_t i = 0; i < literal.n; i++) {
		if (memchr(special, literal.p[i], sizeof(special) - 1))
			buf_add(out, "\\", 1);
		buf_add(out, literal.p + i, 1);
	}
}

/* A run of * is written once: each would be a loop, slow in a backtracking engine. */
static void add_escaped_glob(struct buf *out, struct span glob)
{
	for (;;) {
		struct span literal = glob_literal(glob);
		size_t next = literal.n;
		add_escaped(out, literal);
		while (next < glob.n && glob.p[next] == '*')
			next++;
		glob = (struct span){glob.p + next, glob.n - next};
		if (!glob.n) {
			if (next == literal.n)
				buf_add(out, "$", 1);
			return;
		}
		buf_add(out, ANY_RUN.p, ANY_RUN.n);
	}
}

static void spell_entry(struct buf *out, const struct entry *e)
{
	struct span text = e->item->text;

	if (!is_regex(text)) {
		buf_add(out, text.p, text.n);
		return;
	}
	buf_add(out, "^", 1);
	if (e->glob) {
		add_escaped_glob(out, text);
	} else {
		add_escaped(out, text);
		buf_add(out, "$", 1);
	}
}

static void spell_prefix(struct buf *out, struct span literal)
{
	if (is_regex(literal)) {
		buf_add(out, "^", 1);
		add_escaped(out, literal);
	} else {
		buf_add(out, literal.p, literal.n);
		buf_add(out, "*", 1);
	}
}

/* The string of a part, or the glob of its first n bytes, as in the list: quoted, with a comma.
 * Valid until the next call. */
static struct span string_text(struct work *w, const struct part *part, size_t prefix)
{
	const struct entry *e = &w->entry[part->first];

	buf_take(&w->plain, buf_len(&w->plain));
	buf_take(&w->json, buf_len(&w->json));
	if (prefix)
		spell_prefix(&w->plain, (struct span){e->literal.p, prefix});
	else
		spell_entry(&w->plain, e);
	struct span plain = buf_span(&w->plain);
	char *inside = buf_room(&w->json, 6 * plain.n + 3) + 1;
	size_t n = json_escape(plain, inside);
	inside[-1] = inside[n] = '"';
	inside[n + 1] = ',';
	buf_grew(&w->json, n + 3);
	return buf_span(&w->json);
}

/* --- wanted strings --- */

/* The service takes a key with a * for a glob. */
static struct entry entry_of(struct token_scope_item *item)
{
	struct span text = item->text;
	struct entry e = {.literal = text, .item = item};

	e.glob = item->pattern || !is_regex(text);
	if (e.glob) {
		e.literal = glob_literal(text);
		e.prefix = glob_is_prefix(text);
	}
	return e;
}

/* A "prefix*" comes before all that it covers. Equal entries become one string. */
static int by_literal(const void *a, const void *b)
{
	const struct entry *e = a, *f = b;
	int order = compare(e->literal, f->literal);

	if (!order)
		order = f->prefix - e->prefix;
	return order ? order : compare(e->item->text, f->item->text);
}

static bool stands_for(const struct entry *e, const struct entry *other)
{
	return e->prefix ? begins_with(other->literal, e->literal) : by_literal(e, other) == 0;
}

static void find_parts(struct work *w)
{
	struct span before = {NULL, 0};

	for (size_t i = 0; i < w->n_entries;) {
		const struct entry *e = &w->entry[i];
		struct part *part = &w->part[w->n++];
		*part = (struct part){.first = i, .common = common_length(before, e->literal)};
		part->size = string_text(w, part, 0).n;
		while (i < w->n_entries && stands_for(e, &w->entry[i]))
			i++;
		part->end = i;
		before = e->literal;
	}
}

/* --- merging --- */

/* Starts with each part as a run. */
static void split(struct work *w)
{
	w->sum = 0;
	for (size_t i = 0; i < w->n; i++) {
		w->run[i] = (struct run){.first = i, .end = i + 1, .size = w->part[i].size};
		w->sum += w->part[i].size;
	}
}

/* Two brackets; no comma after the last string. */
static bool fits(const struct work *w, size_t sum)
{
	return sum + 1 <= w->budget;
}

/* A seam is between a part and the one before it. */
struct seam {
	size_t common;
	size_t part;
};

static int by_common(const void *a, const void *b)
{
	const struct seam *s = a, *t = b;

	if (s->common != t->common)
		return s->common > t->common ? -1 : 1;
	return s->part < t->part ? -1 : s->part > t->part;
}

static struct seam *find_seams(const struct work *w, size_t *n)
{
	struct seam *seam = mem_alloc((w->n + 1) * sizeof(*seam));

	*n = 0;
	for (size_t i = 0; i < w->n; i++)
		if (w->part[i].common)
			seam[(*n)++] = (struct seam){w->part[i].common, i};
	qsort(seam, *n, sizeof(*seam), by_common);
	return seam;
}

/* Merges all runs with the common prefix of the two sides of this seam. Longer prefixes are merged
 * already, so these are the runs up to the last following seam with that prefix. Returns the seam
 * after it. */
static const struct seam *merge_at(struct work *w, const struct seam *seam, const struct seam *end)
{
	size_t first = w->run[seam->part - 1].first;
	struct run *run = &w->run[first];

	w->sum -= run->size;
	run->prefix = seam->common;
	do {
		const struct run *next = &w->run[seam->part];
		w->sum -= next->size;
		run->end = next->end;
		seam++;
	} while (seam < end && seam->common == run->prefix && seam->part == run->end);
	w->run[run->end - 1].first = first;
	run->size = string_text(w, &w->part[first], run->prefix).n;
	w->sum += run->size;
	return seam;
}

/* Merges until the list fits or no two runs have a common prefix. Each step shortens the list: a
 * glob is at most one byte longer than the shortest string it replaces. */
static void merge(struct work *w)
{
	split(w);
	if (fits(w, w->sum))
		return;
	size_t n;
	struct seam *seams = find_seams(w, &n);
	for (const struct seam *seam = seams; seam < seams + n && !fits(w, w->sum);)
		seam = merge_at(w, seam, seams + n);
	free(seams);
}

/* --- leaving out --- */

struct candidate {
	uint64_t sequence; /* of its earliest item */
	size_t run;
};

static int by_sequence(const void *a, const void *b)
{
	const struct candidate *c = a, *d = b;

	if (c->sequence != d->sequence)
		return c->sequence < d->sequence ? -1 : 1;
	return c->run < d->run ? -1 : c->run > d->run;
}

static uint64_t earliest(const struct work *w, const struct run *run)
{
	uint64_t sequence = UINT64_MAX;

	for (size_t i = w->part[run->first].first; i < w->part[run->end - 1].end; i++)
		if (w->entry[i].item->sequence < sequence)
			sequence = w->entry[i].item->sequence;
	return sequence;
}

static struct candidate *find_candidates(const struct work *w, size_t *n)
{
	struct candidate *all = mem_alloc((w->n + 1) * sizeof(*all));

	*n = 0;
	for (size_t i = 0; i < w->n; i = w->run[i].end)
		all[(*n)++] = (struct candidate){earliest(w, &w->run[i]), i};
	qsort(all, *n, sizeof(*all), by_sequence);
	return all;
}

static void mark(const struct work *w, const struct part *part, enum token_scope_how how)
{
	for (size_t i = part->first; i < part->end; i++)
		w->entry[i].item->how = how;
}

/* Keeps the parts of the runs that stay. Runs share no prefix, so part::shared stays right. */
static void drop_left_out(struct work *w)
{
	size_t kept = 0;

	for (size_t i = 0, end; i < w->n; i = end) {
		end = w->run[i].end;
		for (size_t j = i; j < end; j++) {
			if (w->run[i].size)
				w->part[kept++] = w->part[j];
			else
				mark(w, &w->part[j], TOKEN_SCOPE_LEFT_OUT);
		}
	}
	w->n = kept;
}

/* Goes from the earliest run to the latest and keeps each that has room beside those before. */
static void leave_out(struct work *w)
{
	size_t n, sum = 0;
	struct candidate *all = find_candidates(w, &n);

	for (size_t i = 0; i < n; i++) {
		struct run *run = &w->run[all[i].run];
		if (fits(w, sum + run->size))
			sum += run->size;
		else
			run->size = 0;
	}
	free(all);
	drop_left_out(w);
}

/* --- the result --- */

static void mark_listed(const struct work *w)
{
	for (size_t i = 0; i < w->n; i = w->run[i].end) {
		for (size_t j = i; j < w->run[i].end; j++)
			mark(w, &w->part[j], TOKEN_SCOPE_BY_GLOB);
		if (w->run[i].prefix)
			continue;
		const struct entry *e = &w->entry[w->part[i].first],
				   *end = &w->entry[w->part[i].end];
		for (const struct entry *same = e; same < end && by_literal(e, same) == 0; same++)
			same->item->how = TOKEN_SCOPE_LISTED;
	}
}

static size_t write_list(struct work *w, struct buf *list)
{
	size_t n = 0;

	buf_add(list, "[", 1);
	for (size_t i = 0; i < w->n; i = w->run[i].end, n++) {
		struct span text = string_text(w, &w->part[i], w->run[i].prefix);
		bool last = w->run[i].end == w->n;
		buf_add(list, text.p, last ? text.n - 1 : text.n);
	}
	buf_add(list, "]", 1);
	return n;
}

/* Is the run's string a "prefix*"? */
static bool is_prefix_run(const struct work *w, size_t run, struct span *prefix)
{
	const struct entry *e = &w->entry[w->part[run].first];

	*prefix = e->literal;
	if (w->run[run].prefix)
		prefix->n = w->run[run].prefix;
	return w->run[run].prefix || e->prefix;
}

static void fill_scope(const struct work *w, struct token_scope *scope)
{
	struct span prefix;
	size_t n = 0, bytes = 0;

	for (size_t i = 0; i < w->n; i = w->run[i].end) {
		if (is_prefix_run(w, i, &prefix)) {
			bytes += prefix.n;
			n++;
		}
	}
	*scope = (struct token_scope){
		.prefix = mem_alloc((n + 1) * sizeof(*scope->prefix)),
		.memory = mem_alloc(bytes + 1),
	};
	char *at = scope->memory;
	for (size_t i = 0; i < w->n; i = w->run[i].end) {
		if (is_prefix_run(w, i, &prefix)) {
			if (prefix.n)
				memcpy(at, prefix.p, prefix.n);
			scope->prefix[scope->n++] = (struct span){at, prefix.n};
			at += prefix.n;
		}
	}
}

size_t token_scope_make(struct token_scope_item *items, size_t n, size_t budget,
			struct token_scope *scope, struct buf *list)
{
	struct work w = {
		.entry = mem_alloc((n + 1) * sizeof(*w.entry)),
		.n_entries = n,
		.part = mem_alloc((n + 1) * sizeof(*w.part)),
		.run = mem_alloc((n + 1) * sizeof(*w.run)),
		.budget = budget,
	};

	for (size_t i = 0; i < n; i++)
		w.entry[i] = entry_of(&items[i]);
	qsort(w.entry, n, sizeof(*w.entry), by_literal);
	find_parts(&w);
	merge(&w);
	if (!fits(&w, w.sum)) {
		leave_out(&w);
		/* The rest may fit with less merging, so it is merged anew. */
		merge(&w);
	}
	mark_listed(&w);
	fill_scope(&w, scope);
	size_t strings = write_list(&w, list);
	free(w.entry);
	free(w.part);
	free(w.run);
	buf_release(&w.plain);
	buf_release(&w.json);
	return strings;
}

void token_scope_fini(struct token_scope *scope)
{
	free(scope->prefix);
	free(scope->memory);
	*scope = (struct token_scope){0};
}

bool token_scope_has(const struct token_scope *scope, struct span literal)
{
	size_t low = 0, high = scope->n;

	/* No prefix is a prefix of another, so only the last one that is not behind the literal can
	 * match. */
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (compare(scope->prefix[middle], literal) <= 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low && begins_with(literal, scope->prefix[low - 1]);
}
