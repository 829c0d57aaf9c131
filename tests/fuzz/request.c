/* A line is refused with a sentence that can be shown, or accepted and can be sent as a frame that
 * is JSON. */
#include "codec/request.h"

#include <errno.h>

#include "fuzz.h"
#include "codec/wire.h"

const struct span fuzz_seeds[] = {
	SPAN("{\"op\":\"get\",\"key\":\"a\",\"messageId\":1}"),
	SPAN("{\"op\":2,\"key\":\"a\",\"value\":{\"b\" : [1,\"\\\"\\\\ \"]},\"timeoutMs\":5e2}"),
	SPAN("{\"op\":\"range\",\"key\":\"a\",\"endKey\":\"b\",\"limit\":10}"),
	SPAN("{\"op\":\"increment\",\"key\":\"a\",\"value\":-1.5,\"messageId\":\"\\u0061\"}"),
	SPAN("{\"op\":\"token\",\"subscribeKeys\":[\"a\"],\"subscribePatterns\":[],"
	     "\"accessPattern\":\"x\"}"),
	SPAN("{\"messageId\":7,\"op\":\"nonsense\"}"),
};
const size_t fuzz_n_seeds = sizeof(fuzz_seeds) / sizeof(fuzz_seeds[0]);

static void check_object(struct span text)
{
	struct json_object_reader r;
	struct json_member m;
	int more;

	json_object_begin(&r, text);
	while ((more = json_object_next(&r, &m)) > 0)
		must(!m.value.escaped || m.value.type == JSON_STRING);
	must(more == 0);
}

static void check_refused(const struct request_fault *fault)
{
	struct buf line = {0};
	struct span text = {fault->text, strnlen(fault->text, REQUEST_FAULT_MAX)};

	must(text.n > 0 && text.n < REQUEST_FAULT_MAX);
	for (size_t i = 0; i < text.n; i++)
		must(text.p[i] >= 0x20 && text.p[i] < 0x7f);
	must(fault->id.n <= REQUEST_ID_MAX);
	reply_error(&line, fault->error, fault->id, fault->text, -1);
	check_object(buf_span(&line));
	must(memchr(buf_span(&line).p, '\n', buf_len(&line)) ==
	     buf_span(&line).p + buf_len(&line) - 1);
	buf_release(&line);
}

static void check_frame(const struct request *r)
{
	size_t max = WIRE_HEAD_MAX + wire_body_max(r);
	char *frame = fuzz_memory(max);
	size_t n = wire_head(frame, WIRE_ID_MAX);
	char *body = fuzz_memory(wire_body_max(r));
	size_t body_n = wire_body(r, body);

	must(body_n <= wire_body_max(r));
	memcpy(frame + n, body, body_n);
	check_object((struct span){frame, n + body_n});
	free(body);
	free(frame);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct request r;
	struct request_fault fault;
	int error = request_parse((struct span){(const char *)data, size}, &r, &fault);

	if (error) {
		must(error == -EBADMSG);
		check_refused(&fault);
		return 0;
	}
	must(r.id.n <= REQUEST_ID_MAX && r.timeout_ms <= REQUEST_TIMEOUT_MAX_MS);
	must(request_op_name(r.op) != NULL);
	must(!request_op_has_key(r.op) || r.key.type == JSON_STRING);
	if (request_op_is_remote(r.op))
		check_frame(&r);
	return 0;
}
