/* Whatever the daemon says, a user of the library is handed strings with a NUL behind them, and a
 * line that is an object; whatever a user asks to subscribe to, the library can forget again. */
#include "decode.h"
#include "topics.h"

#include "fuzz.h"

const struct span fuzz_seeds[] = {
	SPAN("{\"code\":200,\"key\":\"k\",\"value\":\"x\\u0000\\ud800\",\"messageId\":17}"),
	SPAN("{\"messageId\" : 1e1 ,\"code\":404 , \"error\":\"\\n,}\" }"),
	SPAN("{\"records\":[{\"key\":\"a\",\"value\":1},{\"key\":null},7],\"code\":200,"
	     "\"truncated\":true}"),
	SPAN("{\"code\":504,\"error\":\"e\",\"reason\":\"timeout\",\"executed\":\"unknown\","
	     "\"messageId\":3}"),
	SPAN("{\"type\":\"notification\",\"key\":\"a\",\"value\":null,\"timestamp\":1,\"skipped\":"
	     "2}"),
	SPAN("{\"type\":\"gap\",\"pattern\":\"a*\",\"since\":1,\"until\":2}"),
	SPAN("{\"code\":503,\"error\":\"e\",\"reason\":\"shutting_down\",\"executed\":\"no\","
	     "\"retryAfterMs\":50,\"messageId\":4}"),
	SPAN("{\"type\":\"connection\",\"state\":\"disconnected\",\"reason\":\"shutting_down\"}"),
	SPAN("{\"code\":200,\"token\":\"a.b\",\"cached\":true,\"stale\":5,\"newValue\":-1e3,"
	     "\"messageId\":18446744073709551615}"),
	SPAN("{\"op\":\"subscribe\",\"keys\":[\"a\",\"\",\"a\",3],\"key\":\"b\",\"pattern\":\"*"
	     "\"}"),
};
const size_t fuzz_n_seeds = sizeof(fuzz_seeds) / sizeof(fuzz_seeds[0]);

/* Reads each byte, so that the sanitizers see where it lies. */
static void check_bytes(struct hpkv_bytes bytes)
{
	volatile char sum = 0;

	must(bytes.p || !bytes.n);
	for (size_t i = 0; i < bytes.n; i++)
		sum = (char)(sum + bytes.p[i]);
	must(!bytes.p || bytes.p[bytes.n] == '\0');
}

static void check_object(struct hpkv_bytes line)
{
	struct json_object_reader r;
	struct json_member m;
	int more;

	check_bytes(line);
	json_object_begin(&r, (struct span){line.p, line.n});
	while ((more = json_object_next(&r, &m)) > 0)
		;
	must(more == 0);
}

static void check_answer(struct decode_store *s, const struct decoded *d, struct span user_id)
{
	decode_answer(s, d, false, user_id);
	must((s->answer.result == HPKV_OK) == !*s->answer.error);
	check_bytes(hpkv_str(s->answer.reason));
	check_bytes(s->answer.value);
	for (size_t i = 0; i < s->answer.n_records; i++) {
		check_bytes(s->answer.records[i].key);
		check_bytes(s->answer.records[i].value);
	}
	check_object(s->answer.line);
}

/* What the library concludes from a line does not contradict itself. */
static void check_conclusions(const struct decoded *d)
{
	if (decode_is_farewell(d))
		must(decode_id(d) == 0);
	if (decode_is_outcome_unknown(d))
		must(!decode_is_shutting_down(d));
}

static void check_topics(struct span line)
{
	struct topics t = {.all = TAILQ_HEAD_INITIALIZER(t.all)};
	size_t n = 0;
	struct topic *topic;

	must(topics_sent(&t, line, 1, true) == 0);
	topics_answered(&t, line, 1, true);
	TAILQ_FOREACH (topic, &t.all, link)
		n += topic->live;
	must(n == t.n_live);
	must(topics_sent(&t, line, 2, false) == 0);
	must(TAILQ_EMPTY(&t.all) && t.n_live == 0);
	must(topics_sent(&t, line, 3, true) == 0);
	topics_answered(&t, line, 3, false);
	must(TAILQ_EMPTY(&t.all));
	topics_clear(&t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span text = {(const char *)data, size};
	struct decode_store store = {0};
	struct decoded d;

	if (!decode_line(text, &d))
		return 0;
	check_conclusions(&d);
	check_answer(&store, &d, (struct span){0});
	check_answer(&store, &d, SPAN("\"mine\""));
	must(decode_event(&store, &d));
	check_bytes(store.event.key);
	check_bytes(store.event.value);
	check_bytes(store.event.pattern);
	check_bytes(store.event.line);
	decode_free(&store);
	check_topics(text);
	return 0;
}
