#include "merge.h"

#include "codec/json.h"

/* Recursion is bounded: each level of a patch takes at least five bytes, and a value has a few
 * thousand. */

static bool is_object(struct span text)
{
	struct json_object_reader reader;
	struct json_member member;
	int more;

	json_object_begin(&reader, text);
	while ((more = json_object_next(&reader, &member)) > 0)
		;
	return more == 0;
}

/* Finds the last member of that name: the last of several counts. */
static bool find(struct span object, const struct json_value *name, struct json_value *value)
{
	struct json_object_reader reader;
	struct json_member member;
	bool found = false;

	json_object_begin(&reader, object);
	while (json_object_next(&reader, &member) > 0) {
		if (json_string_same(&member.name, name)) {
			*value = member.value;
			found = true;
		}
	}
	return found;
}

static void merge(struct span target, struct span patch, struct buf *out);

/* Appends a member and the comma before it. */
static void add_member(struct buf *out, bool *first, const struct json_value *name,
		       struct span target, const struct json_value *value)
{
	if (!*first)
		buf_add(out, ",", 1);
	*first = false;
	buf_add(out, name->text.p, name->text.n);
	buf_add(out, ":", 1);
	if (value->type == JSON_OBJECT)
		merge(target, value->text, out);
	else
		buf_add(out, value->text.p, value->text.n);
}

/* Appends the target's members: unchanged, replaced, merged, or dropped if the patch says null. */
static void merge_known(struct span target, struct span patch, struct buf *out, bool *first)
{
	struct json_object_reader reader;
	struct json_member member;
	struct json_value last, fresh;

	json_object_begin(&reader, target);
	while (json_object_next(&reader, &member) > 0) {
		if (find(target, &member.name, &last) && last.text.p != member.value.text.p)
			continue; /* a later member has the same name */
		if (!find(patch, &member.name, &fresh)) {
			if (!*first)
				buf_add(out, ",", 1);
			*first = false;
			buf_add(out, member.whole.p, member.whole.n);
		} else if (fresh.type != JSON_NULL) {
			struct span inner =
				member.value.type == JSON_OBJECT ? member.value.text : SPAN("{}");
			add_member(out, first, &member.name, inner, &fresh);
		}
	}
}

/* Appends the members that only the patch has. */
static void merge_new(struct span target, struct span patch, struct buf *out, bool *first)
{
	struct json_object_reader reader;
	struct json_member member;
	struct json_value last, known;

	json_object_begin(&reader, patch);
	while (json_object_next(&reader, &member) > 0) {
		bool is_last =
			find(patch, &member.name, &last) && last.text.p == member.value.text.p;
		if (is_last && member.value.type != JSON_NULL &&
		    !find(target, &member.name, &known))
			add_member(out, first, &member.name, SPAN("{}"), &member.value);
	}
}

static void merge(struct span target, struct span patch, struct buf *out)
{
	bool first = true;

	buf_add(out, "{", 1);
	merge_known(target, patch, out, &first);
	merge_new(target, patch, out, &first);
	buf_add(out, "}", 1);
}

bool merge_objects(struct span target, struct span patch, struct buf *out)
{
	if (!is_object(target) || !is_object(patch))
		return false;
	merge(target, patch, out);
	return true;
}
