#include "text.h"

#include "json.h"

/* A surrogate in the three bytes that UTF-8 does not allow for it. */
static bool is_surrogate(const unsigned char *p, size_t n)
{
	return n >= 3 && p[0] == 0xed && p[1] >= 0xa0;
}

static bool is_special(const unsigned char *p, size_t n)
{
	return *p < 0x20 || *p == '"' || *p == '\\' || is_surrogate(p, n);
}

/* Escapes the special character at p; returns how many bytes it has. */
static size_t add_special(struct buf *out, const unsigned char *p, size_t n)
{
	char escape[6];

	if (is_surrogate(p, n)) {
		buf_addf(out, "\\u%04x", 0xd000u | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu));
		return 3;
	}
	buf_add(out, escape, json_escape_byte(*p, escape));
	return 1;
}

void text_add_string(struct buf *out, struct span bytes)
{
	/* No bytes may be at no address, to which C does not let one add even 0. */
	const unsigned char *p = (const unsigned char *)(bytes.n ? bytes.p : ""),
			    *end = p + bytes.n;

	buf_add(out, "\"", 1);
	while (p < end) {
		const unsigned char *plain = p;
		while (p < end && !is_special(p, (size_t)(end - p)))
			p++;
		buf_add(out, plain, (size_t)(p - plain));
		if (p < end)
			p += add_special(out, p, (size_t)(end - p));
	}
	buf_add(out, "\"", 1);
}

/* The JSON reader knows what UTF-8 is. All else that it could refuse in a string is escaped before
 * it looks, but so is a surrogate. */
bool text_is_utf8(struct span bytes)
{
	struct buf object = {0};
	struct json_object_reader reader;
	struct json_member member;

	for (size_t i = 0; i < bytes.n; i++) {
		if (is_surrogate((const unsigned char *)bytes.p + i, bytes.n - i))
			return false;
	}
	buf_addf(&object, "{\"\":");
	text_add_string(&object, bytes);
	buf_addf(&object, "}");
	json_object_begin(&reader, buf_span(&object));
	bool good = json_object_next(&reader, &member) == 1;
	buf_release(&object);
	return good;
}
