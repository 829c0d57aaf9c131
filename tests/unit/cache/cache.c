/* The cache by itself, with the real router and the real subscriptions: what is remembered, served
 * and asked for, and when. The order of everything, drawn by lot, is truthful.c's. */
#include "../logged.h"
#include "../router_ops.h"
#include "../test.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/mem.h"
#include "cache/cache.h"
#include "cache/entry.h"

enum { PEERS = 2, SENT_MAX = 300, TIMEOUT = 1000, MAX_AGE = 10000 };

static struct {
	struct router *router;
	struct subscriptions *subscriptions;
	struct cache *cache;
	struct cache_settings settings;
	struct stats stats;
	struct peer peer[PEERS];
	char *sent[SENT_MAX]; /* frames */
	size_t n;
	int64_t now, slept, wake;
	char told[1 << 17];
} w;

/* ---- what the rooms ask for ---- */

static void send_frame(void *owner, struct span head, struct span body)
{
	(void)owner;
	assert_true(w.n < SENT_MAX);
	w.sent[w.n++] = frame_text(head, body);
}

static void changed(void *owner, struct peer *peer)
{
	(void)owner;
	if (cache_is_peer(w.cache, peer))
		cache_heard(w.cache);
}

static void deferred_turn(void *owner, struct pending *p)
{
	(void)owner;
	subscriptions_deferred_turn(w.subscriptions, p);
}

static const char *deferred_end(void *owner, struct pending *p)
{
	(void)owner;
	return subscriptions_deferred_end(w.subscriptions, p);
}

static const struct router_ops router_ops = {
	.send = send_frame,
	.sendable = always_sendable,
	.reconnect_ms = no_reconnect_ms,
	.changed = changed,
	.wake_at = ignore_wake_at,
	.connection_idle = ignore_connection_idle,
	.deferred_turn = deferred_turn,
	.deferred_end = deferred_end,
	.forbids = forbid_nothing,
};

static void nothing_wanted(void *owner)
{
	(void)owner;
}

static const char *no_reason(void *owner)
{
	(void)owner;
	return NULL;
}

static int64_t mono_ms(void)
{
	return w.now;
}

static int64_t boot_ms(void)
{
	return w.now + w.slept;
}

static const struct subscriptions_ops subscriptions_ops = {
	.changed = changed,
	.wanted = nothing_wanted,
	.why_not_live = no_reason,
	.wall_ms = boot_ms,
	.boot_ms = boot_ms,
	.mono_ms = mono_ms,
};

static void wake_at(void *owner, int64_t at)
{
	assert_ptr_equal(owner, &w);
	assert_true(w.wake < 0 || at < w.wake); /* sooner than was said before */
	w.wake = at;
}

static const struct cache_ops cache_ops = {
	.mono_ms = mono_ms, .boot_ms = boot_ms, .wake_at = wake_at};

/* ---- time ---- */

/* Runs the cache's timer if it is due. */
static void turn(void)
{
	int times = 0;

	while (w.wake >= 0 && w.wake <= w.now) {
		w.wake = -1;
		w.wake = cache_expire(w.cache, w.now);
		assert_true(++times < 20); /* it ends */
	}
}

static void later(int64_t ms)
{
	w.now += ms;
	router_expire(w.router, w.now);
	turn();
}

/* ---- the service ---- */

static uint32_t connection;

static void connect_by(bool move)
{
	struct buf list = {0};

	subscriptions_make_list(w.subscriptions, 1 << 20, &list);
	buf_release(&list);
	cache_up(w.cache);
	if (move)
		router_move(w.router, ++connection, w.now);
	else
		router_up(w.router, ++connection, w.now);
	subscriptions_live(w.subscriptions);
	cache_live(w.cache, true);
	turn();
}

static void connect(void)
{
	connect_by(false);
}

/* Another connection takes over. */
static void move(void)
{
	connect_by(true);
}

static void lose(void)
{
	cache_lost(w.cache, boot_ms() - 3);
	subscriptions_lost(w.subscriptions, boot_ms() - 3);
	router_lost(w.router, connection, 1000, false, w.now);
	turn();
}

static const char *frame(size_t i)
{
	assert_true(i < w.n);
	return w.sent[i];
}

#define assert_sent(i, part)                                                                       \
	do {                                                                                       \
		if (!strstr(frame(i), part))                                                       \
			fail_msg("%s without %s", frame(i), part);                                 \
	} while (0)

/* members: of the answer, without its messageId. */
static void answer(size_t i, const char *members)
{
	struct buf text = {0};
	struct wire_frame f;
	const char *id = strstr(frame(i), "\"messageId\":");

	assert_non_null(id);
	buf_addf(&text, "{%s,\"messageId\":%llu}", members, strtoull(id + 12, NULL, 10));
	struct span copy = copy_of(buf_span(&text));
	wire_parse(copy, &f);
	assert_int_equal(WIRE_ANSWER, f.kind);
	router_frame(w.router, &f, w.now);
	free_copy(copy);
	buf_release(&text);
	turn();
}

#define VALUE(key, value) "\"code\":200,\"key\":\"" key "\",\"value\":\"" value "\""
#define MISSING "\"code\":404,\"error\":\"Record not found\""
#define RECORD(key, value) "{\"key\":\"" key "\",\"value\":\"" value "\"}"
#define PAGE(records, truncated) "\"code\":200,\"records\":[" records "],\"truncated\":" #truncated

/* A notification arrives; it is told, too, or held back. */
static void arrives(const char *key, const char *value, bool told)
{
	static int timestamp;
	struct buf text = {0};
	struct wire_frame f;

	buf_addf(&text, "{\"type\":\"notification\",\"key\":\"%s\",\"value\":%s,\"timestamp\":%d}",
		 key, value, ++timestamp);
	wire_parse(buf_span(&text), &f);
	assert_int_equal(WIRE_NOTIFICATION, f.kind);
	struct notification n = notification_of(&f, subscriptions_seed(w.subscriptions));
	cache_arrived(w.cache, &f);
	if (told) {
		cache_change(w.cache, &f, &n);
		subscriptions_change(w.subscriptions, &f, &n);
	}
	buf_release(&text);
	turn();
}

static void note(const char *key, const char *value)
{
	arrives(key, value, true);
}

/* ---- clients ---- */

static void ask(size_t peer, const char *line)
{
	struct request request;
	struct request_fault fault;
	struct span copy = copy_of(span_of(line));

	if (request_parse(copy, &request, &fault) < 0)
		fail_msg("%s: %s", line, fault.text);
	if (!cache_answers(w.cache, &w.peer[peer], &request, w.now))
		router_request(w.router, &w.peer[peer], &request, w.now);
	free_copy(copy);
	turn();
}

static void get(size_t peer, const char *key)
{
	static char line[1 << 17];

	snprintf(line, sizeof(line), "{\"op\":\"get\",\"key\":\"%s\",\"messageId\":7}", key);
	ask(peer, line);
}

static void get_fresh(size_t peer, const char *key)
{
	char line[200];

	snprintf(line, sizeof(line), "{\"op\":\"get\",\"key\":\"%s\",\"fresh\":true}", key);
	ask(peer, line);
}

static const char *told(size_t peer)
{
	struct iovec iov[1];
	size_t at = 0;

	while (outq_iov(&w.peer[peer].out, iov, 1)) {
		assert_true(at + iov[0].iov_len < sizeof(w.told));
		memcpy(w.told + at, iov[0].iov_base, iov[0].iov_len);
		at += iov[0].iov_len;
		outq_take(&w.peer[peer].out, iov[0].iov_len);
	}
	w.told[at] = '\0';
	assert_int_equal(at, strlen(w.told));
	return w.told;
}

#define assert_told(peer, part)                                                                    \
	do {                                                                                       \
		const char *seen_ = told(peer);                                                    \
		if (!strstr(seen_, part))                                                          \
			fail_msg("\"%s\" without %s", seen_, part);                                \
	} while (0)

/* Is a get answered from memory, with this value? Otherwise it is asked of the service. */
static bool remembers(const char *key, const char *value)
{
	char want[100];
	size_t before = w.n;

	told(1);
	get(1, key);
	bool here = w.n == before;
	const char *line = told(1);
	snprintf(want, sizeof(want), "\"value\":\"%s\"", value);
	if (here && line[0] && (!strstr(line, want) || !strstr(line, "\"cached\":true")))
		fail_msg("%s instead of %s", line, value);
	return here && line[0];
}

/* It is asked, answered so, and remembered. */
static void read_key(const char *key, const char *members)
{
	get(0, key);
	answer(w.n - 1, members);
	told(0);
}

static size_t entries(void)
{
	return cache_counts(w.cache).entries;
}

/* ---- a test ---- */

static const char *const some_keys[] = {"k:*", "exact"}, *const some_mirrors[] = {"m:*"};

static int set_up(void **state)
{
	(void)state;
	log_set_level(LOG_LEVEL_ERROR);
	memset(&w, 0, sizeof(w));
	w.now = 1000;
	w.wake = -1;
	w.settings = (struct cache_settings){.keys = some_keys,
					     .n_keys = COUNT(some_keys),
					     .memory = 1 << 20,
					     .max_age_ms = MAX_AGE,
					     .request_timeout_ms = TIMEOUT,
					     .reads_at_once = 2};
	return 0;
}

static void begin_with(unsigned max_in_flight)
{
	const struct router_settings router = {.max_in_flight = max_in_flight,
					       .max_pipeline = 10000,
					       .request_timeout_ms = TIMEOUT,
					       .max_waiting_bytes = 1 << 22,
					       .max_peer_waiting_bytes = 1 << 20};
	static const struct subscriptions_settings subscriptions = {.output_soft = 1 << 20,
								    .reads_at_once = 3,
								    .held_bytes = 1 << 16,
								    .max_subs = 1000,
								    .max_peer_subs = 1000,
								    .max_peer_globs = 100,
								    .max_topics = 1000,
								    .max_bytes = 1 << 24};

	w.router = router_new(&router, &router_ops, NULL, &w.stats, 1);
	w.subscriptions =
		subscriptions_new(&subscriptions, &subscriptions_ops, NULL, w.router, &w.stats, 1);
	w.cache = cache_new(&w.settings, &cache_ops, &w, w.router, w.subscriptions, &w.stats, 1);
	for (size_t i = 0; i < PEERS; i++) {
		w.peer[i].number = i + 1;
		router_join(w.router, &w.peer[i]);
		subscriptions_join(w.subscriptions, &w.peer[i]);
	}
	turn();
}

static void begin(void)
{
	begin_with(1000);
	connect();
}

static void begin_mirror(void)
{
	w.settings.mirrors = some_mirrors;
	w.settings.n_mirrors = 1;
	begin();
}

static void load(void)
{
	answer(w.n - 1, PAGE(RECORD("m:1", "a") "," RECORD("m:3", "c"), false));
	assert_string_equal("whole", cache_mirror(w.cache, 0).state);
}

static int tear_down(void **state)
{
	(void)state;
	for (size_t i = 0; i < PEERS; i++) {
		router_leave(w.router, &w.peer[i], w.now);
		subscriptions_leave(w.subscriptions, &w.peer[i]);
		outq_fini(&w.peer[i].out);
	}
	cache_leave(w.cache);
	size_t before = w.n;
	w.wake = -1;
	cache_expire(w.cache, w.now + 10 * MAX_AGE); /* it asks for nothing any more */
	assert_int_equal(w.n, before);
	subscriptions_stop(w.subscriptions);
	router_free(w.router);
	cache_free(w.cache);
	subscriptions_free(w.subscriptions);
	for (size_t i = 0; i < w.n; i++)
		free(w.sent[i]);
	return 0;
}

/* ---- gets ---- */

static void what_was_read_is_served(void **state)
{
	(void)state;
	begin();
	assert_true(cache_counts(w.cache).live);
	ask(0, "{\"op\":\"get\",\"key\":\"k:1\",\"messageId\":1}");
	assert_int_equal(w.n, 1);
	answer(0, VALUE("k:1", "a"));
	assert_string_equal("{\"code\":200,\"key\":\"k:1\",\"value\":\"a\",\"messageId\":1}\n",
			    told(0));
	ask(1, "{\"op\":\"get\",\"key\":\"k:\\u0031\",\"messageId\":\"x\"}");
	assert_string_equal("{\"code\":200,\"key\":\"k:1\",\"value\":\"a\",\"messageId\":\"x\","
			    "\"cached\":true}\n",
			    told(1));
	assert_int_equal(w.n, 1);
	assert_int_equal(w.stats.cache_misses, 1);
	assert_int_equal(w.stats.cache_hits, 1);
	assert_int_equal(w.stats.requests_saved, 1);
	assert_int_equal(w.stats.ended[OP_GET][OUTCOME_OK], 2);
	ask(1, "{\"op\":\"get\",\"key\":\"\\u006b:1\",\"messageId\":\"x\"}");
	assert_told(1, "\"cached\":true");
	assert_int_equal(w.stats.cache_stale_hits, 0);
	read_key("exact", VALUE("exact", "e"));
	assert_true(remembers("exact", "e"));
	assert_int_equal(entries(), 2);
}

static void keys_of_no_pattern_are_not_remembered(void **state)
{
	(void)state;
	begin();
	read_key("other", VALUE("other", "a"));
	assert_false(remembers("other", "a"));
	ask(0, "{\"op\":\"set\",\"key\":\"exactly\",\"value\":\"1\"}");
	assert_int_equal(w.stats.cache_misses, 0);
	assert_int_equal(cache_counts(w.cache).bytes, 0);
}

static void a_missing_record_is_remembered_and_an_error_is_not(void **state)
{
	(void)state;
	begin();
	read_key("k:1", MISSING);
	get(1, "k:1");
	assert_told(1, "\"code\":404");
	assert_int_equal(w.n, 1);
	assert_int_equal(w.stats.ended[OP_GET][OUTCOME_OK], 0);
	read_key("k:2", "\"code\":500,\"error\":\"oops\"");
	assert_false(remembers("k:2", ""));
	read_key("k:3", "\"code\":200,\"key\":\"k:3\"");
	assert_false(remembers("k:3", ""));
	assert_int_equal(entries(), 1);
}

static void fresh_asks_the_service(void **state)
{
	(void)state;
	begin();
	read_key("k:1", VALUE("k:1", "a"));
	ask(0, "{\"op\":\"get\",\"key\":\"k:1\",\"fresh\":true}");
	assert_int_equal(w.n, 2);
	answer(1, VALUE("k:1", "b"));
	assert_true(remembers("k:1", "b"));
	assert_int_equal(w.stats.cache_invalidations, 1);
}

static void values_are_served_for_max_age(void **state)
{
	(void)state;
	begin();
	read_key("k:1", VALUE("k:1", "a"));
	later(MAX_AGE);
	assert_true(remembers("k:1", "a"));
	ask(0, "{\"op\":\"get\",\"key\":\"k:1\",\"fresh\":true}");
	answer(w.n - 1, VALUE("k:1", "a")); /* confirmed */
	later(MAX_AGE);
	assert_true(remembers("k:1", "a"));
	later(1);
	assert_false(remembers("k:1", "a"));
	answer(w.n - 1, VALUE("k:1", "a"));
	w.slept += MAX_AGE; /* the machine slept */
	assert_true(remembers("k:1", "a"));
	w.now++; /* this clock goes on */
	assert_false(remembers("k:1", "a"));
}

static void a_client_gets_its_answers_in_order(void **state)
{
	(void)state;
	begin();
	read_key("k:1", VALUE("k:1", "a"));
	read_key("k:2", VALUE("k:2", "b"));
	ask(1, "{\"op\":\"get\",\"key\":\"k:1\",\"fresh\":true,\"messageId\":1}");
	assert_false(remembers("k:1", "a")); /* its former get may bring a newer one */
	assert_true(remembers("k:2", "b"));
	get(0, "k:1");
	assert_told(0, "\"cached\":true");
}

static void answers_without_an_id_keep_their_order(void **state)
{
	(void)state;
	begin();
	read_key("k:1", VALUE("k:1", "a"));
	ask(1, "{\"op\":\"get\",\"key\":\"other\"}");
	ask(1, "{\"op\":\"get\",\"key\":\"k:1\"}");
	assert_string_equal("", told(1));
	get(1, "k:1");
	assert_told(1, "\"messageId\":7,\"cached\":true");
	answer(1, MISSING);
	assert_told(1, "\"value\":\"a\",\"cached\":true}\n");
}

/* It is not looked for among very many. */
static void a_client_with_very_many_requests_waits_for_them(void **state)
{
	(void)state;
	begin();
	read_key("k:1", VALUE("k:1", "a"));
	for (int i = 0; i < 256; i++)
		get(1, "other");
	assert_true(remembers("k:1", "a"));
	get(1, "other");
	assert_false(remembers("k:1", "a"));
}

static void a_get_that_has_waited_is_served(void **state)
{
	(void)state;
	begin_with(1);
	connect();
	for (size_t i = 0; i < 2; i++)
		get(i, "k:1");
	get(1, "k:1"); /* behind one of its own */
	assert_int_equal(w.n, 1);
	answer(0, VALUE("k:1", "a"));
	assert_told(0, "\"value\":\"a\",\"messageId\":7}");
	assert_string_equal("{\"code\":200,\"key\":\"k:1\",\"value\":\"a\",\"messageId\":7,"
			    "\"cached\":true}\n"
			    "{\"code\":200,\"key\":\"k:1\",\"value\":\"a\",\"messageId\":7,"
			    "\"cached\":true}\n",
			    told(1));
	assert_int_equal(w.n, 1);
	assert_int_equal(w.stats.cache_hits, 2);
}

static void a_value_larger_than_the_memory_ends_no_others(void **state)
{
	char members[400];

	(void)state;
	w.settings.memory = 200;
	begin();
	read_key("k:1", VALUE("k:1", "a"));
	snprintf(members, sizeof(members), "\"code\":200,\"key\":\"k:2\",\"value\":\"%0*d\"",
		 200 - ENTRY_COUNTED - 3 - 1, 0); /* with its quotes one byte too long */
	read_key("k:2", members);
	assert_true(remembers("k:1", "a"));
	assert_false(remembers("k:2", ""));
	snprintf(members, sizeof(members), "\"code\":200,\"key\":\"k:3\",\"value\":\"%0*d\"",
		 200 - ENTRY_COUNTED - 3 - 2, 0);
	answer(w.n - 1, MISSING);
	read_key("k:3", members);
	assert_int_equal(entries(), 1); /* all others gave way */
	assert_int_equal(cache_counts(w.cache).bytes, 200);
}

static void what_was_not_used_for_longest_gives_way(void **state)
{
	(void)state;
	w.settings.memory = 2 * (ENTRY_COUNTED + 6);
	begin();
	read_key("k:1", VALUE("k:1", "a"));
	read_key("k:2", VALUE("k:2", "b"));
	assert_true(remembers("k:1", "a"));
	read_key("k:3", VALUE("k:3", "c"));
	assert_true(remembers("k:1", "a"));
	assert_true(remembers("k:3", "c"));
	assert_false(remembers("k:2", "b"));
}

static void answers_of_many_forms_are_kept(void **state)
{
	char members[500], key[16];

	(void)state;
	w.settings.memory = 4000;
	begin();
	for (int i = 0; i < 20; i++) {
		snprintf(key, sizeof(key), "k:%d", i);
		snprintf(members, sizeof(members),
			 "\"code\":200,\"key\":\"%s\",\"value\":\"x\",\"m%0*d\":1", key, 200, i);
		read_key(key, members);
	}
	assert_int_equal(entries(), 20);
}

static void the_longest_keys_are_remembered(void **state)
{
	static char key[ENTRY_KEY_MAX + 2], members[ENTRY_KEY_MAX + 100];

	(void)state;
	begin();
	for (int n = ENTRY_KEY_MAX; n <= ENTRY_KEY_MAX + 1; n++) {
		snprintf(key, sizeof(key), "k:%0*d", n - 2, 0);
		snprintf(members, sizeof(members), "\"code\":200,\"key\":\"%s\",\"value\":\"a\"",
			 key);
		read_key(key, members);
	}
	assert_int_equal(entries(), 1);
}

static void values_are_kept_as_lines(void **state)
{
	(void)state;
	begin();
	get(0, "k:1");
	answer(0, "\"code\":200,\n\"key\":\"k:1\",\"value\":{\n}");
	get(1, "k:1");
	const char *line = told(1);
	assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
	assert_non_null(strstr(line, "\"cached\":true"));
}

/* ---- what ends a value ---- */

static void an_own_write_ends_it(void **state)
{
	(void)state;
	begin();
	read_key("k:1", VALUE("k:1", "a"));
	ask(0, "{\"op\":\"set\",\"key\":\"k:1\",\"value\":\"b\"}");
	assert_int_equal(w.stats.cache_invalidations, 1);
	assert_false(remembers("k:1", "a"));
	answer(2, VALUE("k:1", "b"));
	assert_false(remembers("k:1", "b")); /* the write is not over */
	answer(3, VALUE("k:1", "b"));
	get(0, "k:1");
	answer(1, "\"code\":200");
	answer(4, VALUE("k:1", "a")); /* it was sent before the write was over */
	assert_false(remembers("k:1", "b"));
	answer(w.n - 1, VALUE("k:1", "b"));
	assert_true(remembers("k:1", "b"));
	assert_int_equal(entries(), 1);
}

static void a_notification_ends_it(void **state)
{
	(void)state;
	begin();
	read_key("k:1", VALUE("k:1", "a"));
	read_key("k:2", VALUE("k:2", "a"));
	size_t before = cache_counts(w.cache).bytes;
	note("k:1", "\"b\"");
	assert_int_equal(cache_counts(w.cache).bytes, before / 2);
	assert_true(remembers("k:2", "a"));
	assert_false(remembers("k:1", "a"));
	assert_int_equal(w.stats.cache_invalidations, 1);
	note("k:1", "\"c\"");
	answer(w.n - 1, VALUE("k:1", "b")); /* they have crossed */
	assert_false(remembers("k:1", "b"));
	answer(w.n - 1, VALUE("k:1", "c"));
	assert_true(remembers("k:1", "c"));
	note("k:1", "\"c\""); /* it may have been another in between */
	assert_false(remembers("k:1", "c"));
	answer(w.n - 1, VALUE("k:1", "c"));
	note("k:9", "\"x\"");
	assert_int_equal(entries(), 2);
}

/* The notification of the value that is known: an answer that is on its way may be older. */
static void a_confirmation_ends_what_is_on_its_way(void **state)
{
	(void)state;
	w.settings.trust = true;
	begin();
	read_key("k:1", VALUE("k:1", "a"));
	ask(0, "{\"op\":\"get\",\"key\":\"k:1\",\"fresh\":true}");
	note("k:1", "\"a\"");
	assert_true(remembers("k:1", "a"));
	answer(w.n - 1, VALUE("k:1", "z"));
	assert_false(remembers("k:1", "z"));
}

static void a_range_tells_of_keys(void **state)
{
	(void)state;
	begin();
	read_key("k:0", VALUE("k:0", "z"));
	read_key("k:1", VALUE("k:1", "a"));
	read_key("k:2", VALUE("k:2", "b"));
	read_key("k:3", VALUE("k:3", "c"));
	read_key("k:4", VALUE("k:4", "d"));
	read_key("k:5", VALUE("k:5", "e"));
	later(MAX_AGE);
	ask(0, "{\"op\":\"range\",\"key\":\"k:\\u0031\",\"endKey\":\"k:5\",\"messageId\":1}");
	answer(w.n - 1,
	       PAGE(RECORD("k:1", "a") "," RECORD("k:3", "c") "," RECORD("k:4", "y"), true));
	assert_true(remembers("k:0", "z")); /* it is before the range */
	assert_int_equal(w.stats.cache_invalidations, 2);
	later(1);
	assert_true(remembers("k:1", "a"));  /* confirmed */
	assert_false(remembers("k:2", "b")); /* it is gone */
	assert_true(remembers("k:3", "c"));
	assert_false(remembers("k:4", "d")); /* changed */
	assert_false(remembers("k:5", "e")); /* not told of: too old by now */
	assert_int_equal(w.stats.cache_invalidations, 2);
}

/* The client is told all of it. */
static void a_range_that_can_not_be_read_ends_all(void **state)
{
	static const char *const records[] = {
		PAGE(RECORD("k:1", "a") "," RECORD("k:0", "c") "," RECORD("k:2", "new"), true),
		PAGE(RECORD("k:1", "a") ",{\"key\":5,\"value\":\"x\"}," RECORD("k:2", "new"), true),
	};

	(void)state;
	begin();
	for (size_t i = 0; i < COUNT(records); i++) {
		read_key("k:2", VALUE("k:2", "old"));
		assert_true(remembers("k:2", "old"));
		ask(0, "{\"op\":\"range\",\"key\":\"k:\",\"endKey\":\"k:9\"}");
		answer(w.n - 1, records[i]);
		assert_told(0, "new");
		assert_false(remembers("k:2", "old"));
		answer(w.n - 1, "\"code\":500,\"error\":\"oops\"");
	}
}

static void a_range_tells_of_its_end(void **state)
{
	(void)state;
	begin();
	read_key("k:1", VALUE("k:1", "a"));
	read_key("k:2", VALUE("k:2", "b"));
	read_key("k:3", VALUE("k:3", "c"));
	read_key("k:4", VALUE("k:4", "d"));
	get_fresh(0, "k:2"); /* in flight: they stay */
	get_fresh(0, "k:3");
	ask(1, "{\"op\":\"range\",\"key\":\"k:2\",\"endKey\":\"k:3\",\"messageId\":1}");
	answer(w.n - 1, PAGE("", false));
	assert_int_equal(entries(), 2);
	assert_true(remembers("k:1", "a") && remembers("k:4", "d"));
	ask(1, "{\"op\":\"range\",\"key\":\"k:1\",\"endKey\":\"k:3\",\"messageId\":1}");
	answer(w.n - 1, PAGE(RECORD("k:1", "a"), false));
	assert_true(remembers("k:1", "a"));
	ask(1, "{\"op\":\"range\",\"key\":\"k:1\",\"endKey\":\"k:4\",\"messageId\":1}");
	answer(w.n - 1, "\"code\":500,\"error\":\"oops\",\"records\":[],\"truncated\":false");
	assert_true(remembers("k:4", "d"));
}

/* ---- connections ---- */

static void a_loss_ends_all(void **state)
{
	(void)state;
	begin();
	read_key("k:1", VALUE("k:1", "a"));
	lose();
	assert_false(cache_counts(w.cache).live);
	assert_int_equal(entries(), 0);
	assert_int_equal(w.stats.cache_invalidations, 1);
}

static void what_is_remembered_is_served_after_a_loss_and_marked(void **state)
{
	(void)state;
	w.settings.max_stale_ms = 500;
	w.settings.max_age_ms = 200;
	begin();
	read_key("k:1", VALUE("k:1", "a"));
	later(150);
	lose();
	get(1, "k:1");
	assert_told(1, ",\"cached\":true,\"stale\":true,\"ageMs\":3}\n");
	later(500); /* the value grows no older */
	get(1, "k:1");
	assert_told(1, "\"ageMs\":503}\n");
	assert_int_equal(w.stats.cache_stale_hits, 2);
	assert_int_equal(entries(), 1);
	assert_int_equal(w.wake, w.now + 1);
	cache_set(w.cache, &w.settings);
	turn();
	get(1, "k:1");
	assert_told(1, "\"ageMs\":503}\n");
	later(1);
	get(1, "k:1");
	assert_string_equal("", told(1));
	assert_int_equal(entries(), 0);
}

static void a_connection_ends_what_is_stale(void **state)
{
	(void)state;
	w.settings.max_stale_ms = 500;
	begin();
	read_key("k:1", VALUE("k:1", "a"));
	lose();
	assert_true(remembers("k:1", "a"));
	connect();
	assert_false(remembers("k:1", "a"));
	assert_true(cache_counts(w.cache).live);
}

/* One that was not live has no values of its own. */
static void another_loss_makes_it_no_younger(void **state)
{
	(void)state;
	w.settings.max_stale_ms = 500;
	begin();
	read_key("k:1", VALUE("k:1", "a"));
	lose();
	later(300);
	lose();
	later(200);
	assert_true(remembers("k:1", "a"));
	later(1);
	assert_int_equal(entries(), 0);
}

static void a_connection_without_a_token_ends_it_as_well(void **state)
{
	(void)state;
	w.settings.max_stale_ms = 500;
	begin();
	read_key("k:1", VALUE("k:1", "a"));
	lose();
	cache_up(w.cache);
	router_up(w.router, ++connection, w.now);
	subscriptions_without(w.subscriptions);
	cache_live(w.cache, false);
	assert_false(remembers("k:1", "a"));
}

static void an_answer_of_a_former_connection_is_not_believed(void **state)
{
	(void)state;
	begin();
	get(0, "k:1");
	get(0, "k:2");
	move();
	answer(0, VALUE("k:1", "a"));
	assert_false(remembers("k:1", "a"));
	read_key("k:3", VALUE("k:3", "a"));
	assert_true(remembers("k:3", "a"));
}

static void what_is_on_its_way_when_something_was_missed_is_not_believed(void **state)
{
	(void)state;
	begin();
	get(0, "k:1");
	cache_missed(w.cache);
	answer(0, VALUE("k:1", "a"));
	assert_false(remembers("k:1", "a"));
}

static void elsewhere_nothing_is_remembered(void **state)
{
	(void)state;
	begin();
	read_key("k:1", VALUE("k:1", "a"));
	cache_elsewhere(w.cache);
	assert_false(cache_counts(w.cache).live);
	assert_int_equal(entries(), 0);
	assert_false(remembers("k:1", "a"));
	answer(w.n - 1, VALUE("k:1", "a"));
	assert_false(remembers("k:1", "a"));
	cache_heard(w.cache);
	assert_false(cache_counts(w.cache).live);
	cache_up(w.cache);
	cache_live(w.cache, true);
	assert_true(cache_counts(w.cache).live);
}

static void elsewhere_nothing_is_loaded(void **state)
{
	(void)state;
	begin_mirror();
	load();
	cache_elsewhere(w.cache);
	cache_heard(w.cache);
	turn();
	assert_int_equal(w.n, 1);
}

static void without_a_token_nothing_is_remembered(void **state)
{
	(void)state;
	begin();
	read_key("k:1", VALUE("k:1", "a"));
	subscriptions_without(w.subscriptions);
	cache_live(w.cache, false);
	assert_int_equal(entries(), 0);
	assert_false(remembers("k:1", "a"));
	answer(w.n - 1, VALUE("k:1", "a"));
	assert_false(remembers("k:1", "a"));
}

static void what_may_have_been_missed_ends_all(void **state)
{
	(void)state;
	begin_mirror();
	load();
	read_key("k:1", VALUE("k:1", "a"));
	size_t before = w.n;
	cache_missed(w.cache);
	turn();
	assert_int_equal(entries(), 0);
	assert_sent(before, "\"endKey\":\"m;\""); /* the mirror is loaded anew */
	load();
	assert_true(remembers("m:1", "a"));
}

/* ---- its subscriptions ---- */

static void what_is_not_covered_is_not_remembered(void **state)
{
	(void)state;
	w.settings.n_keys = 1;
	begin();
	w.settings.n_keys = 2;
	cache_set(w.cache, &w.settings); /* the second one needs another token */
	turn();
	assert_true(cache_counts(w.cache).live);
	read_key("exact", VALUE("exact", "a"));
	assert_false(remembers("exact", "a"));
	read_key("k:1", VALUE("k:1", "a"));
	assert_true(remembers("k:1", "a"));
	subscriptions_refuse_all(w.subscriptions, "no", -1);
	later(1000);
	move(); /* it was tried again */
	read_key("exact", VALUE("exact", "a"));
	assert_true(remembers("exact", "a"));
}

/* The first pattern's subscribe waits while a key of the second one is read again. */
static void an_answer_to_a_read_is_none_to_a_subscribe(void **state)
{
	static const char *const one[] = {"n:*"}, *const two[] = {"m:*", "n:*"};

	(void)state;
	w.settings.n_keys = 0;
	w.settings.mirrors = one;
	w.settings.n_mirrors = 1;
	begin();
	w.settings.mirrors = two;
	w.settings.n_mirrors = 2;
	cache_set(w.cache, &w.settings);
	turn();
	answer(w.n - 1, PAGE(RECORD("n:1", "a"), false));
	assert_string_equal("whole", cache_mirror(w.cache, 1).state);
	note("n:1", "\"b\"");
	answer(w.n - 1, VALUE("n:1", "b"));
	assert_true(remembers("n:1", "b"));
	log_begin(LOG_LEVEL_NOTICE);
	subscriptions_refuse_all(w.subscriptions, "no", -1);
	assert_logged("can't subscribe to \"m:*\"");
	log_end();
	later(1000);
	move();
	assert_string_equal("loading", cache_mirror(w.cache, 0).state);
}

static void any_bytes_may_be_in_a_pattern(void **state)
{
	static const char *const keys[] = {"q\"*", "\\"};

	(void)state;
	w.settings.keys = keys;
	begin();
	assert_int_equal(w.wake, -1);
	read_key("q\\\"1", "\"code\":200,\"key\":\"q\\\"1\",\"value\":\"a\"");
	read_key("\\\\", "\"code\":200,\"key\":\"\\\\\",\"value\":\"b\"");
	assert_true(remembers("q\\\"1", "a"));
	assert_true(remembers("\\\\", "b"));
}

static void any_bytes_may_be_in_the_keys_of_a_mirror(void **state)
{
	static const char *const mirrors[] = {"q\"*"};

	(void)state;
	w.settings.mirrors = mirrors;
	w.settings.n_mirrors = 1;
	begin();
	assert_sent(0, "\"key\":\"q\\\"\"");
	answer(0, PAGE(RECORD("q\\\"1", "a"), false));
	assert_true(remembers("q\\\"1", "a"));
	note("q\\\"1", "\"b\"");
	assert_sent(1, "\"key\":\"q\\\"1\"");
	answer(1, "\"code\":200,\"key\":\"q\\\"1\",\"value\":\"b\"");
	assert_true(remembers("q\\\"1", "b"));
}

static void long_patterns_are_cut_in_the_log(void **state)
{
	static const struct {
		const char *end, *shown;
	} CASES[] = {{"abcd*", "abcd*\""}, {"abcde*", "abcde...\""}, {"abcd\xc3\xa9*", "abcd..."}};
	char text[100], want[200];
	const char *pattern = text;

	(void)state;
	w.settings.keys = &pattern;
	w.settings.n_keys = 1;
	log_begin(LOG_LEVEL_NOTICE);
	for (size_t i = 0; i < COUNT(CASES); i++) {
		snprintf(text, sizeof(text), "%0*d%s", 59, 0, CASES[i].end);
		if (i)
			cache_set(w.cache, &w.settings);
		else
			begin_with(1000);
		turn();
		subscriptions_refuse_all(w.subscriptions, "no", -1);
		snprintf(want, sizeof(want), "subscribe to \"%0*d%s: ", 59, 0, CASES[i].shown);
		if (i == 2)
			snprintf(want, sizeof(want), "subscribe to \"%0*dabcd...\": ", 59, 0);
		assert_logged(want);
	}
	log_end();
}

static void a_refused_subscription_is_tried_again(void **state)
{
	int64_t pause = 1000;

	(void)state;
	w.settings.n_keys = 1;
	begin_with(1000);
	cache_set(w.cache, &w.settings);
	turn();
	assert_int_equal(subscriptions_counts(w.subscriptions).waiting, 1); /* asked once */
	log_begin(LOG_LEVEL_NOTICE);
	for (int i = 0; i < 80; i++) {
		assert_true(subscriptions_wants(w.subscriptions));
		subscriptions_refuse_all(w.subscriptions, "no token", -1);
		if (i == 0)
			assert_logged("cache: can't subscribe to \"k:*\": no token; nothing of it "
				      "is remembered\n");
		assert_int_equal(lines_logged(), 0);
		assert_int_equal(w.wake, w.now + pause);
		cache_set(w.cache, &w.settings); /* which wakes it */
		turn();
		assert_int_equal(w.wake, w.now + pause);
		later(pause - 1);
		assert_false(subscriptions_wants(w.subscriptions));
		later(1);
		pause = 2 * pause < 300000 ? 2 * pause : 300000;
	}
	log_end();
	connect();
	assert_true(cache_counts(w.cache).live);
	assert_int_equal(w.wake, -1);
}

static void a_cache_that_was_stopped_asks_for_nothing(void **state)
{
	(void)state;
	w.settings.mirrors = some_mirrors;
	w.settings.n_mirrors = 1;
	begin_with(1000);
	connect();
	answer(0, "\"code\":503,\"error\":\"busy\"");
	cache_stop(w.cache);
	later(100000);
	assert_int_equal(w.n, 1);
	assert_true(cache_is_peer(w.cache, cache_peer(w.cache)));
	assert_true(cache_peer(w.cache)->number == UINT64_MAX); /* no client's */
	assert_true(cache_peer(w.cache)->uid == (uid_t)-1);
	assert_false(cache_is_peer(w.cache, &w.peer[0]));
	assert_false(cache_is_peer(NULL, &w.peer[0]));
}

/* ---- mirrors ---- */

static void a_mirror_is_loaded_and_answers(void **state)
{
	(void)state;
	log_begin(LOG_LEVEL_NOTICE);
	begin_mirror();
	assert_int_equal(lines_logged(), 0);
	assert_int_equal(w.n, 1);
	assert_sent(0, "\"key\":\"m:\"");
	assert_sent(0, "\"endKey\":\"m;\"");
	assert_sent(0, "\"limit\":1000");
	struct cache_mirror m = cache_mirror(w.cache, 0);
	assert_true(span_equal(m.pattern, SPAN("m:*")));
	assert_string_equal("loading", m.state);
	load();
	assert_logged("mirror \"m:*\": loaded, 2 keys\n");
	log_end();
	assert_int_equal(cache_mirror(w.cache, 0).keys, 2);
	assert_int_equal(cache_counts(w.cache).mirrors, 1);
	assert_true(remembers("m:1", "a"));
	get(0, "m:2");
	assert_told(0, "{\"code\":404,");
	ask(0, "{\"op\":\"range\",\"key\":\"m:\",\"endKey\":\"m:9\",\"messageId\":5}");
	assert_string_equal("{\"code\":200,\"records\":[" RECORD("m:1", "a") "," RECORD(
				    "m:3", "c") "],\"count\":2,\"truncated\":false,"
						"\"messageId\":5,\"cached\":true}\n",
			    told(0));
	ask(0, "{\"op\":\"range\",\"key\":\"m:\",\"endKey\":\"m:\\u0039\",\"limit\":1}");
	assert_string_equal(
		"{\"code\":200,\"records\":[" RECORD("m:1", "a") "],\"count\":1,\"truncated\":true,"
								 "\"cached\":true}\n",
		told(0));
	assert_int_equal(w.stats.cache_hits, 4);
	assert_int_equal(w.n, 1);
	static const char *const no[] = {
		"{\"op\":\"range\",\"key\":\"m:\",\"endKey\":\"m:9\",\"limit\":0}",
		"{\"op\":\"range\",\"key\":\"m:\",\"endKey\":\"n\"}",
		"{\"op\":\"range\",\"key\":\"k:\",\"endKey\":\"k:9\"}",
		"{\"op\":\"range\",\"key\":\"m:\",\"endKey\":\"m:9\",\"fresh\":true}",
	};
	for (size_t i = 0; i < COUNT(no); i++) {
		ask(0, no[i]);
		assert_int_equal(w.n, 2 + i);
	}
	assert_int_equal(w.stats.cache_misses, 1); /* of a range that it could have answered */
	cache_lost(w.cache, 0);
	assert_string_equal("stale", cache_mirror(w.cache, 0).state);
}

static void changed_keys_of_a_mirror_are_read_again(void **state)
{
	(void)state;
	begin_mirror();
	load();
	for (int i = 1; i <= 3; i++)
		note(i == 1 ? "m:1" : i == 2 ? "m:2" : "m:3", "\"x\"");
	assert_int_equal(w.n, 3); /* reads_at_once */
	assert_int_equal(w.stats.cache_rereads, 2);
	assert_sent(1, "\"key\":\"m:1\"");
	assert_sent(2, "\"key\":\"m:2\"");
	answer(1, VALUE("m:1", "x"));
	assert_sent(3, "\"key\":\"m:3\"");
	assert_true(remembers("m:1", "x"));
	answer(2, MISSING);
	assert_int_equal(entries(), 1);
	get(0, "m:2");
	assert_told(0, "{\"code\":404,");
	answer(3, VALUE("m:3", "x"));
	assert_true(remembers("m:3", "x"));
	assert_int_equal(w.n, 4);
	assert_int_equal(buf_len(&cache_peer(w.cache)->out.own), 0);
}

/* The answers to its own reads take no memory. */
static void a_long_value_is_kept_once(void **state)
{
	static char members[70100];

	(void)state;
	begin_mirror();
	load();
	note("m:1", "\"x\"");
	snprintf(members, sizeof(members), "\"code\":200,\"key\":\"m:1\",\"value\":\"%0*d\"", 70000,
		 0);
	answer(1, members);
	assert_int_equal(buf_size(&cache_peer(w.cache)->out.own), 0);
	note("m:3", "\"x\"");
	answer(2, VALUE("m:3", "x"));
	assert_true(buf_size(&cache_peer(w.cache)->out.own) > 0); /* kept for the next one */
}

/* It waits to be read again, and a client's get is sooner. */
static void a_key_that_a_client_has_read_is_not_read_again(void **state)
{
	(void)state;
	begin_mirror();
	load();
	for (int i = 1; i <= 3; i++)
		note(i == 1 ? "m:1" : i == 2 ? "m:2" : "m:3", "\"x\"");
	read_key("m:3", VALUE("m:3", "x"));
	answer(1, VALUE("m:1", "x"));
	answer(2, VALUE("m:2", "x"));
	assert_int_equal(w.n, 4);
	assert_int_equal(entries(), 3);
}

static void a_range_makes_keys_of_a_mirror_unknown(void **state)
{
	(void)state;
	begin_mirror();
	load();
	ask(0, "{\"op\":\"range\",\"key\":\"m:\",\"endKey\":\"m:9\",\"fresh\":true}");
	answer(1, PAGE(RECORD("m:1", "a") "," RECORD("m:2", "b") "," RECORD("m:3", "z"), false));
	assert_int_equal(w.n, 4);
	assert_sent(2, "\"key\":\"m:2\"");
	assert_sent(3, "\"key\":\"m:3\"");
}

static void a_read_that_was_not_sent_is_asked_for_again(void **state)
{
	(void)state;
	w.settings.mirrors = some_mirrors;
	w.settings.n_mirrors = 1;
	begin_with(1);
	connect();
	load();
	ask(0, "{\"op\":\"get\",\"key\":\"other\",\"timeoutMs\":60000}");
	note("m:1", "\"x\"");
	assert_int_equal(w.n, 2); /* it waits */
	later(4 * TIMEOUT);
	answer(1, MISSING);
	assert_int_equal(w.n, 3);
	assert_sent(2, "\"key\":\"m:1\"");
	assert_int_equal(w.stats.cache_rereads, 2);
}

static void unknown_keys_of_mirrors_are_forgotten_with_them(void **state)
{
	static const char *const two[] = {"m:*", "n:*"};
	char key[16];

	(void)state;
	w.settings.mirrors = two;
	w.settings.n_mirrors = 2;
	begin();
	answer(0, PAGE("", false));
	answer(1, PAGE(RECORD("n:0", "a"), false));
	assert_true(remembers("n:0", "a"));
	for (int i = 0; i < 8; i++) {
		snprintf(key, sizeof(key), "%c:%d", i % 2 ? 'm' : 'n', i);
		note(key, "\"x\"");
	}
	lose();
	connect();
	assert_string_equal("loading", cache_mirror(w.cache, 0).state);
	assert_string_equal("loading", cache_mirror(w.cache, 1).state);
}

static void changes_of_keys_that_are_too_long_are_none_of_a_mirror(void **state)
{
	static char key[ENTRY_KEY_MAX + 2];

	(void)state;
	begin_mirror();
	load();
	size_t before = cache_counts(w.cache).bytes;
	snprintf(key, sizeof(key), "m:%0*d", ENTRY_KEY_MAX - 1, 0);
	get(0, key);
	assert_int_equal(w.n, 2); /* asked of the service */
	answer(1, MISSING);
	told(0);
	key[ENTRY_KEY_MAX] = '\0';
	get(0, key);
	assert_told(0, "{\"code\":404,"); /* it is none of the mirror's */
	key[ENTRY_KEY_MAX] = '0';
	note(key, "\"x\"");
	assert_int_equal(cache_counts(w.cache).bytes, before);
	key[ENTRY_KEY_MAX] = '\0';
	note(key, "\"x\"");
	assert_true(cache_counts(w.cache).bytes > before + ENTRY_KEY_MAX);
	assert_int_equal(w.n, 3); /* read again */
}

static void all_that_is_forgotten_is_freed(void **state)
{
	struct buf page = {0};

	(void)state;
	begin_mirror();
	for (size_t i = 0; i < 6; i++) {
		buf_clear(&page);
		buf_addf(&page, "\"code\":200,\"records\":[");
		for (int k = 0; k < 1000; k++)
			buf_addf(&page, "%s{\"key\":\"m:%zu%03d\",\"value\":\"x\"}", k ? "," : "",
				 i, k);
		buf_addf(&page, "],\"truncated\":%s", i < 5 ? "true" : "false");
		buf_add(&page, "", 1);
		answer(i, buf_start(&page));
	}
	buf_release(&page);
	assert_int_equal(entries(), 6000);
	cache_missed(w.cache);
	turn();
	assert_int_equal(entries(), 0);
	assert_true(cache_counts(w.cache).bytes > 0); /* some at once */
	assert_int_equal(w.n, 6);
	assert_int_equal(w.wake, w.now + 10);
	later(10);
	assert_int_equal(cache_counts(w.cache).bytes, 0);
	assert_int_equal(w.n, 7); /* there is room for the mirror now */
}

static void keys_that_can_not_be_read_do_not_take_every_turn(void **state)
{
	(void)state;
	begin_mirror();
	load();
	note("m:1", "\"x\"");
	for (size_t i = 1; i <= 3; i++) {
		assert_int_equal(w.n, i + 1); /* at once */
		answer(i, "\"code\":500,\"error\":\"oops\"");
	}
	assert_int_equal(w.n, 4);
	later(999);
	assert_int_equal(w.n, 4);
	later(1);
	assert_int_equal(w.n, 5);
	answer(4, VALUE("m:1", "x"));
	note("m:1", "\"y\"");
	for (size_t i = 5; i < 7; i++) { /* all is well again */
		assert_int_equal(w.n, i + 1);
		answer(i, "\"code\":500,\"error\":\"oops\"");
	}
	assert_int_equal(w.n, 8);
}

static void after_a_pause_so_many_are_read_at_once(void **state)
{
	char key[16];

	(void)state;
	begin_mirror();
	load();
	for (int i = 1; i <= 6; i++) {
		snprintf(key, sizeof(key), "m:%d", i);
		note(key, "\"x\"");
	}
	for (size_t i = 1; i <= 4; i++)
		answer(i, "\"code\":500,\"error\":\"oops\"");
	assert_int_equal(w.n, 5); /* three failures, and one that was on its way */
	later(1000);
	assert_int_equal(w.n, 7);
}

/* The longest time that a request may have. */
static void a_page_is_waited_for_no_longer_than_for_any_request(void **state)
{
	(void)state;
	w.settings.request_timeout_ms = REQUEST_TIMEOUT_MAX_MS;
	begin_mirror();
	later(REQUEST_TIMEOUT_MAX_MS);
	later(1000);
	assert_int_equal(w.n, 2);
}

static void a_mirror_is_read_again_in_half_of_max_age(void **state)
{
	(void)state;
	begin_mirror();
	load();
	later(MAX_AGE / 2 - 1);
	assert_int_equal(w.n, 1);
	assert_int_equal(w.wake, w.now + 1);
	later(1);
	assert_int_equal(w.n, 2);
	load();
	later(MAX_AGE / 2 - 1000);
	w.slept += 1000; /* timers have stood still */
	w.now++;
	assert_int_equal(w.n, 2);
	get(0, "m:1"); /* notices it */
	assert_told(0, "\"cached\":true");
	assert_int_equal(w.n, 3);
}

static void a_shorter_max_age_is_kept_at_once(void **state)
{
	(void)state;
	begin_mirror();
	load();
	w.settings.max_age_ms = MAX_AGE / 10;
	cache_set(w.cache, &w.settings);
	turn();
	later(MAX_AGE / 20 - 1);
	assert_int_equal(w.n, 1);
	later(1);
	assert_int_equal(w.n, 2);
}

static void pages_that_fail_are_asked_for_again(void **state)
{
	(void)state;
	begin_mirror();
	log_begin(LOG_LEVEL_NOTICE);
	answer(0, "\"code\":503,\"error\":\"busy\"");
	assert_logged("mirror \"m:*\": a page was answered with 503; it is asked for again\n");
	assert_int_equal(w.n, 1);
	later(1000);
	assert_int_equal(w.n, 2);
	later(4 * TIMEOUT - 1);
	assert_int_equal(w.n, 2);
	later(1);                            /* no answer came in time */
	assert_int_equal(lines_logged(), 0); /* once is enough */
	later(1000);
	assert_sent(2, "\"limit\":500");
	load();
	assert_logged("loaded, 2 keys");
	later(MAX_AGE / 2);
	later(4 * TIMEOUT);
	assert_logged("mirror \"m:*\": a page got no usable answer; it is asked for again\n");
	log_end();
}

/* The rate limit has nothing to do with its length. */
static void a_page_that_was_refused_is_made_no_smaller(void **state)
{
	(void)state;
	begin_mirror();
	answer(0, "\"code\":429,\"error\":\"slow down\"");
	router_lost(w.router, connection, 1000, false, w.now);
	later(4 * TIMEOUT);
	connect();
	later(10 * TIMEOUT);
	assert_sent(w.n - 1, "\"limit\":1000");
}

static void a_page_that_was_not_sent_is_made_no_smaller(void **state)
{
	(void)state;
	w.settings.mirrors = some_mirrors;
	w.settings.n_mirrors = 1;
	begin_with(1);
	ask(0, "{\"op\":\"get\",\"key\":\"other\",\"timeoutMs\":60000}");
	connect();
	assert_int_equal(w.n, 1);
	later(4 * TIMEOUT);
	answer(0, MISSING);
	later(1000);
	assert_sent(1, "\"limit\":1000");
	load();
}

/* Its id is that of the page. */
static void an_answer_to_a_client_is_no_page(void **state)
{
	(void)state;
	begin_mirror();
	ask(0, "{\"op\":\"set\",\"key\":\"m:9\",\"value\":1,\"messageId\":64}");
	ask(0, "{\"op\":\"get\",\"key\":\"m:9\",\"messageId\":64}");
	answer(1, "\"code\":200");
	answer(2, MISSING);
	answer(0, PAGE(RECORD("m:1", "a"), false));
	assert_string_equal("whole", cache_mirror(w.cache, 0).state);
}

static void a_page_of_a_former_connection_is_asked_for_again(void **state)
{
	(void)state;
	begin_mirror();
	move();
	answer(0, PAGE(RECORD("m:1", "a"), false));
	assert_string_equal("loading", cache_mirror(w.cache, 0).state);
	assert_int_equal(w.n, 2);
	load();
}

static void refused_pages_end_a_mirror_until_the_settings_are_read(void **state)
{
	(void)state;
	begin_mirror();
	log_begin(LOG_LEVEL_NOTICE);
	for (size_t i = 0; i < 5; i++) {
		assert_int_equal(w.n, i + 1);
		answer(i, "\"code\":403,\"error\":\"no\"");
		later(1000);
	}
	assert_logged("mirror \"m:*\": the service refuses its pages; its reads are asked of the "
		      "service until the settings are read again\n");
	assert_string_equal("too big", cache_mirror(w.cache, 0).state);
	assert_int_equal(w.n, 5);
	read_key("m:1", VALUE("m:1", "a"));
	assert_false(remembers("m:1", "a"));
	cache_set(w.cache, &w.settings);
	turn();
	assert_sent(w.n - 1, "\"endKey\":\"m;\"");
	load();
	log_end();
}

static void long_mirrors_tell_of_their_progress(void **state)
{
	char page[100];

	(void)state;
	begin_mirror();
	log_begin(LOG_LEVEL_INFO);
	for (size_t i = 0; i < 100; i++) {
		snprintf(page, sizeof(page),
			 "\"code\":200,\"records\":[{\"key\":\"m:%03zu\","
			 "\"value\":\"x\"}],\"truncated\":true",
			 i);
		assert_int_equal(w.n, i + 1);
		answer(i, page);
	}
	assert_logged("mirror \"m:*\": loading, 100 keys so far\n");
	log_end();
}

static void the_largest_mirror_gives_way_to_less_memory(void **state)
{
	static const char *const two[] = {"m:*", "n:*"};

	(void)state;
	w.settings.mirrors = two;
	w.settings.n_mirrors = 2;
	begin();
	for (size_t large = 0; large < 2; large++) {
		answer(w.n - 2 + large,
		       large ? PAGE(RECORD("n:1", "a") "," RECORD("n:2", "a"), false)
			     : PAGE(RECORD("m:1", "a") "," RECORD("m:2", "a"), false));
		answer(w.n - 1 - large,
		       large ? PAGE(RECORD("m:1", "a"), false) : PAGE(RECORD("n:1", "a"), false));
		w.settings.memory = 3 * (ENTRY_COUNTED + 6);
		cache_set(w.cache, &w.settings); /* it just fits */
		for (size_t i = 0; i < 2; i++)
			assert_string_equal("whole", cache_mirror(w.cache, i).state);
		w.settings.memory--;
		cache_set(w.cache, &w.settings);
		turn();
		assert_string_equal("too big", cache_mirror(w.cache, large).state);
		assert_string_equal("whole", cache_mirror(w.cache, 1 - large).state);
		w.settings.memory = 1 << 20;
		cache_set(w.cache, &w.settings);
		turn();
		for (size_t i = 0; i < 2; i++) /* both are loaded again */
			assert_string_equal("loading", cache_mirror(w.cache, i).state);
	}
}

static void a_mirror_is_stale_after_a_loss_unless_it_was_given_up(void **state)
{
	(void)state;
	w.settings.max_stale_ms = 500;
	begin_mirror();
	load();
	lose();
	assert_string_equal("stale", cache_mirror(w.cache, 0).state);
	connect();
	answer(w.n - 1, PAGE("", true));
	lose();
	assert_string_equal("too big", cache_mirror(w.cache, 0).state);
}

static void a_mirror_of_one_record_may_be_too_big(void **state)
{
	(void)state;
	begin_mirror();
	answer(0, PAGE(RECORD("m:1", "a"), false));
	w.settings.memory = 10;
	cache_set(w.cache, &w.settings);
	assert_string_equal("too big", cache_mirror(w.cache, 0).state);
}

static void values_give_way_to_less_memory(void **state)
{
	(void)state;
	begin();
	read_key("k:1", VALUE("k:1", "a"));
	read_key("k:2", VALUE("k:2", "b"));
	w.settings.memory = ENTRY_COUNTED + 6;
	cache_set(w.cache, &w.settings);
	assert_int_equal(entries(), 1);
}

static void a_mirror_that_grows_too_big_is_given_up(void **state)
{
	(void)state;
	w.settings.memory = 2 * (ENTRY_COUNTED + 6) + 10;
	begin_mirror();
	load();
	note("m:2", "\"x\"");
	assert_string_equal("too big", cache_mirror(w.cache, 0).state);
	assert_int_equal(cache_counts(w.cache).bytes, 0);
	assert_false(remembers("m:1", "a"));
}

static void a_mirror_whose_values_grow_too_big_is_given_up(void **state)
{
	(void)state;
	w.settings.memory = 2 * (ENTRY_COUNTED + 6) + 10;
	begin_mirror();
	load();
	get_fresh(0, "m:1");
	answer(1, VALUE("m:1", "aaaaaaaaaaaa"));
	assert_string_equal("too big", cache_mirror(w.cache, 0).state);
	assert_int_equal(cache_counts(w.cache).bytes, 0);
}

static void a_mirror_that_a_range_makes_too_big_is_given_up(void **state)
{
	(void)state;
	w.settings.memory = 2 * (ENTRY_COUNTED + 6) + 10;
	begin_mirror();
	load();
	ask(0, "{\"op\":\"range\",\"key\":\"m:\",\"endKey\":\"m:9\",\"fresh\":true}");
	answer(1, PAGE(RECORD("m:1", "a") "," RECORD("m:2", "b") "," RECORD("m:3", "c"), false));
	assert_string_equal("too big", cache_mirror(w.cache, 0).state);
}

/* Twenty keys are asked for, or written, so that the mirror has an entry of each, and reads none
 * again: there is room for twelve. */
static void twenty_are_too_many(const char *format, const char *members)
{
	char line[100];

	w.settings.memory = 2 * (ENTRY_COUNTED + 6) + 10 * (ENTRY_COUNTED + 4);
	w.settings.reads_at_once = 0;
	begin_mirror();
	load();
	for (int i = 0; i < 20; i++) {
		snprintf(line, sizeof(line), format, 10 + i);
		ask(0, line);
		answer(w.n - 1, members);
		assert_true(cache_counts(w.cache).bytes <= w.settings.memory);
	}
	assert_string_equal("too big", cache_mirror(w.cache, 0).state);
}

static void a_mirror_that_own_writes_make_too_big_is_given_up(void **state)
{
	(void)state;
	twenty_are_too_many("{\"op\":\"delete\",\"key\":\"m:%d\"}", "\"code\":200");
}

static void a_mirror_that_reads_make_too_big_is_given_up(void **state)
{
	(void)state;
	twenty_are_too_many("{\"op\":\"get\",\"key\":\"m:%d\",\"fresh\":true}",
			    "\"code\":500,\"error\":\"oops\"");
}

static void a_page_of_before_is_none_any_more(void **state)
{
	(void)state;
	begin_mirror();
	cache_missed(w.cache);
	turn();
	assert_int_equal(w.n, 2);
	answer(0, PAGE(RECORD("m:9", "a"), false));
	assert_string_equal("loading", cache_mirror(w.cache, 0).state);
	load();
	assert_int_equal(entries(), 2);
}

/* ---- values of notifications ---- */

static void the_value_of_a_notification_may_be_taken(void **state)
{
	(void)state;
	w.settings.trust = true;
	begin();
	read_key("k:1", VALUE("k:1", "a"));
	later(TIMEOUT);
	note("k:1", "\"b\"");
	assert_true(remembers("k:1", "b"));
	assert_int_equal(w.stats.cache_invalidations, 1);
	note("k:1", "\"b\""); /* known already */
	assert_int_equal(w.stats.cache_invalidations, 1);
	note("k:1", "\"c\""); /* no answer has come since */
	assert_true(remembers("k:1", "c"));
	later(MAX_AGE);
	assert_true(remembers("k:1", "c"));
	note("k:1", "null");
	get(0, "k:1");
	assert_told(0, "{\"code\":404,");
	assert_int_equal(cache_counts(w.cache).bytes, ENTRY_COUNTED + 3);
	note("k:1", "{\"a\":1}"); /* which may be an extract */
	assert_false(remembers("k:1", ""));
}

static void a_notification_behind_an_answer_is_not_taken(void **state)
{
	(void)state;
	w.settings.trust = true;
	begin();
	read_key("k:1", VALUE("k:1", "a"));
	later(TIMEOUT - 1);
	note("k:1", "\"b\"");
	assert_int_equal(cache_counts(w.cache).bytes, 0);
	assert_false(remembers("k:1", "b"));
}

static void one_that_was_held_back_is_not_taken(void **state)
{
	(void)state;
	w.settings.trust = true;
	begin();
	read_key("k:1", VALUE("k:1", "a"));
	later(TIMEOUT);
	arrives("k:1", "\"b\"", false);
	note("k:2", "\"c\"");
	assert_false(remembers("k:1", "b"));
}

static void sleep_delays_notifications(void **state)
{
	(void)state;
	w.settings.trust = true;
	begin();
	read_key("k:1", VALUE("k:1", "a"));
	later(TIMEOUT);
	assert_true(remembers("k:1", "a"));
	w.slept += 101;
	later(TIMEOUT - 1);
	note("k:1", "\"b\"");
	assert_false(remembers("k:1", "b"));
	answer(w.n - 1, VALUE("k:1", "b"));
	later(TIMEOUT);
	note("k:1", "\"c\"");
	assert_true(remembers("k:1", "c"));
	w.slept += 100; /* no more than clocks differ */
	later(1);
	note("k:1", "\"d\"");
	assert_true(remembers("k:1", "d"));
}

static void a_notification_behind_a_range_is_not_taken(void **state)
{
	static const char *const two[] = {"l:*", "m:*"};

	(void)state;
	w.settings.trust = true;
	w.settings.mirrors = two;
	w.settings.n_mirrors = 2;
	begin();
	answer(0, PAGE("", false));
	answer(1, PAGE(RECORD("m:1", "a"), false));
	later(TIMEOUT);
	for (int i = 0; i < 2; i++) {
		const char *l = i ? "m" : "l";
		char line[200], key[16];
		snprintf(line, sizeof(line),
			 "{\"op\":\"range\",\"key\":\"%s:0\",\"endKey\":\"%s:9\",\"fresh\":true}",
			 l, l);
		ask(0, line);
		answer(w.n - 1, i ? PAGE(RECORD("m:1", "a"), false) : PAGE("", false));
		snprintf(key, sizeof(key), "%s:5", l);
		note(key, "\"b\"");
		assert_false(remembers(key, "b"));
		note("m:1", i ? "\"b\"" : "\"a\"");
	}
	assert_false(remembers("m:1", "b"));
}

static void a_mirror_takes_values_of_new_keys(void **state)
{
	(void)state;
	w.settings.trust = true;
	begin_mirror();
	load();
	note("m:2", "\"b\"");
	assert_false(remembers("m:2", "b")); /* the page has just spoken of it */
	answer(1, VALUE("m:2", "b"));
	later(TIMEOUT);
	note("m:4", "\"d\"");
	assert_true(remembers("m:4", "d"));
	note("m:4", "null");
	get(0, "m:4");
	assert_told(0, "{\"code\":404,");
	assert_int_equal(cache_mirror(w.cache, 0).keys, 3);
	assert_int_equal(entries(), 3);
	size_t before = w.n;
	note("m:1", "\"x\"");
	assert_int_equal(w.n, before); /* it is not read */
	assert_true(remembers("m:1", "x"));
}

/* Which may be older than the answer that there is no such record. */
static void a_notification_behind_a_404_is_not_taken(void **state)
{
	(void)state;
	w.settings.trust = true;
	begin_mirror();
	load();
	later(TIMEOUT);
	get_fresh(0, "m:9");
	answer(1, MISSING);
	note("m:9", "\"old\"");
	assert_int_equal(w.n, 3); /* it is read */
}

static void a_value_that_is_not_taken_is_read_in_a_mirror(void **state)
{
	(void)state;
	w.settings.trust = true;
	begin_mirror();
	load();
	note("m:1", "\"x\"");
	assert_int_equal(w.n, 2);
	assert_sent(1, "\"key\":\"m:1\"");
}

static void values_that_are_taken_may_be_too_big(void **state)
{
	(void)state;
	w.settings.trust = true;
	w.settings.memory = 2 * (ENTRY_COUNTED + 6) + 10;
	for (int i = 0; i < 2; i++) {
		if (i == 0)
			begin_mirror();
		else
			cache_set(w.cache, &w.settings), turn();
		load();
		later(TIMEOUT);
		note(i == 0 ? "m:1" : "m:9", "\"aaaaaaaaaaaa\"");
		assert_string_equal("too big", cache_mirror(w.cache, 0).state);
	}
}

/* ---- settings ---- */

static void the_same_patterns_forget_nothing(void **state)
{
	(void)state;
	begin();
	read_key("k:1", VALUE("k:1", "a"));
	w.settings.max_age_ms = 5;
	cache_set(w.cache, &w.settings);
	assert_true(remembers("k:1", "a"));
	later(6);
	assert_false(remembers("k:1", "a")); /* the new age counts */
}

static void other_patterns_forget_all_and_are_subscribed_to(void **state)
{
	static const char *const sets[][2] = {{"k:*", "exakt"}, {"l:*", "exact"}};

	(void)state;
	begin();
	for (size_t i = 0; i < COUNT(sets); i++) {
		read_key("k:1", VALUE("k:1", "a"));
		w.settings.keys = sets[i];
		cache_set(w.cache, &w.settings);
		turn();
		assert_int_equal(entries(), 0);
		lose();
		connect();
		assert_true(cache_counts(w.cache).live);
	}
	read_key("l:1", VALUE("l:1", "a"));
	assert_true(remembers("l:1", "a"));
	read_key("k:1", VALUE("k:1", "a"));
	assert_false(remembers("k:1", "a"));
	w.settings.n_keys = 0;
	cache_set(w.cache, &w.settings);
	assert_int_equal(entries(), 0);
	assert_false(cache_counts(w.cache).live);
	assert_false(remembers("l:1", "a"));
	assert_false(subscriptions_wants(w.subscriptions));
}

static void other_patterns_end_what_is_stale(void **state)
{
	static const char *const keys[] = {"k:1", "exact"};

	(void)state;
	w.settings.max_stale_ms = 500;
	begin();
	read_key("k:1", VALUE("k:1", "a"));
	lose();
	w.settings.keys = keys;
	cache_set(w.cache, &w.settings);
	assert_int_equal(entries(), 0);
}

static void other_mirrors_are_loaded(void **state)
{
	static const char *const sets[][2] = {{"m:*", "n:*"}, {"m:*", "o:*"}, {"p:*", "o:*"}};

	(void)state;
	w.settings.n_mirrors = 2;
	for (size_t i = 0; i < COUNT(sets); i++) {
		w.settings.mirrors = sets[i];
		if (i == 0) {
			begin();
		} else {
			cache_set(w.cache, &w.settings);
			turn();
			move();
		}
		for (size_t k = 0; k < 2; k++) {
			struct cache_mirror m = cache_mirror(w.cache, k);
			assert_true(span_equal(m.pattern, span_of(sets[i][k])));
			assert_string_equal("loading", m.state);
		}
	}
}

static void a_write_that_is_under_way_counts_for_new_patterns(void **state)
{
	static const char *const keys[] = {"l:*", "exact"};

	(void)state;
	begin();
	ask(0, "{\"op\":\"set\",\"key\":\"l:1\",\"value\":\"b\"}");
	w.settings.keys = keys;
	cache_set(w.cache, &w.settings);
	turn();
	move();
	get(0, "l:1");
	answer(w.n - 1, VALUE("l:1", "a"));
	assert_false(remembers("l:1", "a"));
}

/* A client is told its value, so it counts. */
static void a_get_of_before_counts_for_new_patterns(void **state)
{
	static const char *const keys[] = {"l:*", "exact"};

	(void)state;
	begin();
	get(0, "l:1");
	get(0, "l:2");
	w.settings.keys = keys;
	cache_set(w.cache, &w.settings);
	turn();
	move();
	assert_true(cache_counts(w.cache).live);
	get(1, "l:1");
	assert_int_equal(w.n, 3);
	answer(2, VALUE("l:1", "new"));
	assert_true(remembers("l:1", "new"));
	answer(0, VALUE("l:1", "old"));
	assert_int_equal(cache_counts(w.cache).bytes, 0);
	assert_false(remembers("l:1", "new"));
	answer(1, VALUE("l:2", "x"));
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(what_was_read_is_served),
		CASE(keys_of_no_pattern_are_not_remembered),
		CASE(a_missing_record_is_remembered_and_an_error_is_not),
		CASE(fresh_asks_the_service),
		CASE(values_are_served_for_max_age),
		CASE(a_client_gets_its_answers_in_order),
		CASE(answers_without_an_id_keep_their_order),
		CASE(a_client_with_very_many_requests_waits_for_them),
		CASE(a_get_that_has_waited_is_served),
		CASE(a_value_larger_than_the_memory_ends_no_others),
		CASE(what_was_not_used_for_longest_gives_way),
		CASE(answers_of_many_forms_are_kept),
		CASE(the_longest_keys_are_remembered),
		CASE(values_are_kept_as_lines),
		CASE(an_own_write_ends_it),
		CASE(a_notification_ends_it),
		CASE(a_confirmation_ends_what_is_on_its_way),
		CASE(a_range_tells_of_keys),
		CASE(a_range_that_can_not_be_read_ends_all),
		CASE(a_range_tells_of_its_end),
		CASE(a_loss_ends_all),
		CASE(what_is_remembered_is_served_after_a_loss_and_marked),
		CASE(a_connection_ends_what_is_stale),
		CASE(another_loss_makes_it_no_younger),
		CASE(a_connection_without_a_token_ends_it_as_well),
		CASE(an_answer_of_a_former_connection_is_not_believed),
		CASE(what_is_on_its_way_when_something_was_missed_is_not_believed),
		CASE(elsewhere_nothing_is_remembered),
		CASE(elsewhere_nothing_is_loaded),
		CASE(without_a_token_nothing_is_remembered),
		CASE(what_may_have_been_missed_ends_all),
		CASE(what_is_not_covered_is_not_remembered),
		CASE(an_answer_to_a_read_is_none_to_a_subscribe),
		CASE(any_bytes_may_be_in_a_pattern),
		CASE(any_bytes_may_be_in_the_keys_of_a_mirror),
		CASE(long_patterns_are_cut_in_the_log),
		CASE(a_refused_subscription_is_tried_again),
		CASE(a_cache_that_was_stopped_asks_for_nothing),
		CASE(a_mirror_is_loaded_and_answers),
		CASE(changed_keys_of_a_mirror_are_read_again),
		CASE(a_long_value_is_kept_once),
		CASE(a_key_that_a_client_has_read_is_not_read_again),
		CASE(a_range_makes_keys_of_a_mirror_unknown),
		CASE(a_read_that_was_not_sent_is_asked_for_again),
		CASE(unknown_keys_of_mirrors_are_forgotten_with_them),
		CASE(changes_of_keys_that_are_too_long_are_none_of_a_mirror),
		CASE(all_that_is_forgotten_is_freed),
		CASE(keys_that_can_not_be_read_do_not_take_every_turn),
		CASE(after_a_pause_so_many_are_read_at_once),
		CASE(a_page_is_waited_for_no_longer_than_for_any_request),
		CASE(a_mirror_is_read_again_in_half_of_max_age),
		CASE(a_shorter_max_age_is_kept_at_once),
		CASE(pages_that_fail_are_asked_for_again),
		CASE(a_page_that_was_refused_is_made_no_smaller),
		CASE(a_page_that_was_not_sent_is_made_no_smaller),
		CASE(an_answer_to_a_client_is_no_page),
		CASE(a_page_of_a_former_connection_is_asked_for_again),
		CASE(refused_pages_end_a_mirror_until_the_settings_are_read),
		CASE(long_mirrors_tell_of_their_progress),
		CASE(the_largest_mirror_gives_way_to_less_memory),
		CASE(a_mirror_is_stale_after_a_loss_unless_it_was_given_up),
		CASE(a_mirror_of_one_record_may_be_too_big),
		CASE(values_give_way_to_less_memory),
		CASE(a_mirror_that_grows_too_big_is_given_up),
		CASE(a_mirror_whose_values_grow_too_big_is_given_up),
		CASE(a_mirror_that_a_range_makes_too_big_is_given_up),
		CASE(a_mirror_that_own_writes_make_too_big_is_given_up),
		CASE(a_mirror_that_reads_make_too_big_is_given_up),
		CASE(a_page_of_before_is_none_any_more),
		CASE(the_value_of_a_notification_may_be_taken),
		CASE(a_notification_behind_an_answer_is_not_taken),
		CASE(one_that_was_held_back_is_not_taken),
		CASE(sleep_delays_notifications),
		CASE(a_notification_behind_a_range_is_not_taken),
		CASE(a_mirror_takes_values_of_new_keys),
		CASE(a_notification_behind_a_404_is_not_taken),
		CASE(a_value_that_is_not_taken_is_read_in_a_mirror),
		CASE(values_that_are_taken_may_be_too_big),
		CASE(the_same_patterns_forget_nothing),
		CASE(other_patterns_forget_all_and_are_subscribed_to),
		CASE(other_patterns_end_what_is_stale),
		CASE(other_mirrors_are_loaded),
		CASE(a_write_that_is_under_way_counts_for_new_patterns),
		CASE(a_get_of_before_counts_for_new_patterns),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
