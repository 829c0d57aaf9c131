/* The functions that need a buffer. The others, in json.c and json_value.c, allocate nothing. */
#include "codec/json.h"

void json_add_string(struct buf *out, struct span plain)
{
	buf_add(out, "\"", 1);
	buf_grew(out, json_escape(plain, buf_room(out, 6 * plain.n)));
	buf_add(out, "\"", 1);
}

struct span json_string_text(const struct json_value *string, struct buf *room)
{
	if (!string->escaped)
		return json_string_raw(string);
	buf_take(room, buf_len(room));
	buf_grew(room, json_string_decode(string, buf_room(room, string->text.n)));
	return buf_span(room);
}
