#include "record.h"

#include <errno.h>
#include <stdio.h>

#include "base/mem.h"

static int walk(struct span line, struct record *r, struct json_object_reader *reader)
{
	struct json_member m;
	int more;

	*r = (struct record){0};
	json_object_begin(reader, line);
	while ((more = json_object_next(reader, &m)) > 0) {
		if (json_string_is(&m.name, SPAN("key")))
			r->key = m.value;
		else if (json_string_is(&m.name, SPAN("value")))
			r->value = m.value;
	}
	return more;
}

const char *record_read(struct span line, struct record *r)
{
	static char why[160];
	struct json_object_reader reader;

	if (walk(line, r, &reader) < 0) {
		snprintf(why, sizeof(why), "not a JSON object: %s at byte %zu", reader.fault,
			 reader.fault_offset + 1);
		return why;
	}
	if (!r->key.text.p || r->key.type != JSON_STRING || r->key.text.n == 2)
		return "no \"key\" with a text in it";
	if (!r->value.text.p || r->value.type == JSON_NULL)
		return "no \"value\"";
	return NULL;
}

bool record_of(struct span object, struct record *r)
{
	struct json_object_reader reader;

	return walk(object, r, &reader) == 0 && r->key.text.p && r->key.type == JSON_STRING;
}

void record_write(struct buf *out, const struct record *r)
{
	struct span value = r->value.text.p ? r->value.text : SPAN("null");

	buf_addf(out, "{\"key\":");
	buf_add(out, r->key.text.p, r->key.text.n);
	buf_addf(out, ",\"value\":");
	buf_add(out, value.p, value.n);
	buf_addf(out, "}\n");
}

static void add_compact(struct buf *out, struct span text)
{
	bool quoted = false;

	for (size_t i = 0; i < text.n; i++) {
		char c = text.p[i];
		if (!quoted && (c == ' ' || c == '\t' || c == '\r' || c == '\n'))
			continue;
		buf_add(out, &c, 1);
		if (c == '"')
			quoted = !quoted;
		else if (c == '\\' && quoted && ++i < text.n)
			buf_add(out, text.p + i, 1);
	}
}

void record_stored(struct buf *out, const struct json_value *value)
{
	if (value->type != JSON_STRING)
		add_compact(out, value->text);
	else
		buf_grew(out, json_string_decode(value, buf_room(out, value->text.n)));
}

struct hpkv_bytes record_key(const struct record *r)
{
	char *p = mem_alloc(r->key.text.n);

	return (struct hpkv_bytes){p, json_string_decode(&r->key, p)};
}
