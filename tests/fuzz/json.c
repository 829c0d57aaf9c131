/* The reader against a second one, written for shortness by the RFC's grammar and as recursive as
 * that is: both must agree on what is an object. And what the reader hands out must be what it says
 * it is. */
#include "codec/json.h"

#include <errno.h>

#include "fuzz.h"

const struct span fuzz_seeds[] = {
	SPAN("{}"),
	SPAN(" { \"a\" : [ 1 , -0.5e+3, true,false ,null, {} , [ ] ] ,\n\"b\":{\"c\":\"d\"} } "),
	SPAN("{\"\\u00e4\\ud83d\\ude00\\ud800\\n\\\"\":\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80 "
	     "plain text\"}"),
	SPAN("{\"a\":[[[[{\"b\":[{}]}]]]],\"a\":100e-2,\"a\":9223372036854775807}"),
};
const size_t fuzz_n_seeds = sizeof(fuzz_seeds) / sizeof(fuzz_seeds[0]);

/* --- the second reader: each function returns what follows the thing that it reads, NULL if it is
 * none --- */

struct text {
	const uint8_t *end;
	int depth;
};

typedef const uint8_t *place;

static int byte_at(const struct text *t, place p)
{
	return p < t->end ? *p : -1;
}

static place space(const struct text *t, place p)
{
	while (byte_at(t, p) == ' ' || byte_at(t, p) == '\t' || byte_at(t, p) == '\n' ||
	       byte_at(t, p) == '\r')
		p++;
	return p;
}

static place utf8(const struct text *t, place p)
{
	int first = *p;
	int more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
	uint32_t c = (uint32_t)first & (0x3fu >> more);

	if (first < 0xc0 || first > 0xf7)
		return NULL;
	for (int i = 1; i <= more; i++) {
		int next = byte_at(t, p + i);
		if (next < 0 || (next & 0xc0) != 0x80)
			return NULL;
		c = c << 6 | ((uint32_t)next & 0x3f);
	}
	static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
	return c < least[more] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? NULL : p + more + 1;
}

static place escape(const struct text *t, place p)
{
	int c = byte_at(t, ++p);

	if (c != 'u')
		return c > 0 && strchr("\"\\/bfnrt", c) ? p + 1 : NULL;
	for (int i = 1; i <= 4; i++) {
		c = byte_at(t, p + i);
		if (c <= 0 || !strchr("0123456789abcdefABCDEF", c))
			return NULL;
	}
	return p + 5;
}

static place string(const struct text *t, place p)
{
	if (byte_at(t, p++) != '"')
		return NULL;
	while (p && byte_at(t, p) != '"') {
		int c = byte_at(t, p);
		if (c < 0x20)
			return NULL;
		p = c == '\\' ? escape(t, p) : c >= 0x80 ? utf8(t, p) : p + 1;
	}
	return p ? p + 1 : NULL;
}

static place digits(const struct text *t, place p)
{
	place start = p;

	while (byte_at(t, p) >= '0' && byte_at(t, p) <= '9')
		p++;
	return p > start ? p : NULL;
}

static place number(const struct text *t, place p)
{
	if (byte_at(t, p) == '-')
		p++;
	p = byte_at(t, p) == '0' ? p + 1 : digits(t, p);
	if (p && byte_at(t, p) == '.')
		p = digits(t, p + 1);
	if (p && (byte_at(t, p) == 'e' || byte_at(t, p) == 'E')) {
		p++;
		if (byte_at(t, p) == '+' || byte_at(t, p) == '-')
			p++;
		p = digits(t, p);
	}
	return p;
}

static place word(const struct text *t, place p, struct span w)
{
	return (size_t)(t->end - p) >= w.n && memcmp(p, w.p, w.n) == 0 ? p + w.n : NULL;
}

static place value(struct text *t, place p);

static place member(struct text *t, place p)
{
	p = string(t, p);
	if (!p)
		return NULL;
	p = space(t, p);
	return byte_at(t, p) == ':' ? value(t, space(t, p + 1)) : NULL;
}

static place container(struct text *t, place p, int close, place (*element)(struct text *, place))
{
	if (++t->depth > JSON_DEPTH_MAX)
		return NULL;
	p = space(t, p + 1);
	for (bool first = true; byte_at(t, p) != close || !first; first = false) {
		p = element(t, p);
		if (!p)
			return NULL;
		p = space(t, p);
		if (byte_at(t, p) == close)
			break;
		if (byte_at(t, p) != ',')
			return NULL;
		p = space(t, p + 1);
	}
	t->depth--;
	return p + 1;
}

static place value(struct text *t, place p)
{
	switch (byte_at(t, p)) {
	case '{':
		return container(t, p, '}', member);
	case '[':
		return container(t, p, ']', value);
	case '"':
		return string(t, p);
	case 't':
		return word(t, p, SPAN("true"));
	case 'f':
		return word(t, p, SPAN("false"));
	case 'n':
		return word(t, p, SPAN("null"));
	default:
		return number(t, p);
	}
}

static bool is_object(const uint8_t *data, size_t size)
{
	struct text t = {.end = data + size};
	place p = space(&t, data);

	if (byte_at(&t, p) != '{')
		return false;
	p = value(&t, p);
	return p && space(&t, p) == t.end;
}

/* --- what is handed out --- */

/* A string decoded and made anew is another way to write the same one. */
static void check_string(const struct json_value *v)
{
	char *plain = fuzz_memory(v->text.n);
	size_t n = json_string_decode(v, plain);

	must(n <= v->text.n - 2);
	must(json_string_is(v, (struct span){plain, n}));
	char *again = fuzz_memory(6 * n + 2);
	size_t len = json_escape((struct span){plain, n}, again + 1) + 2;
	again[0] = again[len - 1] = '"';
	struct text t = {.end = (place)again + len};
	must(string(&t, (place)again) == t.end);
	struct json_value other = {
		.text = {again, len}, .type = JSON_STRING, .escaped = memchr(again, '\\', len)};
	/* A lone surrogate has no other way: it became U+FFFD. */
	if (!v->escaped) {
		must(json_string_same(v, &other));
		must(json_string_hash(v, 1) == json_string_hash(&other, 1));
	}
	must(v->escaped == (memchr(v->text.p, '\\', v->text.n) != NULL));
	free(again);
	free(plain);
}

static void check_array(const struct json_value *array)
{
	struct json_array_reader r;
	struct json_value v;
	const char *at = array->text.p + 1;

	json_array_begin(&r, array);
	while (json_array_next(&r, &v)) {
		must(v.text.p >= at && v.text.n > 0);
		at = v.text.p + v.text.n;
		must(at < array->text.p + array->text.n);
	}
	struct text t = {.end = (place)array->text.p + array->text.n};
	must(byte_at(&t, space(&t, (place)at)) == ']');
}

static void check_value(const struct json_value *v)
{
	struct text t = {.end = (place)v->text.p + v->text.n};
	int64_t integer;

	must(value(&t, (place)v->text.p) == t.end);
	/* strtod() wants an end: in a valid text at least a brace follows, and only such are looked
	 * at. */
	if (v->type == JSON_STRING)
		check_string(v);
	if (v->type == JSON_ARRAY)
		check_array(v);
	if (v->type == JSON_NUMBER && json_number_integer(v, -1000, 1000, &integer))
		must(strtod(v->text.p, NULL) == (double)integer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* strtod() above wants an end: a brace always follows a number, but not in a text that was
	 * cut. */
	struct span text = {(const char *)data, size};
	struct json_object_reader r;
	struct json_member m;
	int more;

	json_object_begin(&r, text);
	bool valid = is_object(data, size);
	while ((more = json_object_next(&r, &m)) > 0) {
		must(m.whole.p == m.name.text.p);
		must(m.whole.p + m.whole.n == m.value.text.p + m.value.text.n);
		check_string(&m.name);
		if (valid)
			check_value(&m.value);
	}
	must(valid == (more == 0));
	must((more == 0) == (r.fault == NULL));
	must(more == 0 || (more == -EBADMSG && r.fault_offset <= size));
	return 0;
}
