#include "cache/range.h"

#include <errno.h>

#include "base/treap.h"

bool range_begin(struct range_reader *r, struct span answer)
{
	struct json_object_reader reader;
	struct json_member m;
	bool found = false;

	*r = (struct range_reader){.n = 0};
	json_object_begin(&reader, answer);
	while (json_object_next(&reader, &m) > 0) {
		if (json_string_is(&m.name, SPAN("records")) && m.value.type == JSON_ARRAY) {
			json_array_begin(&r->records, &m.value);
			found = true;
		} else if (json_string_is(&m.name, SPAN("truncated"))) {
			r->truncated = m.value.type == JSON_TRUE;
			r->has_truncated = true;
		}
	}
	return found;
}

static bool read_record(struct range_reader *r, const struct json_value *record,
			struct json_value *key)
{
	struct json_object_reader reader;
	struct json_member m;

	*key = r->value = (struct json_value){.type = JSON_NULL};
	if (record->type != JSON_OBJECT)
		return false;
	json_object_begin(&reader, record->text);
	while (json_object_next(&reader, &m) > 0) {
		if (json_string_is(&m.name, SPAN("key")))
			*key = m.value;
		else if (json_string_is(&m.name, SPAN("value")))
			r->value = m.value;
	}
	return key->text.p && key->type == JSON_STRING && r->value.text.p;
}

int range_next(struct range_reader *r)
{
	struct json_value record, key;
	struct buf before = r->key;

	if (!json_array_next(&r->records, &record))
		return 0;
	if (!read_record(r, &record, &key))
		return -EBADMSG;
	r->key = (struct buf){0};
	buf_grew(&r->key, json_string_decode(&key, buf_room(&r->key, key.text.n)));
	bool behind = !r->n || treap_compare(buf_span(&before), buf_span(&r->key)) < 0;
	buf_release(&before);
	r->n++;
	return behind ? 1 : -EBADMSG;
}

void range_end(struct range_reader *r)
{
	buf_release(&r->key);
}
