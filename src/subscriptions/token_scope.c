#include "subscriptions/token_scope.h"

#include <stdlib.h>

#include "base/glob.h"
#include "codec/json.h"
#include "base/mem.h"

/* In the order of their literals, all that a "prefix*" covers stands right behind it. So one sweep
 * finds what each wanted string stands for (a part), and from then on there are only runs of
 * neighbouring parts, each of which is one string of the list. They are merged where neighbours
 * have most in common; the runs that this makes are the forks of a tree of the literals, the
 * deepest first. When nothing is left to merge, no two runs begin with the same character. Then a
 * run is left out as a whole or not at all: without some of its items its string would be longer,
 * or shorter by the byte of its * at most. */

/* An item as the service is going to read it. */
struct entry {
	struct span literal; /* what all begins with that it asks for */
	struct token_scope_item *item;
	bool glob;   /* a * in it is any run; else it stands for itself */
	bool prefix; /* "literal*" */
};

/* One wanted string: the entry it comes from, behind that the same from others, and if it is a
 * "prefix*" all that it covers. */
struct part {
	size_t first, end; /* in work::entry */
	size_t size;       /* in the list, with a comma */
	size_t common;     /* bytes that its literal shares with the one before, whole characters */
};

/* Parts that one string of the list stands for. Its fields are kept where its first part is, but
 * for first, which is kept where its last one is: merging only ever looks at the ends of runs. */
struct run {
	size_t first, end; /* in work::part */
	size_t prefix; /* its string is the glob of so many bytes; 0: the one of its only part */
	size_t size;   /* in the list, with a comma; 0: left out */
};

struct work {
	struct entry *entry;
	size_t n_entries;
	struct part *part;
	struct run *run; /* where a part is an end of one */
	size_t n;        /* parts */
	size_t sum;      /* the sizes of all runs */
	size_t budget;
	struct buf plain, json; /* a string that is being spelled, and its JSON text */
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

/* Does a character (of UTF-8, or a lone surrogate's three bytes) go on at this place? */
static bool is_within_character(struct span text, size_t at)
{
	return at < text.n && ((unsigned char)text.p[at] & 0xc0) == 0x80;
}

/* In whole characters: what stands before is the same, so both texts are within one or neither is.
 */
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

#define ANY_RUN SPAN("([^a]|a)*") /* . would not match the end of a line everywhere */

static bool is_regex(struct span text)
{
	return text.n && text.p[0] == '^';
}

/* A literal within a regular expression. */
static void add_escaped(struct buf *out, struct span literal)
{
	static const char special[] = "\\^$.*+?()[]{}|";

	for (size_t i = 0; i < literal.n; i++) {
		if (memchr(special, literal.p[i], sizeof(special) - 1))
			buf_add(out, "\\", 1);
		buf_add(out, literal.p + i, 1);
	}
}

/* Several * in a row are one: as many loops would be slow work for an engine that backtracks. */
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

/* The string of a part, or the glob of its first so many bytes, as it stands in the list: in quotes
 * and with a comma behind it. Valid until the next call. */
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

/* A key with a * in it is listed as it is, so to the service it is a glob. */
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

/* A "prefix*" comes before all that it covers. Equal entries are listed as the same string. */
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

/* Each part is a run of its own. */
static void split(struct work *w)
{
	w->sum = 0;
	for (size_t i = 0; i < w->n; i++) {
		w->run[i] = (struct run){.first = i, .end = i + 1, .size = w->part[i].size};
		w->sum += w->part[i].size;
	}
}

/* Two brackets, and no comma behind the last string. */
static bool fits(const struct work *w, size_t sum)
{
	return sum + 1 <= w->budget;
}

/* Between a part and the one before it. */
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

/* Makes one run of all that begins as the two sides of this seam do: what has more in common is one
 * already, so they are the runs up to the last of the following seams that joins on. Returns the
 * seam after that. */
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

/* Merges until the list fits or no two runs begin alike. Each step makes it shorter: a glob is at
 * most a byte longer than the shortest of what it replaces. */
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
	uint64_t sequence; /* the earliest of its items' */
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

/* Only the parts of runs that stay are parts from now on. Runs had nothing in common, so what each
 * part has in common with the one before stays true. */
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

/* The earliest run comes first, and each is kept if there is room for it beside those before: no
 * run is left out for the sake of a later one, nor because of one that is too long itself. */
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

/* Is the run's string a "prefix*", merged or wanted? */
static bool is_prefix_run(const struct work *w, size_t run, struct span *prefix)
{
	const struct entry *e = &w->entry[w->part[run].first];

	*prefix = e->literal;
	if (w->run[run].prefix)
		prefix->n = w->run[run].prefix;
	return w->run[run].prefix || e->prefix;
}

static void fill_cover(const struct work *w, struct token_scope *c)
{
	struct span prefix;
	size_t n = 0, bytes = 0;

	for (size_t i = 0; i < w->n; i = w->run[i].end) {
		if (is_prefix_run(w, i, &prefix)) {
			bytes += prefix.n;
			n++;
		}
	}
	*c = (struct token_scope){
		.prefix = mem_alloc((n + 1) * sizeof(*c->prefix)),
		.memory = mem_alloc(bytes + 1),
	};
	char *at = c->memory;
	for (size_t i = 0; i < w->n; i = w->run[i].end) {
		if (is_prefix_run(w, i, &prefix)) {
			if (prefix.n)
				memcpy(at, prefix.p, prefix.n);
			c->prefix[c->n++] = (struct span){at, prefix.n};
			at += prefix.n;
		}
	}
}

size_t token_scope_make(struct token_scope_item *items, size_t n, size_t budget,
			struct token_scope *token_scope, struct buf *list)
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
		/* What is left may fit with less merging. */
		merge(&w);
	}
	mark_listed(&w);
	fill_cover(&w, token_scope);
	size_t strings = write_list(&w, list);
	free(w.entry);
	free(w.part);
	free(w.run);
	buf_release(&w.plain);
	buf_release(&w.json);
	return strings;
}

void token_scope_fini(struct token_scope *c)
{
	free(c->prefix);
	free(c->memory);
	*c = (struct token_scope){0};
}

bool token_scope_has(const struct token_scope *c, struct span literal)
{
	size_t low = 0, high = c->n;

	/* As none is the beginning of another, only the last that is not behind the literal can be
	 * a beginning of it. */
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (compare(c->prefix[middle], literal) <= 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low && begins_with(literal, c->prefix[low - 1]);
}
