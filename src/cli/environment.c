#include "environment.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "codec/json.h"
#include "visible.h"

enum {
	VARIABLE_MAX = 128 << 10, /* the kernel's bound for one, its NUL included */
	ROOM = 8192,              /* the program's path and what the kernel adds */
};

/* A variable on its way, and what it comes from. */
struct entry {
	char *text; /* "NAME=value" */
	struct hpkv_bytes from;
};

struct maker {
	const struct environment_options *options;
	struct entry *entries;
	size_t n, room;
	char *why;
};

static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static char sanitised(char c, bool upcase)
{
	if (upcase && c >= 'a' && c <= 'z')
		return (char)(c - 'a' + 'A');
	return is_letter(c) || is_digit(c) ? c : '_';
}

static bool fail(struct maker *m, struct hpkv_bytes from, const char *what)
{
	snprintf(m->why, ENVIRONMENT_WHY_MAX, "%s: %s", visible_name(from), what);
	return false;
}

static bool add(struct maker *m, struct hpkv_bytes from, struct hpkv_bytes name,
		struct hpkv_bytes value)
{
	if (!name.n)
		return fail(m, from, "no name is left for a variable");
	if (value.n && memchr(value.p, '\0', value.n))
		return fail(m, from, "holds a NUL, which no variable can hold");
	if (name.n + value.n + 3 > VARIABLE_MAX)
		return fail(m, from, "is longer than 128 KiB, which no variable can hold");
	char *text = mem_alloc(name.n + value.n + 3), *at = text;
	if (is_digit(name.p[0]))
		*at++ = '_';
	for (size_t i = 0; i < name.n; i++)
		*at++ = sanitised(name.p[i], m->options->upcase);
	*at++ = '=';
	if (value.n)
		memcpy(at, value.p, value.n);
	at[value.n] = '\0';
	if (m->n == m->room) {
		m->room = m->room ? m->room * 2 : 16;
		m->entries = mem_resize(m->entries, m->room * sizeof(*m->entries));
	}
	m->entries[m->n++] = (struct entry){text, from};
	return true;
}

static bool add_member(struct maker *m, struct hpkv_bytes from, const struct json_member *member)
{
	char *name = mem_alloc(member->name.text.n), *value = mem_alloc(member->value.text.n);
	struct hpkv_bytes n = {name, json_string_decode(&member->name, name)};
	struct hpkv_bytes v = {member->value.text.p, member->value.text.n};

	if (member->value.type == JSON_STRING)
		v = (struct hpkv_bytes){value, json_string_decode(&member->value, value)};
	bool added = add(m, from, n, v);
	free(name);
	free(value);
	return added;
}

static bool add_object(struct maker *m, const struct hpkv_record *record)
{
	struct json_object_reader reader;
	struct json_member member;
	int more;

	json_object_begin(&reader, (struct span){record->value.p, record->value.n});
	while ((more = json_object_next(&reader, &member)) > 0) {
		if (!add_member(m, record->key, &member))
			return false;
	}
	return more == 0 ? true : fail(m, record->key, "is no JSON object");
}

static bool is(struct hpkv_bytes key, const char *text)
{
	return text && key.n == strlen(text) && memcmp(key.p, text, key.n) == 0;
}

static bool add_record(struct maker *m, const struct hpkv_record *record, bool *found)
{
	const struct environment_options *o = m->options;
	size_t n = o->prefix ? strlen(o->prefix) : 0;

	if (is(record->key, o->object)) {
		*found = true;
		return add_object(m, record);
	}
	if (!o->prefix || record->key.n < n || memcmp(record->key.p, o->prefix, n) != 0)
		return true;
	return add(m, record->key, (struct hpkv_bytes){record->key.p + n, record->key.n - n},
		   record->value);
}

static size_t name_length(const char *variable)
{
	return strcspn(variable, "=");
}

static int compare_names(const char *a, const char *b)
{
	size_t n = name_length(a), m = name_length(b);
	int difference = memcmp(a, b, n < m ? n : m);

	return difference ? difference : (n > m) - (n < m);
}

static int by_name(const void *a, const void *b)
{
	return compare_names(((const struct entry *)a)->text, ((const struct entry *)b)->text);
}

/* What the kernel counts for a list of strings. */
static size_t weight(char *const *list)
{
	size_t n = 0;

	for (; *list; list++)
		n += strlen(*list) + 1 + sizeof(*list);
	return n;
}

/* Does the kernel start a program with these? Variables of the same name count twice here. */
static bool fits(struct maker *m)
{
	long most = sysconf(_SC_ARG_MAX);
	size_t n = ROOM + weight(environ) + weight(m->options->argv);

	for (size_t i = 0; i < m->n; i++)
		n += strlen(m->entries[i].text) + 1 + sizeof(char *);
	if (most < 0 || n <= (size_t)most)
		return true;
	snprintf(m->why, ENVIRONMENT_WHY_MAX,
		 "%zu variables are together longer than a program may be started with (%ld bytes)",
		 m->n, most);
	return false;
}

static bool clashes(struct maker *m)
{
	for (size_t i = 1; i < m->n; i++) {
		const char *name = m->entries[i].text;
		if (compare_names(m->entries[i - 1].text, name) != 0)
			continue;
		snprintf(m->why, ENVIRONMENT_WHY_MAX, "%s and %s would both be the variable %s",
			 visible_name(m->entries[i - 1].from), visible_name(m->entries[i].from),
			 visible_name((struct hpkv_bytes){name, name_length(name)}));
		return true;
	}
	return false;
}

bool environment_make(struct environment *e, const struct environment_options *options,
		      const struct hpkv_record *records, size_t n, char why[ENVIRONMENT_WHY_MAX])
{
	struct maker m = {.options = options, .why = why};
	bool good = true, found = !options->object;

	for (size_t i = 0; good && i < n; i++)
		good = add_record(&m, &records[i], &found);
	if (good && !found)
		good = fail(&m, hpkv_str(options->object), "no such key");
	if (good && m.n)
		qsort(m.entries, m.n, sizeof(*m.entries), by_name);
	good = good && !clashes(&m) && fits(&m);
	*e = (struct environment){.variables = mem_alloc((m.n + 1) * sizeof(char *))};
	for (size_t i = 0; i < m.n; i++) {
		if (good)
			e->variables[e->n++] = m.entries[i].text;
		else
			free(m.entries[i].text);
	}
	free(m.entries);
	return good;
}

bool environment_equal(const struct environment *a, const struct environment *b)
{
	bool equal = a->n == b->n;

	for (size_t i = 0; equal && i < a->n; i++)
		equal = strcmp(a->variables[i], b->variables[i]) == 0;
	return equal;
}

void environment_free(struct environment *e)
{
	for (size_t i = 0; i < e->n; i++)
		free(e->variables[i]);
	free(e->variables);
	*e = (struct environment){0};
}

static int compare_variables(const void *a, const void *b)
{
	return compare_names(*(char *const *)a, *(char *const *)b);
}

char **environment_join(const struct environment *e)
{
	size_t n = 0, kept = 0;

	while (environ[n])
		n++;
	char **list = mem_alloc((n + e->n + 1) * sizeof(*list));
	for (size_t i = 0; i < n; i++) {
		if (!e->n || !bsearch(&environ[i], e->variables, e->n, sizeof(*e->variables),
				      compare_variables))
			list[kept++] = environ[i];
	}
	for (size_t i = 0; i < e->n; i++)
		list[kept++] = e->variables[i];
	list[kept] = NULL;
	return list;
}
