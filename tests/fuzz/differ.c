/* Our verdict on a text against cJSON's. Where they differ, the reason is one of those below; each
 * is meant.
 *
 * cJSON accepts, and we refuse (the fault that our reader tells is in the table):
 * - a number with a leading zero, or that lacks a digit (01, 1., -.5e1): cJSON takes what strtod()
 *   takes;
 * - raw control characters in a string, and any control character for white space;
 * - bytes that are not UTF-8, which cJSON does not look at;
 * - a \u without four hexadecimal digits, which cJSON reads as U+0000;
 * - a byte order mark, which cJSON skips;
 * - what is no object, since each of our lines and messages is one.
 *
 * We accept, and cJSON refuses:
 * - half a surrogate pair in an escape (\ud800), which JavaScript's strings may hold;
 * - a number of more than 63 characters, which is beyond cJSON's buffer; from 1.7.19 on it has
 * none;
 * - arrays and objects in each other more than 1000 deep: our bound is 1024.
 *
 * tests/fuzz/test_verdicts.py compares our verdict with that of Python. */
#include <cjson/cJSON.h>

#include "codec/json.h"
#include "fuzz.h"

const struct span fuzz_seeds[] = {
	SPAN("{\"a\":[1,-0.5e+3,true,false,null,{},[]],\"b\":\"\\u00e4\\ud83d\\ude00\"}"),
	SPAN("{\"a\":01}"),
	SPAN("{\"a\":[1.,-.5,1e5,-]}"),
	SPAN("{\"a\":\"\\ud800\",\"b\":\"\\udc00\\ud800\"}"),
	SPAN("\xef\xbb\xbf{\"a\":\"\xff\x01\"}"),
	SPAN("{\x0b\"a\":\x0c"
	     "1}"),
	SPAN("{\"a\":1111111111111111111111111111111111111111111111111111111111111111111}"),
};
const size_t fuzz_n_seeds = sizeof(fuzz_seeds) / sizeof(fuzz_seeds[0]);

enum { CJSON_NUMBER_MAX = 63 };

/* What we refuse for these reasons cJSON may accept. */
static const char *const stricter[] = {
	"a number with a leading zero",          "a number that lacks a digit",
	"a control character in a string",       "bytes that are not UTF-8 in a string",
	"a \\u without four hexadecimal digits", "a byte order mark",
	"something that is not an object",
};

/* Some control character that is not JSON's white space lies at the fault. */
static bool is_strange_space(struct span text, size_t at)
{
	unsigned char c = at < text.n ? (unsigned char)text.p[at] : ' ';

	return c < 0x20 && c != '\t' && c != '\n' && c != '\r';
}

static bool may_refuse(struct span text, const struct json_object_reader *r)
{
	for (size_t i = 0; i < sizeof(stricter) / sizeof(stricter[0]); i++) {
		if (strcmp(r->fault, stricter[i]) == 0)
			return true;
	}
	return is_strange_space(text, r->fault_offset);
}

static uint32_t unit_at(struct span text, size_t i)
{
	char digits[5] = "";

	if (text.n < i + 6 || text.p[i] != '\\' || text.p[i + 1] != 'u')
		return 0;
	memcpy(digits, text.p + i + 2, 4);
	return (uint32_t)strtoul(digits, NULL, 16);
}

/* In a text that we accept: escapes that are half a pair, long numbers, deep nesting. */
static bool may_accept(struct span text)
{
	size_t depth = 0, deepest = 0, number = 0;
	bool quoted = false;

	for (size_t i = 0; i < text.n; i++) {
		char c = text.p[i];
		if (quoted && c == '\\') {
			uint32_t unit = unit_at(text, i), next = unit_at(text, i + 6);
			if (unit >= 0xdc00 && unit < 0xe000)
				return true;
			bool high = unit >= 0xd800 && unit < 0xdc00;
			if (high && (next < 0xdc00 || next >= 0xe000))
				return true;
			i += high ? 11 : 1;
			continue;
		}
		quoted ^= c == '"';
		number = !quoted && memchr("0123456789+-.eE", c, 15) ? number + 1 : 0;
		if (number > CJSON_NUMBER_MAX)
			return true;
		depth += !quoted && (c == '{' || c == '[');
		depth -= !quoted && (c == '}' || c == ']');
		deepest = depth > deepest ? depth : deepest;
	}
	return deepest > CJSON_NESTING_LIMIT;
}

/* Does cJSON take the whole of the text for one value, with nothing but its white space behind? */
static bool cjson_accepts(struct span text)
{
	char *copy = fuzz_memory(text.n + 1);
	const char *end = NULL;

	if (text.n) /* an empty text's p is NULL */
		memcpy(copy, text.p, text.n);
	copy[text.n] = '\0';
	cJSON *value = cJSON_ParseWithLengthOpts(copy, text.n, &end, false);
	bool whole = value != NULL;
	for (size_t at = whole ? (size_t)(end - copy) : text.n; at < text.n; at++)
		whole = whole && (unsigned char)copy[at] <= ' ';
	cJSON_Delete(value);
	free(copy);
	return whole;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span text = {(const char *)data, size};
	struct json_object_reader r;
	struct json_member m;
	int more;

	json_object_begin(&r, text);
	while ((more = json_object_next(&r, &m)) > 0)
		;
	bool ours = more == 0, theirs = cjson_accepts(text);
	must(ours || !theirs || may_refuse(text, &r));
	must(theirs || !ours || may_accept(text));
	return 0;
}
