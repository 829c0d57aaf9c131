#include "filename.h"

#include "codec/json.h"

static char *put_escape(char *out, unsigned char c)
{
	static const char digits[] = "0123456789ABCDEF";

	*out++ = '%';
	*out++ = digits[c >> 4];
	*out++ = digits[c & 15];
	return out;
}

/* How many bytes at p are a character that may stand in a name; 0: the byte is none. */
static size_t character(const unsigned char *p, size_t left)
{
	if (*p < 0x80)
		return *p > ' ' && *p != 0x7f && *p != '%' && *p != '/';
	size_t n = *p < 0xe0 ? 2 : *p < 0xf0 ? 3 : 4;
	if (n > left || json_escapable((struct span){(const char *)p, n}) < n)
		return 0;
	bool control = p[0] == 0xc2 && p[1] < 0xa0, surrogate = p[0] == 0xed && p[1] >= 0xa0;
	return control || surrogate ? 0 : n;
}

static char *put_part(char *out, struct span part)
{
	for (size_t i = 0; i < part.n;) {
		const unsigned char *p = (const unsigned char *)part.p + i;
		size_t n = *p == '.' && i == 0 ? 0 : character(p, part.n - i);
		if (n)
			memcpy(out, p, n);
		out = n ? out + n : put_escape(out, *p);
		i += n ? n : 1;
	}
	if (!part.n)
		*out++ = '%';
	return out;
}

size_t filename_of(struct span key, bool folders, char *out)
{
	const char *end = key.p + key.n;
	char *at = out;

	for (;;) {
		const char *slash = folders && key.n ? memchr(key.p, '/', key.n) : NULL;
		struct span part = {key.p, slash ? (size_t)(slash - key.p) : key.n};
		at = put_part(at, part);
		if (!slash)
			break;
		*at++ = '/';
		key = (struct span){slash + 1, (size_t)(end - slash) - 1};
	}
	*at = '\0';
	return (size_t)(at - out);
}

bool filename_fits(const char *name)
{
	for (;;) {
		const char *slash = strchr(name, '/');
		size_t n = slash ? (size_t)(slash - name) : strlen(name);
		if (n > FILENAME_PART_MAX)
			return false;
		if (!slash)
			return true;
		name = slash + 1;
	}
}
