/* verdicts.c - for test_verdicts.py: texts, a line of hexadecimal digits each, and for each a line
 * that tells what our reader says of it: "object", or the fault. */
#include "codec/json.h"

#include "fuzz.h"

static size_t decode(char *line, size_t n)
{
	char digits[3] = "";

	for (size_t i = 0; i + 1 < n; i += 2) {
		memcpy(digits, line + i, 2);
		line[i / 2] = (char)strtoul(digits, NULL, 16);
	}
	return n / 2;
}

int main(void)
{
	char *line = NULL;
	size_t size = 0;
	ssize_t n;

	while ((n = getline(&line, &size, stdin)) > 0) {
		struct json_object_reader r;
		struct json_member m;
		int more;

		json_object_begin(&r, (struct span){line, decode(line, (size_t)n - 1)});
		while ((more = json_object_next(&r, &m)) > 0)
			;
		puts(more == 0 ? "object" : r.fault);
	}
	free(line);
	return 0;
}
