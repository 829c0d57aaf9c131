/* Subscriptions from the request to the last notification: subscriptions, resync, fanout, topics
 * and the real router, with a fake upstream, fake sockets and clocks of our own. Texts are written
 * with ' for ", so that they can be read. */
#include "../test.h"
#include "../random.h"
#include "../router_ops.h"

#include <stdio.h>

#include "access/access.h"
#include "subscriptions/subscriptions.h"
#include "base/log.h"
#include "base/mem.h"

enum {
	PEERS = 4,
	IN_FLIGHT = 64,
	TIMEOUT = 1000,
	FRAMES = 4096,
	TEXT_MAX = 65536,
	SOFT = 300,
	WALL = 1000,
	BOOT = 5000,
	BUDGET = 4000
};

struct frame {
	char *text;
	bool answered;
};

/* A world of one router and its subscriptions: what they sent, and what their clients got. */
struct world {
	struct router *router;
	struct subscriptions *subscriptions;
	struct stats stats;
	struct peer peer[PEERS];
	bool away[PEERS];  /* has left */
	bool reads[PEERS]; /* its socket takes what it is offered by flush() */
	struct frame sent[FRAMES];
	size_t n_sent;
	uint32_t connection; /* the last one */
	unsigned wanted, flushed, forbidden, changed[PEERS];
	char told[TEXT_MAX]; /* by flush(), and by told() */
};

static char logged[4096]; /* since the world began */

enum log_level log_level(void)
{
	return LOG_LEVEL_DEBUG;
}

void log_line(enum log_level level, const char *format, ...)
{
	size_t n = strlen(logged);
	va_list args;

	(void)level;
	va_start(args, format);
	vsnprintf(logged + n, sizeof(logged) - n, format, args);
	va_end(args);
}

static int64_t world_now; /* each world begins at 0 */

static int64_t world_wall_ms(void)
{
	return WALL;
}

static int64_t world_slept; /* each world begins at 0 */

static int64_t world_boot_ms(void)
{
	return BOOT + world_slept;
}

static int64_t world_mono_ms(void)
{
	return world_now;
}

static void world_send(void *owner, struct span head, struct span body)
{
	struct world *w = owner;

	assert_true(w->n_sent < FRAMES);
	w->sent[w->n_sent++].text = frame_text(head, body);
}

static long world_reconnect_ms(void *owner)
{
	(void)owner;
	return 70;
}

static void world_changed(void *owner, struct peer *peer)
{
	struct world *w = owner;

	assert_false(w->away[peer - w->peer]);
	w->changed[peer - w->peer]++;
}

static void world_deferred_turn(void *owner, struct pending *p)
{
	subscriptions_deferred_turn(((struct world *)owner)->subscriptions, p);
}

static const char *world_deferred_end(void *owner, struct pending *p)
{
	return subscriptions_deferred_end(((struct world *)owner)->subscriptions, p);
}

static void world_read_sent(void *owner, void *reading)
{
	subscriptions_read_sent(((struct world *)owner)->subscriptions, reading);
}

static void world_read_end(void *owner, void *reading, enum router_read_end end,
			   const struct wire_frame *answer)
{
	struct world *w = owner;

	subscriptions_read_end(w->subscriptions, reading, end, answer, world_now);
}

static const struct router_ops router_ops = {
	.send = world_send,
	.sendable = always_sendable,
	.reconnect_ms = world_reconnect_ms,
	.changed = world_changed,
	.wake_at = ignore_wake_at,
	.connection_idle = ignore_connection_idle,
	.deferred_turn = world_deferred_turn,
	.deferred_end = world_deferred_end,
	.read_sent = world_read_sent,
	.read_end = world_read_end,
};

/* Appends all that is in the client's output to told. */
static void take_output(struct world *w, size_t peer)
{
	struct outq *q = &w->peer[peer].out;
	size_t at = strlen(w->told);
	struct iovec iov[4];

	while (outq_len(q)) {
		int n = outq_iov(q, iov, 4);
		size_t sum = 0;
		for (int i = 0; i < n; i++) {
			assert_true(at + iov[i].iov_len < sizeof(w->told));
			memcpy(w->told + at, iov[i].iov_base, iov[i].iov_len);
			at += iov[i].iov_len;
			sum += iov[i].iov_len;
		}
		outq_take(q, sum);
	}
	w->told[at] = '\0';
}

static void world_flush(void *owner, struct peer *peer)
{
	struct world *w = owner;
	size_t i = (size_t)(peer - w->peer);

	w->flushed++;
	if (w->reads[i])
		take_output(w, i);
}

static void world_wanted(void *owner)
{
	((struct world *)owner)->wanted++;
}

static const char *world_why(void *owner)
{
	(void)owner;
	return "the moon is full";
}

/* As many as lines were told of. */
static void world_forbidden(void *owner, struct peer *peer, struct span name)
{
	struct world *w = owner;

	assert_false(access_allows(peer, ACCESS_READ, name));
	w->forbidden++;
}

static const struct subscriptions_ops subscriptions_ops = {
	.changed = world_changed,
	.flush = world_flush,
	.wanted = world_wanted,
	.why_not_live = world_why,
	.forbidden = world_forbidden,
	.wall_ms = world_wall_ms,
	.boot_ms = world_boot_ms,
	.mono_ms = world_mono_ms,
};

static const struct subscriptions_settings usual = {
	.output_soft = SOFT,
	.reads_at_once = 8,
	.held_bytes = 4 << 20,
	.max_subs = 1000,
	.max_peer_subs = 100,
	.max_peer_globs = 100,
	.max_topics = 100000,
	.max_bytes = 1 << 20,
};

static struct world *world_with(const struct subscriptions_settings *settings)
{
	static const struct router_settings router = {
		.max_in_flight = IN_FLIGHT,
		.max_pipeline = 100,
		.request_timeout_ms = TIMEOUT,
		.max_waiting_bytes = 1 << 20,
		.max_peer_waiting_bytes = 1 << 20,
	};
	struct world *w = mem_zalloc(sizeof(*w));

	world_slept = 0;
	world_now = 0;
	logged[0] = '\0';
	w->router = router_new(&router, &router_ops, w, &w->stats, 42);
	w->subscriptions =
		subscriptions_new(settings, &subscriptions_ops, w, w->router, &w->stats, 42);
	for (size_t i = 0; i < PEERS; i++) {
		w->peer[i].number = i + 1;
		router_join(w->router, &w->peer[i]);
		subscriptions_join(w->subscriptions, &w->peer[i]);
	}
	return w;
}

static struct world *world_new(void)
{
	return world_with(&usual);
}

static void leave(struct world *w, size_t peer)
{
	w->away[peer] = true; /* nothing is put into its output from now on */
	router_leave(w->router, &w->peer[peer], world_now);
	subscriptions_leave(w->subscriptions, &w->peer[peer]);
}

static void world_free(struct world *w)
{
	for (size_t i = 0; i < PEERS; i++) {
		if (!w->away[i])
			leave(w, i);
		outq_fini(&w->peer[i].out);
	}
	assert_int_equal(subscriptions_counts(w->subscriptions).subscriptions, 0);
	assert_int_equal(subscriptions_counts(w->subscriptions).waiting, 0);
	subscriptions_stop(w->subscriptions);
	router_stop(w->router);
	router_free(w->router);
	subscriptions_free(w->subscriptions);
	for (size_t i = 0; i < w->n_sent; i++)
		free(w->sent[i].text);
	free(w);
}

/* ---- texts ---- */

/* The text with " for each '; the caller frees it. */
static char *quoted(const char *text)
{
	char *copy = mem_strdup(text);

	for (char *c = copy; *c; c++) {
		if (*c == '\'')
			*c = '"';
	}
	return copy;
}

#define OK(id) "{'code':200,'messageId':" id "}\n"
#define CHANGE(key, value) "{'type':'notification','key':'" key "','value':" value ",'timestamp':5}"
#define TOLD(key, value) CHANGE(key, value) "\n"
#define SKIPPED(key, value, n)                                                                     \
	"{'type':'notification','key':'" key "','value':" value ",'timestamp':5,'skipped':" n "}"  \
	"\n"
#define VALUE(key, value, why)                                                                     \
	"{'type':'notification','key':'" key "','value':" value ",'timestamp':1000,'" why          \
	"':true}\n"
#define INITIAL(key, value) VALUE(key, value, "initial")
#define RESYNC(key, value) VALUE(key, value, "resync")
#define CONNECTION(state) "{'type':'connection','state':'" state "','timestamp':1000}\n"
#define LOST CONNECTION("disconnected")
#define BACK CONNECTION("connected")
#define KEY_GAP(key) "{'type':'gap','key':'" key "'}\n"
#define PATTERN_GAP(pattern, since)                                                                \
	"{'type':'gap','pattern':'" pattern "','since':" since ",'until':1000}\n"

/* What the client was told since it was last asked. */
static const char *told(struct world *w, size_t peer)
{
	w->told[0] = '\0';
	take_output(w, peer);
	return w->told;
}

static void check_text(const char *seen, const char *want, const char *where, int line)
{
	char *plain = quoted(want);
	bool same = strcmp(seen, plain) == 0;

	if (!same)
		print_error("%s:%d: told\n%sinstead of\n%s", where, line, seen, plain);
	free(plain);
	if (!same)
		fail();
}

#define assert_told(w, peer, want) check_text(told((w), (peer)), (want), __FILE__, __LINE__)

/* The client was told nothing but an error with this reason and id, whose sentence has this text
 * in it. */
static void assert_refused(struct world *w, size_t peer, const char *reason, const char *id,
			   const char *text)
{
	char want[100];
	const char *seen = told(w, peer), *end = strchr(seen, '\n');

	if (!end || end[1])
		fail_msg("not one line: %s", seen);
	snprintf(want, sizeof(want), "\"reason\":\"%s\",\"executed\":\"no\"", reason);
	if (!strstr(seen, want) || !strstr(seen, text))
		fail_msg("%s (%s): %s", reason, text, seen);
	snprintf(want, sizeof(want), "\"messageId\":%s}\n", id);
	if (!strstr(seen, want))
		fail_msg("not %s's: %s", id, seen);
	if (!strcmp(reason, "queue_full") && strstr(seen, "retryAfterMs"))
		fail_msg("nobody knows when: %s", seen);
}

/* ---- what clients and the service do ---- */

static void say(struct world *w, size_t peer, const char *text)
{
	char *line = quoted(text);
	struct span copy = copy_of(span_of(line));
	struct request request;
	struct request_fault fault;

	if (request_parse(copy, &request, &fault) != 0)
		fail_msg("%s: %s", line, fault.text);
	if (request.op == OP_SUBSCRIBE)
		subscriptions_subscribe(w->subscriptions, &w->peer[peer], &request, world_now);
	else if (request.op == OP_UNSUBSCRIBE)
		subscriptions_unsubscribe(w->subscriptions, &w->peer[peer], &request);
	else
		router_request(w->router, &w->peer[peer], &request, world_now);
	free_copy(copy);
	free(line);
}

/* {"op":…,MEMBERS,"messageId":1} */
static void subscribe(struct world *w, size_t peer, const char *members)
{
	char text[TEXT_MAX / 8];

	snprintf(text, sizeof(text), "{'op':'subscribe',%s,'messageId':1}", members);
	say(w, peer, text);
}

static void unsubscribe(struct world *w, size_t peer, const char *members)
{
	char text[1000];

	snprintf(text, sizeof(text), "{'op':'unsubscribe',%s%s'messageId':2}", members,
		 members[0] ? "," : "");
	say(w, peer, text);
}

/* The list of a new token is made; it has these strings. */
static void assert_list_within(struct world *w, size_t budget, const char *want)
{
	struct buf list = {0};
	char *plain = quoted(want);

	subscriptions_make_list(w->subscriptions, budget, &list);
	assert_span(buf_span(&list), plain);
	free(plain);
	buf_release(&list);
}

static void assert_list(struct world *w, const char *want)
{
	assert_list_within(w, BUDGET, want);
}

static void make_list(struct world *w)
{
	struct buf list = {0};

	subscriptions_make_list(w->subscriptions, BUDGET, &list);
	buf_release(&list);
}

/* A connection with the token that was made last comes up where there was none; or takes over. */
static void come_up(struct world *w)
{
	router_up(w->router, ++w->connection, world_now);
	subscriptions_live(w->subscriptions);
}

static void take_over(struct world *w)
{
	router_move(w->router, ++w->connection, world_now);
	subscriptions_live(w->subscriptions);
}

/* As the daemon does it (upstream.c): requests first. Connections that were left are gone too. */
static void lose(struct world *w)
{
	subscriptions_lost(w->subscriptions, BOOT - 100);
	for (uint32_t connection = 1; connection <= w->connection; connection++)
		router_down(w->router, connection, world_now);
}

/* The service tells a change. */
static void hand_to(struct world *w, const char *object,
		    void (*to)(struct subscriptions *, const struct wire_frame *,
			       const struct notification *))
{
	char *text = quoted(object);
	struct span copy = copy_of(span_of(text));
	struct wire_frame frame;

	wire_parse(copy, &frame);
	assert_int_equal(frame.kind, WIRE_NOTIFICATION);
	struct notification c = notification_of(&frame, subscriptions_seed(w->subscriptions));
	to(w->subscriptions, &frame, &c);
	free_copy(copy);
	free(text);
}

static void change(struct world *w, const char *object)
{
	hand_to(w, object, subscriptions_change);
}

static void straggler(struct world *w, const char *object)
{
	hand_to(w, object, subscriptions_straggler);
}

/* The first frame for the key that is not answered yet; NULL: none. */
static struct frame *unanswered(struct world *w, const char *key)
{
	char want[200];

	snprintf(want, sizeof(want), "\"key\":\"%s\"", key);
	for (size_t i = 0; i < w->n_sent; i++) {
		if (!w->sent[i].answered && strstr(w->sent[i].text, want))
			return &w->sent[i];
	}
	return NULL;
}

static void assert_reading(struct world *w, const char *key)
{
	struct frame *frame = unanswered(w, key);

	if (!frame)
		fail_msg("%s is not being read", key);
	assert_non_null(strstr(frame->text, "\"op\":1"));
}

/* Members with ' for " and no comma at the ends. */
static void answer_frame(struct world *w, struct frame *f, const char *members)
{
	unsigned long long id;
	char text[1000];
	struct wire_frame frame;

	f->answered = true;
	assert_int_equal(sscanf(f->text, "{\"messageId\":%llu,", &id), 1);
	snprintf(text, sizeof(text), "{%s,'messageId':%llu}", members, id);
	char *plain = quoted(text);
	wire_parse(span_of(plain), &frame);
	router_frame(w->router, &frame, world_now);
	free(plain);
}

static void answer(struct world *w, const char *key, const char *members)
{
	struct frame *f = unanswered(w, key);

	if (!f)
		fail_msg("%s was not asked for", key);
	answer_frame(w, f, members);
}

/* Frames that were lost with their connection are not looked at any more. */
static void forget_frames(struct world *w)
{
	for (size_t i = 0; i < w->n_sent; i++)
		w->sent[i].answered = true;
}

static void lose_all(struct world *w)
{
	lose(w);
	forget_frames(w);
}

static void pass(struct world *w, int64_t ms)
{
	world_now += ms;
	router_expire(w->router, world_now);
}

/* The client subscribes, and that is live. */
static void live_with(struct world *w, size_t peer, const char *members)
{
	subscribe(w, peer, members);
	make_list(w);
	if (w->connection)
		take_over(w);
	else
		come_up(w);
	assert_told(w, peer, OK("1"));
}

/* ---- when a subscribe is answered ---- */

static void a_subscribe_is_answered_once_its_token_is_live(void **state)
{
	struct world *w = world_new();

	(void)state;
	assert_false(subscriptions_wants(w->subscriptions));
	subscribe(w, 0, "'key':'b','keys':['a'],'pattern':'p:*','patterns':['q*r','s']");
	assert_int_equal(w->wanted, 1);
	assert_true(subscriptions_wants(w->subscriptions));
	assert_true(subscriptions_is_stale(w->subscriptions));
	assert_told(w, 0, "");
	assert_list(w, "['a','b','p:*','q*r','s']");
	change(w, CHANGE("a", "'1'"));
	assert_told(w, 0, "");
	come_up(w);
	assert_told(w, 0, OK("1"));
	assert_false(subscriptions_is_stale(w->subscriptions));
	change(w, CHANGE("a", "'2'"));
	change(w, CHANGE("p:x", "'3'"));
	change(w, CHANGE("q-r", "'4'"));
	change(w, CHANGE("q-", "'5'"));
	assert_told(w, 0, TOLD("a", "'2'") TOLD("p:x", "'3'") TOLD("q-r", "'4'"));
	assert_told(w, 1, "");
	assert_int_equal(w->stats.notifications_unwanted, 2);
	assert_int_equal(w->stats.subscribes, 1);
	assert_int_equal(w->stats.lines_out, 3);
	struct subscriptions_counts n = subscriptions_counts(w->subscriptions);
	assert_int_equal(n.keys, 2);
	assert_int_equal(n.patterns, 3);
	assert_int_equal(n.subscriptions, 5);
	assert_true(n.live);
	world_free(w);
}

static void what_the_token_covers_already_is_live_at_once(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'keys':['a','b'],'pattern':'p:*'");
	w->wanted = 0;
	subscribe(w, 1, "'key':'a','pattern':'p:*'");
	assert_told(w, 1, OK("1"));
	subscribe(w, 1, "'key':'p:1','pattern':'p:q*x'");
	assert_told(w, 1, OK("1"));
	assert_int_equal(w->wanted, 0);
	subscribe(w, 1, "'keys':['b','c']");
	assert_told(w, 1, "");
	assert_int_equal(w->wanted, 1);
	change(w, CHANGE("b", "'1'"));
	assert_told(w, 1, ""); /* all of it, or nothing */
	assert_told(w, 0, TOLD("b", "'1'"));
	world_free(w);
}

static void a_subscribe_of_nothing_is_answered_and_ends(void **state)
{
	struct world *w = world_new();

	(void)state;
	subscribe(w, 0, "'keys':[],'patterns':[]");
	assert_told(w, 0, OK("1"));
	assert_false(subscriptions_wants(w->subscriptions));
	assert_null(w->peer[0].fanout.of_audience.le_prev);
	world_free(w);
}

static void a_token_that_is_gone_covers_nothing_until_the_connection_is_back(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'key':'a'");
	lose(w);
	assert_told(w, 0, LOST);
	subscribe(w, 1, "'key':'a'");
	assert_told(w, 1, "");
	come_up(w); /* with the old token */
	assert_told(w, 1, OK("1"));
	world_free(w);
}

/* Client 0 has a, and has ended it a while ago; the token still lists it, and the next one will
 * not.
 */
static struct world *world_with_a_listed(void)
{
	struct world *w = world_new();

	live_with(w, 0, "'keys':['a','z']");
	unsubscribe(w, 0, "'key':'a'");
	assert_told(w, 0, OK("2"));
	world_slept += TOPICS_LEFT_MS;
	return w;
}

static void one_that_was_just_left_is_in_the_coming_token(void **state)
{
	struct world *w = world_with_a_listed();

	(void)state;
	world_slept -= 1;
	subscribe(w, 1, "'key':'b'");
	assert_list(w, "['a','b','z']");
	subscribe(w, 2, "'key':'a'");
	assert_told(w, 2, OK("1"));
	take_over(w);
	w->wanted = 0;
	unsubscribe(w, 2, "'key':'a'");
	subscribe(w, 1, "'key':'a'");
	assert_int_equal(w->wanted, 0);
	world_free(w);
}

static void one_that_was_just_left_may_be_why_a_list_is_refused(void **state)
{
	struct world *w = world_with_a_listed();

	(void)state;
	world_slept -= 1;
	subscribe(w, 1, "'key':'b'");
	assert_list(w, "['a','b','z']");
	assert_true(subscriptions_list_refused(w->subscriptions, "why"));
	assert_told(w, 1, ""); /* is not blamed */
	assert_list(w, "['b','z']");
	take_over(w);
	assert_told(w, 1, OK("1"));
	world_free(w);
}

static void one_that_the_coming_token_drops_waits_for_another(void **state)
{
	struct world *w = world_with_a_listed();

	(void)state;
	subscribe(w, 1, "'key':'b'");
	assert_list(w, "['b','z']");
	subscribe(w, 2, "'key':'a'");
	assert_told(w, 2, "");
	w->wanted = 0;
	take_over(w);
	assert_told(w, 1, OK("1"));
	assert_told(w, 2, "");
	assert_int_equal(w->wanted, 1);
	assert_list(w, "['a','b','z']");
	take_over(w);
	assert_told(w, 2, OK("1"));
	world_free(w);
}

static void one_that_only_a_failed_token_would_have_dropped_is_live(void **state)
{
	struct world *w = world_with_a_listed();

	(void)state;
	subscribe(w, 1, "'key':'b'");
	assert_list(w, "['b','z']");
	subscribe(w, 2, "'key':'a'");
	assert_told(w, 2, "");
	subscriptions_list_failed(w->subscriptions);
	assert_told(w, 1, "");
	assert_told(w, 2, OK("1"));
	change(w, CHANGE("a", "'1'"));
	assert_told(w, 2, TOLD("a", "'1'"));
	world_free(w);
}

static void what_the_token_lists_is_live_again_at_once_while_nothing_is_on_its_way(void **state)
{
	struct world *w = world_with_a_listed();

	(void)state;
	w->wanted = 0;
	subscribe(w, 0, "'key':'a'");
	assert_told(w, 0, OK("1"));
	assert_int_equal(w->wanted, 0);
	world_free(w);
}

static void one_that_comes_while_a_token_is_made_waits_for_the_next(void **state)
{
	struct world *w = world_new();

	(void)state;
	subscribe(w, 0, "'key':'a'");
	make_list(w);
	subscribe(w, 1, "'key':'b'");
	subscribe(w, 2, "'key':'a'"); /* is in that list */
	w->wanted = 0;
	come_up(w);
	assert_told(w, 0, OK("1"));
	assert_told(w, 1, "");
	assert_told(w, 2, OK("1"));
	assert_int_equal(w->wanted, 1);
	make_list(w);
	take_over(w);
	assert_told(w, 1, OK("1"));
	world_free(w);
}

static void answers_without_an_id_keep_the_order_of_requests(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 1, "'keys':['a','b']");
	say(w, 0, "{'op':'get','key':'x'}");
	say(w, 0, "{'op':'subscribe','key':'a','initial':true}");
	say(w, 0, "{'op':'subscribe','key':'b'}");
	say(w, 0, "{'op':'unsubscribe','key':'b'}");
	subscribe(w, 0, "'key':'b'");
	assert_told(w, 0, OK("1")); /* has an id */
	change(w, CHANGE("a", "'1'"));
	assert_null(unanswered(w, "a"));
	assert_told(w, 0, "");
	answer(w, "x", "'code':404");
	assert_told(w, 0, "{'code':404}\n{'code':200}\n{'code':200}\n{'code':200}\n");
	change(w, CHANGE("b", "'2'"));
	assert_told(w, 0, TOLD("b", "'2'"));
	answer(w, "a", "'code':200,'value':'3'");
	assert_told(w, 0, INITIAL("a", "'3'"));
	world_free(w);
}

static void a_join_whose_turn_comes_before_its_token_waits_on(void **state)
{
	struct world *w = world_new();

	(void)state;
	come_up(w);
	say(w, 0, "{'op':'get','key':'x'}");
	say(w, 0, "{'op':'subscribe','key':'a'}");
	say(w, 0, "{'op':'subscribe','key':'b'}");
	answer(w, "x", "'code':404");
	assert_told(w, 0, "{'code':404}\n");
	make_list(w);
	take_over(w);
	assert_told(w, 0, "{'code':200}\n{'code':200}\n");
	world_free(w);
}

/* ---- who gets what ---- */

static void subscribing_again_succeeds_and_doubles_nothing(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'key':'a','keys':['a','\\u0061'],'pattern':'a','patterns':['a*','*','a']");
	subscribe(w, 0, "'key':'a','pattern':'a*'");
	assert_told(w, 0, OK("1"));
	change(w, CHANGE("a", "'1'"));
	assert_told(w, 0, TOLD("a", "'1'"));
	assert_int_equal(subscriptions_counts(w->subscriptions).subscriptions, 4);
	unsubscribe(w, 0, "'key':'a'");
	assert_told(w, 0, OK("2"));
	change(w, CHANGE("a", "'2'"));
	assert_told(w, 0, TOLD("a", "'2'"));
	unsubscribe(w, 0, "'patterns':['a','*','a*']");
	change(w, CHANGE("a", "'3'"));
	assert_told(w, 0, OK("2"));
	world_free(w);
}

static void a_notification_passes_as_it_is_on_one_line(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'key':'k\\u0000'");
	change(w, "{ 'x':[1, 2.50],\r\n'key' : '\\u006b\\u0000', 'type':'notification' }\n");
	assert_told(w, 0, "{ 'x':[1, 2.50],  'key' : '\\u006b\\u0000', 'type':'notification' } \n");
	change(w, CHANGE("k", "1"));
	assert_told(w, 0, "");
	world_free(w);
}

static void the_owner_hears_of_each_line(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'key':'a'");
	w->changed[0] = 0;
	change(w, CHANGE("a", "'1'"));
	assert_int_equal(w->changed[0], 1);
	change(w, CHANGE("b", "'1'"));
	assert_int_equal(w->changed[0], 1);
	lose(w);
	assert_int_equal(w->changed[0], 2);
	unsubscribe(w, 0, "");
	assert_int_equal(w->changed[0], 3);
	assert_int_equal(w->changed[1], 0);
	world_free(w);
}

/* ---- unsubscribe ---- */

static void unsubscribe_without_names_ends_all(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'keys':['a','b'],'pattern':'p*'");
	live_with(w, 1, "'key':'a'");
	unsubscribe(w, 0, "");
	change(w, CHANGE("a", "'1'"));
	change(w, CHANGE("p", "'1'"));
	assert_told(w, 0, OK("2"));
	assert_told(w, 1, TOLD("a", "'1'"));
	assert_null(w->peer[0].fanout.of_audience.le_prev);
	unsubscribe(w, 0, "'key':'never'");
	assert_told(w, 0, OK("2"));
	world_free(w);
}

static void unsubscribe_ends_what_a_subscribe_still_waits_for(void **state)
{
	struct world *w = world_new();

	(void)state;
	come_up(w);
	say(w, 0, "{'op':'subscribe','keys':['a','b'],'messageId':'s'}");
	say(w, 0, "{'op':'subscribe','keys':['b'],'messageId':'t'}");
	say(w, 1, "{'op':'subscribe','keys':['b'],'messageId':'u'}");
	unsubscribe(w, 0, "'key':'b'");
	assert_told(w, 0, OK("'t'") OK("2")); /* that one waits for nothing any more */
	assert_list(w, "['a','b']");
	take_over(w);
	assert_told(w, 0, OK("'s'"));
	assert_told(w, 1, OK("'u'"));
	change(w, CHANGE("b", "'1'"));
	change(w, CHANGE("a", "'1'"));
	assert_told(w, 0, TOLD("a", "'1'"));
	world_free(w);
}

static void unsubscribe_of_all_answers_every_subscribe_that_waits(void **state)
{
	struct world *w = world_new();

	(void)state;
	subscribe(w, 0, "'key':'a'");
	subscribe(w, 0, "'key':'a','patterns':['b','c']");
	subscribe(w, 1, "'key':'a'");
	unsubscribe(w, 0, "");
	assert_told(w, 0, OK("1") OK("1") OK("2"));
	assert_list(w, "['a']");
	unsubscribe(w, 1, "");
	assert_false(subscriptions_wants(w->subscriptions));
	assert_list(w, "[]");
	world_free(w);
}

/* The one that waits for nothing any more gives those behind it their turn. */
static void unsubscribe_answers_a_row_of_those_without_ids(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 1, "'key':'b'");
	say(w, 0, "{'op':'subscribe','key':'a'}");
	for (int i = 0; i < 3; i++)
		say(w, 0, "{'op':'subscribe','key':'b'}");
	say(w, 0, "{'op':'subscribe','key':'c'}");
	unsubscribe(w, 0, "'key':'a'");
	assert_told(w, 0, "{'code':200}\n{'code':200}\n{'code':200}\n{'code':200}\n" OK("2"));
	assert_int_equal(subscriptions_counts(w->subscriptions).waiting, 1);
	world_free(w);
}

/* ---- initial values ---- */

static void initial_values_follow_the_answer(void **state)
{
	struct world *w = world_new();

	(void)state;
	subscribe(w, 0, "'keys':['a','gone'],'pattern':'p*','initial':true");
	make_list(w);
	assert_int_equal(w->n_sent, 0);
	come_up(w);
	assert_told(w, 0, OK("1"));
	assert_int_equal(w->n_sent, 2);
	assert_int_equal(subscriptions_counts(w->subscriptions).rereading, 2);
	answer(w, "gone", "'code':404,'error':'no'");
	assert_told(w, 0, INITIAL("gone", "null"));
	answer(w, "a", "'code':200,'value':'{\\'x\\':1}'");
	assert_told(w, 0, INITIAL("a", "'{\\'x\\':1}'"));
	subscribe(w, 1, "'key':'a','initial':false");
	assert_told(w, 1, OK("1"));
	assert_int_equal(w->n_sent, 2);
	assert_int_equal(w->stats.rereads, 2);
	assert_int_equal(subscriptions_counts(w->subscriptions).rereading, 0);
	world_free(w);
}

static void an_initial_value_is_read_for_a_subscription_that_is_there_too(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'key':'a'");
	subscribe(w, 0, "'keys':['a','a'],'initial':true");
	assert_told(w, 0, OK("1"));
	answer(w, "a", "'code':200,'value':'1'");
	assert_null(unanswered(w, "a"));
	assert_told(w, 0, INITIAL("a", "'1'"));
	world_free(w);
}

static void one_reading_serves_all_that_wait_for_it(void **state)
{
	struct world *w = world_new();

	(void)state;
	subscribe(w, 0, "'key':'a','initial':true");
	subscribe(w, 1, "'key':'a','initial':true");
	subscribe(w, 2, "'key':'a'");
	make_list(w);
	come_up(w);
	for (size_t i = 0; i < 3; i++)
		assert_told(w, i, OK("1"));
	/* Whoever comes when it has been sent may know more than it brings. */
	subscribe(w, 3, "'key':'a','initial':true");
	subscribe(w, 1, "'key':'a','initial':true");
	change(w, CHANGE("a", "'2'"));
	assert_told(w, 3, OK("1") TOLD("a", "'2'"));
	assert_told(w, 1, OK("1"));
	answer(w, "a", "'code':200,'value':'1'");
	assert_told(w, 0, INITIAL("a", "'1'") TOLD("a", "'2'"));
	assert_told(w, 1, INITIAL("a", "'1'") TOLD("a", "'2'"));
	assert_told(w, 2, TOLD("a", "'2'"));
	assert_told(w, 3, "");
	answer(w, "a", "'code':200,'value':'2'");
	assert_told(w, 0, "");
	assert_told(w, 3, INITIAL("a", "'2'"));
	assert_null(unanswered(w, "a"));
	lose_all(w);
	come_up(w); /* all three are resynchronised by one */
	answer(w, "a", "'code':200,'value':'3'");
	assert_told(w, 0, LOST BACK RESYNC("a", "'3'"));
	assert_told(w, 1, LOST BACK RESYNC("a", "'3'"));
	assert_told(w, 2, LOST BACK RESYNC("a", "'3'"));
	assert_int_equal(w->stats.rereads, 3);
	world_free(w);
}

static void so_many_keys_are_read_at_once_as_the_settings_allow(void **state)
{
	struct subscriptions_settings settings = usual;

	(void)state;
	settings.reads_at_once = 2;
	struct world *w = world_with(&settings);
	live_with(w, 0, "'keys':['a','b','c']");
	live_with(w, 1, "'keys':['d','e','f']");
	unsubscribe(w, 1, ""); /* which the token covers still */
	told(w, 1);
	lose_all(w);
	come_up(w);
	told(w, 0);
	assert_int_equal(w->n_sent, 2);
	subscribe(w, 1, "'keys':['d','e','f'],'initial':true");
	assert_told(w, 1, OK("1"));
	assert_int_equal(w->n_sent, 2);
	for (size_t i = 0; i < 2; i++) /* what is in a hurry comes first */
		answer(w,
		       strstr(w->sent[i].text, "\"a\"")   ? "a"
		       : strstr(w->sent[i].text, "\"b\"") ? "b"
							  : "c",
		       "'code':404");
	assert_int_equal(w->n_sent, 4);
	for (size_t i = 2; i < 4; i++)
		assert_true(strstr(w->sent[i].text, "\"d\"") || strstr(w->sent[i].text, "\"e\"") ||
			    strstr(w->sent[i].text, "\"f\""));
	assert_int_equal(subscriptions_counts(w->subscriptions).rereading, 4);
	world_free(w);
}

static void one_who_wants_many_initial_values_does_not_keep_others_waiting(void **state)
{
	struct subscriptions_settings settings = usual;

	(void)state;
	settings.reads_at_once = 1;
	struct world *w = world_with(&settings);
	live_with(w, 0, "'keys':['a','b','c','d','e','f']");
	live_with(w, 1, "'key':'z'");
	live_with(w, 2, "'keys':['x','y']");
	subscribe(w, 0, "'keys':['a','b','c','d','e','f'],'initial':true");
	subscribe(w, 1, "'key':'z','initial':true");
	answer(w, "a", "'code':404");
	assert_reading(w, "z"); /* each has one in the first round */
	answer(w, "z", "'code':404");
	assert_reading(w, "b");
	/* One who comes later is in the round that is being read, not in those that are over. */
	answer(w, "b", "'code':404");
	answer(w, "c", "'code':404");
	subscribe(w, 2, "'keys':['x','y'],'initial':true");
	answer(w, "d", "'code':404");
	assert_reading(w, "x");
	answer(w, "x", "'code':404");
	assert_reading(w, "e");
	world_free(w);
}

static void reading_after_a_loss_goes_on_whatever_initial_values_are_wanted(void **state)
{
	struct subscriptions_settings settings = usual;
	int before = 0;

	(void)state;
	settings.reads_at_once = 1;
	struct world *w = world_with(&settings);
	live_with(w, 0, "'key':'lost'");
	live_with(w, 1, "'key':'first'");
	lose_all(w);
	come_up(w); /* one of the two is being read */
	const char *waits = unanswered(w, "lost") ? "first" : "lost";
	live_with(w, 2, "'keys':['a','b','c','d','e','f','g','h','i','j','k','l']");
	subscribe(w, 2, "'keys':['a','b','c','d','e','f','g','h','i','j','k','l'],'initial':true");
	while (!unanswered(w, waits) && before++ < 12)
		answer_frame(w, &w->sent[w->n_sent - 1], "'code':404");
	assert_in_range(before, 2, 10);
	world_free(w);
}

static void a_key_in_line_moves_up_for_one_who_wants_its_value(void **state)
{
	struct subscriptions_settings settings = usual;

	(void)state;
	settings.reads_at_once = 1;
	struct world *w = world_with(&settings);
	live_with(w, 0, "'keys':['a','b','c']");
	lose_all(w);
	come_up(w);
	told(w, 0);
	struct frame *first = &w->sent[0];
	const char *last = strstr(first->text, "\"c\"") ? "a" : "c";
	char text[100];
	snprintf(text, sizeof(text), "'key':'%s','initial':true", last);
	subscribe(w, 1, text);
	assert_told(w, 1, OK("1"));
	answer_frame(w, first, "'code':404");
	assert_reading(w, last);
	world_free(w);
}

/* Of two subscribers the second comes when the first one's reading has been sent. */
static void one_that_came_late_has_a_reading_that_begins_anew(void **state)
{
	struct subscriptions_settings settings = usual;

	(void)state;
	settings.reads_at_once = 1;
	struct world *w = world_with(&settings);
	live_with(w, 0, "'key':'a'");
	lose_all(w);
	come_up(w);
	live_with(w, 2, "'keys':['b']");
	lose_all(w);
	come_up(w);
	told(w, 0);
	told(w, 2);
	const char *other = unanswered(w, "a") ? "b" : "a", *key = unanswered(w, "a") ? "a" : "b";
	answer(w, key, "'code':500");
	answer_frame(w, &w->sent[w->n_sent - 1], "'code':500"); /* whichever came next */
	for (int i = 0; i < 10 && !unanswered(w, key); i++)
		answer(w, other, "'code':404");
	char text[100];
	snprintf(text, sizeof(text), "'key':'%s','initial':true", key);
	subscribe(w, 1, text);
	assert_told(w, 1, OK("1"));
	answer(w, key, "'code':200,'value':'1'");
	assert_told(w, 1, "");
	for (int i = 0; i < 2; i++) /* the failures before it do not count */
		answer(w, key, "'code':500");
	answer(w, key, "'code':200,'value':'2'");
	assert_non_null(strstr(told(w, 1), "\"initial\":true"));
	world_free(w);
}

/* ---- changes that cross with a reading ---- */

static const struct crossing {
	const char *changes[4]; /* values; they come while the key is read */
	const char *read;       /* NULL: 404 */
	const char *initial;    /* what whoever wants the value is told */
	const char *resync;     /* ... who was told '0' before the loss */
} crossings[] = {
	{{NULL}, "'1'", INITIAL("a", "'1'"), RESYNC("a", "'1'")},
	{{NULL}, "'0'", INITIAL("a", "'0'"), ""},
	{{NULL}, NULL, INITIAL("a", "null"), RESYNC("a", "null")},
	{{"'1'"}, "'1'", TOLD("a", "'1'") INITIAL("a", "'1'"), TOLD("a", "'1'")},
	{{"'1'"}, "'0'", INITIAL("a", "'0'") TOLD("a", "'1'"), TOLD("a", "'1'")},
	{{"'1'"}, "'9'", INITIAL("a", "'9'") TOLD("a", "'1'"), RESYNC("a", "'9'") TOLD("a", "'1'")},
	{{"'1'", "'2'"},
	 "'1'",
	 TOLD("a", "'1'") INITIAL("a", "'1'") TOLD("a", "'2'"),
	 TOLD("a", "'1'") TOLD("a", "'2'")},
	{{"'1'", "'2'", "'1'", "'3'"},
	 "'1'",
	 TOLD("a", "'1'") TOLD("a", "'2'") TOLD("a", "'1'") INITIAL("a", "'1'") TOLD("a", "'3'"),
	 TOLD("a", "'1'") TOLD("a", "'2'") TOLD("a", "'1'") TOLD("a", "'3'")},
	{{"'1'", "null"},
	 NULL,
	 TOLD("a", "'1'") TOLD("a", "null") INITIAL("a", "null"),
	 TOLD("a", "'1'") TOLD("a", "null")},
	{{"1"}, "'\\u0031'", TOLD("a", "1") INITIAL("a", "'\\u0031'"), TOLD("a", "1")},
};

static void cross(struct world *w, const struct crossing *c)
{
	char text[200];

	assert_reading(w, "a");
	for (size_t i = 0; i < COUNT(c->changes) && c->changes[i]; i++) {
		snprintf(text, sizeof(text), CHANGE("a", "%s"), c->changes[i]);
		change(w, text);
	}
	assert_told(w, 0, "");
	snprintf(text, sizeof(text), "'code':%d%s%s", c->read ? 200 : 404,
		 c->read ? ",'value':" : "", c->read ? c->read : "");
	answer(w, "a", text);
}

static void an_initial_value_has_its_place_among_the_changes(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(crossings); i++) {
		struct world *w = world_new();
		live_with(w, 1, "'pattern':'a*'");
		subscribe(w, 0, "'key':'a','pattern':'*','initial':true");
		make_list(w);
		take_over(w);
		assert_told(w, 0, OK("1"));
		cross(w, &crossings[i]);
		assert_told(w, 0, crossings[i].initial);
		if (crossings[i].changes[0]) /* others get them as ever */
			assert_string_not_equal(told(w, 1), "");
		world_free(w);
	}
}

static void a_value_is_told_after_a_loss_if_no_change_has_told_it(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(crossings); i++) {
		struct world *w = world_new();
		live_with(w, 0, "'key':'a','pattern':'a'");
		change(w, CHANGE("a", "'0'"));
		assert_told(w, 0, TOLD("a", "'0'"));
		lose(w);
		come_up(w);
		assert_told(w, 0, LOST BACK PATTERN_GAP("a", "900"));
		cross(w, &crossings[i]);
		assert_told(w, 0, crossings[i].resync);
		world_free(w);
	}
}

static void what_was_held_back_goes_out_when_the_connection_is_lost(void **state)
{
	struct world *w = world_new();

	(void)state;
	subscribe(w, 0, "'key':'a','initial':true");
	make_list(w);
	come_up(w);
	assert_told(w, 0, OK("1"));
	change(w, CHANGE("a", "'1'"));
	assert_told(w, 0, "");
	lose_all(w);
	assert_told(w, 0, TOLD("a", "'1'") LOST);
	pass(w, 2000); /* the daemon's own reads have time */
	come_up(w);
	assert_told(w, 0, BACK);
	answer(w, "a", "'code':200,'value':'1'");
	assert_told(w, 0, INITIAL("a", "'1'"));
	world_free(w);
}

static void what_was_held_back_goes_out_before_the_answer_to_unsubscribe(void **state)
{
	struct world *w = world_new();

	(void)state;
	subscribe(w, 0, "'key':'a','pattern':'a*','initial':true");
	subscribe(w, 1, "'key':'a'");
	make_list(w);
	come_up(w);
	assert_told(w, 0, OK("1"));
	change(w, CHANGE("a", "'1'"));
	unsubscribe(w, 0, "'key':'a'");
	assert_told(w, 0, TOLD("a", "'1'") OK("2"));
	change(w, CHANGE("a", "'2'"));
	assert_told(w, 0, TOLD("a", "'2'"));
	answer(w, "a", "'code':200,'value':'2'");
	assert_told(w, 0, "");
	assert_int_equal(subscriptions_counts(w->subscriptions).rereading, 0);
	world_free(w);
}

static void unsubscribe_of_all_brings_what_was_held_back_first(void **state)
{
	struct world *w = world_new();

	(void)state;
	subscribe(w, 0, "'key':'a','initial':true");
	make_list(w);
	come_up(w);
	change(w, CHANGE("a", "'1'"));
	unsubscribe(w, 0, "");
	assert_told(w, 0, OK("1") TOLD("a", "'1'") OK("2"));
	world_free(w);
}

/* ---- a value that comes before changes that it has seen ---- */

/* Of what it has seen the present one may have more to bring. */
static void what_is_answered_on_a_connection_that_was_left_is_read_again(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'key':'a'");
	subscribe(w, 0, "'key':'a','initial':true");
	take_over(w);
	answer(w, "a", "'code':200,'value':'2'");
	assert_told(w, 0, OK("1"));
	change(w, CHANGE("a", "'1'"));
	change(w, CHANGE("a", "'2'"));
	answer(w, "a", "'code':200,'value':'2'");
	assert_told(w, 0, TOLD("a", "'1'") TOLD("a", "'2'") INITIAL("a", "'2'"));
	world_free(w);
}

static void whoever_waits_for_a_value_does_not_wait_for_ever(void **state)
{
	struct world *w = world_new();
	int asked = 0;

	(void)state;
	live_with(w, 0, "'key':'a'");
	subscribe(w, 0, "'key':'a','initial':true");
	for (; unanswered(w, "a"); asked++) {
		take_over(w);
		answer(w, "a", "'code':200,'value':'2'");
	}
	assert_told(w, 0, OK("1") INITIAL("a", "'2'"));
	assert_in_range(asked, 3, 20);
	world_free(w);
}

static void what_was_held_back_goes_out_when_nothing_is_read_any_more(void **state)
{
	(void)state;
	for (int stops = 0; stops < 2; stops++) {
		struct world *w = world_new();
		subscribe(w, 0, "'keys':['a','b'],'initial':true");
		make_list(w);
		come_up(w);
		assert_told(w, 0, OK("1"));
		change(w, CHANGE("a", "'1'"));
		if (stops)
			subscriptions_stop(w->subscriptions);
		else
			subscriptions_without(w->subscriptions);
		assert_told(w, 0,
			    stops ? TOLD("a", "'1'") : TOLD("a", "'1'") KEY_GAP("b") KEY_GAP("a"));
		size_t n = w->n_sent;
		answer(w, "a", "'code':200,'value':'1'"); /* is not what is waited for */
		answer(w, "b", "'code':500");
		assert_told(w, 0, "");
		assert_int_equal(w->n_sent, n);
		world_free(w);
	}
}

static void while_the_connection_is_lost_nothing_is_asked_for(void **state)
{
	struct world *w = world_new();

	(void)state;
	subscribe(w, 0, "'key':'a','initial':true");
	make_list(w);
	come_up(w);
	lose_all(w);
	pass(w, 1000);
	assert_int_equal(router_waiting(w->router), 0);
	assert_int_equal(subscriptions_counts(w->subscriptions).rereading, 1);
	come_up(w);
	assert_reading(w, "a");
	world_free(w);
}

static void a_reading_with_too_much_held_back_begins_anew(void **state)
{
	enum { BIG = 1 << 20 };
	static const size_t value = sizeof("{'type':'notification','key':'a','value':'") - 1;
	struct subscriptions_settings settings = usual;
	char *text = mem_alloc(BIG + 200);

	(void)state;
	settings.output_soft = SIZE_MAX;
	struct world *w = world_with(&settings);
	subscribe(w, 0, "'key':'a','initial':true");
	make_list(w);
	come_up(w);
	assert_told(w, 0, OK("1"));
	for (int i = 0; i < 4; i++) {
		assert_int_equal(outq_len(&w->peer[0].out), 0);
		int n = sprintf(text, "{'type':'notification','key':'a','value':'%d", i);
		memset(text + n, 'x', BIG);
		strcpy(text + n + BIG, "'}");
		change(w, text);
	}
	assert_int_equal(w->peer[0].out.ring->n, 4); /* in order, and the last with them */
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(w->peer[0].out.ring->slot[i].shared->text[value], '0' + (int)i);
	change(w, CHANGE("a", "'5'"));
	assert_int_equal(w->peer[0].out.ring->n, 5);
	outq_take(&w->peer[0].out, outq_len(&w->peer[0].out));
	answer(w, "a", "'code':200,'value':'old'");
	assert_told(w, 0, "");
	answer(w, "a", "'code':200,'value':'5'");
	assert_told(w, 0, INITIAL("a", "'5'"));
	free(text);
	world_free(w);
}

/* ---- changes that can't be used ---- */

static void a_reading_that_a_lost_change_overtakes_is_tried_three_times(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'key':'a'");
	subscribe(w, 0, "'key':'a','initial':true");
	change(w, CHANGE("a", "'1'"));
	assert_told(w, 0, OK("1"));
	for (int i = 0; i < 3; i++) {
		assert_reading(w, "a");
		subscriptions_unreadable(w->subscriptions);
		assert_told(w, 0, i ? "" : TOLD("a", "'1'")); /* it waits no longer */
		answer(w, "a", "'code':200,'value':'2'");
	}
	assert_told(w, 0, KEY_GAP("a"));
	assert_int_equal(subscriptions_counts(w->subscriptions).rereading, 0);
	subscriptions_unreadable(w->subscriptions);
	subscribe(w, 0, "'key':'a','initial':true");
	answer(w, "a", "'code':200,'value':'3'");
	assert_told(w, 0, OK("1") INITIAL("a", "'3'"));
	world_free(w);
}

static void everybody_may_have_missed_a_lost_change(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'key':'a'");
	live_with(w, 1, "'pattern':'p*'");
	subscriptions_missed(w->subscriptions, BOOT - 100);
	assert_told(w, 0, KEY_GAP("a"));
	assert_told(w, 1, PATTERN_GAP("p*", "900"));
	world_free(w);
}

static void a_straggler_is_a_gap_of_its_key(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'key':'a'");
	live_with(w, 1, "'patterns':['a*','*']");
	live_with(w, 2, "'key':'b','pattern':'b*'");
	change(w, CHANGE("a", "'2'"));
	assert_told(w, 0, TOLD("a", "'2'"));
	assert_told(w, 1, TOLD("a", "'2'"));
	straggler(w, CHANGE("a", "'1'")); /* of the time 5 */
	assert_told(w, 0, KEY_GAP("a"));
	assert_told(w, 1, PATTERN_GAP("*", "5") PATTERN_GAP("a*", "5"));
	answer(w, "a", "'code':200,'value':'2'");
	assert_told(w, 0, RESYNC("a", "'2'"));
	assert_told(w, 1, "");
	assert_told(w, 2, "");
	straggler(w, "{'type':'notification','key':'b','value':null}");
	assert_told(w, 2, PATTERN_GAP("b*", "0") KEY_GAP("b"));
	world_free(w);
}

/* What was held back from others belongs before its gap for none but them. */
static void a_straggler_of_a_key_that_is_being_read_has_it_read_anew(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'key':'a'");
	subscribe(w, 1, "'key':'a','initial':true");
	change(w, CHANGE("a", "'2'")); /* held back from 1 */
	assert_told(w, 0, TOLD("a", "'2'"));
	straggler(w, CHANGE("a", "'1'"));
	assert_told(w, 0, KEY_GAP("a"));
	assert_told(w, 1, OK("1") KEY_GAP("a") TOLD("a", "'2'"));
	answer(w, "a", "'code':200,'value':'2'"); /* sent before the gap */
	assert_told(w, 0, "");
	answer(w, "a", "'code':200,'value':'3'");
	assert_told(w, 0, RESYNC("a", "'3'"));
	assert_told(w, 1, INITIAL("a", "'3'"));
	world_free(w);
}

/* The client has read it anew, and now it is again what it was told before. */
static void behind_a_gap_a_value_is_told_even_if_it_was_before(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'key':'a'");
	change(w, CHANGE("a", "'1'"));
	subscriptions_missed(w->subscriptions, BOOT);
	assert_told(w, 0, TOLD("a", "'1'") KEY_GAP("a"));
	lose_all(w);
	come_up(w);
	answer(w, "a", "'code':200,'value':'1'");
	assert_told(w, 0, LOST BACK RESYNC("a", "'1'"));
	lose_all(w);
	come_up(w);
	answer(w, "a", "'code':403,'error':'no'");
	assert_told(w, 0, LOST BACK KEY_GAP("a"));
	lose_all(w);
	come_up(w);
	answer(w, "a", "'code':200,'value':'1'");
	assert_told(w, 0, LOST BACK RESYNC("a", "'1'"));
	world_free(w);
}

static void what_was_missed_before_a_loss_is_in_its_gap(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'pattern':'p*'");
	lose_all(w);
	subscriptions_missed(w->subscriptions, BOOT - 500);
	assert_told(w, 0, LOST);
	come_up(w);
	assert_told(w, 0, BACK PATTERN_GAP("p*", "500"));
	world_free(w);
}

/* ---- after a loss ---- */

static void a_loss_is_told_to_the_audience_alone(void **state)
{
	struct world *w = world_new();

	(void)state;
	subscriptions_lost(w->subscriptions, 1); /* there was none */
	live_with(w, 0, "'patterns':['p*','q']");
	subscribe(w, 1, "'key':'later'");
	lose(w);
	lose(w); /* told once */
	assert_told(w, 0, LOST);
	come_up(w);
	const char *text = told(w, 0);
	assert_non_null(strstr(text, "\"state\":\"connected\",\"timestamp\":1000}\n{\"type\":"
				     "\"gap\",\"pattern\":"));
	assert_non_null(strstr(text, "\"pattern\":\"p*\",\"since\":900,\"until\":1000}\n"));
	assert_non_null(strstr(text, "\"pattern\":\"q\",\"since\":900,\"until\":1000}\n"));
	assert_told(w, 1, "");
	assert_int_equal(w->stats.gaps, 2);
	world_free(w);
}

static void a_planned_handover_is_silent(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'key':'a','pattern':'p*'");
	make_list(w);
	take_over(w);
	take_over(w);
	assert_told(w, 0, "");
	assert_int_equal(w->n_sent, 0);
	world_free(w);
}

/* Told the value last by a change, an initial value, a resync; or never, which is told in any
 * case. */
static void a_value_is_told_again_only_to_those_who_know_another(void **state)
{
	struct world *w = world_new();

	(void)state;
	subscribe(w, 0, "'key':'a'");
	subscribe(w, 1, "'key':'a','initial':true");
	subscribe(w, 2, "'key':'a'");
	make_list(w);
	come_up(w);
	answer(w, "a", "'code':200,'value':'1'");
	assert_told(w, 1, OK("1") INITIAL("a", "'1'"));
	told(w, 0);
	told(w, 2);
	lose_all(w);
	come_up(w);
	answer(w, "a", "'code':200,'value':'1'");
	assert_told(w, 0, LOST BACK RESYNC("a", "'1'"));
	assert_told(w, 1, LOST BACK);
	assert_told(w, 2, LOST BACK RESYNC("a", "'1'"));
	assert_int_equal(w->stats.resyncs, 2);
	change(w, CHANGE("a", "'2'"));
	unsubscribe(w, 2, "'key':'a'");
	subscribe(w, 2, "'key':'a'"); /* what it was told before belongs to the subscription that
					 is gone */
	for (size_t i = 0; i < 3; i++)
		told(w, i);
	lose_all(w);
	come_up(w);
	answer(w, "a", "'code':200,'value':'2'");
	assert_told(w, 0, LOST BACK);
	assert_told(w, 1, LOST BACK);
	assert_told(w, 2, LOST BACK RESYNC("a", "'2'"));
	lose_all(w);
	come_up(w);
	answer(w, "a", "'code':404");
	for (size_t i = 0; i < 3; i++)
		assert_told(w, i, LOST BACK RESYNC("a", "null"));
	lose_all(w);
	come_up(w);
	answer(w, "a", "'code':404");
	for (size_t i = 0; i < 3; i++)
		assert_told(w, i, LOST BACK);
	world_free(w);
}

static void a_key_that_is_lost_twice_is_read_once(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'key':'a'");
	lose(w);
	come_up(w);
	lose_all(w);
	come_up(w);
	answer(w, "a", "'code':200,'value':'1'");
	assert_null(unanswered(w, "a"));
	assert_told(w, 0, LOST BACK LOST BACK RESYNC("a", "'1'"));
	world_free(w);
}

static void an_initial_value_that_is_due_stays_one_over_a_loss(void **state)
{
	struct world *w = world_new();

	(void)state;
	subscribe(w, 0, "'key':'a','initial':true");
	make_list(w);
	come_up(w);
	answer(w, "a", "'code':200,'value':'1'");
	subscribe(w, 0, "'key':'a','initial':true");
	assert_told(w, 0, OK("1") INITIAL("a", "'1'") OK("1"));
	lose_all(w);
	come_up(w);
	answer(w, "a", "'code':200,'value':'1'");
	assert_told(w, 0, LOST BACK INITIAL("a", "'1'"));
	world_free(w);
}

static void a_key_that_can_not_be_read_is_a_gap(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'keys':['a','b','c']");
	lose_all(w);
	come_up(w);
	assert_told(w, 0, LOST BACK);
	answer(w, "a", "'code':403,'error':'no'");
	assert_told(w, 0, KEY_GAP("a"));
	answer(w, "b", "'code':200"); /* without a value */
	assert_told(w, 0, KEY_GAP("b"));
	answer(w, "c", "'code':500");
	answer(w, "c", "'code':503");
	change(w, CHANGE("c", "'1'"));
	assert_told(w, 0, "");
	answer(w, "c", "'code':502");
	assert_told(w, 0, TOLD("c", "'1'") KEY_GAP("c"));
	assert_int_equal(w->stats.gaps, 3);
	assert_int_equal(subscriptions_counts(w->subscriptions).rereading, 0);
	lose_all(w);
	come_up(w);
	answer(w, "c", "'code':200,'value':'1'");
	assert_told(w, 0, LOST BACK); /* the change behind which the gap was is what it knows */
	world_free(w);
}

static void a_reading_that_is_not_answered_in_time_is_tried_three_times(void **state)
{
	struct world *w = world_new();

	(void)state;
	subscribe(w, 0, "'key':'a','initial':true");
	make_list(w);
	come_up(w);
	assert_told(w, 0, OK("1"));
	for (int i = 0; i < 2; i++) {
		pass(w, 1000);
		assert_told(w, 0, "");
		assert_int_equal(w->n_sent, i + 2);
	}
	pass(w, 1000);
	assert_told(w, 0, KEY_GAP("a"));
	assert_int_equal(w->n_sent, 3);
	world_free(w);
}

static void a_reading_that_the_rate_limit_refuses_is_tried_on(void **state)
{
	struct world *w = world_new();

	(void)state;
	subscribe(w, 0, "'key':'a','initial':true");
	make_list(w);
	come_up(w);
	for (int i = 0; i < 10; i++) {
		change(w, CHANGE("a", "'1'"));
		answer(w, "a", "'code':429");
		for (int n = 0; n < 100 && !unanswered(w, "a"); n++)
			pass(w, 100);
		assert_told(w, 0, i ? TOLD("a", "'1'") : OK("1") TOLD("a", "'1'"));
	}
	answer(w, "a", "'code':200,'value':'1'");
	assert_told(w, 0, INITIAL("a", "'1'"));
	world_free(w);
}

static void what_the_token_does_not_cover_any_more_is_a_gap_until_it_does_again(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'keys':['aaaaaaaaa'],'pattern':'bbbbbbbbb'");
	live_with(w, 1, "'key':'bbbbbbbbb'");
	assert_list_within(w, 20, "['aaaaaaaaa']");
	take_over(w);
	assert_told(w, 0, PATTERN_GAP("bbbbbbbbb", "1000"));
	assert_told(w, 1, KEY_GAP("bbbbbbbbb"));
	assert_int_equal(subscriptions_counts(w->subscriptions).left_out, 2);
	make_list(w);
	take_over(w);
	assert_told(w, 0, PATTERN_GAP("bbbbbbbbb", "1000"));
	assert_int_equal(subscriptions_counts(w->subscriptions).left_out, 0);
	answer(w, "bbbbbbbbb", "'code':200,'value':'1'");
	assert_told(w, 1, RESYNC("bbbbbbbbb", "'1'"));
	world_free(w);
}

/* Nor is it told what a connection brings of it that was left. */
static void nor_is_it_read_until_then(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'key':'aaaaaaaaa'");
	live_with(w, 1, "'key':'bbbbbbbbb'");
	subscribe(w, 2, "'key':'bbbbbbbbb','initial':true");
	assert_told(w, 2, OK("1"));
	assert_reading(w, "bbbbbbbbb");
	assert_list_within(w, 20, "['aaaaaaaaa']");
	take_over(w);
	assert_told(w, 2, KEY_GAP("bbbbbbbbb"));
	answer(w, "bbbbbbbbb", "'code':429"); /* it is to be asked again */
	assert_told(w, 2, KEY_GAP("bbbbbbbbb"));
	assert_int_equal(subscriptions_counts(w->subscriptions).rereading, 0);
	change(w, CHANGE("bbbbbbbbb", "'0'"));
	assert_told(w, 1, KEY_GAP("bbbbbbbbb"));
	assert_told(w, 2, "");
	make_list(w);
	take_over(w);
	for (int n = 0; n < 100 && !unanswered(w, "bbbbbbbbb"); n++)
		pass(w, 100);
	answer(w, "bbbbbbbbb", "'code':200,'value':'1'");
	assert_told(w, 1, RESYNC("bbbbbbbbb", "'1'"));
	assert_told(w, 2, RESYNC("bbbbbbbbb", "'1'"));
	world_free(w);
}

static void what_was_left_out_is_asked_for_again_once_there_may_be_room(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'key':'aaaaaaaaa'");
	live_with(w, 1, "'key':'bbbbbbbbb'");
	assert_list_within(w, 20, "['aaaaaaaaa']");
	take_over(w);
	assert_false(subscriptions_is_stale(w->subscriptions));
	w->wanted = 0;
	unsubscribe(w, 0, "");
	assert_int_equal(w->wanted, 1);
	assert_true(subscriptions_is_stale(w->subscriptions));
	assert_list_within(w, 20, "['bbbbbbbbb']");
	take_over(w);
	assert_false(subscriptions_is_stale(w->subscriptions));
	world_free(w);
}

/* Three keys are live, and the token has no room for two of them any more. */
static struct world *world_with_two_left_out(void)
{
	struct world *w = world_new();

	live_with(w, 0, "'key':'aaaaaaaaa'");
	live_with(w, 1, "'keys':['bbbbbbbbb','ccccccccc']");
	assert_list_within(w, 20, "['aaaaaaaaa']");
	take_over(w);
	told(w, 1);
	return w;
}

/* Else it would be asked for again and again, each time in vain. */
static void there_was_no_room_after_all(void **state)
{
	struct world *w = world_with_two_left_out();
	struct buf list = {0};

	(void)state;
	unsubscribe(w, 0, "");
	assert_true(subscriptions_is_stale(w->subscriptions));
	assert_int_equal(subscriptions_make_list(w->subscriptions, 5, &list), 0);
	buf_release(&list);
	assert_false(subscriptions_is_stale(w->subscriptions));
	subscriptions_list_failed(w->subscriptions);
	assert_false(subscriptions_is_stale(w->subscriptions));
	w->wanted = 0;
	unsubscribe(w, 1, "'key':'bbbbbbbbb'"); /* now there may be some */
	assert_int_equal(w->wanted, 1);
	assert_true(subscriptions_is_stale(w->subscriptions));
	world_free(w);
}

static void a_list_that_failed_for_another_reason_is_made_again(void **state)
{
	struct world *w = world_with_two_left_out();

	(void)state;
	unsubscribe(w, 0, "");
	assert_list_within(w, 20, "['bbbbbbbbb']");
	assert_false(subscriptions_is_stale(w->subscriptions));
	subscriptions_list_failed(w->subscriptions);
	assert_true(subscriptions_is_stale(w->subscriptions));
	assert_list_within(w, 20, "['bbbbbbbbb']");
	assert_list_within(w, 20, "['bbbbbbbbb']"); /* in the place of that one */
	subscriptions_list_failed(w->subscriptions);
	assert_true(subscriptions_is_stale(w->subscriptions));
	assert_list_within(w, 20, "['bbbbbbbbb']");
	take_over(w);
	assert_false(subscriptions_is_stale(w->subscriptions));
	world_free(w);
}

static void what_ends_while_a_list_is_on_its_way_is_a_reason_for_the_next(void **state)
{
	struct world *w = world_with_two_left_out();

	(void)state;
	unsubscribe(w, 0, "");
	assert_list_within(w, 20, "['bbbbbbbbb']");
	unsubscribe(w, 1, "'key':'bbbbbbbbb'");
	w->wanted = 0;
	take_over(w);
	assert_int_equal(w->wanted, 1);
	assert_list_within(w, 20, "['ccccccccc']");
	take_over(w);
	assert_int_equal(subscriptions_counts(w->subscriptions).left_out, 0);
	world_free(w);
}

/* It was asked for before, and is sent over a connection that brings no changes. */
static void a_reading_from_before_a_loss_counts_no_more(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'key':'a'");
	lose_all(w);
	come_up(w);
	told(w, 0);
	router_down(w->router, w->connection, world_now);
	subscriptions_lost(w->subscriptions, BOOT - 100);
	forget_frames(w);
	router_up(w->router, ++w->connection, world_now);
	struct frame *early = unanswered(w, "a");
	assert_non_null(early);
	router_move(w->router, ++w->connection, world_now);
	subscriptions_live(w->subscriptions);
	answer_frame(w, early, "'code':200,'value':'old'");
	assert_told(w, 0, LOST BACK);
	answer(w, "a", "'code':200,'value':'new'");
	assert_told(w, 0, RESYNC("a", "'new'"));
	world_free(w);
}

/* All places are taken by clients' requests that nobody answers. */
static void a_reading_that_never_has_its_turn_ends_as_a_gap(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'key':'a'");
	lose_all(w);
	router_up(w->router, ++w->connection, world_now);
	for (int i = 0; i < IN_FLIGHT; i++)
		say(w, 1, "{'op':'get','key':'x','messageId':1,'timeoutMs':600000}");
	subscriptions_live(w->subscriptions);
	assert_null(unanswered(w, "a"));
	told(w, 0);
	pass(w, TIMEOUT);
	pass(w, TIMEOUT);
	assert_told(w, 0, "");
	pass(w, TIMEOUT);
	assert_told(w, 0, KEY_GAP("a"));
	world_free(w);
}

static void lose_as(struct world *w, int code, bool sudden)
{
	subscriptions_lost(w->subscriptions, BOOT - 100);
	router_lost(w->router, w->connection, code, sudden, world_now);
	forget_frames(w);
	come_up(w);
}

/* The service closes the connection over what is in flight. */
static void lose_over_it(struct world *w)
{
	lose_as(w, 1011, false);
}

/* One after the other alone, whichever comes first. */
static void a_key_over_which_connections_are_lost_is_a_gap_for_ten_minutes(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'key':'poison'");
	live_with(w, 1, "'key':'b'");
	lose_all(w);
	come_up(w);
	int losses = 0;
	bool read_b = false;
	for (int i = 0; i < 40 && losses < 3; i++) {
		bool both = unanswered(w, "poison") && unanswered(w, "b");
		assert_int_equal(both, losses == 0); /* each alone after the first */
		if (unanswered(w, "poison")) {
			losses++;
			assert_null(strstr(logged, "ten minutes"));
			told(w, 0);
			lose_over_it(w);
		} else if (unanswered(w, "b")) {
			answer(w, "b", "'code':200,'value':'1'");
			read_b = true;
		}
		pass(w, 500);
	}
	assert_int_equal(losses, 3);
	const char *warning = strstr(logged, "a subscribed key is not read for ten minutes");
	assert_non_null(warning);
	assert_null(strstr(warning + 1, "a subscribed key is not read for ten minutes"));
	assert_true(read_b);
	assert_told(w, 0, LOST BACK KEY_GAP("poison"));
	forget_frames(w);
	lose_all(w);
	come_up(w);
	pass(w, 500);
	assert_null(unanswered(w, "poison"));
	assert_told(w, 0, LOST BACK KEY_GAP("poison"));
	pass(w, 600000 - 2 * 500 - 1); /* since the last loss */
	lose_all(w);
	come_up(w);
	assert_null(unanswered(w, "poison"));
	pass(w, 1);
	lose_all(w);
	come_up(w);
	assert_reading(w, "poison");
	world_free(w);
}

/* ---- slow clients ---- */

/* Client 0 has p* and keys, and does not read: what it has not taken is beyond SOFT. */
static struct world *world_with_a_slow_client(void)
{
	struct world *w = world_new();

	live_with(w, 0, "'patterns':['p*','q*'],'keys':['a','b']");
	w->told[0] = '\0';
	while (outq_len(&w->peer[0].out) < SOFT)
		change(w, CHANGE("p", "'full'"));
	assert_int_equal(w->flushed, 0);
	return w;
}

static size_t conflated_bytes(const struct peer *peer)
{
	return peer_unread(peer) - outq_len(&peer->out) - peer->answers.kept_bytes;
}

/* It takes all there is, again and again. */
static const char *drain(struct world *w, size_t peer)
{
	w->told[0] = '\0';
	do {
		take_output(w, peer);
		subscriptions_caught_up(w->subscriptions, &w->peer[peer]);
	} while (outq_len(&w->peer[peer].out));
	assert_null(w->peer[peer].fanout.conflation);
	assert_int_equal(conflated_bytes(&w->peer[peer]), 0);
	return w->told;
}

static void assert_drained(struct world *w, size_t peer, const char *want)
{
	char *seen = mem_strdup(drain(w, peer)), *from = seen;
	char *full = quoted(TOLD("p", "'full'"));

	while (strncmp(from, full, strlen(full)) == 0)
		from += strlen(full);
	check_text(from, want, __FILE__, __LINE__);
	free(full);
	free(seen);
}

static void a_slow_client_is_told_the_latest_of_each_key(void **state)
{
	struct world *w = world_with_a_slow_client();

	(void)state;
	live_with(w, 1, "'pattern':'p*'");
	size_t full = outq_len(&w->peer[0].out);
	change(w, CHANGE("p1", "'1'"));
	change(w, CHANGE("q1", "'2'"));
	change(w, CHANGE("p1", "'3'"));
	change(w, CHANGE("p2", "'4'"));
	change(w, CHANGE("p1", "'5'"));
	assert_int_equal(outq_len(&w->peer[0].out), full);
	assert_int_equal(w->flushed, 1); /* it was asked once, and then only waits */
	assert_true(conflated_bytes(&w->peer[0]) > 0);
	assert_int_equal(w->stats.notifications_conflated, 2);
	assert_told(w, 1, TOLD("p1", "'1'") TOLD("p1", "'3'") TOLD("p2", "'4'") TOLD("p1", "'5'"));
	uint64_t lines = w->stats.lines_out;
	assert_drained(w, 0, SKIPPED("p1", "'5'", "2") TOLD("q1", "'2'") TOLD("p2", "'4'"));
	assert_int_equal(w->stats.lines_out, lines + 3);
	change(w, CHANGE("p1", "'6'"));
	assert_told(w, 0, TOLD("p1", "'6'"));
	world_free(w);
}

static void one_that_had_only_no_turn_is_not_slow(void **state)
{
	struct world *w = world_with_a_slow_client();

	(void)state;
	w->reads[0] = true;
	change(w, CHANGE("a", "'1'"));
	change(w, CHANGE("a", "'2'"));
	assert_int_equal(w->flushed, 1);
	assert_null(w->peer[0].fanout.conflation);
	assert_told(w, 0, TOLD("a", "'1'") TOLD("a", "'2'"));
	world_free(w);
}

static void other_lines_keep_their_place_among_what_waits(void **state)
{
	struct world *w = world_with_a_slow_client();

	(void)state;
	unsubscribe(w, 0, "'keys':['a','b'],'pattern':'q*'");
	change(w, CHANGE("p1", "'1'"));
	lose(w);
	come_up(w);
	change(w, CHANGE("p2", "'2'"));
	change(w, CHANGE("p1", "'3'"));
	assert_drained(w, 0,
		       OK("2") SKIPPED("p1", "'3'", "1") LOST BACK PATTERN_GAP("p*", "900")
			       TOLD("p2", "'2'"));
	world_free(w);
}

static void a_slow_client_catches_up_as_far_as_it_reads(void **state)
{
	struct world *w = world_with_a_slow_client();
	char text[200];

	(void)state;
	for (int i = 0; i < 50; i++) {
		snprintf(text, sizeof(text), CHANGE("p%d", "'x'"), i);
		change(w, text);
	}
	size_t lines = 0;
	told(w, 0);
	for (size_t waits = conflated_bytes(&w->peer[0]); w->peer[0].fanout.conflation;
	     waits = conflated_bytes(&w->peer[0])) {
		subscriptions_caught_up(w->subscriptions, &w->peer[0]);
		assert_true(conflated_bytes(&w->peer[0]) < waits || !waits);
		assert_true(outq_len(&w->peer[0].out) < SOFT + 100);
		for (const char *c = told(w, 0); (c = strchr(c, '\n')); c++)
			lines++;
	}
	assert_int_equal(lines, 50);
	world_free(w);
}

static void unsubscribe_drops_what_waits_for_a_slow_client(void **state)
{
	struct world *w = world_with_a_slow_client();

	(void)state;
	change(w, CHANGE("a", "'1'"));
	change(w, CHANGE("b", "'1'"));
	change(w, CHANGE("q", "'1'"));
	change(w, CHANGE("p1", "'1'"));
	unsubscribe(w, 0, "'keys':['a'],'pattern':'p*'");
	change(w, CHANGE("a", "'2'"));
	change(w, CHANGE("p1", "'2'"));
	assert_drained(w, 0, OK("2") TOLD("b", "'1'") TOLD("q", "'1'"));
	world_free(w);
}

static void what_another_subscription_brings_too_stays_for_a_slow_client(void **state)
{
	struct world *w = world_with_a_slow_client();

	(void)state;
	subscribe(w, 0, "'keys':['p1','p2']");
	change(w, CHANGE("p1", "'1'"));
	change(w, CHANGE("p2", "'1'"));
	change(w, CHANGE("p3", "'1'"));
	unsubscribe(w, 0, "'key':'p1'");
	unsubscribe(w, 0, "'pattern':'p*'");
	assert_drained(w, 0, OK("1") OK("2") OK("2") TOLD("p2", "'1'"));
	world_free(w);
}

static const char *last_about_a(const char *text)
{
	const char *last = NULL;

	for (const char *c = text; (c = strstr(c, "\"key\":\"a\",\"value\"")); c++)
		last = c;
	return last;
}

static void a_value_that_was_read_keeps_its_place_before_later_changes(void **state)
{
	static const char *const ways[] = {"resync", "initial"};

	(void)state;
	for (size_t i = 0; i < COUNT(ways); i++) {
		struct world *w = world_with_a_slow_client();
		change(w, CHANGE("a", "'1'"));
		if (i == 0) {
			lose_all(w);
			come_up(w);
		} else {
			subscribe(w, 0, "'key':'a','initial':true");
		}
		answer(w, "a", "'code':200,'value':'2'");
		change(w, CHANGE("a", "'3'"));
		change(w, CHANGE("a", "'4'"));
		const char *seen = drain(w, 0);
		if (strncmp(last_about_a(seen), "\"key\":\"a\",\"value\":\"4\"", 21) != 0)
			fail_msg("%s", seen);
		assert_non_null(strstr(seen, ways[i]));
		assert_non_null(strstr(seen, "\"value\":\"1\"")); /* not replaced from behind */
		assert_null(strstr(seen, "\"value\":\"3\""));
		world_free(w);
	}
}

static void unsubscribe_drops_values_and_gaps_that_wait_too(void **state)
{
	struct world *w = world_with_a_slow_client();

	(void)state;
	subscribe(w, 0, "'pattern':'b'");
	unsubscribe(w, 0, "'pattern':'q*'");
	make_list(w);
	take_over(w);
	lose_all(w);
	come_up(w);
	answer(w, "a", "'code':200,'value':'2'");
	answer(w, "b", "'code':403");
	unsubscribe(w, 0, "'keys':['a','b'],'pattern':'p*'");
	assert_drained(w, 0, OK("2") OK("1") OK("2") LOST BACK PATTERN_GAP("b", "900"));
	world_free(w);
}

/* "*" matches what p* is called, but the gap is not about that key. */
static void a_gap_is_dropped_with_its_pattern(void **state)
{
	struct world *w = world_with_a_slow_client();

	(void)state;
	subscribe(w, 0, "'pattern':'*'");
	make_list(w);
	take_over(w);
	unsubscribe(w, 0, "'pattern':'q*','keys':['a','b']");
	lose_all(w);
	come_up(w);
	size_t before = conflated_bytes(&w->peer[0]);
	unsubscribe(w, 0, "'pattern':'p*'");
	assert_true(conflated_bytes(&w->peer[0]) < before);
	assert_drained(w, 0, OK("1") OK("2") OK("2") LOST BACK PATTERN_GAP("*", "900"));
	world_free(w);
}

static void unsubscribe_of_all_leaves_nothing_that_waits(void **state)
{
	struct world *w = world_with_a_slow_client();

	(void)state;
	change(w, CHANGE("a", "'1'"));
	lose_all(w);
	unsubscribe(w, 0, "");
	assert_null(w->peer[0].fanout.conflation);
	assert_drained(w, 0, OK("2"));
	world_free(w);
}

/* ---- lists that are refused, or have no room ---- */

/* One of the names is not to the liking of the service; how many lists it takes. */
static int find_guilty(struct world *w, const char *guilty)
{
	int lists = 0;
	bool again = subscriptions_is_stale(w->subscriptions);

	while (again) {
		struct buf list = {0};
		assert_true(++lists < 40);
		subscriptions_make_list(w->subscriptions, BUDGET, &list);
		bool bad = memmem(buf_span(&list).p, buf_len(&list), guilty, strlen(guilty));
		buf_release(&list);
		if (bad) {
			again = subscriptions_list_refused(w->subscriptions,
							   "no such name, says the service");
			continue;
		}
		take_over(w);
		again = subscriptions_is_stale(w->subscriptions);
	}
	return lists;
}

static void the_one_name_that_the_service_refuses_is_found(void **state)
{
	enum { N = 16 };

	(void)state;
	for (int guilty = 0; guilty < N; guilty++) {
		struct world *w = world_new();
		char text[100];
		come_up(w);
		for (int i = 0; i < N; i++) {
			snprintf(text, sizeof(text),
				 "{'op':'subscribe','keys':['%s%d'],'messageId':%d}",
				 i == guilty ? "bad" : "good", i, i);
			say(w, (size_t)i % PEERS, text);
		}
		int lists = find_guilty(w, "bad");
		assert_in_range(lists, 5, N);
		assert_int_equal(subscriptions_counts(w->subscriptions).subscriptions, N - 1);
		assert_int_equal(w->stats.subscribes_refused, 1);
		size_t peer = (size_t)guilty % PEERS;
		const char *seen = told(w, peer);
		snprintf(text, sizeof(text), "\"messageId\":%d}\n", guilty);
		const char *end = strstr(seen, text), *line = end;
		assert_non_null(end);
		while (line > seen && line[-1] != '\n')
			line--;
		assert_non_null(strstr(line, "\"error\":\"no such name, says the service\",\"reason"
					     "\":\"upstream_down\""));
		assert_true(subscriptions_wants(w->subscriptions));
		world_free(w);
	}
}

static void a_refusal_makes_live_what_the_list_would_have_dropped(void **state)
{
	struct world *w = world_with_a_listed();

	(void)state;
	subscribe(w, 1, "'key':'bad'");
	assert_list(w, "['bad','z']");
	subscribe(w, 2, "'key':'a'");
	assert_told(w, 2, "");
	assert_false(subscriptions_list_refused(w->subscriptions, "why")); /* it was the only one */
	assert_refused(w, 1, "upstream_down", "1", "\"why\"");
	assert_told(w, 2, OK("1"));
	world_free(w);
}

static void after_a_search_all_newcomers_are_tried_at_once_again(void **state)
{
	struct world *w = world_new();

	(void)state;
	subscribe(w, 0, "'key':'bad'");
	subscribe(w, 1, "'key':'good'");
	come_up(w);
	find_guilty(w, "bad");
	assert_told(w, 1, OK("1"));
	make_list(w);
	take_over(w);
	subscribe(w, 2, "'key':'a'");
	subscribe(w, 2, "'key':'b'");
	subscribe(w, 3, "'key':'c'");
	subscribe(w, 3, "'key':'d'");
	assert_list(w, "['a','b','c','d','good']");
	world_free(w);
}

static void whoever_has_named_a_bad_one_is_tried_behind_the_others(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 3, "'key':'0'");
	told(w, 3);
	say(w, 0, "{'op':'subscribe','key':'bad','messageId':'b'}");
	assert_list(w, "['0','bad']");
	subscriptions_list_refused(w->subscriptions, "bad");
	told(w, 0);
	say(w, 0, "{'op':'subscribe','key':'bad again','messageId':'b'}");
	say(w, 1, "{'op':'subscribe','key':'good','messageId':'g'}");
	assert_list(w, "['0','good']");
	take_over(w);
	assert_told(w, 1, OK("'g'"));
	/* One that becomes live restores the client's good name. */
	say(w, 2, "{'op':'subscribe','key':'c','messageId':'c'}");
	assert_list(w, "['0','c','good']");
	take_over(w);
	told(w, 2);
	assert_list(w, "['0','bad again','c','good']");
	take_over(w);
	told(w, 0);
	say(w, 0, "{'op':'subscribe','key':'d','messageId':'d'}");
	say(w, 1, "{'op':'subscribe','key':'e','messageId':'e'}");
	assert_list(w, "['0','bad again','c','d','e','good']");
	world_free(w);
}

static void a_list_without_newcomers_that_is_refused_is_not_tried_at_once(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'key':'a'");
	make_list(w);
	assert_false(subscriptions_list_refused(w->subscriptions, "why"));
	assert_told(w, 0, "");
	change(w, CHANGE("a", "'1'"));
	assert_told(w, 0, TOLD("a", "'1'"));
	world_free(w);
}

static void a_client_that_leaves_during_the_search_does_not_stop_it(void **state)
{
	struct world *w = world_new();

	(void)state;
	subscribe(w, 0, "'key':'bad'");
	subscribe(w, 1, "'key':'b'");
	make_list(w);
	assert_true(subscriptions_list_refused(w->subscriptions, "why"));
	assert_list(w, "['bad']");
	leave(w, 0);
	assert_true(subscriptions_list_refused(w->subscriptions, "why"));
	assert_list(w, "['b']");
	come_up(w);
	assert_told(w, 1, OK("1"));
	world_free(w);
}

static void one_for_whom_the_token_has_no_room_is_refused(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'key':'aaaaa'");
	subscribe(w, 1, "'keys':['bbbbb','aaaaa']");
	subscribe(w, 2, "'key':'c'");
	assert_list_within(w, 15, "['aaaaa','c']");
	assert_refused(w, 1, "queue_full", "1", "no room");
	take_over(w);
	assert_told(w, 2, OK("1"));
	assert_told(w, 0, "");
	assert_int_equal(w->stats.subscribes_refused, 1);
	assert_false(subscriptions_is_stale(w->subscriptions));
	world_free(w);
}

/* ---- time, loss, the end ---- */

static void a_subscribe_that_is_not_live_in_time_says_why(void **state)
{
	struct world *w = world_new();

	(void)state;
	subscribe(w, 0, "'key':'a','timeoutMs':100");
	subscribe(w, 1, "'key':'a'");
	pass(w, 99);
	assert_told(w, 0, "");
	pass(w, 1);
	assert_refused(w, 0, "upstream_down", "1", "\"the moon is full\"");
	assert_int_equal(w->stats.requests_unsent, 1);
	make_list(w);
	come_up(w);
	change(w, CHANGE("a", "'1'"));
	assert_told(w, 0, "");
	assert_told(w, 1, OK("1") TOLD("a", "'1'"));
	world_free(w);
}

static void when_no_token_can_be_had_those_that_wait_are_refused(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 2, "'key':'c'");
	say(w, 0, "{'op':'get','key':'x'}");
	say(w, 0, "{'op':'subscribe','key':'c'}"); /* waits for the get alone */
	subscribe(w, 0, "'key':'a'");
	subscribe(w, 1, "'key':'a'");
	subscriptions_refuse_all(w->subscriptions, "the key is wrong", 500);
	assert_refused(w, 0, "upstream_down", "1", "\"the key is wrong\"");
	assert_refused(w, 1, "upstream_down", "1", "\"retryAfterMs\":500");
	assert_int_equal(w->stats.subscribes_refused, 2);
	answer(w, "x", "'code':404");
	assert_told(w, 0, "{'code':404}\n{'code':200}\n");
	world_free(w);
}

static void a_connection_without_a_token_covers_nothing(void **state)
{
	struct world *w = world_with_a_listed();

	(void)state;
	unsubscribe(w, 0, "");
	assert_told(w, 0, OK("2"));
	w->wanted = 0;
	subscriptions_without(w->subscriptions);
	assert_int_equal(w->wanted, 0);
	assert_false(subscriptions_counts(w->subscriptions).live);
	subscribe(w, 0, "'key':'a'");
	assert_told(w, 0, "");
	assert_int_equal(w->wanted, 1);
	subscriptions_without(w->subscriptions); /* another one, while it waits */
	assert_int_equal(w->wanted, 2);
	make_list(w);
	take_over(w);
	assert_told(w, 0, OK("1"));
	world_free(w);
}

/* They had subscribed while a connection without a token was made. */
static void subscribers_miss_something_meanwhile(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'key':'a'");
	live_with(w, 1, "'pattern':'b*'");
	subscriptions_without(w->subscriptions);
	assert_told(w, 0, KEY_GAP("a"));
	assert_told(w, 1, PATTERN_GAP("b*", "1000"));
	change(w, CHANGE("a", "'1'")); /* of a connection that was left */
	change(w, CHANGE("b1", "'1'"));
	assert_told(w, 0, "");
	assert_told(w, 1, "");
	pass(w, 500);
	make_list(w);
	take_over(w);
	answer(w, "a", "'code':200,'value':'2'");
	assert_told(w, 0, RESYNC("a", "'2'"));
	change(w, CHANGE("a", "'3'"));
	assert_told(w, 0, TOLD("a", "'3'"));
	assert_told(w, 1, PATTERN_GAP("b*", "1000"));
	world_free(w);
}

static void stopping_refuses_what_waits_and_what_comes(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'key':'a'");
	subscribe(w, 1, "'key':'b'");
	subscribe(w, 2, "'key':'a','initial':true");
	assert_told(w, 2, OK("1"));
	subscriptions_stop(w->subscriptions);
	router_stop(w->router);
	assert_refused(w, 1, "shutting_down", "1", "shutting down");
	subscribe(w, 1, "'key':'a'");
	assert_refused(w, 1, "shutting_down", "1", "");
	change(w, CHANGE("a", "'1'"));
	assert_told(w, 0, TOLD("a", "'1'"));
	world_free(w);
}

static void limits_are_kept(void **state)
{
	struct subscriptions_settings settings = usual;

	(void)state;
	settings.max_peer_subs = 3;
	settings.max_subs = 5;
	struct world *w = world_with(&settings);
	come_up(w);
	subscribe(w, 0, "'keys':['a','b'],'patterns':['c','d']");
	assert_refused(w, 0, "queue_full", "1", "of one client");
	subscribe(w, 0, "'keys':['a','b'],'pattern':'c'");
	subscribe(w, 0, "'key':'d'"); /* those that wait count */
	assert_refused(w, 0, "queue_full", "1", "of one client");
	subscribe(w, 1, "'keys':['a','b','c']");
	assert_refused(w, 1, "queue_full", "1", "of all clients");
	subscribe(w, 1, "'keys':['a','b']");
	make_list(w);
	take_over(w);
	assert_told(w, 0, OK("1"));
	assert_told(w, 1, OK("1"));
	subscribe(w, 0, "'key':'d'");
	assert_refused(w, 0, "queue_full", "1", "of one client");
	unsubscribe(w, 0, "'keys':['a','b']");
	subscribe(w, 0, "'key':'a'");
	assert_told(w, 0, OK("2") OK("1"));
	leave(w, 0);
	subscribe(w, 2, "'keys':['a','b']");
	assert_told(w, 2, OK("1"));
	assert_int_equal(w->stats.subscribes_refused, 4);
	world_free(w);
}

/* A change may have to be compared with each of them, so they have a bound of their own. */
static void patterns_that_cost_time_are_few(void **state)
{
	struct subscriptions_settings settings = usual;

	(void)state;
	settings.max_peer_globs = 2;
	struct world *w = world_with(&settings);
	come_up(w);
	subscribe(w, 0, "'patterns':['*a','*b','*c']");
	assert_refused(w, 0, "queue_full", "1", "go on behind a *");
	subscribe(w, 0, "'keys':['a*b','b*c'],'patterns':['*','a*','b','c*d']");
	subscribe(w, 0, "'patterns':['*a','*b']"); /* those that wait count */
	assert_refused(w, 0, "queue_full", "1", "go on behind a *");
	make_list(w);
	take_over(w);
	assert_told(w, 0, OK("1"));
	subscribe(w, 0, "'patterns':['*a','*b']");
	assert_refused(w, 0, "queue_full", "1", "go on behind a *");
	subscribe(w, 0, "'patterns':['*a','c*d']");
	assert_told(w, 0, OK("1"));
	subscribe(w, 0, "'pattern':'*b'");
	assert_refused(w, 0, "queue_full", "1", "go on behind a *");
	unsubscribe(w, 0, "'pattern':'c*d'");
	subscribe(w, 0, "'pattern':'*b'");
	assert_told(w, 0, OK("2") OK("1"));
	world_free(w);
}

/* Those that ask for what they are subscribed to have to wait as well while it is not live. */
static void what_waits_is_bounded_even_if_it_is_nothing_new(void **state)
{
	struct subscriptions_settings settings = usual;

	(void)state;
	settings.max_peer_subs = 5;
	struct world *w = world_with(&settings);
	come_up(w);
	subscribe(w, 0, "'keys':['a','b','c']");
	make_list(w);
	take_over(w);
	assert_told(w, 0, OK("1"));
	subscriptions_lost(w->subscriptions, BOOT - 100);
	told(w, 0);
	subscribe(w, 0, "'keys':['a','b','c']");
	assert_told(w, 0, "");
	subscribe(w, 0, "'keys':['a','b','c']");
	assert_refused(w, 0, "queue_full", "1", "wait to be made");
	world_free(w);
}

static void the_memory_of_all_subscriptions_is_bounded(void **state)
{
	struct subscriptions_settings settings = usual;
	unsigned n = 0;

	(void)state;
	settings.max_bytes = 4000;
	struct world *w = world_with(&settings);
	come_up(w);
	for (char text[100]; n < 100; n++) {
		snprintf(text, sizeof(text), "'key':'%u'", n);
		subscribe(w, n % PEERS, text);
		if (outq_len(&w->peer[n % PEERS].out))
			break;
	}
	assert_in_range(n, 4, 40);
	assert_refused(w, n % PEERS, "queue_full", "1", "of all clients");
	for (size_t i = 0; i < PEERS; i++)
		unsubscribe(w, i, "");
	told(w, 0);
	subscribe(w, 0, "'key':'a'");
	assert_told(w, 0, "");
	world_free(w);
}

/* Each state in which a client may leave; the sanitizers judge. */
static void a_client_may_leave_at_any_time(void **state)
{
	struct world *w = world_with_a_slow_client();

	(void)state;
	change(w, CHANGE("a", "'1'"));
	assert_non_null(w->peer[0].fanout.conflation);
	leave(w, 0); /* with much that waits for it */
	subscribe(w, 1, "'keys':['a','b'],'initial':true");
	subscribe(w, 2, "'keys':['b','c'],'initial':true");
	make_list(w);
	subscribe(w, 3, "'keys':['c','d']");
	leave(w, 3); /* waiting for a token */
	take_over(w);
	change(w, CHANGE("b", "'1'"));
	leave(w, 1); /* while its keys are read, and changes held back */
	change(w, CHANGE("b", "'2'"));
	answer(w, "a", "'code':200,'value':'1'");
	for (int i = 0; i < 3; i++) /* on the connection that was left; then for each of the two */
		answer(w, "b", "'code':200,'value':'2'");
	assert_told(w, 2, OK("1") TOLD("b", "'1'") TOLD("b", "'2'") INITIAL("b", "'2'"));
	lose_all(w); /* c is being read */
	leave(w, 2);
	come_up(w);
	assert_int_equal(subscriptions_counts(w->subscriptions).keys, 0);
	assert_false(subscriptions_wants(w->subscriptions));
	world_free(w);
}

static void a_client_may_leave_while_its_keys_wait_to_be_read(void **state)
{
	struct subscriptions_settings settings = usual;

	(void)state;
	settings.reads_at_once = 1;
	struct world *w = world_with(&settings);
	subscribe(w, 0, "'keys':['a','b'],'initial':true");
	make_list(w);
	come_up(w);
	leave(w, 0);
	subscribe(w, 1, "'keys':['a'],'initial':true"); /* another reading of the same key */
	assert_told(w, 1, OK("1"));
	forget_frames(w);
	pass(w, 1000);
	answer(w, "a", "'code':200,'value':'1'");
	assert_told(w, 1, INITIAL("a", "'1'"));
	world_free(w);
}

/* ---- many ---- */

/* Each answer gives the next its turn, and none of that recurses: the stack would not do. */
static void a_long_row_of_answers_without_ids_comes_out_at_once(void **state)
{
	enum { N = 200000 };
	struct subscriptions_settings settings = usual;
	size_t answers = 0;

	(void)state;
	settings.max_peer_subs = settings.max_subs = N;
	struct world *w = world_with(&settings);
	live_with(w, 1, "'key':'a'");
	say(w, 0, "{'op':'get','key':'x'}");
	for (int i = 0; i < N; i++)
		say(w, 0, "{'op':'subscribe','key':'a'}");
	answer(w, "x", "'code':404");
	while (outq_len(&w->peer[0].out)) {
		struct span s = buf_span(&w->peer[0].out.own);
		const char *end = memchr(s.p, '\n', s.n);
		assert_non_null(end);
		outq_take(&w->peer[0].out, (size_t)(end - s.p) + 1);
		answers++;
	}
	assert_int_equal(answers, N + 1);
	assert_int_equal(subscriptions_counts(w->subscriptions).waiting, 0);
	world_free(w);
}

/* ---- against a model of the service ---- */

enum { KEYS = 4, QUEUE = 10000, STEPS = 3000, SLOW = 0, GLOBBER = 3 };

/* What one client knows of one key. */
struct view {
	bool asked, live;  /* a subscribe is on its way, is answered */
	bool initial, due; /* with the value; something of it must have been told by now */
	int value;         /* told last; -1: nothing; -2: that it is not known */
	unsigned changes, told;
};

struct play {
	struct world *w;
	uint32_t random;
	bool slow;       /* one client does not read most of the time */
	bool up, listed; /* the connection; a list was made for the next token */
	int value[KEYS]; /* of the service; 0: the key is not there */
	struct {
		int key, value;
	} queue[QUEUE]; /* changes that are on their way */
	size_t first, n;
	int executed[FRAMES]; /* what a read has found, plus one; 0: not yet */
	struct view view[PEERS][KEYS];
};

static uint32_t pick(struct play *p, uint32_t n)
{
	return random_below(&p->random, n);
}

static bool globs(size_t peer, int key)
{
	return (peer == GLOBBER || peer == 1) && key == 0;
}

static void hear_change(struct view *v, const char *line, bool globbed)
{
	bool extra = strstr(line, "\"initial\"") || strstr(line, "\"resync\"");
	const char *value = strstr(line, "\"value\":") + strlen("\"value\":");

	if (!v->live && !globbed)
		fail_msg("told after its end: %s", line);
	v->told += !extra;
	v->value = *value == '"' ? value[1] - '0' : 0;
}

/* An answer's id is client, key and whether it is the end. */
static void hear_answer(struct play *p, size_t peer, const char *line)
{
	const char *id = strstr(line, "\"messageId\":");
	unsigned n;

	assert_non_null(id);
	assert_int_equal(sscanf(id, "\"messageId\":%u", &n), 1);
	struct view *v = &p->view[peer][n / 2];
	v->asked = false;
	v->live = n % 2 == 0;
	v->due |= v->initial;
	if (!v->live)
		*v = (struct view){.value = -1, .changes = v->changes, .told = v->told};
}

static void hear(struct play *p, size_t peer)
{
	char *text = mem_strdup(drain(p->w, peer)), *rest = text;
	int key;

	for (char *line; (line = strsep(&rest, "\n"));) {
		if (sscanf(line, "{\"type\":\"notification\",\"key\":\"k%d\"", &key) == 1)
			hear_change(&p->view[peer][key], line, globs(peer, key));
		else if (sscanf(line, "{\"type\":\"gap\",\"key\":\"k%d\"", &key) == 1)
			p->view[peer][key].value = -2; /* it is to look itself */
		else if (strstr(line, "\"pattern\":\"k0*\"") && !p->view[peer][0].live)
			p->view[peer][0].value = -1; /* nobody reads it for a pattern */
		else if (strncmp(line, "{\"code\":200", 11) == 0)
			hear_answer(p, peer, line);
	}
	free(text);
}

/* All that clients were told; but_slow: the slow one takes nothing now. */
static void hear_all(struct play *p, bool but_slow)
{
	for (size_t i = 0; i < PEERS; i++) {
		if (!p->slow || i != SLOW || !but_slow)
			hear(p, i);
	}
}

static void play_change(struct play *p)
{
	int key = (int)pick(p, KEYS), value = (int)pick(p, 4);

	p->value[key] = value;
	if (!p->up)
		return;
	assert_true(p->n < QUEUE);
	p->queue[p->n].key = key;
	p->queue[p->n++].value = value;
}

static void play_delivery(struct play *p)
{
	char text[200];

	if (!p->up || p->first == p->n)
		return;
	int key = p->queue[p->first].key, value = p->queue[p->first].value;
	p->first++;
	for (size_t i = 0; i < PEERS; i++)
		p->view[i][key].changes += p->view[i][key].live || globs(i, key);
	if (value)
		snprintf(text, sizeof(text), CHANGE("k%d", "'%d'"), key, value);
	else
		snprintf(text, sizeof(text), CHANGE("k%d", "null"), key);
	change(p->w, text);
}

/* One of the frames that are not answered, FRAMES if there is none. */
static size_t pick_read(struct play *p)
{
	size_t n = p->w->n_sent, from = n ? pick(p, (uint32_t)n) : 0;

	for (size_t i = 0; i < n; i++) {
		if (!p->w->sent[(from + i) % n].answered)
			return (from + i) % n;
	}
	return FRAMES;
}

static int key_of(const struct frame *frame)
{
	return strstr(frame->text, "\"key\":\"k")[8] - '0';
}

static void play_execution(struct play *p)
{
	size_t i = pick_read(p);

	if (i < FRAMES && !p->executed[i])
		p->executed[i] = p->value[key_of(&p->w->sent[i])] + 1;
}

static void play_answer(struct play *p)
{
	size_t i = pick_read(p);
	char text[100];

	if (i == FRAMES || !p->executed[i])
		return;
	int value = p->executed[i] - 1;
	if (pick(p, 10) == 0)
		snprintf(text, sizeof(text), "'code':500");
	else if (value)
		snprintf(text, sizeof(text), "'code':200,'value':'%d'", value);
	else
		snprintf(text, sizeof(text), "'code':404");
	answer_frame(p->w, &p->w->sent[i], text);
}

static void play_subscribe(struct play *p)
{
	size_t peer = pick(p, PEERS - 1);
	int key = (int)pick(p, KEYS);
	bool initial = pick(p, 2);
	struct view *v = &p->view[peer][key];
	char text[200];

	if (v->asked)
		return;
	v->asked = true;
	v->initial = initial;
	snprintf(text, sizeof(text), "{'op':'subscribe','key':'k%d','initial':%s,'messageId':%d}",
		 key, initial ? "true" : "false", 2 * key);
	say(p->w, peer, text);
}

static void play_unsubscribe(struct play *p)
{
	size_t peer = pick(p, PEERS - 1);
	int key = (int)pick(p, KEYS);
	char text[200];

	if (p->view[peer][key].asked)
		return;
	snprintf(text, sizeof(text), "{'op':'unsubscribe','key':'k%d','messageId':%d}", key,
		 2 * key + 1);
	say(p->w, peer, text);
}

static void play_token(struct play *p)
{
	if (!p->up)
		return;
	if (!p->listed && subscriptions_is_stale(p->w->subscriptions))
		make_list(p->w);
	else if (!p->listed)
		return;
	else if (pick(p, 3))
		take_over(p->w);
	else
		subscriptions_list_failed(p->w->subscriptions);
	p->listed = !p->listed;
}

static void play_loss(struct play *p)
{
	if (!p->up) {
		if (!p->listed)
			make_list(p->w);
		come_up(p->w);
		p->up = true;
		p->listed = false;
	} else if (pick(p, 20) == 0) {
		lose_all(p->w);
		p->up = false;
		p->first = p->n;
		for (size_t i = 0; i < PEERS; i++) {
			for (int key = 0; key < KEYS; key++)
				p->view[i][key].due |= p->view[i][key].live;
		}
	}
}

static void play_step(struct play *p)
{
	static void (*const moves[])(struct play *) = {
		play_change,      play_change,    play_delivery, play_delivery,
		play_execution,   play_execution, play_answer,   play_subscribe,
		play_unsubscribe, play_token,     play_token,    play_loss};

	moves[pick(p, COUNT(moves))](p);
	hear_all(p, pick(p, 60) != 0);
}

/* Until nothing is on its way any more. */
static void play_out(struct play *p)
{
	for (unsigned i = 0;
	     i < 2000 || p->first < p->n || subscriptions_counts(p->w->subscriptions).rereading;
	     i++) {
		play_delivery(p);
		play_execution(p);
		play_answer(p);
		play_token(p);
		if (!p->up)
			play_loss(p);
		hear_all(p, true);
	}
	hear_all(p, false);
}

static void play_check(const struct play *p, uint32_t seed)
{
	for (size_t i = 0; i < PEERS; i++) {
		for (int key = 0; key < KEYS; key++) {
			const struct view *v = &p->view[i][key];
			if (v->live && (v->due || v->value >= 0) && v->value != -2 &&
			    v->value != p->value[key])
				fail_msg("seed %u: client %zu believes k%d to be %d, and it is %d",
					 seed, i, key, v->value, p->value[key]);
			if (!p->slow && v->told != v->changes)
				fail_msg("seed %u: client %zu was told %u changes of k%d, not %u",
					 seed, i, v->told, key, v->changes);
		}
	}
}

static void play(uint32_t seed, bool slow)
{
	struct subscriptions_settings settings = usual;
	struct play *p = mem_zalloc(sizeof(*p));

	if (!slow)
		settings.output_soft = SIZE_MAX;
	*p = (struct play){.w = world_with(&settings), .random = seed, .slow = slow, .up = true};
	for (size_t i = 0; i < PEERS; i++) {
		for (int key = 0; key < KEYS; key++)
			p->view[i][key].value = -1;
	}
	live_with(p->w, GLOBBER, "'pattern':'k0*'");
	live_with(p->w, 1, "'pattern':'k0*'");
	for (int i = 0; i < STEPS && p->w->n_sent < FRAMES - 100; i++)
		play_step(p);
	play_out(p);
	play_check(p, seed);
	world_free(p->w);
	free(p);
}

static void all_clients_end_with_what_the_service_has_and_miss_nothing(void **state)
{
	(void)state;
	for (uint32_t seed = 1; seed <= 100; seed++)
		play(seed, false);
}

static void a_slow_client_ends_with_what_the_service_has(void **state)
{
	(void)state;
	for (uint32_t seed = 1; seed <= 100; seed++)
		play(seed, true);
}

static void subscribing_again_succeeds_at_the_limit(void **state)
{
	struct subscriptions_settings settings = usual;

	(void)state;
	settings.max_peer_subs = 2;
	struct world *w = world_with(&settings);
	live_with(w, 0, "'keys':['a','b']");
	subscribe(w, 0, "'key':'a'");
	assert_told(w, 0, OK("1"));
	world_free(w);
}

static void a_value_is_told_after_a_reading_that_was_given_up_has_failed(void **state)
{
	enum { BIG = 5 << 20 };
	struct subscriptions_settings settings = usual;
	char *text = mem_alloc(BIG + 200);

	(void)state;
	settings.output_soft = SIZE_MAX;
	struct world *w = world_with(&settings);
	live_with(w, 0, "'key':'a'");
	change(w, CHANGE("a", "'old'"));
	told(w, 0);
	lose_all(w);
	come_up(w);
	told(w, 0);
	pass(w, 1000);
	pass(w, 1000); /* the third try is on its way */
	int n = sprintf(text, "{'type':'notification','key':'a','value':'");
	memset(text + n, 'x', BIG);
	strcpy(text + n + BIG, "'}");
	change(w, text);
	outq_take(&w->peer[0].out, outq_len(&w->peer[0].out));
	pass(w, 1000);
	assert_told(w, 0, KEY_GAP("a"));
	lose_all(w);
	come_up(w);
	told(w, 0);
	answer(w, "a", "'code':200,'value':'old'");
	assert_told(w, 0, RESYNC("a", "'old'"));
	free(text);
	world_free(w);
}

static void a_covered_join_that_waits_for_its_turn_stays_in_the_list(void **state)
{
	struct world *w = world_with_a_listed();

	(void)state;
	say(w, 1, "{'op':'get','key':'x'}");
	say(w, 1, "{'op':'subscribe','key':'a'}");
	subscribe(w, 2, "'key':'b'");
	assert_list(w, "['a','b','z']");
	take_over(w);
	answer(w, "x", "'code':404");
	assert_told(w, 1, "{'code':404}\n{'code':200}\n");
	world_free(w);
}

static void readings_come_back_when_the_router_ends(void **state)
{
	struct world *w = world_new();

	(void)state;
	subscribe(w, 0, "'key':'a','initial':true");
	make_list(w);
	come_up(w);
	lose_all(w); /* the reading waits in the router */
	for (size_t i = 0; i < PEERS; i++) {
		leave(w, i);
		outq_fini(&w->peer[i].out);
	}
	subscriptions_stop(w->subscriptions);
	router_free(w->router);
	assert_int_equal(subscriptions_counts(w->subscriptions).rereading, 0);
	subscriptions_free(w->subscriptions);
	for (size_t i = 0; i < w->n_sent; i++)
		free(w->sent[i].text);
	free(w);
}

/* ---- other access rules ---- */

/* The client may read this glob only; NULL: everything again. */
static void restrict_to(struct world *w, size_t peer, const char *glob)
{
	static const struct peer_identity who = {.known = true, .uid = 7};
	struct access *access = access_new(&w->stats);
	struct access_rules *rules = glob ? access_rules_new() : NULL;

	if (glob) {
		struct access_section *s = access_rules_add(rules, "test");
		access_section_user(s, who.uid);
		access_section_glob(s, ACCESS_READ, span_of(glob));
	}
	access_set(access, rules);
	access_admit(access, &w->peer[peer], &who);
	subscriptions_restrict(w->subscriptions, &w->peer[peer]);
	access_leave(&w->peer[peer]); /* so that the rules may go */
	access_free(access);
	access_rules_free(rules);
}

#define ENDED(kind, name)                                                                          \
	"{'type':'unsubscribed','" kind "':'" name "','reason':'forbidden','timestamp':1000}\n"

static void what_may_not_be_read_any_more_ends_with_a_word(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'keys':['a','b'],'pattern':'b*'");
	subscribe(w, 1, "'key':'a'");
	assert_told(w, 1, OK("1"));
	restrict_to(w, 0, "b*");
	assert_told(w, 0, ENDED("key", "a"));
	change(w, CHANGE("a", "'1'"));
	change(w, CHANGE("b", "'2'"));
	assert_told(w, 0, TOLD("b", "'2'"));
	assert_told(w, 1, TOLD("a", "'1'"));
	restrict_to(w, 0, NULL);
	assert_told(w, 0, "");
	restrict_to(w, 0, "b");
	assert_told(w, 0, ENDED("pattern", "b*"));
	restrict_to(w, 0, "z");
	assert_told(w, 0, ENDED("key", "b"));
	change(w, CHANGE("b", "'3'"));
	assert_told(w, 0, "");
	assert_int_equal(w->peer[0].topics.n, 0);
	assert_null(w->peer[0].fanout.of_audience.le_prev);
	assert_int_equal(w->stats.subscriptions_forbidden, 3);
	assert_int_equal(w->forbidden, 3);
	lose(w);
	assert_told(w, 0, ""); /* who has no subscriptions is told of no connections */
	world_free(w);
}

static void subscriptions_that_still_wait_are_refused(void **state)
{
	struct world *w = world_new();

	(void)state;
	say(w, 0, "{'op':'subscribe','keys':['a','x'],'messageId':1}");
	say(w, 0, "{'op':'subscribe','key':'a','messageId':2}");
	say(w, 0, "{'op':'subscribe','pattern':'*','messageId':3}");
	restrict_to(w, 0, "a*");
	const char *text = told(w, 0);
	assert_non_null(
		strstr(text, "\"reason\":\"forbidden\",\"executed\":\"no\",\"messageId\":1}"));
	assert_non_null(
		strstr(text, "\"reason\":\"forbidden\",\"executed\":\"no\",\"messageId\":3}"));
	assert_null(strstr(text, "\"messageId\":2}"));
	assert_int_equal(w->forbidden, 2);
	assert_int_equal(w->stats.requests_forbidden, 2);
	assert_null(strstr(text, "retryAfterMs"));
	assert_list(w, "['a']");
	come_up(w);
	assert_told(w, 0, OK("2"));
	world_free(w);
}

static void a_slow_client_is_told_nothing_of_what_has_ended(void **state)
{
	struct world *w = world_new();
	char value[SOFT + 3];

	(void)state;
	live_with(w, 0, "'keys':['a','b'],'pattern':'c*'");
	memset(value, 'x', sizeof(value) - 1);
	value[0] = value[sizeof(value) - 2] = '\'';
	value[sizeof(value) - 1] = '\0';
	char object[SOFT + 200];
	snprintf(object, sizeof(object),
		 "{'type':'notification','key':'b','value':%s,'timestamp':1}", value);
	change(w, object); /* fills its output */
	change(w, CHANGE("a", "'1'"));
	change(w, CHANGE("c1", "'2'"));
	change(w, CHANGE("b", "'3'"));
	restrict_to(w, 0, "b");
	told(w, 0);
	subscriptions_caught_up(w->subscriptions, &w->peer[0]);
	const char *text = told(w, 0);
	assert_non_null(strstr(text, "\"3\""));
	assert_non_null(strstr(text, "\"unsubscribed\",\"key\":\"a\""));
	assert_non_null(strstr(text, "\"unsubscribed\",\"pattern\":\"c*\""));
	assert_null(strstr(text, "\"1\""));
	assert_null(strstr(text, "\"2\""));
	world_free(w);
}

static void a_value_that_is_being_read_is_told_to_nobody(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'key':'a','initial':true");
	change(w, CHANGE("a", "'1'"));
	restrict_to(w, 0, "z");
	assert_told(w, 0, ENDED("key", "a"));
	answer(w, "a", "'code':200,'value':'secret'");
	assert_told(w, 0, "");
	world_free(w);
}

/* ---- the order and the record of readings ---- */

static const struct subscriptions_settings one_at_a_time = {
	.output_soft = SOFT,
	.reads_at_once = 1,
	.held_bytes = 4 << 20,
	.max_subs = 1000,
	.max_peer_subs = 100,
	.max_peer_globs = 100,
	.max_topics = 100000,
	.max_bytes = 1 << 20,
};

static void the_record_of_lost_readings_is_kept_by_key(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'keys':['a','b','c']");
	lose_all(w);
	come_up(w);
	assert_told(w, 0, LOST BACK);
	lose_over_it(w); /* all three were in flight */
	for (int i = 0; i < 20 && !unanswered(w, "b"); i++) {
		if (unanswered(w, "a"))
			answer(w, "a", "'code':200,'value':'1'");
		if (unanswered(w, "c"))
			answer(w, "c", "'code':200,'value':'1'");
		pass(w, 500);
	}
	assert_reading(w, "b");
	assert_null(unanswered(w, "a"));
	told(w, 0);
	lose_over_it(w);
	for (int i = 0; i < 20 && !unanswered(w, "b"); i++) {
		if (unanswered(w, "a"))
			answer(w, "a", "'code':200,'value':'1'");
		if (unanswered(w, "c"))
			answer(w, "c", "'code':200,'value':'1'");
		pass(w, 500);
	}
	told(w, 0);
	lose_over_it(w);
	for (int i = 0; i < 20; i++) {
		if (unanswered(w, "a"))
			answer(w, "a", "'code':200,'value':'1'");
		if (unanswered(w, "c"))
			answer(w, "c", "'code':200,'value':'1'");
		pass(w, 500);
	}
	assert_non_null(strstr(told(w, 0), "\"type\":\"gap\",\"key\":\"b\""));
	lose_all(w);
	come_up(w);
	assert_reading(w, "a"); /* these two are under no suspicion: at once */
	assert_reading(w, "c");
	assert_null(unanswered(w, "b"));
	assert_told(w, 0, LOST BACK KEY_GAP("b"));
	world_free(w);
}

static void sudden_losses_weigh_a_third(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'keys':['a','b']");
	lose_all(w);
	come_up(w);
	for (int i = 0; i < 2; i++) {
		assert_reading(w, "a");
		assert_reading(w, "b");
		lose_as(w, 0, true);
	}
	assert_reading(w, "a");
	assert_reading(w, "b");
	lose_as(w, 0, true);
	pass(w, 100);
	assert_true(!unanswered(w, "a") != !unanswered(w, "b")); /* alone */
	world_free(w);
}

static void other_settings_of_subscriptions_count_at_once(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'keys':['a','b']");
	subscriptions_set(w->subscriptions, &one_at_a_time);
	lose_all(w);
	come_up(w);
	assert_true(!unanswered(w, "a") != !unanswered(w, "b"));
	struct subscriptions_settings few = usual;
	few.max_peer_subs = 2;
	few.output_soft = 10;
	subscriptions_set(w->subscriptions, &few);
	told(w, 0);
	subscribe(w, 0, "'key':'c'");
	assert_refused(w, 0, "queue_full", "1", "");
	unsigned flushed = w->flushed;
	change(w, CHANGE("a", "'1'"));
	change(w, CHANGE("a", "'2'"));
	assert_int_equal(w->flushed, flushed + 1); /* is slow by now */
	world_free(w);
}

static void a_newcomer_is_not_behind_the_rounds_of_one_that_was_there_before(void **state)
{
	struct world *w = world_with(&one_at_a_time);

	(void)state;
	live_with(w, 0, "'keys':['a','b','c']");
	leave(w, 1);
	w->away[1] = false;
	w->peer[1].resync.round = 1000;
	router_join(w->router, &w->peer[1]);
	subscriptions_join(w->subscriptions, &w->peer[1]);
	subscribe(w, 0, "'keys':['a','b'],'initial':true");
	subscribe(w, 1, "'key':'c','initial':true");
	assert_reading(w, "a");
	answer(w, "a", "'code':200,'value':'1'");
	assert_reading(w, "c"); /* the second one's first comes before the first one's second */
	answer(w, "c", "'code':200,'value':'1'");
	assert_reading(w, "b");
	world_free(w);
}

static void a_reading_that_somebody_waits_for_is_hurried(void **state)
{
	struct world *w = world_with(&one_at_a_time);

	(void)state;
	live_with(w, 0, "'keys':['a','b','c']");
	lose_all(w);
	come_up(w);
	const char *first = unanswered(w, "a") ? "a" : unanswered(w, "b") ? "b" : "c";
	const char *last = strcmp(first, "a") ? "a" : "b", *middle = "c";
	if (!strcmp(first, "c"))
		middle = "b";
	char members[60];
	snprintf(members, sizeof(members), "'key':'%s','initial':true", last);
	subscribe(w, 1, members);
	snprintf(members, sizeof(members), "'key':'%s','initial':true", middle);
	subscribe(w, 2, members);
	answer(w, first, "'code':200,'value':'1'");
	assert_reading(w, last);
	answer(w, last, "'code':200,'value':'1'");
	assert_reading(w, middle);
	answer(w, middle, "'code':200,'value':'1'");
	assert_int_equal(subscriptions_counts(w->subscriptions).waiting, 0);
	for (size_t i = 0; i < w->n_sent; i++)
		assert_true(w->sent[i].answered);
	world_free(w);
}

static void a_reading_that_is_not_sent_yet_may_be_unwanted(void **state)
{
	static const struct router_settings slow = {
		.max_in_flight = IN_FLIGHT,
		.max_pipeline = 100,
		.request_timeout_ms = TIMEOUT,
		.max_waiting_bytes = 1 << 20,
		.max_peer_waiting_bytes = 1 << 20,
		.rate_limit = 1,
	};
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'keys':['a','b']");
	lose_all(w);
	router_set(w->router, &slow, world_now);
	come_up(w);
	const char *waits = unanswered(w, "a") ? "b" : "a";
	assert_null(unanswered(w, waits));
	unsubscribe(w, 0, "");
	pass(w, 1001);
	if (unanswered(w, waits))
		answer(w, waits, "'code':200,'value':'1'");
	live_with(w, 1, "'key':'a'");
	world_free(w);
}

/* Behind a gap the client may have read any value, so it is told the next one in any case. */
static void a_value_behind_a_gap_is_told_though_it_is_that_of_the_last_change(void **state)
{
	static const struct router_settings short_frames = {
		.max_in_flight = IN_FLIGHT,
		.max_pipeline = 100,
		.max_frame = 20,
		.request_timeout_ms = TIMEOUT,
		.max_waiting_bytes = 1 << 20,
		.max_peer_waiting_bytes = 1 << 20,
	};
	struct router_settings usual_frames = short_frames;
	struct world *w = world_new();

	(void)state;
	usual_frames.max_frame = 0;
	live_with(w, 0, "'key':'a'");
	change(w, CHANGE("a", "'1'"));
	assert_told(w, 0, TOLD("a", "'1'"));
	router_set(w->router, &short_frames, world_now);
	lose_all(w);
	come_up(w);
	assert_told(w, 0, LOST BACK KEY_GAP("a"));
	router_set(w->router, &usual_frames, world_now);
	lose_all(w);
	come_up(w);
	answer(w, "a", "'code':200,'value':'1'");
	assert_told(w, 0, LOST BACK RESYNC("a", "'1'"));
	world_free(w);
}

/* The cache's own. */
static void nobody_reads_for_a_silent_subscriber_alone(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'keys':['a','b']");
	live_with(w, 1, "'key':'b'");
	w->peer[0].silent = true;
	lose_all(w);
	come_up(w);
	assert_null(unanswered(w, "a"));
	assert_reading(w, "b");
	answer(w, "b", "'code':200,'value':'1'");
	assert_told(w, 1, LOST BACK RESYNC("b", "'1'"));
	assert_told(w, 0, "");
	world_free(w);
}

static void what_is_held_back_is_told_before_another_reading_for_an_initial_value(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'key':'a'");
	lose_all(w);
	come_up(w);
	change(w, CHANGE("a", "'5'"));
	assert_told(w, 0, LOST BACK);
	subscribe(w, 0, "'key':'a','initial':true");
	assert_told(w, 0, TOLD("a", "'5'") OK("1"));
	answer(w, "a", "'code':200,'value':'5'");
	assert_told(w, 0, "");
	answer(w, "a", "'code':200,'value':'6'");
	assert_told(w, 0, INITIAL("a", "'6'"));
	world_free(w);
}

static void a_reading_that_becomes_too_long_while_it_waits_is_a_gap(void **state)
{
	struct router_settings settings = {
		.max_in_flight = IN_FLIGHT,
		.max_pipeline = 100,
		.request_timeout_ms = 10 * TIMEOUT,
		.max_waiting_bytes = 1 << 20,
		.max_peer_waiting_bytes = 1 << 20,
		.rate_limit = 1,
	};
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'keys':['a','b']");
	lose_all(w);
	router_set(w->router, &settings, world_now);
	come_up(w);
	const char *waits = unanswered(w, "a") ? "b" : "a";
	assert_null(unanswered(w, waits));
	assert_told(w, 0, LOST BACK);
	settings.max_frame = 20;
	router_set(w->router, &settings, world_now);
	pass(w, 1001);
	const char *text = told(w, 0);
	assert_non_null(strstr(text, "\"type\":\"gap\""));
	assert_null(unanswered(w, waits));
	settings.max_frame = 0;
	settings.rate_limit = 0;
	router_set(w->router, &settings, world_now);
	lose_all(w);
	come_up(w);
	assert_reading(w, waits); /* as any other */
	world_free(w);
}

/* ---- what clients of a section share, and what is told of all ---- */

static void clients_of_a_section_share_their_subscriptions(void **state)
{
	struct world *w = world_new();
	struct budget *b = budget_new("web");

	(void)state;
	budget_set(b, &(struct budget_limits){.max_subscriptions = 3});
	for (size_t i = 0; i < 2; i++) {
		struct budgets *s = budgets_new(1);
		s->budget[0] = budget_ref(b);
		budget_admit(&w->peer[i], s);
	}
	subscribe(w, 0, "'keys':['a','b']");
	assert_int_equal(b->subscriptions, 2); /* those that wait count, too */
	subscribe(w, 1, "'keys':['c','d']");
	assert_refused(w, 1, "queue_full", "1",
		       "of all clients of [access web] (max_subscriptions: 3)");
	assert_int_equal(w->stats.subscribes_refused, 1);
	assert_int_equal(b->refused[BUDGET_QUEUE_FULL], 1);
	make_list(w);
	come_up(w);
	assert_told(w, 0, OK("1"));
	assert_int_equal(b->subscriptions, 2);
	subscribe(w, 0, "'keys':['a','b','c']"); /* one of which is new */
	assert_int_equal(b->subscriptions, 3);
	subscribe(w, 1, "'key':'a'");
	assert_refused(w, 1, "queue_full", "1", "max_subscriptions");
	pass(w, TIMEOUT);
	assert_refused(w, 0, "upstream_down", "1", "the moon is full");
	assert_int_equal(b->subscriptions, 2);
	unsubscribe(w, 0, "'key':'a'");
	assert_int_equal(b->subscriptions, 1);
	subscribe(w, 1, "'key':'x'");
	assert_int_equal(b->subscriptions, 2);
	leave(w, 1);
	assert_int_equal(b->subscriptions, 1);
	leave(w, 0);
	assert_int_equal(b->subscriptions, 0);
	for (size_t i = 0; i < 2; i++)
		budget_admit(&w->peer[i], NULL);
	assert_int_equal(b->refs, 1);
	budget_unref(b);
	world_free(w);
}

static void different_names_are_bounded(void **state)
{
	struct subscriptions_settings settings = usual;

	(void)state;
	settings.max_topics = 2;
	struct world *w = world_with(&settings);
	live_with(w, 0, "'key':'a'");
	subscribe(w, 1, "'keys':['a','b','c']");
	assert_refused(w, 1, "queue_full", "1", "too many different keys and patterns");
	subscribe(w, 1, "'keys':['a','b']");
	assert_told(w, 1, "");
	make_list(w);
	take_over(w);
	assert_told(w, 1, OK("1"));
	subscribe(w, 0, "'keys':['a','b']"); /* nothing new */
	assert_told(w, 0, OK("1"));
	world_free(w);
}

static void the_end_of_the_daemon_is_told_to_those_that_listen(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'key':'a'");
	subscriptions_stop(w->subscriptions);
	subscriptions_end(w->subscriptions);
	assert_told(w, 0,
		    "{'type':'connection','state':'disconnected','reason':'shutting_down',"
		    "'timestamp':1000}\n");
	assert_told(w, 1, "");
	lose(w); /* is no news any more */
	assert_told(w, 0, "");
	world_free(w);
}

static void what_belongs_to_one_client_alone_is_taken_out_of_the_counts(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'keys':['a','b','d'],'patterns':['p*','q*']");
	live_with(w, 1, "'key':'a','pattern':'q*'");
	subscribe(w, 0, "'key':'c'");
	struct subscriptions_counts n = subscriptions_counts(w->subscriptions);
	assert_int_equal(n.subscriptions, 7);
	assert_int_equal(n.waiting, 1);
	subscriptions_discount(&n, &w->peer[0]);
	assert_int_equal(n.keys, 1);
	assert_int_equal(n.patterns, 1);
	assert_int_equal(n.subscriptions, 2);
	assert_int_equal(n.waiting, 0);
	subscriptions_without(w->subscriptions);
	assert_int_equal(subscriptions_counts(w->subscriptions).left_out,
			 0); /* there is no token */
	world_free(w);
}

static void a_name_is_covered_for_its_subscriber_while_the_token_is_live(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'key':'a','pattern':'p*'");
	assert_true(subscriptions_covers(w->subscriptions, &w->peer[0], false, SPAN("a")));
	assert_true(subscriptions_covers(w->subscriptions, &w->peer[0], true, SPAN("p*")));
	assert_false(subscriptions_covers(w->subscriptions, &w->peer[0], true, SPAN("a")));
	assert_false(subscriptions_covers(w->subscriptions, &w->peer[1], false, SPAN("a")));
	assert_false(subscriptions_covers(w->subscriptions, &w->peer[0], false, SPAN("b")));
	subscribe(w, 1, "'key':'a'");
	assert_true(subscriptions_covers(w->subscriptions, &w->peer[1], false, SPAN("a")));
	lose_all(w);
	assert_false(subscriptions_covers(w->subscriptions, &w->peer[0], false, SPAN("a")));
	come_up(w);
	assert_true(subscriptions_covers(w->subscriptions, &w->peer[0], false, SPAN("a")));
	world_free(w);
}

static void a_client_that_comes_begins_with_nothing(void **state)
{
	struct world *w = world_new();

	(void)state;
	leave(w, 1);
	w->peer[1].topics.n = w->peer[1].topics.n_globs = 90;
	w->peer[1].subscriptions.n = w->peer[1].subscriptions.n_globs = 90;
	w->peer[1].fanout.change = 9;
	w->away[1] = false;
	router_join(w->router, &w->peer[1]);
	subscriptions_join(w->subscriptions, &w->peer[1]);
	assert_int_equal(w->peer[1].fanout.change, 0);
	assert_int_equal(w->peer[1].topics.n_globs, 0);
	assert_int_equal(w->peer[1].subscriptions.n_globs, 0);
	live_with(w, 1, "'key':'a'");
	assert_int_equal(w->peer[1].topics.n, 1);
	assert_int_equal(w->peer[1].subscriptions.n, 0);
	world_free(w);
}

static void patterns_that_wait_count_among_those_that_cost_time(void **state)
{
	struct subscriptions_settings settings = usual;

	(void)state;
	settings.max_peer_globs = 2;
	struct world *w = world_with(&settings);
	live_with(w, 0, "'pattern':'a*b'");
	subscribe(w, 0, "'pattern':'c*d'");
	subscribe(w, 0, "'pattern':'e*f'");
	assert_refused(w, 0, "queue_full", "1", "go on behind a *");
	subscribe(w, 0, "'pattern':'e*'");
	assert_told(w, 0, "");
	world_free(w);
}

static void changes_are_held_back_up_to_their_bound(void **state)
{
	struct subscriptions_settings settings = usual;

	(void)state;
	settings.held_bytes = strlen(TOLD("a", "'1'"));
	for (int less = 0; less < 2; less++) {
		settings.held_bytes -= (size_t)less;
		struct world *w = world_with(&settings);
		live_with(w, 0, "'key':'a'");
		lose_all(w);
		come_up(w);
		assert_told(w, 0, LOST BACK);
		change(w, CHANGE("a", "'1'"));
		assert_told(w, 0, less ? TOLD("a", "'1'") : "");
		change(w, CHANGE("a", "'2'"));
		assert_told(w, 0, less ? TOLD("a", "'2'") : TOLD("a", "'1'") TOLD("a", "'2'"));
		world_free(w);
	}
}

static void a_reading_that_is_always_answered_elsewhere_is_believed_at_last(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'key':'a'");
	lose_all(w);
	come_up(w);
	assert_told(w, 0, LOST BACK);
	for (int i = 0; i < 10; i++) {
		make_list(w);
		take_over(w);
		answer(w, "a", "'code':200,'value':'1'");
		assert_told(w, 0, "");
		assert_reading(w, "a");
	}
	make_list(w);
	take_over(w);
	answer(w, "a", "'code':200,'value':'1'");
	assert_told(w, 0, RESYNC("a", "'1'"));
	assert_null(unanswered(w, "a"));
	world_free(w);
}

/* ---- gaps, to the millisecond ---- */

static void a_straggler_tells_a_gap_since_its_own_time(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'pattern':'p*'");
	straggler(w, "{'type':'notification','key':'p','value':'1','timestamp':1000}");
	assert_told(w, 0, PATTERN_GAP("p*", "1000"));
	straggler(w, "{'type':'notification','key':'p','value':'1','timestamp':999}");
	assert_told(w, 0, PATTERN_GAP("p*", "999"));
	/* A time that is not to be believed: a minute. */
	straggler(w, "{'type':'notification','key':'p','value':'1','timestamp':1001}");
	assert_told(w, 0, PATTERN_GAP("p*", "-59000"));
	straggler(w, CHANGE("nobodys", "'1'"));
	subscribe(w, 1, "'key':'b'"); /* waits */
	straggler(w, CHANGE("b", "'1'"));
	assert_null(unanswered(w, "b"));
	assert_told(w, 0, "");
	assert_told(w, 1, "");
	world_free(w);
}

static void behind_a_gap_each_subscriber_may_know_another_value(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'key':'a'");
	for (size_t i = 0; i < 2; i++) {
		subscribe(w, i, "'key':'a','initial':true");
		answer(w, "a", "'code':200,'value':'1'");
		assert_told(w, i, OK("1") INITIAL("a", "'1'"));
	}
	lose_all(w);
	come_up(w);
	answer(w, "a", "'code':200,'value':'1'"); /* which both know */
	assert_told(w, 0, LOST BACK);
	assert_told(w, 1, LOST BACK);
	subscriptions_missed(w->subscriptions, BOOT - 10);
	assert_told(w, 0, KEY_GAP("a"));
	assert_told(w, 1, KEY_GAP("a"));
	lose_all(w);
	come_up(w);
	answer(w, "a", "'code':200,'value':'1'");
	assert_told(w, 0, LOST BACK RESYNC("a", "'1'"));
	assert_told(w, 1, LOST BACK RESYNC("a", "'1'"));
	world_free(w);
}

static void what_was_missed_before_the_loss_makes_the_gap_longer(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'pattern':'p*'");
	lose_all(w);
	subscriptions_missed(w->subscriptions, BOOT - 50); /* later than the loss */
	come_up(w);
	assert_told(w, 0, LOST BACK PATTERN_GAP("p*", "900"));
	lose_all(w);
	subscriptions_missed(w->subscriptions, BOOT - 300);
	come_up(w);
	assert_told(w, 0, LOST BACK PATTERN_GAP("p*", "700"));
	world_free(w);
}

static void who_was_told_of_no_loss_is_not_told_that_it_is_over(void **state)
{
	struct world *w = world_new();

	(void)state;
	live_with(w, 0, "'key':'a'");
	lose_all(w);
	leave(w, 0);
	subscriptions_without(w->subscriptions);
	subscribe(w, 1, "'key':'b'");
	make_list(w);
	come_up(w);
	assert_told(w, 1, OK("1"));
	world_free(w);
}

static void the_only_name_that_a_token_could_have_is_refused_without_a_time(void **state)
{
	struct world *w = world_new();

	(void)state;
	subscribe(w, 0, "'key':'x'");
	make_list(w);
	assert_false(subscriptions_list_refused(w->subscriptions, "no such name"));
	assert_null(strstr(w->told, "retryAfterMs"));
	assert_refused(w, 0, "upstream_down", "1", "no such name");
	assert_null(strstr(w->told, "retryAfterMs"));
	world_free(w);
}

/* ---- requests with several names ---- */

static void the_last_name_of_a_request_counts_as_the_first(void **state)
{
	struct world *w = world_new();
	struct buf list = {0};

	(void)state;
	live_with(w, 0, "'key':'a'");
	assert_false(subscriptions_is_stale(w->subscriptions));
	subscribe(w, 1, "'keys':['a','b','c','d']");
	assert_true(subscriptions_is_stale(w->subscriptions));
	unsubscribe(w, 1, "'key':'c'");
	assert_told(w, 1, OK("2"));
	assert_list(w, "['a','b','d']");
	take_over(w);
	assert_told(w, 1, OK("1"));
	assert_int_equal(w->peer[1].topics.n, 3);
	subscribe(
		w, 2,
		"'keys':['a','ccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc']");
	subscriptions_make_list(w->subscriptions, 20, &list);
	buf_release(&list);
	assert_refused(w, 2, "queue_full", "1", "has no room for this subscription");
	world_free(w);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_subscribe_is_answered_once_its_token_is_live),
		cmocka_unit_test(what_the_token_covers_already_is_live_at_once),
		cmocka_unit_test(a_subscribe_of_nothing_is_answered_and_ends),
		cmocka_unit_test(a_token_that_is_gone_covers_nothing_until_the_connection_is_back),
		cmocka_unit_test(one_that_was_just_left_is_in_the_coming_token),
		cmocka_unit_test(one_that_was_just_left_may_be_why_a_list_is_refused),
		cmocka_unit_test(one_that_the_coming_token_drops_waits_for_another),
		cmocka_unit_test(one_that_only_a_failed_token_would_have_dropped_is_live),
		cmocka_unit_test(
			what_the_token_lists_is_live_again_at_once_while_nothing_is_on_its_way),
		cmocka_unit_test(one_that_comes_while_a_token_is_made_waits_for_the_next),
		cmocka_unit_test(answers_without_an_id_keep_the_order_of_requests),
		cmocka_unit_test(a_join_whose_turn_comes_before_its_token_waits_on),
		cmocka_unit_test(subscribing_again_succeeds_and_doubles_nothing),
		cmocka_unit_test(a_notification_passes_as_it_is_on_one_line),
		cmocka_unit_test(the_owner_hears_of_each_line),
		cmocka_unit_test(unsubscribe_without_names_ends_all),
		cmocka_unit_test(unsubscribe_ends_what_a_subscribe_still_waits_for),
		cmocka_unit_test(unsubscribe_of_all_answers_every_subscribe_that_waits),
		cmocka_unit_test(unsubscribe_answers_a_row_of_those_without_ids),
		cmocka_unit_test(initial_values_follow_the_answer),
		cmocka_unit_test(an_initial_value_is_read_for_a_subscription_that_is_there_too),
		cmocka_unit_test(one_reading_serves_all_that_wait_for_it),
		cmocka_unit_test(so_many_keys_are_read_at_once_as_the_settings_allow),
		cmocka_unit_test(one_who_wants_many_initial_values_does_not_keep_others_waiting),
		cmocka_unit_test(reading_after_a_loss_goes_on_whatever_initial_values_are_wanted),
		cmocka_unit_test(a_key_in_line_moves_up_for_one_who_wants_its_value),
		cmocka_unit_test(one_that_came_late_has_a_reading_that_begins_anew),
		cmocka_unit_test(an_initial_value_has_its_place_among_the_changes),
		cmocka_unit_test(a_value_is_told_after_a_loss_if_no_change_has_told_it),
		cmocka_unit_test(what_was_held_back_goes_out_when_the_connection_is_lost),
		cmocka_unit_test(what_was_held_back_goes_out_before_the_answer_to_unsubscribe),
		cmocka_unit_test(unsubscribe_of_all_brings_what_was_held_back_first),
		cmocka_unit_test(what_is_answered_on_a_connection_that_was_left_is_read_again),
		cmocka_unit_test(whoever_waits_for_a_value_does_not_wait_for_ever),
		cmocka_unit_test(what_was_held_back_goes_out_when_nothing_is_read_any_more),
		cmocka_unit_test(while_the_connection_is_lost_nothing_is_asked_for),
		cmocka_unit_test(a_reading_with_too_much_held_back_begins_anew),
		cmocka_unit_test(a_reading_that_a_lost_change_overtakes_is_tried_three_times),
		cmocka_unit_test(everybody_may_have_missed_a_lost_change),
		cmocka_unit_test(a_straggler_is_a_gap_of_its_key),
		cmocka_unit_test(a_straggler_of_a_key_that_is_being_read_has_it_read_anew),
		cmocka_unit_test(behind_a_gap_a_value_is_told_even_if_it_was_before),
		cmocka_unit_test(what_was_missed_before_a_loss_is_in_its_gap),
		cmocka_unit_test(a_loss_is_told_to_the_audience_alone),
		cmocka_unit_test(a_planned_handover_is_silent),
		cmocka_unit_test(a_value_is_told_again_only_to_those_who_know_another),
		cmocka_unit_test(a_key_that_is_lost_twice_is_read_once),
		cmocka_unit_test(an_initial_value_that_is_due_stays_one_over_a_loss),
		cmocka_unit_test(a_key_that_can_not_be_read_is_a_gap),
		cmocka_unit_test(a_reading_that_is_not_answered_in_time_is_tried_three_times),
		cmocka_unit_test(a_reading_that_the_rate_limit_refuses_is_tried_on),
		cmocka_unit_test(
			what_the_token_does_not_cover_any_more_is_a_gap_until_it_does_again),
		cmocka_unit_test(nor_is_it_read_until_then),
		cmocka_unit_test(what_was_left_out_is_asked_for_again_once_there_may_be_room),
		cmocka_unit_test(there_was_no_room_after_all),
		cmocka_unit_test(a_list_that_failed_for_another_reason_is_made_again),
		cmocka_unit_test(what_ends_while_a_list_is_on_its_way_is_a_reason_for_the_next),
		cmocka_unit_test(a_reading_from_before_a_loss_counts_no_more),
		cmocka_unit_test(a_reading_that_never_has_its_turn_ends_as_a_gap),
		cmocka_unit_test(a_key_over_which_connections_are_lost_is_a_gap_for_ten_minutes),
		cmocka_unit_test(a_slow_client_is_told_the_latest_of_each_key),
		cmocka_unit_test(one_that_had_only_no_turn_is_not_slow),
		cmocka_unit_test(other_lines_keep_their_place_among_what_waits),
		cmocka_unit_test(a_slow_client_catches_up_as_far_as_it_reads),
		cmocka_unit_test(unsubscribe_drops_what_waits_for_a_slow_client),
		cmocka_unit_test(what_another_subscription_brings_too_stays_for_a_slow_client),
		cmocka_unit_test(a_value_that_was_read_keeps_its_place_before_later_changes),
		cmocka_unit_test(unsubscribe_drops_values_and_gaps_that_wait_too),
		cmocka_unit_test(a_gap_is_dropped_with_its_pattern),
		cmocka_unit_test(unsubscribe_of_all_leaves_nothing_that_waits),
		cmocka_unit_test(the_one_name_that_the_service_refuses_is_found),
		cmocka_unit_test(a_refusal_makes_live_what_the_list_would_have_dropped),
		cmocka_unit_test(after_a_search_all_newcomers_are_tried_at_once_again),
		cmocka_unit_test(whoever_has_named_a_bad_one_is_tried_behind_the_others),
		cmocka_unit_test(a_list_without_newcomers_that_is_refused_is_not_tried_at_once),
		cmocka_unit_test(a_client_that_leaves_during_the_search_does_not_stop_it),
		cmocka_unit_test(one_for_whom_the_token_has_no_room_is_refused),
		cmocka_unit_test(a_subscribe_that_is_not_live_in_time_says_why),
		cmocka_unit_test(when_no_token_can_be_had_those_that_wait_are_refused),
		cmocka_unit_test(a_connection_without_a_token_covers_nothing),
		cmocka_unit_test(subscribers_miss_something_meanwhile),
		cmocka_unit_test(stopping_refuses_what_waits_and_what_comes),
		cmocka_unit_test(limits_are_kept),
		cmocka_unit_test(patterns_that_cost_time_are_few),
		cmocka_unit_test(what_waits_is_bounded_even_if_it_is_nothing_new),
		cmocka_unit_test(the_memory_of_all_subscriptions_is_bounded),
		cmocka_unit_test(a_client_may_leave_at_any_time),
		cmocka_unit_test(a_client_may_leave_while_its_keys_wait_to_be_read),
		cmocka_unit_test(a_long_row_of_answers_without_ids_comes_out_at_once),
		cmocka_unit_test(all_clients_end_with_what_the_service_has_and_miss_nothing),
		cmocka_unit_test(a_slow_client_ends_with_what_the_service_has),
		cmocka_unit_test(subscribing_again_succeeds_at_the_limit),
		cmocka_unit_test(a_value_is_told_after_a_reading_that_was_given_up_has_failed),
		cmocka_unit_test(a_covered_join_that_waits_for_its_turn_stays_in_the_list),
		cmocka_unit_test(readings_come_back_when_the_router_ends),
		cmocka_unit_test(what_may_not_be_read_any_more_ends_with_a_word),
		cmocka_unit_test(subscriptions_that_still_wait_are_refused),
		cmocka_unit_test(a_slow_client_is_told_nothing_of_what_has_ended),
		cmocka_unit_test(a_value_that_is_being_read_is_told_to_nobody),
		cmocka_unit_test(the_record_of_lost_readings_is_kept_by_key),
		cmocka_unit_test(sudden_losses_weigh_a_third),
		cmocka_unit_test(other_settings_of_subscriptions_count_at_once),
		cmocka_unit_test(a_newcomer_is_not_behind_the_rounds_of_one_that_was_there_before),
		cmocka_unit_test(a_reading_that_somebody_waits_for_is_hurried),
		cmocka_unit_test(a_reading_that_is_not_sent_yet_may_be_unwanted),
		cmocka_unit_test(a_value_behind_a_gap_is_told_though_it_is_that_of_the_last_change),
		cmocka_unit_test(nobody_reads_for_a_silent_subscriber_alone),
		cmocka_unit_test(
			what_is_held_back_is_told_before_another_reading_for_an_initial_value),
		cmocka_unit_test(a_reading_that_becomes_too_long_while_it_waits_is_a_gap),
		cmocka_unit_test(clients_of_a_section_share_their_subscriptions),
		cmocka_unit_test(different_names_are_bounded),
		cmocka_unit_test(the_end_of_the_daemon_is_told_to_those_that_listen),
		cmocka_unit_test(what_belongs_to_one_client_alone_is_taken_out_of_the_counts),
		cmocka_unit_test(a_name_is_covered_for_its_subscriber_while_the_token_is_live),
		cmocka_unit_test(a_client_that_comes_begins_with_nothing),
		cmocka_unit_test(patterns_that_wait_count_among_those_that_cost_time),
		cmocka_unit_test(changes_are_held_back_up_to_their_bound),
		cmocka_unit_test(a_reading_that_is_always_answered_elsewhere_is_believed_at_last),
		cmocka_unit_test(a_straggler_tells_a_gap_since_its_own_time),
		cmocka_unit_test(behind_a_gap_each_subscriber_may_know_another_value),
		cmocka_unit_test(what_was_missed_before_the_loss_makes_the_gap_longer),
		cmocka_unit_test(who_was_told_of_no_loss_is_not_told_that_it_is_over),
		cmocka_unit_test(the_only_name_that_a_token_could_have_is_refused_without_a_time),
		cmocka_unit_test(the_last_name_of_a_request_counts_as_the_first),
	};

	return cmocka_run_group_tests_name("subscriptions", tests, NULL, NULL);
}
