#include "field.h"

#include <stdlib.h>
#include <string.h>

#include "visible.h"

static bool find_member(struct span object, struct span name, struct json_value *value)
{
	struct json_object_reader reader;
	struct json_member member;

	json_object_begin(&reader, object);
	while (json_object_next(&reader, &member) > 0) {
		if (json_string_is(&member.name, name)) {
			*value = member.value;
			return true;
		}
	}
	return false;
}

bool field_find(struct span object, const char *path, struct json_value *value)
{
	for (;;) {
		size_t n = strcspn(path, ".");
		if (!find_member(object, (struct span){path, n}, value))
			return false;
		if (!path[n])
			return true;
		object = value->text;
		path += n + 1;
	}
}

double field_number(struct span object, const char *path, double otherwise)
{
	struct json_value v;

	/* Within an object a number is always followed by a character at which strtod() stops. */
	if (!field_find(object, path, &v) || v.type != JSON_NUMBER)
		return otherwise;
	return strtod(v.text.p, NULL);
}

const char *field_text(struct span object, const char *path)
{
	char decoded[1000];
	struct json_value v;

	if (!field_find(object, path, &v) || v.type == JSON_NULL)
		return "";
	if (v.type != JSON_STRING || v.text.n > sizeof(decoded))
		return visible_sentence((struct hpkv_bytes){v.text.p, v.text.n});
	return visible_sentence((struct hpkv_bytes){decoded, json_string_decode(&v, decoded)});
}
