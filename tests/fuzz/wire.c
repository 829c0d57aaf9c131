/* Any frame is one of three kinds; an answer can be spliced, and what comes out is one line that
 * reads the same but for its id. */
#include "codec/wire.h"

#include "fuzz.h"

const struct span fuzz_seeds[] = {
	SPAN("{\"code\":200,\"messageId\":17,\"value\":\"x\"}"),
	SPAN("{ \"messageId\" : 1e1 ,\r\n \"code\":404 , \"error\":\"\\n,}\" }"),
	SPAN("{\"records\":[{\"messageId\":1}],\"code\":200 , \"m\\u0065ssageId\":3 }"),
	SPAN("{\"type\":\"notification\",\"key\":\"a\",\"value\":null,\"timestamp\":1}"),
};
const size_t fuzz_n_seeds = sizeof(fuzz_seeds) / sizeof(fuzz_seeds[0]);

static bool is_within(struct span part, struct span whole)
{
	return part.p >= whole.p && part.p + part.n <= whole.p + whole.n;
}

/* Reads a spliced line; returns the number of its members. *id is the value of its messageId. */
static int read_line(struct span line, struct json_value *id)
{
	struct json_object_reader r;
	struct json_member m;
	int more, members = 0;

	*id = (struct json_value){0};
	must(memchr(line.p, '\n', line.n) == line.p + line.n - 1);
	must(!memchr(line.p, '\r', line.n));
	json_object_begin(&r, line);
	while ((more = json_object_next(&r, &m)) > 0) {
		members++;
		if (json_string_is(&m.name, SPAN("messageId")))
			*id = m.value;
	}
	must(more == 0);
	return members;
}

static int check_splice(const struct wire_frame *frame, struct span id)
{
	size_t max = wire_splice_max(frame, id);
	char *line = fuzz_memory(max);
	size_t n = wire_splice(frame, id, line);
	struct json_value seen;

	must(n <= max);
	int members = read_line((struct span){line, n}, &seen);
	must(span_equal(seen.text, id));
	free(line);
	return members;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span text = {(const char *)data, size};
	struct wire_frame frame;

	wire_parse(text, &frame);
	must((frame.kind == WIRE_UNUSABLE) == (frame.fault != NULL));
	must(!frame.has_id || frame.id <= WIRE_ID_MAX);
	if (frame.kind == WIRE_NOTIFICATION) {
		must(frame.key.type == JSON_STRING && is_within(frame.key.text, text));
		must(!frame.value.text.p || is_within(frame.value.text, text));
	}
	if (frame.kind == WIRE_ANSWER) {
		must(frame.has_id && frame.code >= 0);
		int members = check_splice(&frame, SPAN("\"another\""));
		must(check_splice(&frame, (struct span){0}) == members - 1);
	}
	return 0;
}
