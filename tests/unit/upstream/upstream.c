/* The connection to the service as its users see it: when it is made, with what, and what they are
 * told. Over connections, tokens and a loop that each case controls. */
#include "../test.h"

#include <errno.h>
#include <stdio.h>

#include "conns.h"
#include "../locked.h"
#include "../loop.h"
#include "base/mem.h"
#include "base/secret.h"
#include "upstream/credentials.h"
#include "upstream/upstream.h"

enum {
	BACKOFF_MIN = 100,
	BACKOFF_MAX = 1600,
	BATCH = 10,
	KEEPALIVE = 2000,
	LIFETIME = 100000,
	LINGER = 7500, /* connections.c: of a replaced connection */
};

/* ---- tokens that do what a case says ---- */

struct credentials {
	const struct credentials_ops *ops;
	void *owner;
	char prefix[32], path[32], new_path[32];
	bool asked;
	int64_t lifetime, born_at;
};

static struct credentials *credentials;
static unsigned tokens; /* asked for */
static bool shorter_helps;

struct credentials *credentials_new(struct event_base *base,
				    const struct credentials_settings *settings,
				    const struct credentials_ops *ops, void *owner,
				    struct stats *stats)
{
	(void)base, (void)stats;
	credentials = mem_zalloc(sizeof(*credentials));
	*credentials =
		(struct credentials){.ops = ops, .owner = owner, .lifetime = settings->lifetime_ms};
	snprintf(credentials->prefix, sizeof(credentials->prefix), "%s", settings->path_prefix);
	return credentials;
}

void credentials_free(struct credentials *c)
{
	if (credentials == c)
		credentials = NULL;
	free(c);
}

void credentials_set_times(struct credentials *c, int64_t timeout_ms, int64_t lifetime_ms)
{
	(void)timeout_ms;
	c->lifetime = lifetime_ms;
}

void credentials_ask(struct credentials *c)
{
	struct buf list = {0};

	assert_false(c->asked);
	c->asked = true;
	tokens++;
	c->ops->make_list(c->owner, 1000, &list);
	buf_release(&list);
}

bool credentials_is_asking(const struct credentials *c)
{
	return c->asked;
}

void credentials_cancel(struct credentials *c)
{
	c->asked = false;
}

const char *credentials_new_path(const struct credentials *c)
{
	return c->new_path;
}

void credentials_accept(struct credentials *c)
{
	if (!c->new_path[0])
		return;
	strcpy(c->path, c->new_path);
	c->new_path[0] = '\0';
	c->born_at = loop_now;
}

void credentials_reject(struct credentials *c)
{
	c->new_path[0] = '\0';
}

const char *credentials_path(struct credentials *c)
{
	return c->path[0] ? c->path : NULL;
}

void credentials_forget(struct credentials *c)
{
	c->path[0] = '\0';
}

char *credentials_make_key_path(const struct credentials *c)
{
	(void)c;
	return secret_dup("key");
}

bool credentials_was_refused(struct credentials *c, int http_status)
{
	credentials_reject(c);
	return shorter_helps && http_status == 431;
}

int64_t credentials_renew_at(const struct credentials *c)
{
	return c->born_at + c->lifetime / 4 * 3;
}

int64_t credentials_expires_at(const struct credentials *c)
{
	return c->born_at + c->lifetime;
}

static void answer_with(const struct credentials_answer *a)
{
	assert_true(credentials->asked);
	credentials->asked = false;
	if (a->verdict == CREDENTIALS_READY)
		snprintf(credentials->new_path, sizeof(credentials->new_path), "token %u", tokens);
	credentials->ops->answer(credentials->owner, a);
}

static void answer(enum credentials_verdict verdict, const char *why, int retry_after_s)
{
	answer_with(&(struct credentials_answer){verdict, why, retry_after_s, false});
}

static void mint(void)
{
	answer(CREDENTIALS_READY, NULL, -1);
}

/* ---- those above ---- */

static struct {
	char told[1000];
	bool wants, stale;
	bool list_refused; /* what token_list_ops::refused() returns */
	bool excused;      /* the router says that a request was at fault for a loss */
	bool busy;         /* each replaced connection has requests in flight */
	bool late_writes;  /* ... has writes that were given up */
	bool cached;       /* what the cache is told is told as well */
	unsigned lists;
	char changes[400];
} above;

static void __attribute__((format(printf, 1, 2))) tell(const char *format, ...)
{
	size_t n = strlen(above.told);
	va_list args;

	va_start(args, format);
	vsnprintf(above.told + n, sizeof(above.told) - n, format, args);
	va_end(args);
}

/* What the users were told since the last call. */
static void expect(const char *told)
{
	char seen[sizeof(above.told)];

	memcpy(seen, above.told, sizeof(seen));
	above.told[0] = '\0';
	assert_string_equal(seen, told);
}

/* The last line of the log, after its level. */
static char logged[1000];

static void note_log(enum log_level level, const char *text)
{
	static const char *const names[] = {[LOG_LEVEL_ERROR] = "error",
					    [LOG_LEVEL_WARNING] = "warning",
					    [LOG_LEVEL_NOTICE] = "notice",
					    [LOG_LEVEL_INFO] = "info"};

	snprintf(logged, sizeof(logged), "%s: %s", names[level], text);
}

static void expect_log(const char *line)
{
	assert_string_equal(logged, line);
	logged[0] = '\0';
}

static struct upstream *upstream;
static uint32_t connection_now;

static void is_up(struct router *r, uint32_t connection, int64_t now)
{
	(void)r, (void)now;
	connection_now = connection;
	tell("up %u;", connection);
}

static bool has_moved(struct router *r, uint32_t connection, int64_t now)
{
	(void)r, (void)now;
	if (!above.busy)
		upstream_connection_idle(upstream, connection_now);
	connection_now = connection;
	tell("moved %u;", connection);
	return above.late_writes;
}

static bool is_down(struct router *r, uint32_t connection, int close_code, bool dropped,
		    int64_t now)
{
	(void)r, (void)close_code, (void)dropped, (void)now;
	tell("down %u;", connection);
	return above.excused;
}

static int64_t wait_for_rate; /* of the next token */

static int64_t spends(struct router *r, int64_t now)
{
	int64_t wait = wait_for_rate;

	(void)r, (void)now;
	wait_for_rate = 0;
	return wait;
}

static void spend_was_refused(struct router *r, int64_t now)
{
	(void)r, (void)now;
	tell("pace lowered;");
}

static void has_room(struct router *r, int64_t now)
{
	(void)r, (void)now;
	tell("drained;");
}

static void state_changed(void *owner)
{
	(void)owner;
	if (upstream)
		tell("%s;", upstream_state_name(upstream_state(upstream)));
}

static void brings(struct router *r, const struct wire_frame *frame, int64_t now)
{
	(void)r, (void)now, (void)frame;
	tell("frame;");
}

static void notifies(struct subscriptions *s, const struct wire_frame *frame,
		     const struct notification *change)
{
	size_t n = strlen(above.changes);
	struct span key = json_string_raw(&frame->key), value = json_string_raw(&frame->value);

	(void)s, (void)change;
	snprintf(above.changes + n, sizeof(above.changes) - n, "%.*s=%.*s;", (int)key.n, key.p,
		 (int)value.n, value.p);
}

static void expect_changes(const char *changes)
{
	assert_string_equal(above.changes, changes);
	above.changes[0] = '\0';
}

static void strays(struct subscriptions *s, const struct wire_frame *frame,
		   const struct notification *change)
{
	struct span key = json_string_raw(&frame->key);

	(void)s, (void)change;
	tell("straggler %.*s;", (int)key.n, key.p);
}

static void cannot_read(struct subscriptions *s)
{
	(void)s;
	tell("unreadable;");
}

static void has_missed(struct subscriptions *s, int64_t since_ms)
{
	(void)s;
	tell("missed since %d;", (int)since_ms);
}

static bool asks_wants(const struct subscriptions *s)
{
	(void)s;
	return above.wants;
}

static bool asks_stale(const struct subscriptions *s)
{
	(void)s;
	return above.stale;
}

static size_t asks_list(struct subscriptions *s, size_t budget, struct buf *list)
{
	(void)s, (void)budget, (void)list;
	above.lists++;
	return 1;
}

static void is_live(struct subscriptions *s)
{
	(void)s;
	above.stale = false;
	tell("live;");
}

static void is_without(struct subscriptions *s)
{
	(void)s;
	tell("without;");
}

static void list_failed(struct subscriptions *s)
{
	(void)s;
	tell("failed;");
}

static bool list_refused(struct subscriptions *s, const char *why)
{
	(void)s, (void)why;
	tell("refused;");
	return above.list_refused;
}

static void refuses_all(struct subscriptions *s, const char *why, long retry_ms)
{
	(void)s, (void)why;
	tell("all refused for %ld;", retry_ms);
}

static void was_lost(struct subscriptions *s, int64_t heard_ms)
{
	(void)s;
	tell("lost since %d;", (int)heard_ms);
}

static void __attribute__((format(printf, 1, 2))) tell_cached(const char *format, ...)
{
	char text[100];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (above.cached)
		tell("cache %s;", text);
}

static void cache_is_up(struct cache *c)
{
	(void)c;
	tell_cached("up");
}

static void cache_is_live(struct cache *c, bool token)
{
	(void)c;
	tell_cached("%s", token ? "live" : "not live");
}

static void cache_lost(struct cache *c, int64_t heard_ms)
{
	(void)c;
	tell_cached("lost since %d", (int)heard_ms);
}

static void cache_sees(struct cache *c, const struct wire_frame *frame)
{
	(void)c, (void)frame;
	tell_cached("sees");
}

static void cache_takes(struct cache *c, const struct wire_frame *frame,
			const struct notification *change)
{
	(void)c, (void)frame, (void)change;
	assert_true(!above.cached || !above.changes[0]); /* subscribers come after it */
	tell_cached("takes");
}

static void cache_missed(struct cache *c)
{
	(void)c;
	tell_cached("missed");
}

static const struct upstream_ops ops = {
	.changed = state_changed,
	.up = is_up,
	.moved = has_moved,
	.down = is_down,
	.spend = spends,
	.spend_refused = spend_was_refused,
	.drained = has_room,
	.frame = brings,
	.change = notifies,
	.straggler = strays,
	.unreadable = cannot_read,
	.missed = has_missed,
	.list =
		{
			.wants = asks_wants,
			.stale = asks_stale,
			.make = asks_list,
			.live = is_live,
			.without = is_without,
			.failed = list_failed,
			.refused = list_refused,
			.refuse_all = refuses_all,
			.lost = was_lost,
		},
	.cache = {.up = cache_is_up,
		  .live = cache_is_live,
		  .lost = cache_lost,
		  .arrived = cache_sees,
		  .change = cache_takes,
		  .missed = cache_missed},
};

static struct stats stats;
static long locked_before;

static struct upstream_settings settings(void)
{
	static const unsigned char digest[CA_DIGEST_SIZE];

	return (struct upstream_settings){
		.endpoint = {.shown = "url",
			     .conn = {.host = "service",
				      .port = 443,
				      .connect_timeout_ms = 700,
				      .keepalive_ms = KEEPALIVE},
			     .ca_digest = digest},
		.attempts = {.path_prefix = "",
			     .api_key = "key",
			     .key_source = "a file",
			     .backoff_min_ms = BACKOFF_MIN,
			     .backoff_max_ms = BACKOFF_MAX,
			     .access_pattern = "",
			     .token_lifetime_ms = LIFETIME,
			     .subscribe_batch_ms = BATCH},
		.compared_bytes = 4 * HANDOVER_RECORD_BYTES,
		.seed = 42,
	};
}

static int begin(void **state)
{
	struct upstream_settings s = settings();

	(void)state;
	memset(&above, 0, sizeof(above));
	stats = (struct stats){0};
	tokens = 0;
	shorter_helps = false;
	wait_for_rate = 0;
	locked_before = locked_kb();
	loop_begin(1000, 7);
	loop_log = note_log;
	logged[0] = '\0';
	conns_begin();
	upstream = upstream_new(NULL, &s, &ops, &(struct upstream_users){0}, &stats);
	assert_non_null(upstream);
	expect_log("");
	return 0;
}

static int end(void **state)
{
	(void)state;
	upstream_free(upstream);
	upstream = NULL;
	assert_int_equal(conns_left(), 0);
	assert_int_equal(loop_timers(), 0);
	assert_int_equal(locked_kb(), locked_before);
	return 0;
}

static void expect_state(enum upstream_state state)
{
	assert_string_equal(upstream_state_name(upstream_state(upstream)),
			    upstream_state_name(state));
}

/* The first connection is open, with a token. */
static void connect_with_token(void)
{
	above.wants = above.stale = true;
	loop_turn();
	mint();
	conns_open(1);
	conns_pong(1);
	expect("connected;up 1;live;");
}

static void connect_with_key(void)
{
	loop_turn();
	conns_open(1);
	expect("connected;up 1;without;");
}

/* A new name is subscribed to, and a token for it minted. */
static void want_more(void)
{
	above.wants = above.stale = true;
	upstream_want(upstream);
	for (int64_t until = loop_now + 2000; !credentials->asked && loop_now < until;)
		loop_pass(BATCH); /* the first of a row comes after the first pass */
	mint();
}

/* ---- the first connection ---- */

static void nothing_wanted_takes_the_key(void **state)
{
	(void)state;
	assert_int_equal(conns_made(), 0); /* not from within */
	loop_turn();
	assert_int_equal(conns_made(), 1);
	assert_string_equal(conns_get(1)->path, "key");
	expect_state(UPSTREAM_CONNECTING);
	assert_false(upstream_sendable(upstream));
	assert_int_equal(upstream_unsent(upstream), 0);
	assert_int_equal(upstream_retry_ms(upstream), -1);
	assert_int_equal(upstream_token_expires_ms(upstream), -1);
	assert_int_equal(upstream_reconnects(upstream), 0);
	assert_null(upstream_last_error(upstream));
	assert_null(upstream_why_not_live(upstream));
	assert_string_equal(upstream_url(upstream), "url");
	loop_pass(300);
	assert_int_equal(upstream_since_ms(upstream), 300);
	conns_open(1);
	expect("connected;up 1;without;");
	expect_log("notice: upstream: connecting -> connected after 300 ms: service");
	assert_int_equal(upstream_since_ms(upstream), 0);
	assert_int_equal(upstream_token_expires_ms(upstream), -1);
	assert_int_equal(upstream_unsent(upstream), 0);
	conns_get(1)->congested = true;
	assert_int_equal(upstream_unsent(upstream), 1);
	conns_drain(1);
	expect("drained;");
	assert_int_equal(tokens, 0);
	assert_true(upstream_sendable(upstream));
	assert_false(upstream_has_token(upstream));
	upstream_send(upstream, span_of("{1"), span_of("2}"));
	assert_string_equal(conns_get(1)->sent, "{12}\n");
}

static void what_the_first_one_will_have(void **state)
{
	struct upstream_settings s = settings();

	(void)state;
	assert_false(upstream_has_token(upstream));
	above.wants = true;
	assert_true(upstream_has_token(upstream));
	above.wants = false;
	s.attempts.api_key = NULL;
	assert_int_equal(upstream_reload(upstream, &s, true), 0);
	assert_true(upstream_has_token(upstream));
}

static void parts_that_cannot_be_made(void **state)
{
	struct upstream_settings s = settings();
	const unsigned timers = loop_timers();

	(void)state;
	for (unsigned failing = LOOP_NO_SUSPEND; failing <= LOOP_NO_ALARM; failing <<= 1) {
		loop_failing = failing;
		assert_null(upstream_new(NULL, &s, &ops, &(struct upstream_users){0}, &stats));
		expect_log("error: upstream: Too many open files");
	}
	s.endpoint.trust = (struct trust *)&s; /* conns.c: it can't be read */
	assert_null(upstream_new(NULL, &s, &ops, &(struct upstream_users){0}, &stats));
	expect_log("error: upstream: there is no such file");
	assert_int_equal(loop_timers(), timers);
	upstream_free(NULL);
}

static void a_token_counts_once_a_ping_is_answered(void **state)
{
	(void)state;
	above.wants = above.stale = true;
	loop_turn();
	assert_int_equal(above.lists, 1);
	assert_int_equal(conns_made(), 0);
	mint();
	assert_string_equal(conns_get(1)->path, "token 1");
	conns_open(1);
	expect("");
	conns_tell(1, "k", "early", 1);
	expect_changes("");
	conns_pong(1);
	expect("connected;up 1;live;");
	expect_changes(""); /* subscribers are told of changes from here on */
	assert_true(upstream_has_token(upstream));
	assert_int_equal(upstream_token_expires_ms(upstream), LIFETIME);
	conns_tell(1, "k", "v", 2);
	expect_changes("k=v;");
}

static void a_silent_one_does_not_count(void **state)
{
	(void)state;
	above.wants = above.stale = true;
	loop_turn();
	mint();
	conns_open(1);
	conns_end(1, 0, -1);
	assert_null(conns_get(1));
	expect_state(UPSTREAM_BACKOFF);
	expect("failed;backoff;");
	assert_string_equal(credentials->new_path, "");
}

/* ---- pauses ---- */

static void pauses_double_and_have_an_end(void **state)
{
	int64_t most = BACKOFF_MIN;
	unsigned longer = 0;

	(void)state;
	for (unsigned i = 1; i <= 12; i++) {
		loop_pass(most);
		assert_int_equal(conns_made(), i);
		conns_end(i, 0, -1);
		expect_state(UPSTREAM_BACKOFF);
		assert_in_range(upstream_retry_ms(upstream), 0, most);
		longer += upstream_retry_ms(upstream) > BACKOFF_MIN;
		most = most * 2 < BACKOFF_MAX ? most * 2 : BACKOFF_MAX;
		if (i == 1)
			most = BACKOFF_MIN * 2;
	}
	assert_int_equal(stats.upstream_connect_failures, 12);
	assert_true(longer > 5);
}

static void so_do_those_before_a_connection_is_replaced(void **state)
{
	int64_t most = BACKOFF_MIN;
	unsigned longer = 0, main_number = 1;

	(void)state;
	connect_with_token();
	for (unsigned i = 1; i <= 12; i++) {
		want_more();
		conns_end(conns_made(), 0, -1);
		expect("failed;");
		expect_log("warning: upstream: the connection could not be replaced, it stays: it "
			   "was refused");
		assert_in_range(upstream_retry_ms(upstream), 0, most);
		longer += upstream_retry_ms(upstream) > BACKOFF_MIN;
		loop_pass(most);
		most = most * 2 < BACKOFF_MAX ? most * 2 : BACKOFF_MAX;
	}
	assert_true(longer > 5);
	assert_int_equal(stats.upstream_handover_failures, 12);
	for (unsigned i = 1; i <= 10; i++) { /* a success ends the row */
		want_more();
		conns_take_over(conns_made(), main_number);
		main_number = conns_made();
		want_more();
		conns_end(conns_made(), 0, -1);
		assert_in_range(upstream_retry_ms(upstream), 0, BACKOFF_MIN);
		loop_pass(BACKOFF_MIN);
	}
}

/* So that daemons that have lost the service at one time do not come back at one time. */
static void pauses_are_random(void **state)
{
	long least = BACKOFF_MIN, most = 0;

	(void)state;
	above.excused = true;
	for (uint32_t i = 1; i <= 8; i++) {
		loop_pass(BACKOFF_MAX);
		conns_open(i);
		conns_end(i, 0, -1);
		long ms = upstream_retry_ms(upstream);
		least = ms < least ? ms : least;
		most = ms > most ? ms : most;
	}
	assert_true(least < most);
}

/* ... of up to a minute and a half. */
static void thirty_seconds_are_stable_whatever_the_pauses(void **state)
{
	struct upstream_settings s = settings();

	(void)state;
	s.attempts.backoff_max_ms = 100000;
	assert_int_equal(upstream_reload(upstream, &s, false), 0);
	for (int i = 0; i < 8; i++) {
		for (int fails = 0; fails < 5; fails++) {
			loop_pass(100000);
			conns_end(conns_made(), 0, -1);
		}
		loop_pass(100000);
		conns_open(conns_made());
		loop_pass(30000);
		conns_end(conns_made(), 0, -1);
		assert_in_range(upstream_retry_ms(upstream), 0, BACKOFF_MIN);
	}
}

static void a_pause_that_is_asked_for_is_kept(void **state)
{
	(void)state;
	loop_turn();
	conns_end(1, 503, 30);
	assert_int_equal(upstream_retry_ms(upstream), 30000);
	assert_int_equal(upstream_handover_ms(upstream), -1);
	assert_string_equal(upstream_last_error(upstream), "it was refused");
	assert_null(upstream_token_error(upstream));
	loop_pass(29999);
	assert_int_equal(conns_made(), 1);
	assert_int_equal(upstream_retry_ms(upstream), 1);
	loop_now += 2; /* the timer is late */
	assert_int_equal(upstream_retry_ms(upstream), 0);
	loop_turn();
	assert_int_equal(conns_made(), 2);
}

static void one_that_is_dropped_soon_does_not_end_the_pauses(void **state)
{
	unsigned n = 0;

	(void)state;
	for (unsigned i = 1; i <= 8; i++) {
		loop_pass(BACKOFF_MAX);
		conns_open(i);
		conns_end(i, 0, -1);
		n += upstream_retry_ms(upstream) > BACKOFF_MIN;
	}
	assert_true(n > 2);
	loop_pass(BACKOFF_MAX);
	conns_open(9);
	loop_pass(BACKOFF_MAX); /* it is stable */
	conns_end(9, 0, -1);
	assert_in_range(upstream_retry_ms(upstream), 0, BACKOFF_MIN);
}

/* The same losses, each over a request at fault. */
static void an_excused_loss_does_not_lengthen_the_pauses(void **state)
{
	(void)state;
	above.excused = true;
	for (uint32_t i = 1; i <= 8; i++) {
		loop_pass(BACKOFF_MAX);
		conns_open(i);
		conns_end(i, 0, -1);
		assert_in_range(upstream_retry_ms(upstream), 0, BACKOFF_MIN);
	}
}

static void the_key_is_refused(void **state)
{
	(void)state;
	loop_turn();
	conns_end(1, 401, -1);
	expect("failed;unauthorized;all refused for 1600;");
	expect_state(UPSTREAM_UNAUTHORIZED);
	expect_log("error: upstream: connecting -> unauthorized after 0 ms: the service has "
		   "refused the key from a file: it was refused");
	assert_int_equal(upstream_retry_ms(upstream), BACKOFF_MAX);
	assert_int_equal(stats.upstream_connect_failures, 1);
	loop_pass(BACKOFF_MAX);
	conns_open(2);
	expect("connecting;connected;up 2;without;");
}

/* ---- tokens that can't be had ---- */

/* Something is subscribed to, so a token is asked for; this is the answer. */
static void answer_to_wish(enum credentials_verdict verdict, const char *why, int retry_after_s)
{
	above.wants = above.stale = true;
	loop_turn();
	answer(verdict, why, retry_after_s);
}

static void requests_go_out_with_the_key_meanwhile(void **state)
{
	(void)state;
	answer_to_wish(CREDENTIALS_FAILED, "no token today", 2);
	expect("failed;");
	assert_string_equal(conns_get(1)->path, "key");
	assert_string_equal(upstream_why_not_live(upstream), "no token today");
	conns_open(1);
	expect("connected;up 1;");
	assert_string_equal(upstream_token_error(upstream), "no token today");
	assert_string_equal(upstream_why_not_live(upstream), "no token today");
	loop_pass(1999);
	assert_int_equal(tokens, 1);
	loop_pass(1);
	assert_int_equal(tokens, 2);
	mint();
	conns_take_over(2, 1);
	expect("moved 2;live;");
	assert_null(upstream_token_error(upstream));
}

static void the_key_is_refused_a_token(void **state)
{
	(void)state;
	answer_to_wish(CREDENTIALS_UNAUTHORIZED, "no", -1);
	conns_open(1); /* requests go out on it all the same */
	expect("failed;connected;up 1;all refused for 1600;");
	loop_pass(BACKOFF_MAX);
	assert_int_equal(tokens, 2);
}

static void a_lost_connection_is_no_reason_to_ask_for_a_token_sooner(void **state)
{
	(void)state;
	answer_to_wish(CREDENTIALS_FAILED, "no token today", 60);
	conns_open(1);
	conns_end(1, 0, -1);
	loop_pass(BACKOFF_MAX);
	assert_int_equal(tokens, 1);
	assert_string_equal(conns_get(2)->path, "key");
	conns_open(2);
	loop_pass(60000);
	assert_int_equal(tokens, 2);
}

/* ... nor is one that was connected with the key. */
static void it_is_asked_for_when_its_time_has_come(void **state)
{
	(void)state;
	answer_to_wish(CREDENTIALS_FAILED, "no token today", 4);
	conns_end(1, 503, 4);
	loop_pass(4000);
	assert_int_equal(tokens, 2);
}

/* The rest of its pause follows, in whole seconds. */
static void it_is_not_asked_for_before(void **state)
{
	static const struct {
		int64_t after;
		int seconds;
		long pause;
	} cases[] = {{999, 3, 1000}, {0, 2, 2000}, {500, 3, 1000}};

	for (size_t i = 0; i < COUNT(cases); i++) {
		answer_to_wish(CREDENTIALS_FAILED, "no token today", 4);
		loop_pass(cases[i].after);
		conns_end(1, 503, cases[i].seconds);
		loop_pass(1000 * cases[i].seconds);
		assert_int_equal(tokens, 1);
		assert_string_equal(conns_get(2)->path, "key");
		conns_open(2);
		assert_int_equal(upstream_retry_ms(upstream), cases[i].pause);
		end(state);
		begin(state);
	}
}

static void a_refused_key_asks_for_no_token_for_long(void **state)
{
	(void)state;
	answer_to_wish(CREDENTIALS_UNAUTHORIZED, "no", -1);
	conns_open(1);
	conns_end(1, 0, -1);
	loop_pass(BACKOFF_MIN);
	assert_string_equal(conns_get(2)->path, "key");
	assert_int_equal(tokens, 1);
}

static void the_pause_before_a_token_goes_on_while_the_machine_sleeps(void **state)
{
	(void)state;
	answer_to_wish(CREDENTIALS_FAILED, "no token today", 60);
	conns_open(1);
	conns_end(1, 0, -1);
	loop_sleep(60000);
	loop_pass(BACKOFF_MIN);
	assert_int_equal(tokens, 2);
}

static void the_rate_limit_refuses_a_token(void **state)
{
	const struct credentials_answer limited = {CREDENTIALS_FAILED, "slower", 1, true};
	struct upstream_settings s = settings();

	(void)state;
	above.wants = above.stale = true;
	loop_turn();
	answer_with(&limited);
	expect("pace lowered;failed;");
	s.attempts.api_key = NULL;
	assert_int_equal(upstream_reload(upstream, &s, true), 0);
	above.told[0] = '\0';
	loop_turn();
	answer_with(&limited); /* of an endpoint of its own, whose limit is another one */
	expect("failed;backoff;");
}

static void without_a_key_there_is_no_connection_meanwhile(void **state)
{
	struct upstream_settings s = settings();

	(void)state;
	s.attempts.api_key = NULL;
	s.attempts.key_source = "a URL";
	assert_int_equal(upstream_reload(upstream, &s, true), 0);
	loop_turn(); /* nothing is wanted */
	answer(CREDENTIALS_FAILED, "no token today", 30);
	expect("failed;backoff;");
	assert_int_equal(conns_made(), 0);
	assert_string_equal(upstream_last_error(upstream), "no token today");
	assert_int_equal(upstream_retry_ms(upstream), 30000);
	loop_pass(30000);
	answer(CREDENTIALS_UNAUTHORIZED, "no", -1);
	expect("connecting;failed;unauthorized;all refused for 1600;");
	expect_log("error: upstream: connecting -> unauthorized after 0 ms: tokens are refused by "
		   "a URL: no");
	loop_pass(BACKOFF_MAX);
	mint();
	conns_open(1);
	conns_pong(1);
	expect("connecting;connected;up 1;live;");
}

static void a_new_token_is_refused(void **state)
{
	(void)state;
	above.wants = above.stale = true;
	loop_turn();
	mint();
	conns_end(1, 403, -1);
	expect("failed;");
	assert_string_equal(conns_get(2)->path, "key");
	conns_open(2);
	expect("connected;up 2;");
	loop_pass(BACKOFF_MAX);
	assert_int_equal(tokens, 2);
}

static void the_service_asks_for_a_pause(void **state)
{
	(void)state;
	connect_with_token();
	want_more();
	conns_end(2, 429, 30);
	expect("failed;");
	loop_pass(29999);
	assert_int_equal(tokens, 2);
	loop_pass(1);
	assert_int_equal(tokens, 3);
}

static void the_service_asks_for_no_pause(void **state)
{
	(void)state;
	above.wants = above.stale = true;
	loop_turn();
	mint();
	conns_end(1, 503, 0);
	expect("failed;backoff;");
	assert_int_equal(conns_made(), 1);
}

static void one_that_was_in_force_is_refused(void **state)
{
	(void)state;
	connect_with_token();
	conns_end(1, 0, -1);
	expect("lost since 1000;down 1;backoff;");
	loop_pass(BACKOFF_MAX);
	assert_string_equal(conns_get(2)->path, "token 1");
	assert_int_equal(tokens, 1);
	conns_end(2, 403, -1);
	loop_turn();
	assert_int_equal(tokens, 2); /* at once, and not with that token again */
	mint();
	conns_end(3, 403, -1); /* for a new one another is no help */
	loop_turn();
	assert_int_equal(tokens, 2);
	assert_string_equal(conns_get(4)->path, "key");
	conns_open(4);
	expect("connecting;failed;connected;up 4;");
}

static void a_token_that_is_too_long_is_made_shorter_at_once(void **state)
{
	(void)state;
	shorter_helps = above.wants = above.stale = true;
	loop_turn();
	mint();
	conns_end(1, 431, -1);
	expect("failed;");
	loop_turn();
	assert_int_equal(tokens, 2);
	answer(CREDENTIALS_TOO_LONG, "too long", -1);
	expect("failed;");
	loop_turn();
	assert_int_equal(tokens, 3);
	mint();
	conns_open(2);
	conns_pong(2);
	expect("connected;up 2;live;");
}

/* ---- lists that come to nothing ---- */

/* Whatever the reasons: the loop gets its turns, and after many lists there are pauses. */
static void lists_without_end_are_no_end_of_lists(enum credentials_verdict verdict)
{
	connect_with_token();
	above.stale = above.list_refused = true;
	upstream_want(upstream);
	loop_pass(BATCH);
	tokens = 0;
	for (int64_t until = loop_now + 60000; loop_now < until;) {
		if (credentials->asked) {
			answer(verdict, "no", -1);
			/* No more than one step follows in a turn, and none in this one. */
			assert_false(credentials->asked);
			assert_in_range(loop_turn(), 0, 1);
		} else {
			loop_pass(1);
		}
	}
	assert_in_range(tokens, 20, 80);
	assert_int_equal(conns_made(), 1);
}

/* Many lists follow each other at once, then pauses grow; a success ends the row. */
static void expect_pauses(unsigned lists)
{
	for (unsigned i = 0; i < lists; i++) {
		int64_t ms = i < 20 ? 0 : (i - 19) * 100 < 2000 ? (i - 19) * 100 : 2000;
		answer(CREDENTIALS_TOO_LONG, "too long", -1);
		assert_int_equal(upstream_handover_ms(upstream), ms);
		assert_false(credentials->asked);
		loop_pass(ms);
		assert_true(credentials->asked);
	}
}

static void the_pauses_between_lists(void **state)
{
	(void)state;
	connect_with_token();
	above.stale = true;
	upstream_want(upstream);
	loop_pass(BATCH);
	expect_pauses(45);
	mint();
	conns_take_over(2, 1);
	above.stale = true;
	upstream_want(upstream);
	loop_pass(2000);
	expect_pauses(22);
}

static void empty_lists(void **state)
{
	(void)state;
	lists_without_end_are_no_end_of_lists(CREDENTIALS_NONE);
}

static void refused_lists(void **state)
{
	(void)state;
	lists_without_end_are_no_end_of_lists(CREDENTIALS_REFUSED);
}

static void lists_that_are_too_long(void **state)
{
	(void)state;
	lists_without_end_are_no_end_of_lists(CREDENTIALS_TOO_LONG);
}

static void tokens_that_are_too_long(void **state)
{
	(void)state;
	connect_with_token();
	above.stale = shorter_helps = true;
	upstream_want(upstream);
	tokens = 0;
	for (int64_t until = loop_now + 60000; loop_now < until;) {
		if (credentials->asked) {
			mint();
			conns_end(conns_made(), 431, -1);
			assert_false(credentials->asked);
		}
		loop_pass(1);
	}
	assert_in_range(tokens, 20, 80);
}

/* A client has only just asked. */
static void it_was_empty_and_now_it_is_not(void **state)
{
	(void)state;
	connect_with_key();
	above.wants = true;
	upstream_want(upstream);
	loop_pass(BATCH);
	above.stale = true;
	answer(CREDENTIALS_NONE, NULL, -1);
	expect("failed;");
	loop_turn();
	mint();
	conns_take_over(2, 1);
	expect("moved 2;live;");
}

static void nothing_has_room(void **state)
{
	(void)state;
	connect_with_token();
	upstream_want(upstream);
	above.stale = true;
	loop_pass(BATCH);
	above.stale = false; /* the list had no room for anything */
	answer(CREDENTIALS_NONE, NULL, -1);
	expect("failed;");
	assert_non_null(strstr(upstream_token_error(upstream), "no room"));
	loop_pass(60000);
	assert_int_equal(tokens, 2);
	assert_int_equal(conns_made(), 1);
}

static void nobody_wants_it_any_more(void **state)
{
	(void)state;
	connect_with_key();
	above.wants = true;
	upstream_want(upstream);
	loop_pass(BATCH);
	above.wants = false;
	answer(CREDENTIALS_NONE, NULL, -1);
	expect("failed;");
	loop_pass(60000);
	assert_int_equal(conns_made(), 1);
}

static void nobody_wants_what_the_token_is_for(void **state)
{
	(void)state;
	connect_with_token();
	above.stale = true;
	upstream_want(upstream);
	loop_pass(BATCH);
	answer(CREDENTIALS_FAILED, "no token today", 1);
	loop_pass(1000);
	above.wants = above.stale = false;
	answer(CREDENTIALS_NONE, NULL, -1);
	assert_string_equal(conns_get(2)->path, "key");
	conns_take_over(2, 1);
	expect("failed;moved 2;without;");
	assert_string_equal(credentials->path, "");
	assert_null(upstream_token_error(upstream));
	conns_end(1, 0, -1);
	loop_pass(60000);
	assert_int_equal(loop_pending(), 0); /* nothing is to be renewed */
}

static void the_service_refuses_a_name(void **state)
{
	(void)state;
	connect_with_token();
	above.stale = true;
	upstream_want(upstream);
	loop_pass(BATCH);
	above.list_refused = true;
	answer(CREDENTIALS_REFUSED, "no", -1);
	expect("refused;");
	loop_turn();
	assert_int_equal(tokens, 3); /* another list, at once */
	above.list_refused = false;
	answer(CREDENTIALS_REFUSED, "no", -1);
	expect("refused;failed;");
	loop_turn();
	assert_int_equal(tokens, 3); /* no other list is worth trying: after a pause */
	loop_pass(BACKOFF_MAX);
	assert_int_equal(tokens, 4);
}

/* ---- taking over ---- */

static void something_is_wanted_while_it_is_made(void **state)
{
	(void)state;
	loop_turn();
	above.wants = true;
	upstream_want(upstream); /* nothing yet: there is no connection to replace */
	conns_open(1);
	loop_pass(BATCH);
	assert_int_equal(tokens, 1);
	mint();
	conns_take_over(2, 1);
	expect("connected;up 1;without;moved 2;live;");
}

static void another_takes_over_for_more(void **state)
{
	(void)state;
	connect_with_token();
	above.stale = true;
	assert_int_equal(upstream_handover_ms(upstream), -1);
	assert_null(upstream_why_not_live(upstream));
	upstream_want(upstream);
	assert_int_equal(upstream_handover_ms(upstream), BATCH);
	loop_pass(BATCH - 1);
	assert_int_equal(tokens, 1); /* there may be more names */
	upstream_want(upstream);
	assert_int_equal(upstream_retry_ms(upstream), 1);
	loop_now += 2; /* the timer is late */
	assert_int_equal(upstream_handover_ms(upstream), 0);
	assert_string_equal(upstream_why_not_live(upstream),
			    "there are many new subscriptions, and the next handover comes later");
	loop_turn();
	mint();
	upstream_want(upstream); /* is part of the list after it */
	assert_int_equal(upstream_handover_ms(upstream), -1);
	expect("");
	assert_string_equal(conns_get(2)->path, "token 2");
	conns_take_over(2, 1);
	expect("moved 2;live;");
	expect_log("info: upstream: a new connection has taken over");
	expect_state(UPSTREAM_CONNECTED);
	upstream_send(upstream, span_of("x"), span_of(""));
	assert_string_equal(conns_get(1)->sent, "");
	assert_string_equal(conns_get(2)->sent, "x\n");
	assert_int_equal(conns_get(1)->closing, 0); /* it may be late */
	loop_pass(LINGER);
	assert_int_equal(conns_get(1)->closing, 1000);
	conns_end(1, 0, -1);
	expect("down 1;");
	assert_int_equal(stats.upstream_handovers, 1);
	assert_int_equal(upstream_reconnects(upstream), 0);
}

static void one_that_fails_changes_nothing(void **state)
{
	(void)state;
	connect_with_token();
	want_more();
	conns_open(2);
	conns_end(2, 0, -1);
	expect("failed;");
	expect_state(UPSTREAM_CONNECTED);
	assert_non_null(upstream_token_error(upstream));
	conns_tell(1, "k", "v", 1);
	expect_changes("k=v;");
	loop_pass(BACKOFF_MIN);
	assert_int_equal(tokens, 3); /* it is tried again */
	mint();
	conns_take_over(3, 1);
	expect("moved 3;live;");
}

static void the_key_is_refused_while_another_works(void **state)
{
	(void)state;
	connect_with_token();
	above.stale = true;
	upstream_want(upstream);
	loop_pass(BATCH);
	answer(CREDENTIALS_UNAUTHORIZED, "no", -1);
	expect("failed;all refused for 1600;");
	expect_log("error: upstream: the service has refused the key from a file: no");
	expect_state(UPSTREAM_CONNECTED);
	loop_pass(BACKOFF_MAX);
	assert_int_equal(tokens, 3);
}

static void there_is_too_much_to_compare(void **state)
{
	(void)state;
	connect_with_token();
	want_more();
	for (int i = 0; i < 10; i++) {
		char value[16];
		snprintf(value, sizeof(value), "%d", i);
		conns_tell(1, value, "v", i + 1);
	}
	expect("failed;");
	expect_changes("0=v;1=v;2=v;3=v;4=v;5=v;6=v;7=v;8=v;9=v;");
	assert_null(conns_get(2));
	assert_null(credentials_path(credentials)[0] == 't' ? NULL
							    : "the former token is forgotten");
	loop_pass(BACKOFF_MIN);
	assert_int_equal(tokens, 3);
	mint();
	conns_take_over(3, 1);
	expect("moved 3;live;");
}

static void what_a_connection_brought_too_much_of_is_no_matter_later(void **state)
{
	(void)state;
	connect_with_token();
	want_more();
	for (int i = 0; i < 10; i++)
		conns_tell(1, "k", "v", i + 1);
	loop_pass(BACKOFF_MIN);
	mint();
	above.changes[0] = '\0';
	conns_take_over(3, 1);
	conns_tell(3, "k", "w", 100);
	conns_tell(1, "k", "w", 100);
	expect_changes("k=w;");
}

static void changes_of_connection_have_a_pace(void **state)
{
	unsigned last = 0;

	(void)state;
	connect_with_token();
	for (int64_t until = loop_now + 100000; loop_now < until;) {
		above.stale = true;
		upstream_want(upstream);
		loop_pass(BATCH);
		if (credentials->asked) {
			unsigned old = conns_made();
			mint();
			conns_take_over(conns_made(), old);
			last = loop_now < until - 50000 ? conns_made() : last;
		}
		for (unsigned i = 1; i < conns_made(); i++) {
			if (conns_get(i) && conns_get(i)->closing)
				conns_end(i, 0, -1);
		}
	}
	assert_in_range(conns_made(), 14 + 50, 14 + 55); /* one in two seconds, in the long run */
	assert_in_range(conns_made() - last, 24, 27);
	loop_pass(100000); /* and when it is quiet they are soon again */
	above.stale = true;
	upstream_want(upstream);
	loop_pass(BATCH);
	assert_true(credentials->asked);
}

/* One without a token goes as soon as it is idle, unless its writes may take effect yet. */
static void late_writes_keep_a_former_one(void **state)
{
	for (int i = 0; i < 2; i++) {
		above.late_writes = i;
		connect_with_key();
		want_more();
		conns_take_over(2, 1);
		assert_int_equal(conns_get(1)->closing, i ? 0 : 1000);
		end(state);
		begin(state);
	}
}

static void what_is_wanted_in_a_pause_waits_for_its_end(void **state)
{
	(void)state;
	connect_with_token();
	above.stale = true;
	upstream_want(upstream);
	loop_pass(BATCH);
	answer(CREDENTIALS_FAILED, "no token today", 30);
	expect_log("warning: upstream: no token, the connection stays as it is: no token today");
	upstream_want(upstream);
	assert_int_equal(upstream_handover_ms(upstream), 30000);
	loop_pass(29999);
	assert_int_equal(tokens, 2);
	loop_pass(1);
	assert_int_equal(tokens, 3);
}

static void a_token_waits_for_the_rate_limit(void **state)
{
	(void)state;
	connect_with_token();
	wait_for_rate = 700;
	above.stale = true;
	upstream_want(upstream);
	loop_pass(BATCH);
	assert_int_equal(tokens, 1);
	loop_pass(699);
	assert_int_equal(tokens, 1);
	upstream_want(upstream); /* shares it */
	loop_pass(1);
	assert_int_equal(tokens, 2);
	mint();
	conns_take_over(2, 1);
	expect("moved 2;live;");
}

static void also_a_millisecond(void **state)
{
	(void)state;
	wait_for_rate = 1;
	above.wants = above.stale = true;
	loop_turn();
	assert_int_equal(tokens, 0);
	loop_pass(1);
	assert_int_equal(tokens, 1);
}

static void a_token_that_waits_is_given_up(void **state)
{
	(void)state;
	connect_with_token();
	wait_for_rate = 700;
	above.stale = true;
	upstream_want(upstream);
	loop_pass(BATCH);
	upstream_stop(upstream);
	loop_pass(1000);
	assert_int_equal(tokens, 1);
}

static void renewal(void **state)
{
	(void)state;
	connect_with_token();
	loop_pass(LIFETIME / 4 * 3 - 1);
	assert_int_equal(tokens, 1);
	loop_pass(1);
	assert_int_equal(tokens, 2);
	mint();
	conns_take_over(2, 1);
	expect("moved 2;live;");
	loop_pass(LIFETIME / 4 * 3);
	assert_int_equal(tokens, 3);
}

/* A batch that was due a little later does not end the pause after it. */
static void renewal_in_a_batch(void **state)
{
	(void)state;
	connect_with_token();
	loop_pass(LIFETIME / 4 * 3 - BATCH / 2);
	above.stale = true;
	upstream_want(upstream);
	loop_pass(BATCH / 2);
	assert_int_equal(tokens, 2);
	answer(CREDENTIALS_FAILED, "no token today", 30);
	loop_pass(BATCH);
	assert_int_equal(tokens, 2);
}

static void renewal_in_a_pause(void **state)
{
	(void)state;
	connect_with_token();
	loop_pass(LIFETIME / 4 * 3 - 1000);
	above.stale = true;
	upstream_want(upstream);
	loop_pass(BATCH);
	answer(CREDENTIALS_FAILED, "no token today", 30);
	loop_pass(29999);
	assert_int_equal(tokens, 2);
	loop_pass(1);
	assert_int_equal(tokens, 3);
}

static void a_token_that_is_not_renewed_expires(void **state)
{
	(void)state;
	connect_with_token();
	loop_pass(LIFETIME - 1);
	assert_int_equal(upstream_token_expires_ms(upstream), 1);
	loop_pass(1);
	assert_int_equal(upstream_token_expires_ms(upstream), 0);
	loop_pass(1);
	assert_int_equal(upstream_token_expires_ms(upstream), 0);
}

static void many_that_still_wait_for_answers_are_enough(void **state)
{
	(void)state;
	connect_with_token();
	above.busy = true;
	for (unsigned i = 1; i <= 16; i++) {
		want_more();
		conns_take_over(i + 1, i);
	}
	above.stale = true;
	upstream_want(upstream);
	loop_pass(60000);
	assert_int_equal(tokens, 17);
	above.told[0] = '\0';
	upstream_connection_idle(upstream, 1);
	assert_int_not_equal(conns_get(1)->closing, 0);
	conns_end(1, 0, -1);
	loop_pass(BATCH);
	assert_int_equal(tokens, 18);
}

/* ---- loss ---- */

static void a_loss_is_told_and_healed(void **state)
{
	(void)state;
	connect_with_token();
	loop_pass(500);
	conns_tell(1, "k", "v", 1);
	loop_pass(500);
	conns_end(1, 0, -1);
	expect("lost since 1500;down 1;backoff;");
	expect_log("notice: upstream: connected -> backoff after 1000 ms: it was lost");
	assert_string_equal(upstream_why_not_live(upstream), "it was lost");
	assert_false(upstream_sendable(upstream));
	loop_pass(BACKOFF_MIN * 2);
	conns_open(2);
	conns_pong(2);
	expect("connecting;connected;up 2;live;");
	assert_int_equal(upstream_reconnects(upstream), 1);
	assert_int_equal(stats.upstream_disconnects, 1);
	assert_string_equal(upstream_last_error(upstream), "it was lost");
}

/* Other timers of the attempt are stopped: the pause decides. */
static void after_a_loss_only_its_pause_is_due(void **state)
{
	struct upstream_settings s = settings();

	(void)state;
	connect_with_token();
	loop_pass(60000);
	assert_int_equal(loop_pending(), 1); /* the renewal */
	above.stale = true;
	upstream_want(upstream);
	assert_int_equal(upstream_reload(upstream, &s, false), 0);
	conns_end(1, 0, -1);
	assert_int_equal(loop_pending(), 1);
}

static void without_a_token_subscribers_miss_nothing(void **state)
{
	(void)state;
	connect_with_key();
	conns_end(1, 0, -1);
	expect("down 1;backoff;");
}

static void the_next_one_is_the_cure(void **state)
{
	(void)state;
	connect_with_token();
	want_more();
	conns_open(2);
	conns_end(1, 0, -1); /* before it has answered that it has brought everything */
	expect("lost since 1000;down 1;connecting;");
	conns_pong(2);
	expect("connected;up 2;live;");
	assert_int_equal(upstream_reconnects(upstream), 1);
}

static void one_that_is_proven_is_it_at_once(void **state)
{
	(void)state;
	connect_with_token();
	want_more();
	conns_open(2);
	conns_pong(2);
	conns_end(1, 0, -1);
	expect("lost since 1000;down 1;up 2;live;");
	expect_state(UPSTREAM_CONNECTED);
}

static void one_that_ends_behind_its_answer_is_no_loss(void **state)
{
	(void)state;
	connect_with_token();
	want_more();
	conns_open(2);
	conns_pong(2);
	conns_tell(2, "k", "v", 1); /* the old one has yet to bring it */
	expect_changes("");
	conns_pong(1);
	expect("moved 2;live;");
	expect_changes("k=v;");
	conns_end(1, 0, -1);
	expect("down 1;");
	assert_int_equal(stats.upstream_disconnects, 0);
}

/* A replaced connection is faster than the new one, and brings a change that this never brings. */
static void stragglers_are_told(void **state)
{
	(void)state;
	connect_with_token();
	want_more();
	conns_take_over(2, 1);
	expect("moved 2;live;");
	conns_tell(2, "k", "2", 2);
	conns_tell(1, "k", "1", 1);
	loop_pass(4999);
	expect("");
	loop_pass(5001);
	expect("straggler k;");
	expect_changes("k=2;");
}

/* ... before subscribers are told that the connection is lost. */
static void stragglers_are_told_before_a_loss(void **state)
{
	(void)state;
	connect_with_token();
	want_more();
	conns_take_over(2, 1);
	conns_tell(2, "k", "2", 2);
	conns_tell(1, "k", "1", 1);
	above.told[0] = '\0';
	conns_end(2, 0, -1);
	expect("straggler k;lost since 1010;down 2;backoff;");
}

/* Changes that the old one brings late can't be compared any more: any may be missed. */
static void too_much_after_the_handover_is_a_gap_for_all(void **state)
{
	(void)state;
	connect_with_token();
	want_more();
	conns_take_over(2, 1);
	expect("moved 2;live;");
	for (int i = 0; i < 10; i++) {
		char key[16];
		snprintf(key, sizeof(key), "%d", i);
		conns_tell(2, key, "v", i + 1);
	}
	expect("unreadable;");
	expect_changes("0=v;1=v;2=v;3=v;4=v;5=v;6=v;7=v;8=v;9=v;");
	loop_turn();
	expect("missed since 1;"); /* it may have had more to bring */
}

static void a_silent_old_one_is_a_loss(void **state)
{
	(void)state;
	connect_with_token();
	want_more();
	conns_open(2);
	conns_pong(2);
	conns_end(1, 0, -1);
	expect("lost since 1000;down 1;up 2;live;");
}

static void one_that_is_left_and_ends_loses_only_its_answers(void **state)
{
	(void)state;
	connect_with_token();
	want_more();
	conns_take_over(2, 1);
	expect("moved 2;live;");
	conns_end(1, 0, -1);
	expect("down 1;");
	expect_state(UPSTREAM_CONNECTED);
	assert_int_equal(stats.upstream_disconnects, 0);
}

static void a_replaced_one_ends_behind_the_main_one(void **state)
{
	(void)state;
	connect_with_token();
	want_more();
	conns_take_over(2, 1);
	above.told[0] = '\0';
	conns_end(2, 0, -1);
	conns_end(1, 0, -1);
	expect("lost since 1010;down 2;backoff;down 1;");
}

/* ---- what the cache is told ---- */

static void the_cache_is_told_first(void **state)
{
	(void)state;
	above.cached = true;
	above.wants = above.stale = true;
	loop_turn();
	mint();
	conns_open(1);
	conns_pong(1);
	expect("connected;cache up;up 1;live;cache live;");
	conns_tell(1, "k", "v", 1);
	expect("cache sees;cache takes;");
	expect_changes("k=v;");
	want_more();
	conns_take_over(2, 1);
	expect("cache up;moved 2;live;cache live;");
	conns_tell(2, "k", "3", 3);
	expect("cache sees;cache takes;");
	conns_tell(1, "k", "2", 2);
	expect("cache sees;");
	above.changes[0] = '\0';
	conns_end(2, 0, -1);
	expect("cache sees;straggler k;cache lost since 1010;lost since 1010;down 2;backoff;");
}

static void the_cache_is_told_of_the_key(void **state)
{
	(void)state;
	above.cached = true;
	loop_turn();
	conns_open(1);
	expect("connected;cache up;up 1;without;cache not live;");
}

static void the_cache_is_told_of_whatever_may_be_a_change(void **state)
{
	(void)state;
	connect_with_token();
	above.cached = true;
	conns_say(1, "{\"type\":\"notification\",\"key\":\"k\"]");
	expect("cache missed;unreadable;frame;");
	conns_say(1, "{\"code\":200}");
	expect("cache missed;frame;");
	conns_say(1, "{\"code\":200,\"messageId\":1,");
	expect("frame;");
	conns_say(1, "{\"code\":200,\"messageId\":1}");
	expect("frame;");
}

/* ---- new settings ---- */

static void times_only(void **state)
{
	struct upstream_settings s = settings();

	(void)state;
	connect_with_token();
	assert_int_equal(loop_suspend_ms, KEEPALIVE);
	s.attempts.token_lifetime_ms = LIFETIME / 10;
	s.attempts.subscribe_batch_ms = 500;
	s.endpoint.conn.keepalive_ms = 300;
	assert_int_equal(upstream_reload(upstream, &s, false), 0);
	expect("");
	assert_true(conns_get(1)->retimes > 0);
	assert_int_equal(loop_suspend_ms, 300);
	loop_turn();
	assert_int_equal(tokens, 1);
	upstream_want(upstream);
	assert_int_equal(upstream_handover_ms(upstream), 500);
	loop_pass(LIFETIME / 40 * 3);
	assert_int_equal(tokens, 2);
}

static void more_may_be_compared(void **state)
{
	struct upstream_settings s = settings();

	(void)state;
	s.compared_bytes = 100 * HANDOVER_RECORD_BYTES;
	connect_with_token();
	assert_int_equal(upstream_reload(upstream, &s, false), 0);
	want_more();
	for (int i = 0; i < 10; i++)
		conns_tell(1, "k", "v", i + 1);
	expect("");
	conns_take_over(2, 1);
	expect("moved 2;live;");
}

static void less_time_to_connect_begins_an_attempt_anew(void **state)
{
	struct upstream_settings s = settings();

	(void)state;
	above.wants = above.stale = true;
	loop_turn();
	assert_int_equal(upstream_reload(upstream, &s, false), 0); /* as much time as before */
	expect("");
	s.endpoint.conn.connect_timeout_ms--;
	assert_int_equal(upstream_reload(upstream, &s, false), 0);
	expect("failed;");
	loop_turn();
	assert_int_equal(tokens, 2);
	mint();
	s.endpoint.conn.connect_timeout_ms--;
	assert_int_equal(upstream_reload(upstream, &s, false), 0);
	expect("failed;");
	assert_null(conns_get(1));
	assert_string_equal(credentials->new_path, "");
	loop_turn();
	mint();
	conns_open(2);
	s.endpoint.conn.connect_timeout_ms--;
	assert_int_equal(upstream_reload(upstream, &s, false), 0); /* it has connected */
	conns_pong(2);
	expect("connected;up 2;live;");
}

static void new_settings_end_pauses(void **state)
{
	struct upstream_settings s = settings();

	(void)state;
	for (int i = 0; i < 8; i++) {
		for (int fails = 0; fails < 5; fails++) {
			loop_pass(BACKOFF_MAX);
			conns_end(conns_made(), 0, -1);
		}
		assert_int_equal(upstream_reload(upstream, &s, false), 0);
		loop_turn();
		conns_end(conns_made(), 0, -1);
		assert_in_range(upstream_retry_ms(upstream), 0, BACKOFF_MIN); /* the first one */
	}
}

static void also_the_one_before_a_token(void **state)
{
	struct upstream_settings s = settings();

	(void)state;
	answer_to_wish(CREDENTIALS_FAILED, "no token today", 60);
	conns_open(1);
	conns_end(1, 0, -1);
	assert_int_equal(upstream_reload(upstream, &s, false), 0);
	loop_turn();
	assert_int_equal(tokens, 2);
}

/* ... also if nothing is to be done at once. */
static void new_settings_end_the_pause_of_a_replacement(void **state)
{
	struct upstream_settings s = settings();

	(void)state;
	connect_with_token();
	above.stale = true;
	upstream_want(upstream);
	loop_pass(BATCH);
	answer(CREDENTIALS_FAILED, "no token today", 30);
	above.stale = false;
	assert_int_equal(upstream_reload(upstream, &s, false), 0);
	loop_turn();
	assert_int_equal(tokens, 2);
	assert_int_equal(upstream_handover_ms(upstream), -1);
}

/* The attempt of the new settings is made, and the pause after the one before it is over. */
static void an_attempt_fails_just_behind_new_settings(void **state)
{
	struct upstream_settings s = settings();

	(void)state;
	loop_turn();
	assert_int_equal(upstream_reload(upstream, &s, false), 0);
	conns_end(1, 503, 300);
	loop_turn();
	conns_open(2);
	assert_int_equal(upstream_handover_ms(upstream), -1);
}

static void another_service(void **state)
{
	struct upstream_settings s = settings();

	(void)state;
	connect_with_token();
	want_more(); /* with the former settings */
	s.endpoint.shown = "other url";
	s.endpoint.conn.host = "other";
	s.attempts.path_prefix = "/other";
	assert_int_equal(upstream_reload(upstream, &s, true), 0);
	expect("failed;");
	assert_null(conns_get(2));
	assert_string_equal(upstream_url(upstream), "url");
	loop_turn();
	assert_int_equal(tokens, 3);
	assert_string_equal(credentials->prefix, "/other");
	mint();
	assert_string_equal(conns_get(3)->shared->settings.host, "other");
	assert_string_equal(conns_get(1)->shared->settings.host, "service");
	conns_take_over(3, 1);
	expect("moved 3;live;");
	assert_string_equal(upstream_url(upstream), "other url");
}

static void another_service_while_a_token_is_made(void **state)
{
	struct upstream_settings s = settings();

	(void)state;
	connect_with_token();
	above.stale = true;
	upstream_want(upstream);
	loop_pass(BATCH);
	assert_true(credentials->asked);
	assert_int_equal(upstream_reload(upstream, &s, true), 0);
	expect("failed;");
	loop_turn();
	assert_true(credentials->asked);
	mint();
	conns_take_over(2, 1);
	expect("moved 2;live;");
}

static void another_service_while_a_token_waits(void **state)
{
	struct upstream_settings s = settings();

	(void)state;
	connect_with_token();
	wait_for_rate = 700;
	above.stale = true;
	upstream_want(upstream);
	loop_pass(BATCH);
	assert_int_equal(upstream_reload(upstream, &s, true), 0);
	expect("failed;");
	loop_turn();
	assert_int_equal(tokens, 2);
}

static void settings_that_cannot_be_used(void **state)
{
	struct upstream_settings s = settings();
	static const unsigned char digest[CA_DIGEST_SIZE] = {1};

	(void)state;
	connect_with_token();
	s.endpoint.trust = (struct trust *)&s; /* conns.c: it can't be read */
	s.endpoint.ca_digest = digest;
	assert_int_equal(upstream_reload(upstream, &s, true), -EINVAL);
	expect_log("error: upstream: there is no such file");
	loop_pass(1000);
	assert_int_equal(conns_made(), 1);
	conns_tell(1, "k", "v", 1);
	expect_changes("k=v;");
}

static void whoever_changes_something_sees_what_comes_of_it(void **state)
{
	struct upstream_settings s = settings();

	(void)state;
	loop_turn();
	conns_end(1, 503, 300);
	assert_int_equal(upstream_reload(upstream, &s, false), 0);
	loop_turn();
	assert_int_equal(conns_made(), 2);
}

/* ---- sleep ---- */

static void a_pause_goes_on_while_the_machine_sleeps(void **state)
{
	(void)state;
	loop_turn();
	conns_end(1, 503, 300);
	loop_sleep(299000);
	loop_pass(999);
	assert_int_equal(conns_made(), 1);
	loop_pass(1);
	assert_int_equal(conns_made(), 2);
}

static void a_connection_is_looked_after_and_a_token_is_older(void **state)
{
	(void)state;
	connect_with_token();
	loop_sleep(LIFETIME / 4 * 3 + 1);
	expect_log("info: upstream: the machine has slept for 75 s");
	assert_int_equal(conns_get(1)->checks, 1);
	loop_turn();
	assert_int_equal(tokens, 2);
}

/* ---- messages ---- */

static void what_cannot_be_read(void **state)
{
	static const char unreadable[] = "{\"type\":\"notification\",\"key\":\"k\"]";

	(void)state;
	connect_with_token();
	conns_say(1, unreadable);
	expect("unreadable;frame;");
	loop_turn();
	expect("missed since 1000;");
	loop_pass(2000);
	conns_say(1, unreadable);
	conns_say(1, unreadable);
	expect("unreadable;frame;unreadable;frame;");
	loop_pass(7999);
	expect("");
	loop_pass(1);
	expect("missed since 3000;"); /* not too often */
	loop_pass(20000);
	expect("");
	conns_say(1, unreadable);
	expect("unreadable;frame;");
	loop_turn();
	expect("missed since 31000;");
}

static void it_is_logged_now_and_then(void **state)
{
	static const char log[] = "warning: upstream: a message of the service can't be used: "
				  "neither a notification nor a messageId (%d so far)";
	char line[200];

	(void)state;
	connect_with_token();
	conns_say(1, "{\"code\":200,\"messageId\":1}");
	logged[0] = '\0';
	conns_say(1, "{}");
	snprintf(line, sizeof(line), log, 1);
	expect_log(line);
	stats.upstream_unusable = 4; /* as the router counts them */
	loop_pass(9999);
	conns_say(1, "{}");
	expect_log("");
	loop_pass(1);
	conns_say(1, "{}");
	snprintf(line, sizeof(line), log, 5);
	expect_log(line);
}

static void answers_come_from_all(void **state)
{
	(void)state;
	connect_with_token();
	want_more();
	conns_take_over(2, 1);
	above.told[0] = '\0';
	conns_say(1, "{\"code\":200,\"messageId\":1}");
	conns_say(2, "{\"code\":200,\"messageId\":2}");
	expect("frame;frame;");
	conns_get(2)->congested = true;
	assert_false(upstream_sendable(upstream));
	conns_drain(2);
	expect("drained;");
}

/* ---- the end ---- */

static void the_end(void **state)
{
	(void)state;
	connect_with_token();
	want_more();
	conns_take_over(2, 1);
	want_more();
	above.told[0] = '\0';
	conns_say(2, "{\"type\":\"notification\",\"key\":\"k\"]");
	expect("unreadable;frame;");
	upstream_stop(upstream);
	expect("stopped;");
	assert_int_equal(loop_suspend_ms, 0);
	assert_int_equal(loop_pending(), 0);
	assert_null(conns_get(3));
	assert_int_equal(conns_get(1)->closing, 1000);
	assert_int_equal(conns_get(2)->closing, 1000);
	assert_false(upstream_closed(upstream));
	conns_end(1, 0, -1);
	assert_false(upstream_closed(upstream));
	conns_end(2, 0, -1);
	assert_true(upstream_closed(upstream));
	expect("");
	above.stale = true;
	upstream_want(upstream);
	loop_pass(1000000);
	assert_int_equal(conns_made(), 3);
}

static void the_end_before_there_is_a_connection(void **state)
{
	(void)state;
	upstream_stop(upstream);
	assert_true(upstream_closed(upstream));
	loop_pass(1000000);
	assert_int_equal(conns_made(), 0);
}

static void the_end_in_a_pause(void **state)
{
	(void)state;
	loop_turn();
	conns_end(1, 503, 30);
	upstream_stop(upstream);
	assert_int_equal(loop_pending(), 0);
}

static void the_end_in_a_batch(void **state)
{
	(void)state;
	connect_with_token();
	above.stale = true;
	upstream_want(upstream);
	upstream_stop(upstream);
	assert_int_equal(loop_pending(), 0);
}

static void the_end_while_changes_are_held(void **state)
{
	(void)state;
	connect_with_token();
	want_more();
	conns_open(2);
	conns_pong(2);
	conns_tell(2, "k", "v", 1);
	expect_changes("");
}

static void the_end_while_a_token_is_made(void **state)
{
	(void)state;
	above.wants = above.stale = true;
	loop_turn();
	upstream_stop(upstream);
	assert_false(credentials->asked);
	assert_true(upstream_closed(upstream));
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		CASE(nothing_wanted_takes_the_key),
		CASE(what_the_first_one_will_have),
		CASE(parts_that_cannot_be_made),
		CASE(a_token_counts_once_a_ping_is_answered),
		CASE(a_silent_one_does_not_count),
		CASE(pauses_double_and_have_an_end),
		CASE(so_do_those_before_a_connection_is_replaced),
		CASE(pauses_are_random),
		CASE(thirty_seconds_are_stable_whatever_the_pauses),
		CASE(a_pause_that_is_asked_for_is_kept),
		CASE(one_that_is_dropped_soon_does_not_end_the_pauses),
		CASE(an_excused_loss_does_not_lengthen_the_pauses),
		CASE(the_key_is_refused),
		CASE(requests_go_out_with_the_key_meanwhile),
		CASE(the_key_is_refused_a_token),
		CASE(a_lost_connection_is_no_reason_to_ask_for_a_token_sooner),
		CASE(it_is_asked_for_when_its_time_has_come),
		CASE(it_is_not_asked_for_before),
		CASE(a_refused_key_asks_for_no_token_for_long),
		CASE(the_pause_before_a_token_goes_on_while_the_machine_sleeps),
		CASE(the_rate_limit_refuses_a_token),
		CASE(without_a_key_there_is_no_connection_meanwhile),
		CASE(a_new_token_is_refused),
		CASE(the_service_asks_for_a_pause),
		CASE(the_service_asks_for_no_pause),
		CASE(one_that_was_in_force_is_refused),
		CASE(a_token_that_is_too_long_is_made_shorter_at_once),
		CASE(the_pauses_between_lists),
		CASE(empty_lists),
		CASE(refused_lists),
		CASE(lists_that_are_too_long),
		CASE(tokens_that_are_too_long),
		CASE(it_was_empty_and_now_it_is_not),
		CASE(nothing_has_room),
		CASE(nobody_wants_it_any_more),
		CASE(nobody_wants_what_the_token_is_for),
		CASE(the_service_refuses_a_name),
		CASE(something_is_wanted_while_it_is_made),
		CASE(another_takes_over_for_more),
		CASE(one_that_fails_changes_nothing),
		CASE(the_key_is_refused_while_another_works),
		CASE(there_is_too_much_to_compare),
		CASE(what_a_connection_brought_too_much_of_is_no_matter_later),
		CASE(changes_of_connection_have_a_pace),
		CASE(late_writes_keep_a_former_one),
		CASE(what_is_wanted_in_a_pause_waits_for_its_end),
		CASE(a_token_waits_for_the_rate_limit),
		CASE(also_a_millisecond),
		CASE(a_token_that_waits_is_given_up),
		CASE(renewal),
		CASE(renewal_in_a_batch),
		CASE(renewal_in_a_pause),
		CASE(a_token_that_is_not_renewed_expires),
		CASE(many_that_still_wait_for_answers_are_enough),
		CASE(a_loss_is_told_and_healed),
		CASE(after_a_loss_only_its_pause_is_due),
		CASE(without_a_token_subscribers_miss_nothing),
		CASE(the_next_one_is_the_cure),
		CASE(one_that_is_proven_is_it_at_once),
		CASE(one_that_ends_behind_its_answer_is_no_loss),
		CASE(stragglers_are_told),
		CASE(stragglers_are_told_before_a_loss),
		CASE(too_much_after_the_handover_is_a_gap_for_all),
		CASE(a_silent_old_one_is_a_loss),
		CASE(one_that_is_left_and_ends_loses_only_its_answers),
		CASE(a_replaced_one_ends_behind_the_main_one),
		CASE(the_cache_is_told_first),
		CASE(the_cache_is_told_of_the_key),
		CASE(the_cache_is_told_of_whatever_may_be_a_change),
		CASE(times_only),
		CASE(more_may_be_compared),
		CASE(less_time_to_connect_begins_an_attempt_anew),
		CASE(new_settings_end_pauses),
		CASE(also_the_one_before_a_token),
		CASE(new_settings_end_the_pause_of_a_replacement),
		CASE(an_attempt_fails_just_behind_new_settings),
		CASE(another_service),
		CASE(another_service_while_a_token_is_made),
		CASE(another_service_while_a_token_waits),
		CASE(settings_that_cannot_be_used),
		CASE(whoever_changes_something_sees_what_comes_of_it),
		CASE(a_pause_goes_on_while_the_machine_sleeps),
		CASE(a_connection_is_looked_after_and_a_token_is_older),
		CASE(what_cannot_be_read),
		CASE(it_is_logged_now_and_then),
		CASE(answers_come_from_all),
		CASE(the_end),
		CASE(the_end_before_there_is_a_connection),
		CASE(the_end_in_a_pause),
		CASE(the_end_in_a_batch),
		CASE(the_end_while_changes_are_held),
		CASE(the_end_while_a_token_is_made),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
