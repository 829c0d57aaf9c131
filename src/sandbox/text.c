#include "text.h"

#include "base/buf.h"
#include "codec/json.h"

/* The JSON parser validates UTF-8. It gets a string with each ASCII character replaced by a space,
 * which leaves it no other reason to refuse. */
bool text_is_utf8(struct span bytes)
{
	struct buf object = {0};
	struct json_object_reader reader;
	struct json_member member;

	buf_addf(&object, "{\"\":\"");
	char *room = buf_room(&object, bytes.n);
	for (size_t i = 0; i < bytes.n; i++)
		room[i] = (unsigned char)bytes.p[i] < 0x80 ? ' ' : bytes.p[i];
	buf_grew(&object, bytes.n);
	buf_addf(&object, "\"}");
	json_object_begin(&reader, buf_span(&object));
	bool good = json_object_next(&reader, &member) == 1;
	buf_release(&object);
	return good;
}
