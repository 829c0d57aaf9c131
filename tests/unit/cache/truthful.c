/* Reads from memory under whatever may happen, drawn by lot: the cache with the router, the
 * subscriptions and the handover that it lives among, joined as the daemon joins them, over
 * connections and a service of our own. Requests of a connection are executed in their order;
 * answers come back in any; notifications come in order, before or after the answers, on each
 * connection with another delay. Answers get lost, requests are refused by the rate limit,
 * connections take over from each other and are lost, messages can't be read, somebody else writes,
 * patterns and memory change by reloads, values are evicted and grow old.
 *
 * The checker knows the versions of each key in the service's order. Of each read, whoever has
 * answered it, the version must not be older than what any client was told before it was asked, be
 * it by an answer, a range or a notification; nor than the last own write that was answered. Of an
 * answer from memory besides: no own write of its key is unanswered; no notification of a newer
 * version has arrived; it was read from the service behind the end of the last own write, behind
 * the last loss and whatever else ends all, and not longer ago than max_age; a key that is said to
 * be missing was so; the memory is within its bound. That all this was put to the test the counters
 * show.
 *
 * HPKVD_TRUTHFUL_SEED: one run, of which all is told. */
#include "../test.h"
#include "../random.h"
#include "../router_ops.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cache/cache.h"
#include "cache/entry.h"
#include "codec/json.h"
#include "requests/router.h"
#include "subscriptions/subscriptions.h"
#include "upstream/handover.h"

enum {
	PEERS = 4,
	KEYS = 8, /* the first half are of `keys`, the others of a mirror */
	RUNS = 120,
	STEPS = 2500, /* ms */
	CALM_MS = 3000,
	VERSIONS = 6000, /* of a key in a run */
	OPS = 20000,
	READS = 40000,
	TIMEOUT_MS = 150,
	MAX_AGE_MS = 400,
	PAGE_SHARE = 3, /* one run in so many: pages of two records */
};

/* Values are long enough for memory to matter: their version, and this. */
#define PAD                                                                                        \
	"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"

/* ---- the service ---- */

struct version {
	bool missing;
	uint64_t at; /* the event that made it */
};

/* What was read of a key, by whom does not matter. */
struct sight {
	int key, version;
	uint64_t executed;   /* the event */
	int64_t answered_at; /* ms; -1: not yet */
	unsigned number;     /* of the request that brings it */
};

enum event_kind { AT_SERVICE, ANSWER, NOTE, HELLO, PING, PONG };

struct event {
	struct event *next;
	enum event_kind kind;
	int64_t due;
	int connection;
	char *text;
	int key, version; /* of a NOTE */
	unsigned number;  /* of an ANSWER: the request at the service */
};

struct connection {
	bool open, told;
	int64_t up_due, down_due;
};

/* What a client has asked for. */
struct asked {
	enum request_op op;
	int peer, key, last; /* last: of a range */
	int floor[KEYS];
	bool done, from_memory_allowed;
	int version; /* of a write: once it was executed; 0: it was not */
};

static struct {
	uint32_t seed, lot;
	bool verbose, calm, trust;
	uint64_t event; /* counts them */
	int64_t now;
	struct router *router;
	struct subscriptions *subscriptions;
	struct cache *cache;
	struct stats stats;
	struct handover handover;
	struct peer peer[PEERS];
	struct event *events;
	struct connection connection[400];
	int connections, main, next, former;
	bool catching, wanted;
	int64_t connect_at, former_until;
	struct version version[KEYS][VERSIONS];
	int n[KEYS]; /* versions; the last is the present one */
	struct sight sight[READS];
	int sights;
	unsigned requests; /* that the service has taken */
	struct asked asked[OPS];
	int n_asked;
	size_t memory;
	int page; /* records of a range of the service */

	/* What the checker knows. */
	int told[KEYS];         /* the newest version that anybody was told */
	int arrived[KEYS];      /* ... whose notification has arrived */
	int unanswered[KEYS];   /* own writes */
	uint64_t written[KEYS]; /* the event at which the last own write was over */
	uint64_t forgotten;     /* ... at which all had to be forgotten */
	bool down;
	int64_t lost_at;
} w;

/* That each was put to the test. */
static struct {
	unsigned hits, misses404, ranges, stale, crossings, moves, losses, reloads, refused, lost,
		unreadable, given_up, trusted, whole;
} seen;

enum { MAX_STALE_MS = 150 };

static bool verbose(void)
{
	return w.verbose;
}

#define TELL(...)                                                                                  \
	do {                                                                                       \
		if (verbose()) {                                                                   \
			printf("# %5" PRId64 " %6" PRIu64 " ", w.now, w.event);                    \
			printf(__VA_ARGS__);                                                       \
			printf("\n");                                                              \
		}                                                                                  \
	} while (0)

#define WRONG(...)                                                                                 \
	do {                                                                                       \
		printf("# seed %u, %" PRId64 " ms: ", w.seed, w.now);                              \
		printf(__VA_ARGS__);                                                               \
		printf("\n");                                                                      \
		fail();                                                                            \
	} while (0)

static uint32_t lot(uint32_t below)
{
	return random_below(&w.lot, below);
}

static bool chance(uint32_t one_in)
{
	return lot(one_in) == 0;
}

static const char *name_of(int key)
{
	static char name[8];

	snprintf(name, sizeof(name), "%c:%d", key < KEYS / 2 ? 'k' : 'm', key);
	return name;
}

static int key_of(struct span name)
{
	return name.n == 3 && (name.p[0] == 'k' || name.p[0] == 'm') ? name.p[2] - '0' : -1;
}

/* ---- events ---- */

static void schedule(struct event e)
{
	struct event **place = &w.events, *new = mem_alloc(sizeof(*new));

	*new = e;
	while (*place && (*place)->due <= e.due)
		place = &(*place)->next;
	new->next = *place;
	*place = new;
}

static int64_t delay(void)
{
	return chance(50) ? lot(60) : lot(6);
}

/* Behind what was sent before on this way. */
static int64_t in_order(int64_t *way)
{
	int64_t due = w.now + delay();

	*way = due > *way ? due : *way;
	return *way;
}

static void notify(int key)
{
	char text[400];
	const struct version *v = &w.version[key][w.n[key] - 1];
	char value[200];

	snprintf(value, sizeof(value), v->missing ? "null" : "\"%d" PAD "\"", w.n[key] - 1);
	snprintf(text, sizeof(text),
		 "{\"type\":\"notification\",\"key\":\"%s\",\"value\":%s,\"timestamp\":%d}",
		 name_of(key), value, 1000 * w.n[key] + key);
	for (int c = 1; c <= w.connections; c++) {
		if (w.connection[c].open && w.connection[c].told)
			schedule((struct event){.kind = NOTE,
						.due = in_order(&w.connection[c].down_due),
						.connection = c,
						.key = key,
						.version = w.n[key] - 1,
						.text = mem_strdup(text)});
	}
}

static int write_key(int key, bool missing)
{
	assert_true(w.n[key] < VERSIONS);
	w.version[key][w.n[key]++] = (struct version){missing, w.event};
	notify(key);
	return w.n[key] - 1;
}

static bool is_missing(int key)
{
	return w.version[key][w.n[key] - 1].missing;
}

static void see(int key, unsigned number)
{
	assert_true(w.sights < READS);
	w.sight[w.sights++] = (struct sight){key, w.n[key] - 1, w.event, -1, number};
}

static struct json_value member(struct span text, const char *name)
{
	struct json_object_reader reader;
	struct json_member m;

	json_object_begin(&reader, text);
	while (json_object_next(&reader, &m) > 0) {
		if (json_string_is(&m.name, span_of(name)))
			return m.value;
	}
	return (struct json_value){.text = {0}};
}

static int64_t number_of(struct span text, const char *name)
{
	struct json_value v = member(text, name);
	int64_t n = -1;

	if (v.type == JSON_NUMBER)
		json_number_integer(&v, 0, INT64_MAX, &n);
	return n;
}

static void add_range(struct buf *out, struct span from, struct span to, int64_t limit,
		      unsigned number)
{
	int n = 0;
	bool truncated = false;

	limit = limit < 0 ? 100 : limit;
	limit = limit < w.page ? limit : w.page;
	buf_addf(out, "\"records\":[");
	for (int key = 0; key < KEYS && !truncated; key++) {
		const char *name = name_of(key);
		if (strncmp(name, from.p, from.n) < 0 || strncmp(name, to.p, to.n) > 0)
			continue;
		truncated = !is_missing(key) && n == limit;
		if (truncated)
			break;
		see(key, number);
		if (!is_missing(key))
			buf_addf(out, "%s{\"key\":\"%s\",\"value\":\"%d" PAD "\"}", n++ ? "," : "",
				 name, w.n[key] - 1);
	}
	buf_addf(out, "],\"count\":%d,\"truncated\":%s", n, truncated ? "true" : "false");
}

/* Ours begin with w.asked; their value says which. */
static void execute_write(struct span text, int key, struct buf *out, bool missing)
{
	struct json_value v = member(text, "value");
	struct asked *a = NULL;
	int64_t number;

	if (v.text.p && v.text.n > 2) {
		struct json_value inside = {.text = {v.text.p + 1, v.text.n - 2},
					    .type = JSON_NUMBER};
		if (json_number_integer(&inside, 0, OPS, &number))
			a = &w.asked[number];
	}
	int version = write_key(key, missing);
	if (a)
		a->version = version;
	buf_addf(out, "\"success\":true");
}

static void serve(struct span text, struct buf *out, unsigned number)
{
	struct json_value k = member(text, "key"), end = member(text, "endKey");
	int key = key_of(json_string_raw(&k));
	int64_t op = number_of(text, "op");

	if (!w.calm && chance(1500)) {
		buf_addf(out, "{\"code\":429,\"error\":\"slow down\"");
		seen.refused++;
	} else if (op == OP_GET) {
		see(key, number);
		if (is_missing(key))
			buf_addf(out, "{\"code\":404,\"error\":\"Record not found\"");
		else
			buf_addf(out, "{\"code\":200,\"key\":\"%s\",\"value\":\"%d" PAD "\"",
				 name_of(key), w.n[key] - 1);
	} else if (op == OP_RANGE) {
		buf_addf(out, "{\"code\":200,");
		add_range(out, json_string_raw(&k), json_string_raw(&end), number_of(text, "limit"),
			  number);
	} else {
		buf_addf(out, "{\"code\":200,");
		execute_write(text, key, out, false);
	}
	buf_addf(out, ",\"messageId\":%" PRId64 "}", number_of(text, "messageId"));
}

static void at_service(const struct event *e)
{
	struct buf out = {0};
	unsigned number = ++w.requests;

	TELL("service, connection %d: %s", e->connection, e->text);
	serve(span_of(e->text), &out, number);
	if (w.calm || !chance(50))
		schedule((struct event){.kind = ANSWER,
					.due = w.now + delay(),
					.connection = e->connection,
					.number = number,
					.text = mem_strndup(buf_span(&out).p, buf_len(&out))});
	else
		seen.lost++;
	buf_release(&out);
}

/* ---- what the daemon's rooms are given ---- */

static void send_frame(void *owner, struct span head, struct span body)
{
	(void)owner;
	schedule((struct event){.kind = AT_SERVICE,
				.due = in_order(&w.connection[w.main].up_due),
				.connection = w.main,
				.text = frame_text(head, body)});
}

static void changed(void *owner, struct peer *peer)
{
	(void)owner;
	if (cache_is_peer(w.cache, peer))
		cache_heard(w.cache);
}

static void flush(void *owner, struct peer *peer)
{
	(void)owner;
	(void)peer;
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

static void read_sent(void *owner, void *reading)
{
	(void)owner;
	subscriptions_read_sent(w.subscriptions, reading);
}

static void read_end(void *owner, void *reading, enum router_read_end end,
		     const struct wire_frame *answer)
{
	(void)owner;
	subscriptions_read_end(w.subscriptions, reading, end, answer, w.now);
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
	.read_sent = read_sent,
	.read_end = read_end,
};

static void wanted(void *owner)
{
	(void)owner;
	w.wanted = true;
}

static const char *why_not_live(void *owner)
{
	(void)owner;
	return NULL;
}

static void forbidden(void *owner, struct peer *peer, struct span name)
{
	(void)owner;
	(void)peer;
	(void)name;
}

static int64_t clock_ms(void)
{
	return w.now;
}

static const struct subscriptions_ops subscriptions_ops = {
	.changed = changed,
	.flush = flush,
	.wanted = wanted,
	.why_not_live = why_not_live,
	.forbidden = forbidden,
	.wall_ms = clock_ms,
	.boot_ms = clock_ms,
	.mono_ms = clock_ms,
};

static const struct cache_ops cache_ops = {
	.mono_ms = clock_ms, .boot_ms = clock_ms, .wake_at = ignore_wake_at};

static void on_change(void *owner, const struct wire_frame *frame,
		      const struct notification *change)
{
	(void)owner;
	cache_change(w.cache, frame, change);
	subscriptions_change(w.subscriptions, frame, change);
}

static void on_straggler(void *owner, const struct wire_frame *frame,
			 const struct notification *change)
{
	(void)owner;
	if (frame) {
		cache_arrived(w.cache, frame);
		subscriptions_straggler(w.subscriptions, frame, change);
	} else {
		cache_missed(w.cache);
		subscriptions_unreadable(w.subscriptions);
	}
}

static const struct handover_ops handover_ops = {.change = on_change, .straggler = on_straggler};

/* ---- connections ---- */

static void connect_next(void)
{
	struct buf list = {0};

	w.next = ++w.connections;
	w.connection[w.next] = (struct connection){.open = true};
	w.catching = w.wanted = false;
	subscriptions_make_list(w.subscriptions, 1 << 20, &list);
	buf_release(&list);
	if (w.main)
		handover_begin(&w.handover);
	int64_t *up = &w.connection[w.next].up_due;
	schedule((struct event){.kind = HELLO, .due = in_order(up), .connection = w.next});
	schedule((struct event){.kind = PING, .due = in_order(up), .connection = w.next});
}

static void take_over(void)
{
	int old = w.main;

	TELL("connection %d takes over from %d", w.next, old);
	w.main = w.next;
	w.next = 0;
	if (old) {
		seen.moves++;
		w.former = old;
		w.former_until = w.now + 60 + lot(200);
		handover_move(&w.handover);
	}
	w.down = false;
	cache_up(w.cache);
	if (old)
		router_move(w.router, (uint32_t)w.main, w.now);
	else
		router_up(w.router, (uint32_t)w.main, w.now);
	subscriptions_live(w.subscriptions);
	cache_live(w.cache, true);
	if (!old) {
		handover_move(&w.handover);
		handover_former_gone(&w.handover);
	}
}

static void drop_former(void)
{
	if (!w.former)
		return;
	w.connection[w.former].open = false;
	handover_former_gone(&w.handover);
	router_lost(w.router, (uint32_t)w.former, 1000, false, w.now);
	w.former = 0;
}

static void lose_main(void)
{
	int lost = w.main;

	TELL("connection %d is lost", lost);
	seen.losses++;
	w.main = 0;
	w.connection[lost].open = false;
	handover_forget(&w.handover);
	w.down = true;
	w.lost_at = w.now;
	w.forgotten = ++w.event;
	cache_lost(w.cache, w.now - 1);
	subscriptions_lost(w.subscriptions, w.now);
	router_lost(w.router, (uint32_t)lost, 1000, false, w.now);
	if (w.next) {
		w.connection[w.next].open = false;
		handover_abort(&w.handover);
		subscriptions_list_failed(w.subscriptions);
	}
	w.next = 0;
	w.connect_at = w.now + lot(200);
}

/* Handovers come one after another; the former one is gone before the next begins. */
static void maybe_connect(void)
{
	if (w.former && w.now >= w.former_until)
		drop_former();
	if (w.next || w.now < w.connect_at || w.connections > 390)
		return;
	if (!w.main || (!w.former && (w.wanted || (!w.calm && chance(80)))))
		connect_next();
}

static void on_pong(int connection)
{
	if (connection == w.next && !w.main) {
		take_over();
	} else if (connection == w.next) {
		w.catching = true;
		schedule((struct event){.kind = PING,
					.due = in_order(&w.connection[w.main].up_due),
					.connection = w.main});
	} else if (connection == w.main && w.next && w.catching) {
		take_over();
	}
}

static void on_note(const struct event *e)
{
	struct wire_frame frame;
	int c = e->connection;

	TELL("notification on %d: %s", c, e->text);
	if (w.arrived[e->key] < e->version)
		w.arrived[e->key] = e->version;
	wire_parse(span_of(e->text), &frame);
	cache_arrived(w.cache, &frame);
	enum handover_from from = c == w.main   ? HANDOVER_MAIN
				  : c == w.next ? HANDOVER_NEXT
						: HANDOVER_FORMER;
	if ((c == w.main || c == w.next || c == w.former) &&
	    !handover_brings(&w.handover, from, &frame) && w.next) {
		w.connection[w.next].open = false;
		w.next = 0;
		subscriptions_list_failed(w.subscriptions);
	}
}

static void on_answer(const struct event *e)
{
	struct wire_frame frame;

	TELL("answer on %d: %s", e->connection, e->text);
	for (int i = w.sights - 1; i >= 0; i--) {
		if (w.sight[i].number == e->number)
			w.sight[i].answered_at = w.now;
	}
	wire_parse(span_of(e->text), &frame);
	router_frame(w.router, &frame, w.now);
}

static void run(const struct event *e)
{
	struct connection *c = &w.connection[e->connection];

	w.event++;
	if (!c->open)
		return;
	switch (e->kind) {
	case AT_SERVICE:
		at_service(e);
		break;
	case ANSWER:
		on_answer(e);
		break;
	case NOTE:
		on_note(e);
		break;
	case HELLO:
		c->told = true;
		break;
	case PING:
		schedule((struct event){
			.kind = PONG, .due = in_order(&c->down_due), .connection = e->connection});
		break;
	case PONG:
		on_pong(e->connection);
		break;
	}
}

/* ---- the checker ---- */

static void told(int key, int version)
{
	if (w.told[key] < version)
		w.told[key] = version;
}

/* The oldest version from this one on in which the key is missing; -1: none. */
static int missing_from(int key, int version)
{
	for (; version < w.n[key]; version++) {
		if (w.version[key][version].missing)
			return version;
	}
	return -1;
}

/* Was it read from the service when the rules allow it to be remembered? */
static bool was_read(int key, int version, bool missing)
{
	for (int i = w.sights - 1; i >= 0; i--) {
		const struct sight *s = &w.sight[i];
		if (s->key != key || s->answered_at < 0 || s->executed < w.written[key] ||
		    s->executed < w.forgotten || s->answered_at < w.now - MAX_AGE_MS)
			continue;
		if (missing ? w.version[key][s->version].missing && s->version >= version
			    : s->version == version)
			return true;
	}
	return false;
}

static void check_memory(int key, int version, bool missing)
{
	if (w.unanswered[key])
		WRONG("%s = %d from memory, while an own write of it is not answered", name_of(key),
		      version);
	if (version < w.arrived[key])
		WRONG("%s = %d from memory, and the notification of %d has arrived", name_of(key),
		      version, w.arrived[key]);
	if (!w.trust && !was_read(key, version, missing))
		WRONG("%s = %d from memory, and it was not read when it had to be", name_of(key),
		      version);
}

/* A client is told this version of a key, that it asked for when `floor` was known. */
static void check(int key, int version, bool missing, int floor, bool cached, bool stale)
{
	if (missing) {
		int least = cached && w.arrived[key] > floor && !stale ? w.arrived[key] : floor;
		version = missing_from(key, least);
		if (version < 0)
			WRONG("%s is said to be missing, which it was not since %d (%s)",
			      name_of(key), least, cached ? "from memory" : "asked for");
	}
	if (version >= w.n[key])
		WRONG("%s = %d, which nobody has written", name_of(key), version);
	if (version < floor)
		WRONG("%s = %d, and %d was told before it was asked for (%s)", name_of(key),
		      version, floor, cached ? "from memory" : "by the service");
	if (cached && !stale) {
		check_memory(key, version, missing);
		seen.misses404 += missing;
	} else if (stale && (!w.down || w.now - w.lost_at > MAX_STALE_MS)) {
		WRONG("%s = %d is served stale", name_of(key), version);
	}
	told(key, version);
}

static int value_of(const struct json_value *v)
{
	int n = 0;

	for (size_t i = 1; v->text.p[i] >= '0' && v->text.p[i] <= '9'; i++)
		n = 10 * n + (v->text.p[i] - '0');
	return n;
}

static void check_range(const struct asked *a, struct span line, bool cached, bool stale)
{
	struct json_value records = member(line, "records"), record;
	struct json_array_reader reader;
	int key = a->key;

	seen.ranges += cached;
	json_array_begin(&reader, &records);
	while (json_array_next(&reader, &record)) {
		struct json_value name = member(record.text, "key"),
				  value = member(record.text, "value");
		int found = key_of(json_string_raw(&name));
		for (; key < found; key++)
			check(key, 0, true, a->floor[key], cached, stale);
		check(key, value_of(&value), false, a->floor[key], cached, stale);
		key++;
	}
	struct json_value truncated = member(line, "truncated");
	for (; truncated.type == JSON_FALSE && key <= a->last; key++)
		check(key, 0, true, a->floor[key], cached, stale);
}

static void end_write(struct asked *a, int64_t code)
{
	w.unanswered[a->key]--;
	w.written[a->key] = w.event;
	if (code == 200) {
		if (!a->version)
			WRONG("a write was answered and not executed");
		told(a->key, a->version);
	}
}

static void check_answer(struct asked *a, struct span line)
{
	int64_t code = number_of(line, "code");
	bool cached = member(line, "cached").text.p, stale = member(line, "stale").text.p;

	a->done = true;
	seen.hits += cached && !stale;
	seen.stale += stale;
	if (a->op == OP_SET)
		end_write(a, code);
	else if (a->op == OP_RANGE && code == 200)
		check_range(a, line, cached, stale);
	else if (a->op == OP_GET && code == 404)
		check(a->key, 0, true, a->floor[a->key], cached, stale);
	else if (a->op == OP_GET && code == 200) {
		struct json_value v = member(line, "value");
		check(a->key, value_of(&v), false, a->floor[a->key], cached, stale);
	}
}

static void check_line(struct span line)
{
	struct json_value type = member(line, "type"), key = member(line, "key"),
			  value = member(line, "value");
	int64_t id = number_of(line, "messageId");

	if (type.text.p && json_string_is(&type, SPAN("notification"))) {
		int k = key_of(json_string_raw(&key));
		if (value.type == JSON_STRING)
			told(k, value_of(&value));
	} else if (id >= 0 && id < w.n_asked && !w.asked[id].done) {
		check_answer(&w.asked[id], line);
	}
}

/* What the clients were told is looked at before anything else happens. */
static void look(void)
{
	char batch[1 << 16];
	struct iovec iov[64];

	for (int i = 0; i < PEERS; i++) {
		struct outq *q = &w.peer[i].out;
		while (outq_len(q)) {
			size_t n = 0;
			int parts = outq_iov(q, iov, 64);
			for (int k = 0; k < parts; k++) {
				assert_true(n + iov[k].iov_len < sizeof(batch));
				memcpy(batch + n, iov[k].iov_base, iov[k].iov_len);
				n += iov[k].iov_len;
			}
			outq_take(q, n);
			for (char *p = batch, *end; p < batch + n; p = end + 1) {
				end = memchr(p, '\n', (size_t)(batch + n - p));
				assert_non_null(end);
				TELL("client %d: %.*s", i, (int)(end - p), p);
				check_line((struct span){p, (size_t)(end - p)});
			}
		}
	}
}

/* Keys of requests that are not over are there on top. */
static void check_bytes(void)
{
	size_t bytes = cache_counts(w.cache).bytes;

	if (bytes > w.memory + KEYS * (ENTRY_COUNTED + 3))
		WRONG("%zu bytes are remembered, and %zu may be", bytes, w.memory);
}

/* ---- clients ---- */

static void hand_in(int peer, struct span line)
{
	struct request request;
	struct request_fault fault;

	TELL("client %d asks: %.*s", peer, (int)line.n, line.p);
	assert_int_equal(request_parse(line, &request, &fault), 0);
	if (request.op == OP_SUBSCRIBE)
		subscriptions_subscribe(w.subscriptions, &w.peer[peer], &request, w.now);
	else if (!cache_answers(w.cache, &w.peer[peer], &request, w.now))
		router_request(w.router, &w.peer[peer], &request, w.now);
}

static void ask(int peer, enum request_op op)
{
	struct asked *a = &w.asked[w.n_asked];
	struct buf line = {0};

	assert_true(w.n_asked < OPS);
	*a = (struct asked){.op = op, .peer = peer, .key = (int)lot(KEYS)};
	memcpy(a->floor, w.told, sizeof(a->floor));
	buf_addf(&line, "{\"op\":%d,\"messageId\":%d,\"key\":\"%s\"", (int)op, w.n_asked,
		 name_of(a->key));
	if (op == OP_SET) {
		buf_addf(&line, ",\"value\":\"%d\"", w.n_asked);
		w.unanswered[a->key]++;
	} else if (op == OP_RANGE) {
		int most = a->key < KEYS / 2 ? KEYS / 2 : KEYS;
		a->last = a->key + (int)lot((uint32_t)(most - a->key));
		buf_addf(&line, ",\"endKey\":\"%s\"", name_of(a->last));
	}
	if (op != OP_SET && chance(12))
		buf_addf(&line, ",\"fresh\":true");
	buf_addf(&line, "}");
	w.n_asked++;
	w.event++;
	hand_in(peer, buf_span(&line));
	buf_release(&line);
}

static void act(void)
{
	int peer = (int)lot(PEERS);

	if (w.n_asked > OPS - 100)
		return;
	if (chance(w.calm ? 100 : 14))
		ask(peer, OP_SET);
	else if (chance(6))
		ask(peer, OP_RANGE);
	else
		ask(peer, OP_GET);
}

static void settings(struct cache_settings *s, bool other)
{
	static const char *const keys[] = {"k:*"}, *const few[] = {"k:0", "k:1"},
				 *const mirrors[] = {"m:*"};

	*s = (struct cache_settings){
		.keys = other ? few : keys,
		.n_keys = other ? 2 : 1,
		.mirrors = mirrors,
		.n_mirrors = other ? 0 : 1,
		.memory = w.memory,
		.max_age_ms = MAX_AGE_MS,
		.max_stale_ms = w.seed % 3 ? 0 : MAX_STALE_MS,
		.trust = w.trust,
		.request_timeout_ms = TIMEOUT_MS,
		.reads_at_once = 4,
	};
}

static void reload(void)
{
	struct cache_settings s;

	seen.reloads++;
	w.memory = chance(2) ? 200 + lot(600) : 1 << 20;
	settings(&s, chance(3));
	cache_set(w.cache, &s);
}

static void unreadable(void)
{
	seen.unreadable++;
	w.forgotten = ++w.event;
	cache_missed(w.cache);
	subscriptions_unreadable(w.subscriptions);
}

static void mishap(void)
{
	if (w.main && chance(500))
		lose_main();
	look();
	if (chance(700))
		reload();
	look();
	if (w.main && chance(900))
		unreadable();
	if (chance(30))
		write_key((int)lot(KEYS), chance(3));
	if (chance(200))
		handover_expire(&w.handover);
	if (chance(300)) {
		static const char *const topics[] = {"k:1", "m:5", "k:2"};
		char line[120];
		snprintf(line, sizeof(line),
			 "{\"op\":\"subscribe\",\"key\":\"%s\",\"initial\":%s,\"messageId\":\"s\"}",
			 topics[lot(3)], chance(2) ? "true" : "false");
		hand_in((int)lot(PEERS), span_of(line));
	}
}

static void step(void)
{
	w.now++;
	maybe_connect();
	look();
	while (w.events && w.events->due <= w.now) {
		struct event *e = w.events;
		w.events = e->next;
		run(e);
		free(e->text);
		free(e);
		look();
	}
	if (!w.calm) {
		mishap();
		look();
	}
	for (uint32_t n = lot(3); n; n--) {
		act();
		look();
	}
	router_expire(w.router, w.now);
	look();
	cache_expire(w.cache, w.now);
	look();
	check_bytes();
}

/* ---- a run ---- */

static void begin(uint32_t seed)
{
	struct router_settings router = {.max_in_flight = seed % 2 ? 64 : 6,
					 .combine = COMBINE_GETS,
					 .max_pipeline = 10000,
					 .request_timeout_ms = TIMEOUT_MS,
					 .max_waiting_bytes = 1 << 22,
					 .max_peer_waiting_bytes = 1 << 20};
	struct subscriptions_settings subscriptions = {.output_soft = 1 << 20,
						       .reads_at_once = 3,
						       .held_bytes = 1 << 16,
						       .max_subs = 1000,
						       .max_peer_subs = 1000,
						       .max_peer_globs = 100,
						       .max_topics = 1000,
						       .max_bytes = 1 << 24};
	struct cache_settings cache;

	memset(&w, 0, sizeof(w));
	w.seed = seed;
	w.lot = seed * 2654435761U + 1;
	w.verbose = getenv("HPKVD_TRUTHFUL_SEED") != NULL;
	w.trust = seed % 4 == 0;
	w.page = seed % PAGE_SHARE == 0 ? 2 : 1000;
	w.memory = 1 << 20;
	for (int i = 0; i < KEYS; i++) {
		w.n[i] = 1;
		w.version[i][0].missing = i % 2;
	}
	w.router = router_new(&router, &router_ops, NULL, &w.stats, seed);
	w.subscriptions = subscriptions_new(&subscriptions, &subscriptions_ops, NULL, w.router,
					    &w.stats, seed);
	handover_init(&w.handover, seed, &handover_ops, NULL);
	handover_limit(&w.handover, 1 << 18);
	settings(&cache, false);
	w.cache = cache_new(&cache, &cache_ops, NULL, w.router, w.subscriptions, &w.stats, seed);
	for (int i = 0; i < PEERS; i++) {
		w.peer[i].number = (uint64_t)i + 1;
		router_join(w.router, &w.peer[i]);
		subscriptions_join(w.subscriptions, &w.peer[i]);
	}
}

static void end(void)
{
	for (int i = 0; i < PEERS; i++) {
		router_leave(w.router, &w.peer[i], w.now);
		subscriptions_leave(w.subscriptions, &w.peer[i]);
		outq_fini(&w.peer[i].out);
	}
	cache_leave(w.cache);
	subscriptions_stop(w.subscriptions);
	router_free(w.router);
	cache_free(w.cache);
	subscriptions_free(w.subscriptions);
	handover_fini(&w.handover);
	while (w.events) {
		struct event *e = w.events;
		w.events = e->next;
		free(e->text);
		free(e);
	}
}

/* Once nothing goes wrong any more, reads are answered from memory. */
static void calm_down(void)
{
	struct cache_settings s;

	w.calm = true;
	w.memory = 1 << 20;
	settings(&s, false);
	cache_set(w.cache, &s);
	for (int i = 0; i < CALM_MS; i++)
		step();
	if (!cache_counts(w.cache).live)
		WRONG("nothing is remembered, though nothing goes wrong any more");
	struct cache_mirror m = cache_mirror(w.cache, 0);
	if (strcmp(m.state, "whole") != 0)
		WRONG("the mirror is %s, though nothing goes wrong any more", m.state);
	seen.whole++;
	uint64_t hits = w.stats.cache_hits;
	for (int i = 0; i < 100; i++)
		step();
	/* Refusals may have lowered the rate so far that values grow old unread. */
	if (w.stats.cache_hits < hits + 20 && router_pace(w.router, w.now) == 0)
		WRONG("few reads are answered from memory, though nothing goes wrong any more");
}

static void run_once(uint32_t seed)
{
	begin(seed);
	for (int i = 0; i < STEPS; i++)
		step();
	seen.trusted += w.trust;
	calm_down();
	end();
}

static void reads_are_truthful(void **state)
{
	const char *seed = getenv("HPKVD_TRUTHFUL_SEED");

	(void)state;
	if (seed) {
		run_once((uint32_t)strtoul(seed, NULL, 10));
		return;
	}
	for (uint32_t i = 1; i <= RUNS; i++)
		run_once(i);
	printf("# %u answers from memory (%u of missing keys, %u ranges, %u stale), %u moves, %u "
	       "losses, %u reloads, %u refused, %u answers lost, %u unreadable\n",
	       seen.hits, seen.misses404, seen.ranges, seen.stale, seen.moves, seen.losses,
	       seen.reloads, seen.refused, seen.lost, seen.unreadable);
	assert_true(seen.hits > 10000 && seen.misses404 > 1000 && seen.ranges > 1000);
	assert_true(seen.stale > 10 && seen.moves > 500 && seen.losses > 200);
	assert_true(seen.reloads > 100 && seen.refused > 30 && seen.lost > 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(reads_are_truthful)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
