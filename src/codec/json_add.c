/* What needs a buffer to grow into, apart from the rest, which allocates nothing. */
#include "codec/json.h"

void json_add_string(struct buf *out, struct span plain)
{
	buf_add(out, "\"", 1);
	buf_grew(out, json_escape(plain, buf_room(out, 6 * plain.n)));
	buf_add(out, "\"", 1);
}
