#include "nexus.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <strings.h>

#include "base/mem.h"
#include "codec/json.h"

enum { TOP_DEFAULT = 5, TOP_MAX = 20, WORDS_MAX = 64 };

struct search {
	char *text; /* the query, decoded */
	struct span words[WORDS_MAX];
	unsigned n_words;
	int64_t top;
	double min_score;
	struct hit {
		const struct record *record;
		double score;
	} hits[TOP_MAX]; /* the best first */
	unsigned n_hits;
};

/* --- the request */

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static void split_words(struct search *q, size_t n)
{
	size_t at = 0;

	while (at < n && q->n_words < WORDS_MAX) {
		size_t start = at;
		while (at < n && !is_space(q->text[at]))
			at++;
		if (at > start)
			q->words[q->n_words++] = (struct span){q->text + start, at - start};
		at++;
	}
}

static bool read_query(struct search *q, const struct json_value *v)
{
	if (v->type != JSON_STRING || q->text)
		return false;
	q->text = mem_alloc(v->text.n);
	split_words(q, json_string_decode(v, q->text));
	return q->n_words > 0;
}

static bool read_top(struct search *q, const struct json_value *v)
{
	return v->type == JSON_NUMBER && json_number_integer(v, 1, TOP_MAX, &q->top);
}

static bool read_min_score(struct search *q, const struct json_value *v)
{
	char digits[64] = {0};

	if (v->type != JSON_NUMBER || v->text.n >= sizeof(digits))
		return false;
	memcpy(digits, v->text.p, v->text.n);
	q->min_score = strtod(digits, NULL);
	return q->min_score >= 0 && q->min_score <= 1;
}

static const struct {
	struct span name;
	bool (*read)(struct search *q, const struct json_value *v);
	const char *why;
} MEMBERS[] = {
	{{"query", 5}, read_query, "query must be a string that is not empty"},
	{{"topK", 4}, read_top, "topK must be a whole number from 1 to 20"},
	{{"minScore", 8}, read_min_score, "minScore must be a number from 0 to 1"},
};

/* NULL, or what is wrong. */
static const char *read_request(struct search *q, struct span request)
{
	struct json_object_reader reader;
	struct json_member m;
	int more;

	*q = (struct search){.top = TOP_DEFAULT, .min_score = 0.5};
	json_object_begin(&reader, request);
	while ((more = json_object_next(&reader, &m)) > 0) {
		for (size_t i = 0; i < sizeof(MEMBERS) / sizeof(*MEMBERS); i++) {
			if (json_string_is(&m.name, MEMBERS[i].name) &&
			    !MEMBERS[i].read(q, &m.value))
				return MEMBERS[i].why;
		}
	}
	return more < 0 ? "Invalid JSON" : q->text ? NULL : "query is required";
}

/* --- the search */

static bool contains(struct span text, struct span word)
{
	for (size_t i = 0; i + word.n <= text.n; i++) {
		if (strncasecmp(text.p + i, word.p, word.n) == 0)
			return true;
	}
	return false;
}

static double score(const struct search *q, const struct record *r)
{
	unsigned found = 0;

	for (unsigned i = 0; i < q->n_words; i++)
		found += contains(r->key, q->words[i]) || contains(r->value, q->words[i]);
	return (double)found / q->n_words;
}

/* Among equals the one that was there first stands first. */
static void add_hit(struct search *q, struct hit hit)
{
	unsigned at = q->n_hits;

	while (at > 0 && q->hits[at - 1].score < hit.score)
		at--;
	if (at >= (unsigned)q->top)
		return;
	if (q->n_hits < (unsigned)q->top)
		q->n_hits++;
	memmove(q->hits + at + 1, q->hits + at, (q->n_hits - at - 1) * sizeof(hit));
	q->hits[at] = hit;
}

static bool search(const struct store *s, struct span request, struct search *q, struct outcome *o)
{
	const char *wrong = read_request(q, request);

	if (wrong) {
		ops_fail(o, 400, wrong);
		return false;
	}
	for (const struct record *r = store_from(s, (struct span){"", 0}); r; r = store_next(r)) {
		struct hit hit = {r, score(q, r)};
		if (hit.score > 0 && hit.score >= q->min_score)
			add_hit(q, hit);
	}
	o->code = 200;
	return true;
}

static void add_hits(const struct search *q, struct buf *out, const char *name)
{
	buf_addf(out, "\"%s\":[", name);
	for (unsigned i = 0; i < q->n_hits; i++) {
		buf_addf(out, "%s{\"key\":", i ? "," : "");
		json_add_string(out, q->hits[i].record->key);
		buf_addf(out, ",\"score\":%.4g}", q->hits[i].score);
	}
	buf_addf(out, "]");
}

void nexus_search(const struct store *s, struct span request, struct outcome *o)
{
	struct search q;

	if (search(s, request, &q, o))
		add_hits(&q, &o->body, "results");
	free(q.text);
}

void nexus_query(const struct store *s, struct span request, struct outcome *o)
{
	struct search q;

	if (search(s, request, &q, o)) {
		buf_addf(&o->body, "\"answer\":");
		json_add_string(&o->body, q.n_hits ? q.hits[0].record->value
						   : SPAN("No record has these words."));
		buf_addf(&o->body, ",");
		add_hits(&q, &o->body, "sources");
	}
	free(q.text);
}
