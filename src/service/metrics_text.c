#include "service/metrics_text.h"

#include <math.h>
#include <string.h>

#include "codec/json.h"

static void add_text(struct buf *out, const char *text)
{
	buf_add(out, text, strlen(text));
}

/* A backslash and a line end are escaped wherever they stand, a quote only within quotes. */
static void add_escaped(struct buf *out, const char *text, bool quoted)
{
	for (const char *p = text; *p; p++) {
		if (*p == '\n')
			add_text(out, "\\n");
		else if (*p == '\\' || (quoted && *p == '"'))
			buf_addf(out, "\\%c", *p);
		else
			buf_add(out, p, 1);
	}
}

static void add_name(struct buf *out, const char *family, const char *suffix,
		     const struct stats_label *labels, size_t n)
{
	add_text(out, family);
	add_text(out, suffix);
	for (size_t i = 0; i < n; i++) {
		buf_addf(out, "%c%s=\"", i ? ',' : '{', labels[i].name);
		add_escaped(out, labels[i].value, true);
		add_text(out, "\"");
	}
	if (n)
		add_text(out, "}");
}

/* Whole numbers as such, as far as a double holds each of them. */
static void add_value(struct buf *out, double value)
{
	static const double exact = 9007199254740992.0; /* 2^53 */

	if (fabs(value) < exact && (double)(int64_t)value == value)
		buf_addf(out, "%.0f", value);
	else
		buf_addf(out, "%.15g", value);
}

static void text_family(void *owner, const char *name, const char *help, enum stats_type type)
{
	static const char *const types[] = {"counter", "gauge", "histogram"};
	_Static_assert(sizeof(types) / sizeof(types[0]) == STATS_TYPE_N, "a name for each type");
	struct buf *out = owner;

	buf_addf(out, "# HELP %s ", name);
	add_escaped(out, help, false);
	buf_addf(out, "\n# TYPE %s %s\n", name, types[type]);
}

static void text_sample(void *owner, const char *family, const char *suffix,
			const struct stats_label *labels, size_t n_labels, double value)
{
	struct buf *out = owner;

	add_name(out, family, suffix, labels, n_labels);
	add_text(out, " ");
	add_value(out, value);
	add_text(out, "\n");
}

static void json_family(void *owner, const char *name, const char *help, enum stats_type type)
{
	(void)owner, (void)name, (void)help, (void)type;
}

static void json_sample(void *owner, const char *family, const char *suffix,
			const struct stats_label *labels, size_t n_labels, double value)
{
	struct metrics_text_json *j = owner;

	add_name(&j->name, family, suffix, labels, n_labels);
	add_text(j->out, j->behind ? "," : "");
	json_add_string(j->out, buf_span(&j->name));
	add_text(j->out, ":");
	add_value(j->out, value);
	buf_take(&j->name, buf_len(&j->name));
	j->behind = true;
}

const struct stats_visitor page_text_visitor = {.family = text_family, .sample = text_sample},
			   page_json_visitor = {.family = json_family, .sample = json_sample};

void metrics_text_write(const struct stats *s, const struct stats_gauges *g, struct buf *out)
{
	stats_walk(s, g, &page_text_visitor, out);
}

void metrics_text_write_json(const struct stats *s, const struct stats_gauges *g, struct buf *out)
{
	struct metrics_text_json j = {.out = out};

	add_text(out, "{");
	stats_walk(s, g, &page_json_visitor, &j);
	add_text(out, "}");
	buf_release(&j.name);
}
