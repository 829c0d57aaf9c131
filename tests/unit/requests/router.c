/* The router's promises, with a fake upstream and a clock of our own: one answer each, nothing
 * executed twice, order of answers without an id, deadlines, fairness; connections that follow each
 * other, requests that others answer, and reads of the daemon's own. */
#include "../test.h"
#include "../router_ops.h"

#include <stdio.h>

#include "base/mem.h"
#include "requests/answers.h"
#include "requests/budget.h"
#include "requests/router.h"

enum { PEERS = 3, CROWD = 70, FRAMES = 300, MAIN = 1, NEXT = 2, READS = 4, IDLES = 8 };

/* A read of the daemon's own: what became of it. */
struct reading {
	unsigned sent, ended;
	enum router_read_end end;
	char answer[100]; /* the frame; "": none */
	bool again;       /* when it has ended, the last one is asked for */
};

/* A world around one router: what it sent, and what its peers were told. */
struct world {
	struct router *router;
	struct stats stats;
	struct peer peer[PEERS];
	struct peer crowd[CROWD]; /* those of join_crowd() */
	char *sent[FRAMES];       /* whole frames */
	size_t n_sent;
	bool sendable;
	int64_t wake;
	long reconnect_ms;
	int changed[PEERS];   /* how often its owner was told to look at it */
	uint32_t idle[IDLES]; /* the connections that were told to be idle */
	size_t n_idle;
	unsigned turns, over; /* calls of deferred_turn() and deferred_end() */
	bool settles;         /* deferred_turn() answers the request at once */
	bool reads;           /* ... and reads a key */
	const char *why;      /* what deferred_end() says */
	struct peer *judged;  /* whose requests are judged again */
	struct reading reading[READS];
};

static void world_send(void *owner, struct span head, struct span body)
{
	struct world *w = owner;

	assert_true(w->n_sent < FRAMES);
	w->sent[w->n_sent++] = frame_text(head, body);
}

static bool world_sendable(void *owner)
{
	return ((struct world *)owner)->sendable;
}

static long world_reconnect_ms(void *owner)
{
	return ((struct world *)owner)->reconnect_ms;
}

static void world_changed(void *owner, struct peer *peer)
{
	struct world *w = owner;

	if (peer->number <= PEERS)
		w->changed[peer->number - 1]++;
}

static void world_wake_at(void *owner, int64_t at)
{
	((struct world *)owner)->wake = at;
}

static void world_connection_idle(void *owner, uint32_t connection)
{
	struct world *w = owner;

	assert_true(w->n_idle < IDLES);
	w->idle[w->n_idle++] = connection;
}

static void world_deferred_turn(void *owner, struct pending *p)
{
	static const struct json_value key = {.text = SPAN("\"first\""), .type = JSON_STRING};
	struct world *w = owner;

	w->turns++;
	assert_true(router_may_settle(w->router, p));
	if (w->settles)
		router_settle(w->router, p);
	if (w->reads)
		router_read(w->router, &w->reading[0], &key, true, 0);
}

static const char *world_deferred_end(void *owner, struct pending *p)
{
	struct world *w = owner;

	assert_non_null(p->peer);
	w->over++;
	return w->why;
}

static void world_read_sent(void *owner, void *reading)
{
	struct reading *r = reading;

	(void)owner;
	assert_int_equal(r->ended, 0);
	r->sent++;
}

static void world_read_end(void *owner, void *reading, enum router_read_end end,
			   const struct wire_frame *answer)
{
	static const struct json_value key = {.text = SPAN("\"again\""), .type = JSON_STRING};
	struct world *w = owner;
	struct reading *r = reading;

	r->ended++;
	r->end = end;
	assert_int_equal(answer != NULL,
			 end == ROUTER_READ_ANSWERED || end == ROUTER_READ_ELSEWHERE);
	if (answer)
		snprintf(r->answer, sizeof(r->answer), "%.*s", (int)answer->text.n, answer->text.p);
	if (r->again)
		router_read(w->router, &w->reading[READS - 1], &key, true, 1000);
}

/* Of the requests that it is asked about, forbids those whose key begins with an x, and writes of
 * one that begins with an r. */
static const char *forbids_x(void *owner, struct peer *peer, const struct request *request)
{
	struct world *w = owner;
	char first = json_string_raw(&request->key).p[0];

	assert_ptr_equal(peer, w->judged);
	if (first == 'r' && !request_op_is_read(request->op))
		return "no writes of r";
	return first == 'x' ? "no x" : NULL;
}

static const struct router_ops ops = {
	.send = world_send,
	.sendable = world_sendable,
	.reconnect_ms = world_reconnect_ms,
	.changed = world_changed,
	.wake_at = world_wake_at,
	.connection_idle = world_connection_idle,
	.deferred_turn = world_deferred_turn,
	.deferred_end = world_deferred_end,
	.forbids = forbids_x,
	.read_sent = world_read_sent,
	.read_end = world_read_end,
};

static const struct router_settings usual = {
	.max_in_flight = 8,
	.max_pipeline = 4,
	.request_timeout_ms = 1000,
	.max_waiting_bytes = 1 << 20,
	.max_peer_waiting_bytes = 1 << 20,
};

static struct world *world_with(const struct router_settings *settings)
{
	struct world *w = mem_zalloc(sizeof(*w));

	w->sendable = true;
	w->wake = -1;
	w->reconnect_ms = -1;
	w->router = router_new(settings, &ops, w, &w->stats, 42);
	for (int i = 0; i < PEERS; i++) {
		w->peer[i].number = (uint64_t)i + 1;
		router_join(w->router, &w->peer[i]);
	}
	return w;
}

static struct world *world_new(unsigned in_flight, size_t max_waiting)
{
	struct router_settings settings = usual;

	settings.max_in_flight = in_flight;
	settings.max_waiting_bytes = max_waiting;
	return world_with(&settings);
}

static void world_free(struct world *w)
{
	for (int i = 0; i < PEERS; i++)
		router_leave(w->router, &w->peer[i], 0);
	router_free(w->router);
	for (int i = 0; i < PEERS; i++)
		outq_fini(&w->peer[i].out);
	for (size_t i = 0; i < w->n_sent; i++)
		free(w->sent[i]);
	free(w);
}

static void ask(struct world *w, int peer, const char *line, int64_t now)
{
	struct request request;
	struct request_fault fault;

	assert_int_equal(request_parse((struct span){line, strlen(line)}, &request, &fault), 0);
	router_request(w->router, &w->peer[peer], &request, now);
}

/* New rules are in force: the clients up to this one are judged again, one after another. */
static void restrict_up_to(struct world *w, int last, int64_t now)
{
	router_hold(w->router);
	for (int i = 0; i <= last; i++) {
		w->judged = &w->peer[i];
		router_restrict(w->router, w->judged);
	}
	router_release(w->router, now);
}

/* The id in the frame that was sent as number i. */
static unsigned long long sent_id(const struct world *w, size_t i)
{
	unsigned long long id = 0;

	assert_true(i < w->n_sent);
	assert_int_equal(sscanf(w->sent[i], "{\"messageId\":%llu,", &id), 1);
	return id;
}

static void service_says(struct world *w, const char *text, int64_t now)
{
	struct wire_frame frame;

	wire_parse((struct span){text, strlen(text)}, &frame);
	router_frame(w->router, &frame, now);
}

static void answer_id_at(struct world *w, unsigned long long id, const char *value, int64_t now)
{
	char text[200];

	snprintf(text, sizeof(text), "{\"code\":200,\"value\":\"%s\",\"messageId\":%llu}", value,
		 id);
	service_says(w, text, now);
}

static void answer_id(struct world *w, unsigned long long id, const char *value)
{
	answer_id_at(w, id, value, 0);
}

static void answer(struct world *w, size_t i, const char *value)
{
	answer_id(w, sent_id(w, i), value);
}

/* What the peer was told since it was last asked. */
static const char *told(struct world *w, int peer)
{
	static char text[8192];
	struct span s = buf_span(&w->peer[peer].out.own);

	assert_true(s.n < sizeof(text));
	if (s.n)
		memcpy(text, s.p, s.n);
	text[s.n] = '\0';
	buf_take(&w->peer[peer].out.own, s.n);
	return text;
}

/* The peer was told one line, an error with this reason and messageId; returns that line. */
static const char *assert_error(struct world *w, int peer, const char *reason, const char *executed,
				const char *id)
{
	const char *text = told(w, peer);
	char want[100];

	assert_non_null(strchr(text, '\n'));
	assert_null(strchr(strchr(text, '\n') + 1, '\n'));
	snprintf(want, sizeof(want), "\"reason\":\"%s\"", reason);
	assert_non_null(strstr(text, want));
	snprintf(want, sizeof(want), "\"executed\":\"%s\"", executed);
	assert_non_null(strstr(text, want));
	if (!strcmp(executed, "unknown") || !strcmp(reason, "queue_full")) /* nobody knows when */
		assert_null(strstr(text, "retryAfterMs"));
	if (!strcmp(reason, "shutting_down"))
		assert_non_null(strstr(text, "\"retryAfterMs\":100"));
	snprintf(want, sizeof(want), "\"messageId\":%s}", id);
	assert_non_null(strstr(text, want));
	return text;
}

static void an_answer_carries_the_clients_id(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":\"x\"}", 0);
	assert_int_equal(w->n_sent, 1);
	assert_non_null(strstr(w->sent[0], ",\"op\":1,\"key\":\"a\"}"));
	answer(w, 0, "1");
	assert_string_equal(told(w, 0), "{\"code\":200,\"value\":\"1\",\"messageId\":\"x\"}\n");
	assert_int_equal(router_in_flight(w->router), 0);
	world_free(w);
}

static void long_ids_and_values_fit(void **state)
{
	enum { LONG = 5000 };
	struct world *w = world_new(8, 1 << 20);
	char id[REQUEST_ID_MAX - 1], value[LONG + 1], text[2 * LONG];

	(void)state;
	memset(id, 'i', sizeof(id) - 1);
	id[sizeof(id) - 1] = '\0';
	memset(value, 'v', LONG);
	value[LONG] = '\0';
	snprintf(text, sizeof(text),
		 "{\"op\":\"set\",\"key\":\"a\",\"value\":\"%s\",\"messageId\":\"%s\"}", value, id);
	ask(w, 0, text, 0);
	assert_true(w->peer[0].sched.bytes > sizeof(struct pending) + LONG);
	router_up(w->router, MAIN, 0);
	assert_non_null(strstr(w->sent[0], value));
	answer(w, 0, "ok");
	assert_non_null(strstr(told(w, 0), id));
	world_free(w);
}

static void a_repeated_or_unknown_answer_reaches_nobody(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":1}", 0);
	answer(w, 0, "1");
	told(w, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"b\",\"messageId\":2}", 0);
	answer(w, 0, "again"); /* its place is in use again, by another request */
	answer_id(w, 5, "out of the blue");
	answer_id(w, WIRE_ID_MAX, "far out");
	assert_string_equal(told(w, 0), "");
	assert_int_equal(w->stats.upstream_late, 3);
	answer(w, 1, "2");
	assert_string_equal(told(w, 0), "{\"code\":200,\"value\":\"2\",\"messageId\":2}\n");
	world_free(w);
}

static void answers_without_an_id_keep_the_order_of_their_requests(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\"}", 0);
	router_say(w->router, &w->peer[0], SPAN("local\n"), false);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"b\"}", 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"c\",\"messageId\":3}", 0);
	router_say(w->router, &w->peer[0], SPAN("named\n"), true);
	assert_string_equal(told(w, 0), "named\n");
	answer(w, 1, "b");
	assert_string_equal(told(w, 0), "");
	answer(w, 2, "c");
	assert_string_equal(told(w, 0), "{\"code\":200,\"value\":\"c\",\"messageId\":3}\n");
	answer(w, 0, "a");
	assert_string_equal(
		told(w, 0),
		"{\"code\":200,\"value\":\"a\"}\nlocal\n{\"code\":200,\"value\":\"b\"}\n");
	assert_int_equal(w->peer[0].answers.unanswered, 0);
	router_say(w->router, &w->peer[0], SPAN("at once\n"), false);
	assert_string_equal(told(w, 0), "at once\n");
	world_free(w);
}

static void errors_without_an_id_keep_the_order_too(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\"}", 0);
	ask(w, 0, "{\"op\":\"set\",\"key\":\"b\",\"value\":\"1\",\"timeoutMs\":5}", 0);
	router_expire(w->router, 5);
	assert_string_equal(told(w, 0), "");
	answer(w, 0, "a");
	const char *text = told(w, 0);
	assert_non_null(strstr(text, "\"value\":\"a\"}\n{\"code\":504"));
	world_free(w);
}

static void requests_wait_for_the_connection_and_then_time_out_unsent(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	w->reconnect_ms = 70;
	ask(w, 0, "{\"op\":\"set\",\"key\":\"a\",\"value\":\"1\",\"messageId\":1,\"timeoutMs\":50}",
	    100);
	ask(w, 0, "{\"op\":\"set\",\"key\":\"a\",\"value\":\"2\",\"messageId\":2}", 100);
	assert_int_equal(w->n_sent, 0);
	assert_int_equal(w->wake, 150);
	assert_int_equal(router_expire(w->router, 149), 150);
	assert_string_equal(told(w, 0), "");
	assert_int_equal(router_expire(w->router, 150), 1100);
	const char *text = told(w, 0);
	assert_non_null(strstr(text, "\"reason\":\"upstream_down\",\"executed\":\"no\","
				     "\"retryAfterMs\":70,\"messageId\":1}\n"));
	router_up(w->router, MAIN, 151);
	assert_int_equal(w->n_sent, 1);
	answer(w, 0, "ok");
	assert_int_equal(router_expire(w->router, 2000), -1);
	world_free(w);
}

/* The daemon has stood still, so an answer is read first, and a place is free. */
static void what_is_past_its_time_is_not_sent(void **state)
{
	struct world *w = world_new(1, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":1}", 0);
	ask(w, 1, "{\"op\":\"set\",\"key\":\"b\",\"value\":\"v\",\"messageId\":2,\"timeoutMs\":10}",
	    0);
	ask(w, 2, "{\"op\":\"get\",\"key\":\"c\",\"messageId\":3}", 0);
	answer_id_at(w, sent_id(w, 0), "a", 10);
	assert_int_equal(w->n_sent, 1);
	assert_int_equal(w->wake, 10);
	router_expire(w->router, 10);
	assert_error(w, 1, "queue_full", "no", "2");
	assert_int_equal(w->n_sent, 2);
	assert_non_null(strstr(w->sent[1], "\"c\""));
	world_free(w);
}

/* ... nor does it matter what is done when the time of another is up. */
static void what_is_past_its_time_is_not_sent_while_others_are_told(void **state)
{
	struct world *w = world_new(1, 1 << 20);
	static const struct json_value key = {.text = SPAN("\"k\""), .type = JSON_STRING};

	(void)state;
	router_up(w->router, MAIN, 0);
	w->reading[0].again = true;
	router_read(w->router, &w->reading[0], &key, true, 0);
	ask(w, 1, "{\"op\":\"set\",\"key\":\"b\",\"value\":\"v\",\"messageId\":2}", 0);
	router_expire(w->router, 1000);
	assert_int_equal(w->reading[0].ended, 1);
	assert_error(w, 1, "queue_full", "no", "2");
	assert_int_equal(w->n_sent, 2); /* the other one is the next reading */
	assert_null(strstr(w->sent[1], "\"b\""));
	world_free(w);
}

static void a_sent_request_times_out_and_frees_its_place(void **state)
{
	struct world *w = world_new(1, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"set\",\"key\":\"a\",\"value\":\"1\",\"messageId\":1,\"timeoutMs\":10}",
	    0);
	ask(w, 1, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":2}", 0);
	assert_int_equal(w->n_sent, 1);
	router_expire(w->router, 10);
	assert_error(w, 0, "timeout", "unknown", "1");
	assert_int_equal(w->n_sent, 2);
	answer(w, 0, "late"); /* meant for the first, whose place the second now has */
	assert_string_equal(told(w, 1), "");
	answer(w, 1, "2");
	assert_string_equal(told(w, 1), "{\"code\":200,\"value\":\"2\",\"messageId\":2}\n");
	world_free(w);
}

static void one_that_never_got_a_place_is_told_so(void **state)
{
	struct world *w = world_new(1, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"set\",\"key\":\"a\",\"value\":\"1\",\"messageId\":1}", 0);
	ask(w, 1, "{\"op\":\"set\",\"key\":\"b\",\"value\":\"1\",\"messageId\":2,\"timeoutMs\":10}",
	    0);
	router_expire(w->router, 10);
	assert_error(w, 1, "queue_full", "no", "2");
	world_free(w);
}

static void a_lost_connection_fails_writes_and_repeats_reads(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"set\",\"key\":\"a\",\"value\":\"1\",\"messageId\":1}", 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"b\",\"messageId\":2}", 0);
	ask(w, 0, "{\"op\":\"range\",\"key\":\"a\",\"endKey\":\"z\",\"messageId\":3}", 0);
	router_down(w->router, MAIN, 0);
	assert_error(w, 0, "outcome_unknown", "unknown", "1");
	ask(w, 0, "{\"op\":\"get\",\"key\":\"c\",\"messageId\":4}", 0);
	router_up(w->router, MAIN, 0);
	assert_int_equal(w->n_sent, 6);
	assert_non_null(strstr(w->sent[3], "\"op\":1,\"key\":\"b\""));
	assert_non_null(strstr(w->sent[4], "\"op\":5"));
	assert_non_null(strstr(w->sent[5], "\"op\":1,\"key\":\"c\""));
	answer(w, 1, "from the lost connection");
	assert_string_equal(told(w, 0), "");
	answer(w, 3, "b");
	assert_string_equal(told(w, 0), "{\"code\":200,\"value\":\"b\",\"messageId\":2}\n");
	world_free(w);
}

static void a_read_that_a_write_has_overtaken_is_not_repeated(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":1}", 0);
	ask(w, 1, "{\"op\":\"set\",\"key\":\"a\",\"value\":\"1\",\"messageId\":9}",
	    0); /* somebody else's: no matter */
	router_down(w->router, MAIN, 0);
	assert_string_equal(told(w, 0), "");
	told(w, 1);
	router_up(w->router, MAIN, 0);
	/* The same key, written with an escape. */
	ask(w, 0, "{\"op\":\"set\",\"key\":\"\\u0061\",\"value\":\"1\",\"messageId\":2}", 0);
	answer(w, 3, "done");
	told(w, 0);
	router_down(w->router, MAIN, 0);
	assert_error(w, 0, "outcome_unknown", "unknown", "1");
	assert_int_equal(w->n_sent, 4);
	world_free(w);
}

static void a_read_behind_an_answered_read_is_not_repeated(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":1}", 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":2}", 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":3}", 0);
	answer(w, 1, "2");
	told(w, 0);
	router_down(w->router, MAIN, 0);
	assert_error(w, 0, "outcome_unknown", "unknown", "1");
	router_up(w->router, MAIN, 0);
	assert_int_equal(w->n_sent, 4); /* the third again */
	answer(w, 3, "3");
	assert_string_equal(told(w, 0), "{\"code\":200,\"value\":\"3\",\"messageId\":3}\n");
	world_free(w);
}

static void a_repeated_read_that_runs_out_of_time_has_an_unknown_outcome(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":1}", 0);
	router_down(w->router, MAIN, 0);
	router_expire(w->router, 1000);
	assert_error(w, 0, "outcome_unknown", "unknown", "1");
	world_free(w);
}

static void clients_take_turns(void **state)
{
	struct world *w = world_new(1, 1 << 20);
	static const char *const line[] = {"{\"op\":\"get\",\"key\":\"a%d\"}",
					   "{\"op\":\"get\",\"key\":\"b%d\"}"};
	static const char *const want[] = {"a0", "a1", "b0", "a2", "b1", "a3"};
	char text[100];

	(void)state;
	router_up(w->router, MAIN, 0);
	for (int i = 0; i < 4; i++) {
		snprintf(text, sizeof(text), line[0], i);
		ask(w, 0, text, 0);
	}
	for (int i = 0; i < 2; i++) {
		snprintf(text, sizeof(text), line[1], i);
		ask(w, 1, text, 0);
	}
	for (size_t i = 0; i < 6; i++) {
		assert_int_equal(w->n_sent, i + 1);
		assert_non_null(strstr(w->sent[i], want[i]));
		answer(w, i, "x");
	}
	world_free(w);
}

/* So many places that some of them can be kept for clients that ask one thing at a time. */
enum { PLACES = 64, PLACES_FOR_ALL = 60, KEPT_MS = 10000 };

static void get_key(struct world *w, int peer, const char *key, int n)
{
	char text[100];

	snprintf(text, sizeof(text), "{\"op\":\"get\",\"key\":\"%s%d\",\"messageId\":%d}", key, n,
		 n);
	ask(w, peer, text, 0);
}

static void assert_sent_last(const struct world *w, size_t n, const char *key)
{
	assert_int_equal(w->n_sent, n);
	assert_non_null(strstr(w->sent[n - 1], key));
}

/* The first client has filled the places and asks for one thing more. */
static struct world *full(void)
{
	struct router_settings settings = usual;

	settings.max_in_flight = PLACES;
	settings.request_timeout_ms = 60000;
	settings.max_pipeline = 1000;
	struct world *w = world_with(&settings);
	router_up(w->router, MAIN, 0);
	for (int i = 0; i < PLACES + 1; i++)
		get_key(w, 0, "f", i);
	assert_int_equal(w->n_sent, PLACES);
	return w;
}

/* Another asked for one thing then, and waited. Both were served. The first asks for yet more. */
static struct world *flooded(void)
{
	struct world *w = full();

	get_key(w, 1, "first", 0);
	for (size_t i = 0; i < PLACES - PLACES_FOR_ALL + 1; i++)
		answer(w, i, "x");
	assert_sent_last(w, PLACES + 2, "first0");
	answer(w, PLACES + 1, "x");
	for (int i = PLACES + 1; i < PLACES + 9; i++)
		get_key(w, 0, "f", i);
	assert_int_equal(router_in_flight(w->router), PLACES_FOR_ALL);
	told(w, 0);
	told(w, 1);
	return w;
}

static void no_place_is_kept_while_nobody_needs_it(void **state)
{
	struct world *w = full();

	(void)state;
	answer(w, 0, "x");
	assert_sent_last(w, PLACES + 1, "f64");
	world_free(w);
}

static void a_client_that_asks_one_thing_at_a_time_waits_for_no_place(void **state)
{
	struct world *w = flooded();
	size_t n = w->n_sent;

	(void)state;
	get_key(w, 1, "b", 0);
	assert_sent_last(w, n + 1, "b0");
	get_key(w, 1, "b", 1); /* two things at a time */
	assert_int_equal(w->n_sent, n + 1);
	answer(w, n, "x");
	assert_int_equal(w->n_sent, n + 1); /* f65 is next, and has no place */
	answer(w, PLACES - 1, "x");
	assert_non_null(strstr(w->sent[n + 1], "f65"));
	assert_sent_last(w, n + 3, "b1"); /* its only one again */
	world_free(w);
}

static void places_are_kept_for_such_clients_for_a_while(void **state)
{
	struct world *w = flooded();

	(void)state;
	router_expire(w->router, KEPT_MS - 1);
	assert_int_equal(router_in_flight(w->router), PLACES_FOR_ALL);
	world_free(w);
	w = flooded();
	router_expire(w->router, KEPT_MS);
	assert_int_equal(router_in_flight(w->router), PLACES);
	world_free(w);
}

/* Many clients come that ask for one thing each, and again when it is answered. */
static void crowd_asks(struct world *w, unsigned i)
{
	static const struct request get = {.op = OP_GET,
					   .key = {.text = SPAN("\"crowd\""), .type = JSON_STRING}};

	router_request(w->router, &w->crowd[i], &get, 0);
}

static void join_crowd(struct world *w)
{
	for (unsigned i = 0; i < CROWD; i++) {
		w->crowd[i].number = PEERS + i + 1;
		router_join(w->router, &w->crowd[i]);
		crowd_asks(w, i);
	}
}

static void leave_crowd(struct world *w)
{
	for (unsigned i = 0; i < CROWD; i++) {
		router_leave(w->router, &w->crowd[i], 0);
		outq_fini(&w->crowd[i].out);
	}
}

static void crowd_asks_again(struct world *w)
{
	for (unsigned i = 0; i < CROWD; i++) {
		if (!w->crowd[i].answers.unanswered)
			crowd_asks(w, i);
	}
}

static bool was_sent(const struct world *w, const char *key)
{
	for (size_t i = 0; i < w->n_sent; i++) {
		if (strstr(w->sent[i], key))
			return true;
	}
	return false;
}

static void many_such_clients_leave_places_to_others(void **state)
{
	struct world *w = full();

	(void)state;
	join_crowd(w);
	for (int i = PLACES + 1; i < PLACES + 4; i++)
		get_key(w, 0, "f", i);
	for (size_t i = 0; i < PLACES + CROWD + CROWD; i++) { /* until all have had two turns */
		answer(w, i, "x");
		crowd_asks_again(w);
	}
	assert_true(was_sent(w, "f64"));
	assert_true(was_sent(w, "f65"));
	leave_crowd(w);
	world_free(w);
}

static void a_kept_place_goes_to_whoever_waits_for_a_turn_already(void **state)
{
	struct world *w = full();
	struct router_settings settings = usual;

	(void)state;
	get_key(w, 1, "first", 0);
	for (size_t i = 0; i < PLACES - PLACES_FOR_ALL + 1; i++)
		answer(w, i, "x");
	answer(w, PLACES + 1, "x");
	assert_int_equal(router_in_flight(w->router), PLACES_FOR_ALL);
	settings.max_in_flight = PLACES;
	settings.rate_limit = 10;
	router_set(w->router, &settings, 0);
	get_key(w, 1, "a", 0);
	size_t n = w->n_sent;
	answer(w, n - 1, "x");
	get_key(w, 1, "b", 0); /* waits for the rate */
	ask(w, 2, "{\"op\":\"get\",\"key\":\"c\",\"messageId\":1}", 150);
	assert_int_equal(w->n_sent, n);
	router_expire(w->router, 150);
	assert_sent_last(w, n + 1, "b0");
	world_free(w);
}

static void a_place_that_was_kept_is_used_when_that_is_over(void **state)
{
	struct world *w = flooded();

	(void)state;
	w->wake = router_expire(w->router, 1);
	assert_int_equal(w->wake, KEPT_MS);
	world_free(w);
}

static void one_that_waited_for_a_kept_place_is_told_so(void **state)
{
	struct world *w = flooded();

	(void)state;
	ask(w, 2, "{\"op\":\"get\",\"key\":\"x\",\"messageId\":1}", 0);
	ask(w, 2, "{\"op\":\"get\",\"key\":\"y\",\"messageId\":2,\"timeoutMs\":10000}", 0);
	router_expire(w->router, KEPT_MS); /* both times are up at once */
	assert_non_null(
		strstr(assert_error(w, 2, "queue_full", "no", "2"), "max_in_flight requests"));
	world_free(w);
}

static void one_that_comes_last_has_none_of_these_places(void **state)
{
	struct world *w = flooded();
	size_t n = w->n_sent;

	(void)state;
	w->peer[1].sched.last = true;
	get_key(w, 1, "b", 0);
	assert_int_equal(w->n_sent, n);
	world_free(w);
}

static void a_full_network_holds_requests_back(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	w->sendable = false;
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":1}", 0);
	assert_int_equal(w->n_sent, 0);
	assert_int_equal(router_waiting(w->router), 1);
	w->sendable = true;
	router_pump(w->router, 0);
	assert_int_equal(w->n_sent, 1);
	world_free(w);
}

static void refuse(struct world *w, size_t i, int64_t now);

/* timeout_ms: 0: the usual one. */
static void get_a(struct world *w, int peer, int id, int timeout_ms, int64_t now)
{
	char line[100], timeout[40] = "";

	if (timeout_ms)
		snprintf(timeout, sizeof(timeout), ",\"timeoutMs\":%d", timeout_ms);
	snprintf(line, sizeof(line), "{\"op\":\"get\",\"key\":\"a\",\"messageId\":%d%s}", id,
		 timeout);
	ask(w, peer, line, now);
}

static void a_rate_limit_spaces_requests(void **state)
{
	struct router_settings settings = usual;

	(void)state;
	settings.max_pipeline = 8;
	settings.request_timeout_ms = 450;
	settings.rate_limit = 10;
	struct world *w = world_with(&settings);
	assert_true(router_pace(w->router, 1000) == 10);
	router_up(w->router, MAIN, 1000);
	for (int i = 1; i <= 5; i++)
		get_a(w, 0, i, 0, 1000);
	assert_int_equal(w->n_sent, 1);
	assert_in_range(w->wake, 1100, 1101);
	/* Behind the four that wait, or, if it is another client's, behind one of them. */
	assert_in_range(router_pace_wait_ms(w->router, &w->peer[0], 1000), 500, 501);
	assert_in_range(router_pace_wait_ms(w->router, &w->peer[1], 1000), 200, 201);
	int64_t now = router_expire(w->router, w->wake);
	assert_int_equal(w->n_sent, 2);
	assert_in_range(now, 1200, 1202);
	router_expire(w->router, now);
	assert_int_equal(w->n_sent, 3);
	assert_string_equal(told(w, 0), "");
	router_expire(w->router, 1450); /* nobody came at 1300 and 1400 */
	const char *text = told(w, 0);
	assert_non_null(
		strstr(text, "\"reason\":\"timeout\",\"executed\":\"unknown\",\"messageId\":3}"));
	assert_non_null(
		strstr(text, "\"reason\":\"rate_limited\",\"executed\":\"no\",\"retryAfterMs\":"));
	assert_int_equal(w->n_sent, 3);
	world_free(w);
}

static void one_whose_turn_comes_too_late_is_refused_at_once(void **state)
{
	struct router_settings settings = usual;
	long retry = 0;

	(void)state;
	settings.max_pipeline = 8;
	settings.request_timeout_ms = 250;
	settings.rate_limit = 10;
	struct world *w = world_with(&settings);
	router_up(w->router, MAIN, 1000);
	for (int i = 1; i <= 3; i++)
		get_a(w, 0, i, 0, 1000); /* at 1000, 1100, 1200 */
	assert_string_equal(told(w, 0), "");
	get_a(w, 0, 4, 0, 1000);
	const char *text = assert_error(w, 0, "rate_limited", "no", "4");
	assert_int_equal(sscanf(strstr(text, "retryAfterMs"), "retryAfterMs\":%ld", &retry), 1);
	assert_in_range(retry, 50, 101); /* its like would have its turn in time from 1050 on */
	assert_int_equal(w->stats.requests_refused_early, 1);
	assert_int_equal(router_waiting(w->router), 2);
	get_a(w, 0, 5, 310, 1000); /* has more time */
	get_a(w, 1, 6, 210,
	      1000); /* is another client's, whose turn comes after one of the first's */
	assert_string_equal(told(w, 0), "");
	assert_string_equal(told(w, 1), "");
	get_a(w, 2, 7, 150, 1000); /* ... but not with so little */
	assert_error(w, 2, "rate_limited", "no", "7");
	world_free(w);
}

static void nobody_is_refused_early_who_could_be_sent(void **state)
{
	struct router_settings settings = usual;

	(void)state;
	settings.max_pipeline = 8;
	settings.rate_limit = 10;
	struct world *w = world_with(&settings);
	get_a(w, 0, 1, 500, 1000); /* without a connection: who knows when it comes */
	for (int i = 2; i < 8; i++)
		get_a(w, 0, i, 300, 1000);
	assert_string_equal(told(w, 0), "");
	router_up(w->router, MAIN, 1000);
	get_a(w, 1, 8, 1, 1000);
	assert_error(w, 1, "rate_limited", "no", "8");
	world_free(w);
}

/* A pace that was learnt recovers: what it will be counts, not what it is. */
static void a_recovering_pace_is_taken_into_account(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	get_a(w, 0, 1, 60000, 0);
	refuse(w, 0, 0); /* 1/s now, a second more each second */
	get_a(w, 0, 2, 60000, 0);
	get_a(w, 1, 3, 60000, 0);
	get_a(w, 1, 4, 60000, 0);
	get_a(w, 2, 5, 2100, 0); /* behind two: 1.5 have gone after a second, 4 after two */
	assert_string_equal(told(w, 2), "");
	get_a(w, 2, 6, 1500, 0);
	assert_error(w, 2, "rate_limited", "no", "6");
	world_free(w);
}

/* Its turn is the last, so it keeps nobody from his. */
static void what_the_daemon_reads_last_does_not_count(void **state)
{
	static const struct json_value key = {.text = SPAN("\"k\""), .type = JSON_STRING};
	struct router_settings settings = usual;

	(void)state;
	settings.rate_limit = 10;
	struct world *w = world_with(&settings);
	router_up(w->router, MAIN, 1000);
	get_a(w, 0, 1, 0, 1000);
	for (int i = 0; i < READS; i++)
		router_read(w->router, &w->reading[i], &key, false, 1000);
	get_a(w, 0, 2, 150, 1000);
	assert_string_equal(told(w, 0), "");
	router_expire(w->router, 1101);
	assert_non_null(strstr(w->sent[1], "\"a\""));
	world_free(w);
}

static void refuse(struct world *w, size_t i, int64_t now)
{
	char text[100];

	snprintf(text, sizeof(text), "{\"code\":429,\"error\":\"slow down\",\"messageId\":%llu}",
		 sent_id(w, i));
	service_says(w, text, now);
}

static void a_request_that_the_service_refused_is_sent_again(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"set\",\"key\":\"a\",\"value\":\"1\",\"messageId\":1}", 0);
	refuse(w, 0, 10);
	assert_string_equal(told(w, 0), "");
	assert_int_equal(w->n_sent, 1);
	assert_true(w->wake > 10 && w->wake < 1100);
	router_expire(w->router, 999);
	if (w->n_sent == 1)
		fail_msg("it was not sent again within its time");
	answer(w, 0, "late"); /* of the first frame: nobody's */
	answer(w, 1, "done");
	assert_string_equal(told(w, 0), "{\"code\":200,\"value\":\"done\",\"messageId\":1}\n");
	world_free(w);
}

static void one_that_is_refused_all_its_time_ends_as_rate_limited(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"set\",\"key\":\"a\",\"value\":\"1\",\"messageId\":1,\"timeoutMs\":50}",
	    0);
	refuse(w, 0, 10);
	router_expire(w->router, 50);
	assert_error(w, 0, "rate_limited", "no", "1");
	assert_int_equal(w->n_sent, 1);
	world_free(w);
}

/* A patient set of the key x, whose value is its messageId. */
static void set_x(struct world *w, int peer, int n, int64_t now)
{
	char line[120];

	snprintf(line, sizeof(line),
		 "{\"op\":\"set\",\"key\":\"x\",\"value\":\"%d\",\"messageId\":%d,\"timeoutMs\":"
		 "60000}",
		 n, n);
	ask(w, peer, line, now);
}

static void let_pass(struct world *w, int64_t from, int64_t until)
{
	for (int64_t now = from; now < until; now++)
		router_expire(w->router, now);
}

static void one_is_not_sent_again_behind_a_later_one_that_took_effect(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	set_x(w, 0, 1, 0);
	set_x(w, 0, 2, 0);
	set_x(w, 1, 3, 0);
	refuse(w, 0, 10);
	let_pass(w, 11, 5000);
	assert_string_equal(told(w, 0), "");
	assert_int_equal(w->n_sent, 3); /* it waits to see what becomes of the second */
	answer(w, 1, "2");
	const char *text = told(w, 0);
	assert_non_null(strstr(text, "{\"code\":200,\"value\":\"2\",\"messageId\":2}\n{"));
	assert_non_null(strstr(text, "\"reason\":\"rate_limited\",\"executed\":\"no\","));
	assert_non_null(strstr(text, "\"messageId\":1}\n"));
	refuse(w, 2, 5000);
	assert_string_equal(told(w, 1), "");
	assert_int_equal(w->n_sent, 4);
	assert_non_null(strstr(w->sent[3], "\"value\":\"3\"")); /* another client's */
	world_free(w);
}

static void nor_if_the_service_refuses_it_last(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	set_x(w, 0, 1, 0);
	set_x(w, 0, 2, 0);
	answer(w, 1, "2");
	told(w, 0);
	refuse(w, 0, 10);
	assert_non_null(strstr(assert_error(w, 0, "rate_limited", "no", "1"),
			       "a later request for its key was executed, or may have been"));
	world_free(w);
}

static void nor_if_the_later_one_may_have_taken_effect(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	set_x(w, 0, 1, 0);
	ask(w, 0, "{\"op\":\"set\",\"key\":\"x\",\"value\":\"2\",\"messageId\":2,\"timeoutMs\":50}",
	    0);
	refuse(w, 0, 10);
	router_expire(w->router, 50);
	const char *text = told(w, 0);
	assert_non_null(strstr(text, "\"reason\":\"timeout\""));
	assert_non_null(strstr(text, "\"reason\":\"rate_limited\""));
	set_x(w, 1, 3, 60);
	set_x(w, 1, 4, 60);
	let_pass(w, 61, 3000);
	refuse(w, 2, 3000);
	router_down(w->router, MAIN, 3000);
	assert_string_equal(told(w, 1), ""); /* neither took effect, nor will be said to have */
	router_up(w->router, NEXT, 3000);
	let_pass(w, 3001, 9000);
	answer(w, w->n_sent - 1, "3");
	assert_string_equal(told(w, 1), "{\"code\":200,\"value\":\"3\",\"messageId\":3}\n");
	world_free(w);
}

static void one_that_was_refused_ends_with_the_connection_that_has_a_later_one(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	set_x(w, 0, 1, 0);
	set_x(w, 0, 2, 0);
	refuse(w, 0, 10);
	router_down(w->router, MAIN, 20);
	const char *text = told(w, 0);
	assert_non_null(strstr(text, "\"reason\":\"outcome_unknown\",\"executed\":\"unknown\","
				     "\"messageId\":2}"));
	assert_non_null(strstr(text, "\"reason\":\"rate_limited\",\"executed\":\"no\""));
	assert_int_equal(router_waiting(w->router), 0);
	world_free(w);
}

/* A burst for one key beyond the limit: each is executed, in order, whatever the order of the
 * refusals. */
static void all_that_were_refused_are_sent_again_in_order(void **state)
{
	static const size_t orders[][4] = {{0, 1, 2, 3}, {3, 2, 1, 0}, {2, 0, 3, 1}};

	(void)state;
	for (size_t k = 0; k < sizeof(orders) / sizeof(orders[0]); k++) {
		struct world *w = world_new(8, 1 << 20);
		router_up(w->router, MAIN, 0);
		for (int n = 1; n <= 4; n++)
			set_x(w, 0, n, 0);
		assert_int_equal(w->n_sent, 4);
		for (int n = 0; n < 4; n++) {
			let_pass(w, 1000 * n, 1000 * n + 1000);
			assert_int_equal(w->n_sent, 4); /* as long as one is on its way */
			refuse(w, orders[k][n], 1000 * n + 1000);
		}
		for (int n = 0; n < 4; n++) {
			char want[40];
			let_pass(w, 4001 + 3000 * n, 7001 + 3000 * n);
			assert_int_equal(w->n_sent, 5 + n);
			snprintf(want, sizeof(want), "\"value\":\"%d\"", n + 1);
			assert_non_null(strstr(w->sent[4 + n], want));
			answer(w, (size_t)(4 + n), "done");
		}
		assert_int_equal(w->stats.requests_answered, 4);
		world_free(w);
	}
}

/* Another client goes on until the pace is what it was. Returns the time. */
static int64_t recover(struct world *w, int64_t now)
{
	for (; router_pace(w->router, now) > 0; now += 1000) {
		size_t sent = w->n_sent;
		get_a(w, 1, 100, 0, now);
		router_expire(w->router, now);
		for (; sent < w->n_sent; sent++)
			answer(w, sent, "v");
	}
	router_expire(w->router, now);
	told(w, 1);
	return now;
}

/* Not even when the pace has recovered meanwhile. */
static void one_that_was_refused_waits_for_a_later_one_whatever_the_pace(void **state)
{
	struct router_settings settings = usual;

	(void)state;
	settings.request_timeout_ms = 600000;
	struct world *w = world_with(&settings);
	router_up(w->router, MAIN, 0);
	for (int n = 1; n <= 3; n++)
		get_a(w, 0, n, 0, 0);
	refuse(w, 0, 10);
	int64_t now = recover(w, 10);
	size_t sent = w->n_sent;
	refuse(w, 1, now); /* of the same burst, so the pace stays */
	assert_true(router_pace(w->router, now) == 0);
	assert_int_equal(w->n_sent, sent);
	answer(w, 2, "3");
	assert_int_equal(w->n_sent, sent);
	assert_non_null(strstr(told(w, 0), "rate_limited"));
	assert_int_equal(router_waiting(w->router), 0);
	world_free(w);
}

static void one_that_was_refused_is_not_concerned_by_other_keys(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	set_x(w, 0, 1, 0);
	get_a(w, 0, 2, 0, 0);
	set_x(w, 0, 3, 0);
	refuse(w, 1, 10);
	answer(w, 2, "3");
	assert_string_equal(told(w, 0), "{\"code\":200,\"value\":\"3\",\"messageId\":3}\n");
	assert_int_equal(router_waiting(w->router), 1);
	let_pass(w, 10, 900);
	assert_int_equal(w->n_sent, 4);
	assert_non_null(strstr(w->sent[3], "\"key\":\"a\""));
	world_free(w);
}

static void an_earlier_one_that_takes_effect_leaves_a_refused_one_waiting(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	for (int n = 1; n <= 3; n++)
		set_x(w, 0, n, 0);
	refuse(w, 2, 10);
	answer(w, 1, "2");
	assert_string_equal(told(w, 0), "{\"code\":200,\"value\":\"2\",\"messageId\":2}\n");
	assert_int_equal(router_waiting(w->router), 1);
	answer(w, 0, "1");
	let_pass(w, 11, 3000);
	assert_int_equal(w->n_sent, 4);
	assert_non_null(strstr(w->sent[3], "\"value\":\"3\""));
	world_free(w);
}

static void a_read_that_was_on_a_lost_connection_is_not_said_to_be_unexecuted(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	get_a(w, 0, 1, 0, 0);
	router_down(w->router, MAIN, 0);
	router_up(w->router, NEXT, 0);
	assert_int_equal(w->n_sent, 2);
	get_a(w, 0, 2, 0, 0);
	answer(w, 2, "2");
	told(w, 0);
	refuse(w, 1, 10);
	assert_error(w, 0, "outcome_unknown", "unknown", "1");
	world_free(w);
}

static void while_paced_one_of_a_key_is_on_its_way(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	set_x(w, 0, 1, 0);
	refuse(w, 0, 10);
	set_x(w, 0, 2, 10);
	set_x(w, 1, 3, 10);
	let_pass(w, 11, 5000);
	assert_int_equal(w->n_sent, 3);
	assert_non_null(strstr(w->sent[1], "\"value\":\"1\""));
	assert_non_null(strstr(w->sent[2], "\"value\":\"3\""));
	refuse(w, 1, 5000); /* again, and still before the other of its key */
	let_pass(w, 5001, 10000);
	assert_int_equal(w->n_sent, 4);
	assert_non_null(strstr(w->sent[3], "\"value\":\"1\""));
	answer(w, 3, "done");
	let_pass(w, 10000, 15000);
	assert_int_equal(w->n_sent, 5);
	assert_non_null(strstr(w->sent[4], "\"value\":\"2\""));
	world_free(w);
}

static void one_that_waits_for_its_key_does_not_hold_up_others(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	set_x(w, 0, 1, 0);
	refuse(w, 0, 10);
	set_x(w, 0, 2, 10);
	let_pass(w, 11, 5000);
	assert_int_equal(w->n_sent, 2);
	ask(w, 1, "{\"op\":\"get\",\"key\":\"y\",\"messageId\":3}", 5000);
	assert_int_equal(w->n_sent, 3);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"y\",\"messageId\":4}",
	    9000); /* not before its own others */
	assert_int_equal(w->n_sent, 3);
	world_free(w);
}

static void one_that_waits_for_its_key_is_refused_when_stopping(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	set_x(w, 0, 1, 0);
	refuse(w, 0, 10);
	set_x(w, 0, 2, 10);
	let_pass(w, 11, 5000);
	assert_int_equal(w->n_sent, 2);
	router_stop(w->router);
	assert_error(w, 0, "shutting_down", "no", "2");
	refuse(w, 1, 5000);
	assert_error(w, 0, "shutting_down", "no", "1");
	assert_int_equal(router_waiting(w->router), 0);
	world_free(w);
}

static void too_much_waiting_is_refused(void **state)
{
	struct world *w = world_new(8, 3 * 256);

	(void)state;
	for (int i = 0; i < 3; i++)
		ask(w, i,
		    "{\"op\":\"set\",\"key\":\"a\",\"value\":\"012345678901234567890123456789\","
		    "\"messageId\":7}",
		    0);
	ask(w, 0,
	    "{\"op\":\"set\",\"key\":\"a\",\"value\":\"012345678901234567890123456789\","
	    "\"messageId\":8}",
	    0);
	assert_null(strstr(assert_error(w, 0, "queue_full", "no", "8"), "retryAfterMs"));
	world_free(w);
}

static void a_client_with_a_full_pipeline_is_not_read(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	for (int i = 0; i < 4; i++) {
		assert_true(router_may_read(w->router, &w->peer[0]));
		ask(w, 0, "{\"op\":\"get\",\"key\":\"a\"}", 0);
	}
	assert_false(router_may_read(w->router, &w->peer[0]));
	assert_true(router_may_read(w->router, &w->peer[1]));
	answer(w, 3, "4"); /* kept for its turn: still unanswered */
	assert_false(router_may_read(w->router, &w->peer[0]));
	answer(w, 0, "1");
	assert_true(router_may_read(w->router, &w->peer[0]));
	world_free(w);
}

static void a_client_that_leaves_takes_its_unsent_requests_along(void **state)
{
	struct world *w = world_new(1, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\"}", 0);
	ask(w, 0, "{\"op\":\"set\",\"key\":\"a\",\"value\":\"1\"}", 0);
	ask(w, 1, "{\"op\":\"get\",\"key\":\"b\",\"messageId\":1}", 0);
	router_leave(w->router, &w->peer[0], 0);
	assert_int_equal(w->stats.requests_abandoned, 1);
	answer(w, 0, "for nobody");
	assert_int_equal(w->n_sent, 2);
	assert_non_null(strstr(w->sent[1], "\"key\":\"b\""));
	answer(w, 1, "b");
	assert_string_equal(told(w, 1), "{\"code\":200,\"value\":\"b\",\"messageId\":1}\n");
	assert_string_equal(told(w, 0), "");
	router_join(w->router, &w->peer[0]);
	world_free(w);
}

static void answers_that_wait_for_their_turn_are_counted(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\"}", 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"b\"}", 0);
	router_say(w->router, &w->peer[0], SPAN("local\n"), false);
	assert_int_equal(w->peer[0].answers.kept_bytes, 6);
	w->changed[0] = 0;
	answer(w, 1, "b");
	assert_int_equal(w->peer[0].answers.kept_bytes,
			 6 + strlen("{\"code\":200,\"value\":\"b\"}\n"));
	assert_int_equal(w->changed[0], 1); /* so that its owner looks at the bounds */
	answer(w, 0, "a");
	assert_int_equal(w->peer[0].answers.kept_bytes, 0);
	world_free(w);
}

static void one_that_has_left_does_not_keep_its_places_for_long(void **state)
{
	struct world *w = world_new(1, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"timeoutMs\":600000}", 0);
	ask(w, 1, "{\"op\":\"get\",\"key\":\"b\",\"messageId\":1,\"timeoutMs\":5000}", 0);
	router_leave(w->router, &w->peer[0], 500);
	assert_int_equal(w->wake, 1500);
	router_expire(w->router, 1500);
	assert_int_equal(w->n_sent, 2);
	answer(w, 1, "b");
	assert_string_equal(told(w, 1), "{\"code\":200,\"value\":\"b\",\"messageId\":1}\n");
	world_free(w);
}

static void an_unusable_answer_fails_its_request_alone(void **state)
{
	struct world *w = world_new(8, 1 << 20);
	char text[100];

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":1}", 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"b\",\"messageId\":2}", 0);
	snprintf(text, sizeof(text), "{\"messageId\":%llu,\"code\":", sent_id(w, 0));
	service_says(w, text, 0);
	assert_error(w, 0, "bad_upstream", "unknown", "1");
	service_says(w, "nonsense", 0);
	assert_string_equal(told(w, 0), "");
	answer(w, 1, "2");
	assert_string_equal(told(w, 0), "{\"code\":200,\"value\":\"2\",\"messageId\":2}\n");
	world_free(w);
}

static void stopping_refuses_what_waits_and_what_comes(void **state)
{
	struct world *w = world_new(1, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"set\",\"key\":\"a\",\"value\":\"1\",\"messageId\":1}", 0);
	ask(w, 1, "{\"op\":\"set\",\"key\":\"a\",\"value\":\"1\",\"messageId\":2}", 0);
	router_stop(w->router);
	assert_error(w, 1, "shutting_down", "no", "2");
	assert_int_equal(router_waiting(w->router), 0);
	assert_int_equal(w->peer[1].sched.bytes, 0);
	ask(w, 2, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":3}", 0);
	assert_error(w, 2, "shutting_down", "no", "3");
	assert_int_equal(router_in_flight(w->router), 1);
	router_abandon(w->router);
	assert_error(w, 0, "outcome_unknown", "unknown", "1");
	assert_int_equal(w->n_sent, 1);
	world_free(w);
}

/* The peer's owner, and nobody else's, was told `times` times to look at it since it was last
 * asked. */
static void assert_changed(struct world *w, int peer, int times)
{
	for (int i = 0; i < PEERS; i++) {
		assert_int_equal(w->changed[i], i == peer ? times : 0);
		w->changed[i] = 0;
	}
}

static void the_owner_hears_of_each_line_and_each_answer(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"timeoutMs\":9}", 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"b\"}", 0);
	assert_changed(w, 0, 0);
	router_say(w->router, &w->peer[0], SPAN("kept\n"), false);
	assert_changed(w, 0, 1);
	router_say(w->router, &w->peer[1], SPAN("named\n"), true);
	assert_changed(w, 1, 1);
	router_say(w->router, &w->peer[1], SPAN("at once\n"), false);
	assert_changed(w, 1, 1);
	answer(w, 1, "kept for its turn");
	assert_changed(w, 0, 1);
	router_expire(w->router, 9);
	assert_changed(w, 0, 1);
	answer_id(w, 12345, "nobody's");
	assert_changed(w, 0, 0);
	world_free(w);
}

static void the_owner_hears_when_what_waited_is_sent_or_refused(void **state)
{
	struct world *w = world_new(1, 1 << 20);

	(void)state;
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":1}", 0);
	ask(w, 1, "{\"op\":\"get\",\"key\":\"b\",\"messageId\":2}", 0);
	ask(w, 2, "{\"op\":\"set\",\"key\":\"c\",\"value\":\"1\",\"messageId\":3}", 0);
	router_up(w->router, MAIN, 0);
	assert_changed(w, 0, 1);
	router_leave(w->router, &w->peer[0], 0);
	answer(w, 0, "for nobody");
	assert_changed(w, 1, 1);
	router_stop(w->router);
	assert_changed(w, 2, 1);
	router_abandon(w->router);
	assert_changed(w, 1, 1);
	router_join(w->router, &w->peer[0]);
	world_free(w);
}

static void a_newcomer_waits_behind_those_that_wait(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	w->sendable = false;
	ask(w, 0, "{\"op\":\"get\",\"key\":\"first\"}", 0);
	w->sendable = true; /* but nobody has said so yet */
	ask(w, 1, "{\"op\":\"get\",\"key\":\"second\"}", 0);
	assert_int_equal(w->n_sent, 0);
	router_pump(w->router, 0);
	assert_int_equal(w->n_sent, 2);
	assert_non_null(strstr(w->sent[0], "first"));
	assert_non_null(strstr(w->sent[1], "second"));
	world_free(w);
}

static void an_unusable_frame_without_an_id_concerns_nobody(void **state)
{
	struct world *w = world_new(8, 1 << 20);
	struct wire_frame frame = {.kind = WIRE_UNUSABLE};

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":1}", 0);
	service_says(w, "{\"code\":\"x\"}", 0);
	frame.id = sent_id(w, 0); /* a leftover: has_id says that there is none */
	router_frame(w->router, &frame, 0);
	assert_string_equal(told(w, 0), "");
	assert_int_equal(router_in_flight(w->router), 1);
	assert_int_equal(w->stats.upstream_unusable, 2);
	world_free(w);
}

static void a_notification_answers_nobody(void **state)
{
	struct world *w = world_new(8, 1 << 20);
	char text[200];

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":1}", 0);
	snprintf(text, sizeof(text),
		 "{\"type\":\"notification\",\"key\":\"a\",\"value\":\"1\",\"messageId\":%llu}",
		 sent_id(w, 0));
	service_says(w, text, 0);
	assert_string_equal(told(w, 0), "");
	assert_int_equal(router_in_flight(w->router), 1);
	assert_int_equal(w->stats.upstream_late, 0);
	world_free(w);
}

static void a_read_whose_client_has_left_is_not_repeated(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\"}", 0);
	router_leave(w->router, &w->peer[0], 0);
	assert_int_equal(router_in_flight(w->router), 1);
	router_down(w->router, MAIN, 0);
	assert_int_equal(router_in_flight(w->router), 0);
	assert_int_equal(router_waiting(w->router), 0);
	router_up(w->router, MAIN, 0);
	assert_int_equal(w->n_sent, 1);
	router_join(w->router, &w->peer[0]);
	world_free(w);
}

static void nothing_is_sent_without_a_connection(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	router_down(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"set\",\"key\":\"a\",\"value\":\"1\",\"messageId\":1}", 0);
	router_pump(w->router, 0);
	assert_int_equal(w->n_sent, 0);
	router_expire(w->router, 1000);
	assert_error(w, 0, "upstream_down", "no", "1");
	assert_int_equal(w->stats.requests_unsent, 1);
	world_free(w);
}

static void a_full_network_is_the_reason_that_is_told(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	w->sendable = false;
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":1}", 0);
	router_expire(w->router, 1000);
	assert_non_null(strstr(assert_error(w, 0, "queue_full", "no", "1"), "the network"));
	world_free(w);
}

static void full_places_are_the_reason_that_is_told_whatever_the_pace(void **state)
{
	static const double rates[] = {0, 1000};

	(void)state;
	for (size_t i = 0; i < COUNT(rates); i++) {
		struct router_settings settings = usual;
		settings.max_in_flight = 1;
		settings.rate_limit = rates[i];
		struct world *w = world_with(&settings);
		router_up(w->router, MAIN, 0);
		ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":1}", 0);
		ask(w, 1, "{\"op\":\"get\",\"key\":\"b\",\"messageId\":2,\"timeoutMs\":500}", 0);
		router_expire(w->router, 500);
		assert_non_null(
			strstr(assert_error(w, 1, "queue_full", "no", "2"), "max_in_flight"));
		world_free(w);
	}
}

static void one_that_expires_along_with_those_ahead_of_it_blames_the_places(void **state)
{
	struct world *w = world_new(1, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"set\",\"key\":\"a\",\"value\":\"1\",\"messageId\":1}", 0);
	ask(w, 1, "{\"op\":\"set\",\"key\":\"a\",\"value\":\"1\",\"messageId\":2}", 0);
	router_expire(w->router, 1000);
	assert_error(w, 0, "timeout", "unknown", "1");
	assert_error(w, 1, "queue_full", "no", "2");
	assert_int_equal(w->stats.requests_timeout, 1);
	assert_int_equal(w->stats.requests_unsent, 1);
	world_free(w);
}

static void a_client_with_much_unsent_is_not_read(void **state)
{
	struct router_settings settings = usual;

	(void)state;
	settings.max_peer_waiting_bytes = 512; /* two of the smallest blocks */
	struct world *w = world_with(&settings);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\"}", 0);
	assert_true(router_may_read(w->router, &w->peer[0]));
	ask(w, 0, "{\"op\":\"get\",\"key\":\"b\"}", 0);
	assert_false(router_may_read(w->router, &w->peer[0]));
	assert_true(router_may_read(w->router, &w->peer[1]));
	router_up(w->router, MAIN, 0);
	assert_true(router_may_read(w->router, &w->peer[0]));
	world_free(w);
}

/* Two who take what they can get leave room for a third, and for one request of anybody. */
static void nobody_takes_all_the_room(void **state)
{
	struct router_settings settings = usual;

	(void)state;
	settings.max_pipeline = 100000;
	settings.max_waiting_bytes = 100 * 256;
	struct world *w = world_with(&settings);
	for (int i = 0; i < 1000 && router_may_read(w->router, &w->peer[i % 2]); i++)
		ask(w, i % 2, "{\"op\":\"get\",\"key\":\"a\"}", 0);
	assert_int_equal(w->stats.requests_queue_full, 0);
	assert_false(router_may_read(w->router, &w->peer[0]));
	assert_in_range(router_waiting(w->router), 8, 16);
	for (int i = 0; i < 3; i++) {
		assert_true(router_may_read(w->router, &w->peer[2]));
		ask(w, 2, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":1}", 0);
	}
	assert_string_equal(told(w, 2), "");
	router_leave(w->router, &w->peer[2], 0);
	router_join(w->router, &w->peer[2]);
	while (!w->stats.requests_queue_full)
		ask(w, 1, "{\"op\":\"get\",\"key\":\"a\"}", 0);
	assert_false(router_may_read(w->router, &w->peer[1]));
	assert_true(router_may_read(w->router, &w->peer[2])); /* to be told that there is none */
	world_free(w);
}

static void ranges_have_no_order_against_keys(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"range\",\"key\":\"a\",\"endKey\":\"z\",\"messageId\":1}", 0);
	ask(w, 0, "{\"op\":\"set\",\"key\":\"a\",\"value\":\"1\",\"messageId\":2}", 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":3}", 0);
	answer(w, 2, "1");
	told(w, 0);
	router_down(w->router, MAIN, 0);
	assert_error(w, 0, "outcome_unknown", "unknown", "2");
	router_up(w->router, MAIN, 0);
	assert_int_equal(w->n_sent, 4);
	assert_non_null(strstr(w->sent[3], "\"op\":5"));
	world_free(w);
}

static void reads_of_one_key_are_repeated_in_their_order(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":1}", 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":2}", 0);
	router_down(w->router, MAIN, 0);
	assert_string_equal(told(w, 0), "");
	assert_int_equal(w->stats.requests_resent, 2);
	router_up(w->router, MAIN, 0);
	assert_int_equal(w->n_sent, 4);
	answer(w, 2, "1");
	assert_string_equal(told(w, 0), "{\"code\":200,\"value\":\"1\",\"messageId\":1}\n");
	answer(w, 3, "2");
	assert_string_equal(told(w, 0), "{\"code\":200,\"value\":\"2\",\"messageId\":2}\n");
	assert_int_equal(w->stats.requests_sent, 4);
	assert_int_equal(w->stats.requests_answered, 2);
	world_free(w);
}

static void a_read_whose_answer_never_came_overtakes_nothing(void **state)
{
	struct world *w = world_new(8, 1 << 20);
	char text[100];

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":1}", 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":2,\"timeoutMs\":10}", 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":3}", 0);
	router_expire(w->router, 10);
	assert_error(w, 0, "timeout", "unknown", "2");
	snprintf(text, sizeof(text), "{\"messageId\":%llu}", sent_id(w, 2)); /* no code */
	service_says(w, text, 10);
	assert_error(w, 0, "bad_upstream", "unknown", "3");
	router_down(w->router, MAIN, 0);
	router_up(w->router, MAIN, 10);
	assert_int_equal(w->n_sent, 4);
	answer(w, 3, "1");
	assert_string_equal(told(w, 0), "{\"code\":200,\"value\":\"1\",\"messageId\":1}\n");
	world_free(w);
}

static void a_repeated_read_goes_before_what_its_client_has_asked_since(void **state)
{
	struct world *w = world_new(1, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":1}", 0);
	ask(w, 0, "{\"op\":\"set\",\"key\":\"a\",\"value\":\"2\",\"messageId\":2}", 0);
	router_down(w->router, MAIN, 0);
	router_up(w->router, MAIN, 0);
	answer(w, 1, "old");
	assert_string_equal(told(w, 0), "{\"code\":200,\"value\":\"old\",\"messageId\":1}\n");
	assert_int_equal(w->n_sent, 3);
	assert_non_null(strstr(w->sent[2], "\"op\":2"));
	world_free(w);
}

static void bytes_and_requests_out_are_counted(void **state)
{
	struct world *w = world_new(8, 1 << 20);
	size_t bytes = 0;

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":1}", 0);
	ask(w, 0, "{\"op\":\"set\",\"key\":\"b\",\"value\":\"xyz\",\"messageId\":2}", 0);
	router_down(w->router, MAIN, 0);
	assert_int_equal(w->stats.requests_outcome_unknown, 1);
	router_up(w->router, MAIN, 0);
	for (size_t i = 0; i < w->n_sent; i++)
		bytes += strlen(w->sent[i]);
	assert_int_equal(w->stats.requests_sent, 3);
	assert_int_equal(w->stats.requests_resent, 1);
	assert_int_equal(w->stats.upstream_bytes_out, bytes);
	world_free(w);
}

static void a_sooner_time_is_told_even_after_later_ones(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"timeoutMs\":100}", 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"b\"}", 0);
	assert_int_equal(w->wake, 100);
	assert_int_equal(router_expire(w->router, 100), 1000);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"c\",\"timeoutMs\":100}", 100);
	assert_int_equal(w->wake, 200);
	assert_int_equal(router_expire(w->router, 1000), -1);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"d\"}", 1000);
	assert_int_equal(w->wake, 2000);
	w->wake = -1;
	ask(w, 0, "{\"op\":\"get\",\"key\":\"e\"}", 1000); /* the same time is no news */
	assert_int_equal(w->wake, -1);
	world_free(w);
}

static void one_that_has_left_keeps_its_own_time_when_that_is_sooner(void **state)
{
	struct world *w = world_new(1, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"timeoutMs\":10}", 0);
	ask(w, 1, "{\"op\":\"get\",\"key\":\"b\"}", 0);
	router_leave(w->router, &w->peer[0], 5);
	assert_int_equal(router_expire(w->router, 10), 1000);
	assert_int_equal(w->stats.ended[OP_GET][OUTCOME_ABANDONED], 1);
	assert_int_equal(w->n_sent, 2);
	router_join(w->router, &w->peer[0]);
	world_free(w);
}

static void a_client_that_leaves_takes_its_kept_answers_along(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\"}", 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"b\"}", 0);
	answer(w, 1, "b");
	router_leave(w->router, &w->peer[0], 0);
	assert_int_equal(w->stats.requests_abandoned, 0); /* both were sent */
	answer(w, 0, "a");
	assert_string_equal(told(w, 0), "");
	router_join(w->router, &w->peer[0]);
	assert_int_equal(w->peer[0].answers.unanswered, 0);
	assert_int_equal(w->peer[0].answers.kept_bytes, 0);
	world_free(w);
}

static void one_refused_for_want_of_room_keeps_the_order_and_is_counted(void **state)
{
	struct world *w = world_new(1, 256);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\"}", 0); /* on its way: waits no more */
	ask(w, 0, "{\"op\":\"get\",\"key\":\"b\",\"messageId\":2}", 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"c\"}", 0);
	assert_int_equal(w->stats.requests_queue_full, 1);
	assert_string_equal(told(w, 0), "");
	answer(w, 0, "a");
	assert_non_null(strstr(told(w, 0), "\"value\":\"a\"}\n{\"code\":503"));
	assert_int_equal(router_expire(w->router, 999), 1000); /* b's; c has none any more */
	world_free(w);
}

static void stopping_tells_what_was_sent_before_that_it_may_have_been_executed(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":1}", 0);
	router_down(w->router, MAIN, 0);
	assert_int_equal(router_waiting(w->router), 1);
	router_stop(w->router);
	assert_error(w, 0, "outcome_unknown", "unknown", "1");
	assert_int_equal(router_expire(w->router, 0), -1);
	world_free(w);
}

static void nothing_is_sent_again_while_stopping(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":1}", 0);
	router_stop(w->router);
	router_down(w->router, MAIN, 0);
	assert_error(w, 0, "outcome_unknown", "unknown", "1");
	router_up(w->router, MAIN, 0);
	router_pump(w->router, 0);
	assert_int_equal(w->n_sent, 1);
	assert_int_equal(w->stats.requests_resent, 0);
	world_free(w);
}

/* A refused one had no effect on those before it, so they are not said to have come too late. */
/* The service has not executed it, so its client may ask the successor. */
static void what_the_rate_refuses_while_stopping_is_refused_like_the_rest(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	set_x(w, 0, 1, 0);
	set_x(w, 0, 2, 0);
	router_stop(w->router);
	refuse(w, 1, 10);
	assert_error(w, 0, "shutting_down", "no", "2");
	refuse(w, 0, 20);
	assert_error(w, 0, "shutting_down", "no", "1");
	assert_int_equal(router_in_flight(w->router), 0);
	assert_int_equal(w->n_sent, 2);
	world_free(w);
}

/* ... unless a later one for its key may take effect before the successor gets it. stops_first: it
 * is refused after the daemon was told to stop. */
static void check_not_for_the_successor(bool stops_first)
{
	struct world *w = world_new(8, 1 << 20);

	router_up(w->router, MAIN, 0);
	set_x(w, 0, 1, 0);
	set_x(w, 0, 2, 0);
	if (stops_first)
		router_stop(w->router);
	refuse(w, 0, 10);
	if (!stops_first)
		router_stop(w->router);
	const char *text = assert_error(w, 0, "rate_limited", "no", "1");
	assert_non_null(strstr(text, "a later request for its key"));
	answer(w, 1, "ok");
	assert_non_null(strstr(told(w, 0), "\"messageId\":2}"));
	world_free(w);
}

static void what_the_rate_refuses_while_stopping_is_not_repeated_behind_a_later_one(void **state)
{
	(void)state;
	check_not_for_the_successor(true);
	check_not_for_the_successor(false);
}

static void what_is_in_flight_may_still_be_answered_while_stopping(void **state)
{
	struct world *w = world_new(1, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\"}", 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"b\"}", 0);
	router_stop(w->router);
	assert_string_equal(told(w, 0), "");
	answer(w, 0, "a");
	assert_non_null(strstr(told(w, 0), "\"value\":\"a\"}\n{\"code\":503"));
	assert_int_equal(w->n_sent, 1);
	world_free(w);
}

/* ---- one connection takes over from another ---- */

static void assert_idle(const struct world *w, size_t n, uint32_t last)
{
	assert_int_equal(w->n_idle, n);
	if (n)
		assert_int_equal(w->idle[n - 1], last);
}

static void
after_a_move_requests_go_out_on_the_new_connection_and_answers_come_on_both(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"set\",\"key\":\"a\",\"value\":\"1\",\"messageId\":1}", 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"b\",\"messageId\":2}", 0);
	router_move(w->router, NEXT, 0);
	assert_idle(w, 0, 0);
	assert_int_equal(router_in_flight(w->router), 2);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"c\",\"messageId\":3}", 0);
	assert_int_equal(router_in_flight(w->router), 3);
	answer(w, 2, "c");
	assert_string_equal(told(w, 0), "{\"code\":200,\"value\":\"c\",\"messageId\":3}\n");
	answer(w, 0, "a");
	assert_idle(w, 0, 0);
	answer(w, 1, "b");
	assert_idle(w, 1, MAIN);
	assert_string_equal(told(w, 0), "{\"code\":200,\"value\":\"a\",\"messageId\":1}\n"
					"{\"code\":200,\"value\":\"b\",\"messageId\":2}\n");
	assert_int_equal(router_in_flight(w->router), 0);
	assert_int_equal(w->n_sent, 3);
	router_down(w->router, MAIN, 0);
	assert_idle(w, 1, MAIN);
	world_free(w);
}

static void a_connection_without_requests_is_idle_at_once(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	assert_false(router_move(w->router, NEXT, 0));
	assert_idle(w, 1, MAIN);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":1}", 0);
	router_move(w->router, NEXT + 1, 0);
	assert_idle(w, 1, MAIN);
	router_move(w->router, NEXT + 2, 0);
	assert_idle(w, 2, NEXT + 1); /* and the one before it is still waited for */
	answer(w, 0, "a");
	assert_idle(w, 3, NEXT);
	world_free(w);
}

static void what_waits_goes_out_on_the_new_connection_at_once(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	w->sendable = false;
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":1}", 0);
	w->sendable = true;
	router_move(w->router, NEXT, 0);
	assert_int_equal(w->n_sent, 1);
	assert_int_equal(router_in_flight(w->router), 1);
	world_free(w);
}

/* However the last request there ends: in time or not, with a client or without. */
static void a_connection_is_idle_when_its_last_request_has_ended(void **state)
{
	(void)state;
	for (int way = 0; way < 4; way++) {
		struct world *w = world_new(8, 1 << 20);
		char text[100];
		router_up(w->router, MAIN, 0);
		ask(w, 0, "{\"op\":\"set\",\"key\":\"a\",\"value\":\"1\",\"messageId\":1}", 0);
		router_move(w->router, NEXT, 0);
		if (way == 0) {
			router_expire(w->router, 1000);
		} else if (way == 1) {
			snprintf(text, sizeof(text), "{\"messageId\":%llu}", sent_id(w, 0));
			service_says(w, text, 0);
		} else if (way == 2) {
			router_leave(w->router, &w->peer[0], 0);
			assert_idle(w, 0, 0);
			answer(w, 0, "for nobody");
			router_join(w->router, &w->peer[0]);
		} else {
			router_down(w->router, MAIN, 0);
		}
		assert_idle(w, 1, MAIN);
		assert_int_equal(router_in_flight(w->router), 0);
		world_free(w);
	}
}

static void a_connection_that_was_left_takes_only_its_own_requests_along(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"set\",\"key\":\"a\",\"value\":\"1\",\"messageId\":1}", 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"b\",\"messageId\":2}", 0);
	router_move(w->router, NEXT, 0);
	ask(w, 1, "{\"op\":\"set\",\"key\":\"c\",\"value\":\"1\",\"messageId\":3}", 0);
	assert_int_equal(w->n_sent, 3);
	router_down(w->router, MAIN, 0);
	assert_error(w, 0, "outcome_unknown", "unknown", "1");
	assert_string_equal(told(w, 1), "");
	assert_idle(w, 1, MAIN);
	assert_int_equal(w->n_sent, 4); /* the read, on the connection that is there */
	assert_non_null(strstr(w->sent[3], "\"op\":1,\"key\":\"b\""));
	assert_int_equal(router_in_flight(w->router), 2);
	answer(w, 2, "c");
	answer(w, 3, "b");
	assert_string_equal(told(w, 1), "{\"code\":200,\"value\":\"c\",\"messageId\":3}\n");
	assert_string_equal(told(w, 0), "{\"code\":200,\"value\":\"b\",\"messageId\":2}\n");
	world_free(w);
}

static void
what_is_on_its_way_on_a_connection_that_was_left_survives_the_loss_of_the_new_one(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"set\",\"key\":\"a\",\"value\":\"1\",\"messageId\":1}", 0);
	router_move(w->router, NEXT, 0);
	ask(w, 0, "{\"op\":\"set\",\"key\":\"b\",\"value\":\"1\",\"messageId\":2}", 0);
	router_down(w->router, NEXT, 0);
	assert_error(w, 0, "outcome_unknown", "unknown", "2");
	ask(w, 0, "{\"op\":\"get\",\"key\":\"c\",\"messageId\":3}", 0);
	assert_int_equal(w->n_sent, 2);
	answer(w, 0, "a");
	assert_string_equal(told(w, 0), "{\"code\":200,\"value\":\"a\",\"messageId\":1}\n");
	assert_idle(w, 1, MAIN);
	router_up(w->router, NEXT + 1, 0);
	assert_int_equal(w->n_sent, 3);
	world_free(w);
}

static void a_later_request_for_a_key_waits_for_the_one_on_the_old_connection(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	set_x(w, 0, 1, 0);
	router_move(w->router, NEXT, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"y\",\"messageId\":2}", 0); /* another key */
	set_x(w, 1, 3, 0);                                              /* another client */
	ask(w, 0, "{\"op\":\"range\",\"key\":\"a\",\"endKey\":\"z\",\"messageId\":4}", 0);
	assert_int_equal(w->n_sent, 4);
	set_x(w, 0, 5, 0);
	set_x(w, 2, 7, 0); /* others do not wait behind it */
	assert_int_equal(w->n_sent, 5);
	set_x(w, 0, 6, 0);
	router_pump(w->router, 0);
	assert_int_equal(w->n_sent, 5);
	answer(w, 0, "1");
	assert_idle(w, 1, MAIN);
	assert_int_equal(w->n_sent, 7);
	assert_non_null(strstr(w->sent[5], "\"value\":\"5\""));
	assert_non_null(
		strstr(w->sent[6], "\"value\":\"6\"")); /* both on one connection: in order */
	world_free(w);
}

static void one_that_waits_for_the_old_connection_goes_when_that_is_lost(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	set_x(w, 0, 1, 0);
	router_move(w->router, NEXT, 0);
	set_x(w, 0, 2, 0);
	assert_int_equal(w->n_sent, 1);
	router_down(w->router, MAIN, 0);
	assert_error(w, 0, "outcome_unknown", "unknown", "1");
	assert_int_equal(w->n_sent, 2);
	answer(w, 1, "2");
	assert_string_equal(told(w, 0), "{\"code\":200,\"value\":\"2\",\"messageId\":2}\n");
	world_free(w);
}

static void one_that_waits_for_the_old_connection_may_run_out_of_time(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0,
	    "{\"op\":\"set\",\"key\":\"x\",\"value\":\"1\",\"messageId\":1,"
	    "\"timeoutMs\":2000}",
	    0);
	router_move(w->router, NEXT, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"x\",\"messageId\":2}", 0);
	router_expire(w->router, 1000);
	assert_non_null(strstr(told(w, 0), "\"executed\":\"no\""));
	answer(w, 0, "1");
	assert_int_equal(w->n_sent, 1);
	world_free(w);
}

static void a_refused_request_of_the_old_connection_is_sent_again_on_the_new_one(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	set_x(w, 0, 1, 0);
	router_move(w->router, NEXT, 0);
	refuse(w, 0, 10);
	assert_idle(w, 1, MAIN);
	router_expire(w->router, 1100);
	assert_int_equal(router_in_flight(w->router), 1);
	world_free(w);
}

/* ---- requests that somebody else answers ---- */

static struct pending *hold(struct world *w, int peer, const char *line)
{
	struct request request;
	struct request_fault fault;
	struct span copy = copy_of(span_of(line));

	assert_int_equal(request_parse(copy, &request, &fault), 0);
	struct pending *p = router_defer(w->router, &w->peer[peer], &request, 0);
	free_copy(copy);
	return p;
}

static void a_held_request_is_answered_when_it_is_settled(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	struct pending *a = hold(w, 0, "{\"op\":\"subscribe\",\"key\":\"a\",\"messageId\":\"x\"}"),
		       *b = hold(w, 0, "{\"op\":\"subscribe\",\"key\":\"a\",\"messageId\":2}");
	assert_int_equal(w->peer[0].answers.unanswered, 2);
	assert_string_equal(told(w, 0), "");
	assert_true(router_may_settle(w->router, b));
	router_settle(w->router, b);
	router_settle(w->router, a);
	assert_string_equal(told(w, 0), "{\"code\":200,\"messageId\":2}\n"
					"{\"code\":200,\"messageId\":\"x\"}\n");
	assert_int_equal(w->peer[0].answers.unanswered, 0);
	assert_changed(w, 0, 2);
	assert_int_equal(w->over, 0);
	assert_int_equal(router_expire(w->router, 5000), -1);
	assert_int_equal(w->n_sent, 0);
	world_free(w);
}

static void a_refused_one_says_what_it_is_told_to(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	w->why = "held back";
	struct pending *a = hold(w, 0, "{\"op\":\"subscribe\",\"key\":\"a\",\"messageId\":1}"),
		       *b = hold(w, 0, "{\"op\":\"subscribe\",\"key\":\"a\",\"messageId\":2}");
	router_refuse(w->router, a, REPLY_RATE_LIMITED, "no room", 5);
	const char *text = assert_error(w, 0, "rate_limited", "no", "1");
	assert_non_null(strstr(text, "\"error\":\"no room\""));
	assert_non_null(strstr(text, "\"retryAfterMs\":5"));
	router_refuse(w->router, b, REPLY_UPSTREAM_DOWN, NULL, -1);
	assert_non_null(strstr(assert_error(w, 0, "upstream_down", "no", "2"), "\"held back\""));
	assert_int_equal(w->over, 2);
	world_free(w);
}

static void a_held_one_with_a_short_id_waits_for_nobody(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\"}", 0);
	struct pending *p = hold(w, 0, "{\"op\":\"subscribe\",\"key\":\"a\",\"messageId\":1}");
	assert_true(router_may_settle(w->router, p));
	router_settle(w->router, p);
	assert_string_equal(told(w, 0), "{\"code\":200,\"messageId\":1}\n");
	assert_int_equal(w->stats.ended[OP_SUBSCRIBE][OUTCOME_OK], 1);
	p = hold(w, 1, "{\"op\":\"subscribe\",\"key\":\"a\",\"messageId\":1}");
	router_say(w->router, &w->peer[1], SPAN("local\n"), false); /* nor does anybody for it */
	assert_string_equal(told(w, 1), "local\n");
	router_settle(w->router, p);
	assert_string_equal(told(w, 1), "{\"code\":200,\"messageId\":1}\n");
	ask(w, 0, "{\"op\":\"get\",\"key\":\"b\",\"messageId\":2}", 0);
	answer(w, 1, "v");
	assert_string_equal(told(w, 0), "{\"code\":200,\"value\":\"v\",\"messageId\":2}\n");
	world_free(w);
}

static void a_held_one_without_an_id_waits_for_those_before_it(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\"}", 0);
	struct pending *p = hold(w, 0, "{\"op\":\"subscribe\",\"key\":\"a\"}");
	ask(w, 0, "{\"op\":\"get\",\"key\":\"b\"}", 0);
	router_say(w->router, &w->peer[0], SPAN("local\n"), false);
	assert_false(router_may_settle(w->router, p));
	answer(w, 1, "b");
	assert_string_equal(told(w, 0), "");
	assert_int_equal(w->turns, 0);
	answer(w, 0, "a");
	assert_string_equal(told(w, 0), "{\"code\":200,\"value\":\"a\"}\n");
	assert_int_equal(w->turns, 1);
	assert_true(router_may_settle(w->router, p));
	ask(w, 0, "{\"op\":\"get\",\"key\":\"c\",\"messageId\":1}", 0);
	answer(w, 2, "c");
	assert_int_equal(w->turns, 1); /* told once, whatever else is answered */
	assert_string_equal(told(w, 0), "{\"code\":200,\"value\":\"c\",\"messageId\":1}\n");
	router_settle(w->router, p);
	assert_string_equal(told(w, 0), "{\"code\":200}\n{\"code\":200,\"value\":\"b\"}\nlocal\n");
	assert_int_equal(w->peer[0].answers.kept_bytes, 0);
	world_free(w);
}

static void one_that_is_refused_before_its_turn_keeps_the_order(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\"}", 0);
	struct pending *p = hold(w, 0, "{\"op\":\"subscribe\",\"key\":\"a\"}");
	router_refuse(w->router, p, REPLY_QUEUE_FULL, "no room", -1);
	assert_string_equal(told(w, 0), "");
	answer(w, 0, "a");
	assert_non_null(
		strstr(told(w, 0), "\"value\":\"a\"}\n{\"code\":503,\"error\":\"no room\""));
	assert_int_equal(w->turns, 0);
	assert_int_equal(w->over, 1);
	world_free(w);
}

/* A stack would not do for them all. */
static void a_row_of_held_ones_is_settled_one_by_one(void **state)
{
	enum { N = 200000 };
	struct world *w = world_new(8, 1 << 20);
	struct span out;

	(void)state;
	router_up(w->router, MAIN, 0);
	w->settles = true;
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\"}", 0);
	for (int i = 0; i < N; i++)
		hold(w, 0, "{\"op\":\"subscribe\",\"key\":\"a\"}");
	answer(w, 0, "a");
	assert_int_equal(w->turns, N);
	assert_int_equal(w->peer[0].answers.unanswered, 0);
	out = buf_span(&w->peer[0].out.own);
	assert_int_equal(out.n, strlen("{\"code\":200,\"value\":\"a\"}\n") +
					N * strlen("{\"code\":200}\n"));
	world_free(w);
}

static void a_held_one_whose_time_is_up_says_why(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	w->reconnect_ms = 70;
	w->why = "the token is late";
	hold(w, 0, "{\"op\":\"subscribe\",\"key\":\"a\",\"messageId\":1,\"timeoutMs\":50}");
	hold(w, 0, "{\"op\":\"subscribe\",\"key\":\"a\",\"messageId\":2}");
	assert_int_equal(w->wake, 50);
	assert_int_equal(router_expire(w->router, 49), 50);
	assert_string_equal(told(w, 0), "");
	assert_int_equal(router_expire(w->router, 50), 1000);
	const char *text = assert_error(w, 0, "upstream_down", "no", "1");
	assert_non_null(strstr(text, "\"error\":\"the token is late\""));
	assert_non_null(strstr(text, "\"retryAfterMs\":70"));
	w->why = NULL;
	router_expire(w->router, 1000);
	assert_non_null(strstr(assert_error(w, 0, "upstream_down", "no", "2"),
			       reply_error_text(REPLY_UPSTREAM_DOWN)));
	assert_int_equal(w->over, 2);
	assert_int_equal(w->stats.requests_unsent, 2);
	world_free(w);
}

static void held_ones_of_a_client_that_leaves_are_over(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	hold(w, 0, "{\"op\":\"subscribe\",\"key\":\"a\",\"messageId\":1}");
	hold(w, 0, "{\"op\":\"subscribe\",\"key\":\"a\"}");
	struct pending *other = hold(w, 1, "{\"op\":\"subscribe\",\"key\":\"a\",\"messageId\":2}");
	router_leave(w->router, &w->peer[0], 0);
	router_join(w->router, &w->peer[0]);
	assert_int_equal(w->over, 2);
	assert_int_equal(w->turns, 0);
	assert_string_equal(told(w, 0), "");
	assert_int_equal(w->stats.requests_abandoned, 0);
	router_settle(w->router, other);
	assert_string_equal(told(w, 1), "{\"code\":200,\"messageId\":2}\n");
	assert_int_equal(router_expire(w->router, 0), -1);
	world_free(w);
}

static void stopping_refuses_held_ones(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	w->why = "another reason";
	hold(w, 0, "{\"op\":\"subscribe\",\"key\":\"a\",\"messageId\":1}");
	hold(w, 1, "{\"op\":\"subscribe\",\"key\":\"a\",\"messageId\":2}");
	router_stop(w->router);
	const char *text = assert_error(w, 0, "shutting_down", "no", "1");
	assert_non_null(strstr(text, reply_error_text(REPLY_SHUTTING_DOWN)));
	assert_error(w, 1, "shutting_down", "no", "2");
	assert_int_equal(w->over, 2);
	world_free(w);
}

/* What Nexus has is waited for. A token that is being minted is nobody's yet. */
static void stopping_refuses_what_nexus_has_not(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	struct pending *answered = hold(w, 0, "{\"op\":\"search\",\"body\":{},\"messageId\":1}");
	struct pending *late = hold(w, 0, "{\"op\":\"query\",\"body\":{},\"messageId\":2}");
	answered->deferred.timeout_error = late->deferred.timeout_error = REPLY_TIMEOUT;
	hold(w, 1, "{\"op\":\"query\",\"body\":{},\"messageId\":3}")->deferred.timeout_error =
		REPLY_QUEUE_FULL;
	hold(w, 2, "{\"op\":\"token\",\"messageId\":4}")->deferred.timeout_error = REPLY_TIMEOUT;
	router_stop(w->router);
	assert_string_equal(told(w, 0), "");
	assert_error(w, 1, "shutting_down", "no", "3");
	assert_error(w, 2, "shutting_down", "no", "4");
	router_settle(w->router, answered);
	assert_string_equal(told(w, 0), "{\"code\":200,\"messageId\":1}\n");
	assert_false(router_is_drained(w->router));
	router_abandon(w->router);
	const char *text = assert_error(w, 0, "outcome_unknown", "unknown", "2");
	assert_non_null(strstr(text, "the daemon has stopped"));
	assert_true(router_is_drained(w->router));
	world_free(w);
}

static void a_loss_does_not_end_held_ones(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	struct pending *p = hold(w, 0, "{\"op\":\"subscribe\",\"key\":\"a\",\"messageId\":1}");
	router_down(w->router, MAIN, 0);
	router_abandon(w->router);
	assert_string_equal(told(w, 0), "");
	assert_int_equal(w->over, 0);
	router_settle(w->router, p);
	assert_string_equal(told(w, 0), "{\"code\":200,\"messageId\":1}\n");
	world_free(w);
}

/* ---- reads of the daemon's own ---- */

static void read_key(struct world *w, int reading, const char *key, bool hurry)
{
	struct span copy = copy_of(span_of(key));
	struct json_value value = {.text = copy, .type = JSON_STRING};

	router_read(w->router, &w->reading[reading], &value, hurry, 0);
	free_copy(copy);
}

/* It was sent so often, and has ended so. */
static void assert_ended(const struct world *w, int reading, unsigned sent,
			 enum router_read_end end)
{
	assert_int_equal(w->reading[reading].sent, sent);
	assert_int_equal(w->reading[reading].ended, 1);
	assert_int_equal(w->reading[reading].end, end);
}

static void a_read_is_sent_and_its_answer_is_for_the_daemon(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	read_key(w, 0, "\"a\\u0000\"", true);
	assert_int_equal(w->n_sent, 0); /* it waits for a connection, as others do */
	assert_int_equal(w->reading[0].sent, 0);
	router_up(w->router, MAIN, 0);
	assert_int_equal(w->n_sent, 1);
	assert_non_null(strstr(w->sent[0], ",\"op\":1,\"key\":\"a\\u0000\"}"));
	assert_int_equal(w->reading[0].sent, 1);
	answer(w, 0, "v");
	assert_ended(w, 0, 1, ROUTER_READ_ANSWERED);
	assert_non_null(
		strstr(w->reading[0].answer, "{\"code\":200,\"value\":\"v\",\"messageId\":"));
	answer(w, 0, "again");
	assert_int_equal(w->reading[0].ended, 1);
	for (int i = 0; i < PEERS; i++) {
		assert_string_equal(told(w, i), "");
		assert_changed(w, i, 0);
	}
	assert_int_equal(w->stats.requests_answered, 0);
	assert_int_equal(router_expire(w->router, 5000), -1);
	world_free(w);
}

static void a_read_in_a_hurry_has_its_turn_and_another_comes_last(void **state)
{
	struct world *w = world_new(1, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"first\",\"messageId\":1}", 0);
	read_key(w, 0, "\"late\"", false);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"second\",\"messageId\":2}", 0);
	read_key(w, 1, "\"early\"", true);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"third\",\"messageId\":3}", 0);
	ask(w, 1, "{\"op\":\"get\",\"key\":\"fourth\",\"messageId\":4}", 0);
	static const char *const want[] = {"first", "second", "early", "fourth", "third", "late"};
	for (size_t i = 0; i < COUNT(want); i++) {
		assert_int_equal(w->n_sent, i + 1);
		if (!strstr(w->sent[i], want[i]))
			fail_msg("%s instead of %s", w->sent[i], want[i]);
		answer(w, i, "x");
	}
	assert_ended(w, 0, 1, ROUTER_READ_ANSWERED);
	assert_ended(w, 1, 1, ROUTER_READ_ANSWERED);
	world_free(w);
}

static void a_read_that_the_rate_limit_refuses_comes_back_unsent(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	read_key(w, 0, "\"a\"", true);
	refuse(w, 0, 10);
	assert_ended(w, 0, 1, ROUTER_READ_UNSENT);
	assert_true(router_pace(w->router, 0) > 0);
	router_expire(w->router, 5000);
	assert_int_equal(w->n_sent, 1);
	world_free(w);
}

static void a_read_whose_time_is_up_has_failed_if_it_was_sent(void **state)
{
	struct world *w = world_new(1, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	read_key(w, 0, "\"a\"", true);
	read_key(w, 1, "\"b\"", false); /* there is one place */
	router_expire(w->router, 999);
	assert_int_equal(w->reading[0].ended, 0);
	router_expire(w->router, 1000);
	assert_ended(w, 0, 1, ROUTER_READ_FAILED);
	assert_ended(w, 1, 0, ROUTER_READ_LATE);
	assert_int_equal(w->n_sent, 1);
	world_free(w);
}

static void a_read_with_an_unusable_answer_has_failed(void **state)
{
	struct world *w = world_new(8, 1 << 20);
	char text[100];

	(void)state;
	router_up(w->router, MAIN, 0);
	read_key(w, 0, "\"a\"", true);
	snprintf(text, sizeof(text), "{\"messageId\":%llu}", sent_id(w, 0));
	service_says(w, text, 0);
	assert_ended(w, 0, 1, ROUTER_READ_FAILED);
	world_free(w);
}

static void a_read_on_a_lost_connection_comes_back_unsent(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	read_key(w, 0, "\"a\"", true);
	router_move(w->router, NEXT, 0);
	read_key(w, 1, "\"b\"", false);
	router_down(w->router, MAIN, 0);
	assert_ended(w, 0, 1, ROUTER_READ_UNSENT);
	assert_idle(w, 1, MAIN);
	assert_int_equal(w->reading[1].ended, 0);
	router_down(w->router, NEXT, 0);
	assert_ended(w, 1, 1, ROUTER_READ_UNSENT);
	router_up(w->router, NEXT + 1, 0);
	assert_int_equal(w->n_sent, 2); /* not by itself */
	assert_int_equal(w->stats.requests_outcome_unknown, 0);
	world_free(w);
}

static void a_read_that_is_answered_on_a_connection_that_was_left_says_so(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	read_key(w, 0, "\"a\"", true);
	router_move(w->router, NEXT, 0);
	read_key(w, 1, "\"b\"", true);
	answer(w, 1, "v");
	answer(w, 0, "v");
	assert_ended(w, 0, 1, ROUTER_READ_ELSEWHERE);
	assert_ended(w, 1, 1, ROUTER_READ_ANSWERED);
	assert_idle(w, 1, MAIN);
	world_free(w);
}

static void a_read_may_be_asked_for_when_another_ends(void **state)
{
	(void)state;
	for (int way = 0; way < 3; way++) {
		struct world *w = world_new(1, 1 << 20);
		router_up(w->router, MAIN, 0);
		w->reading[0].again = true;
		read_key(w, 0, "\"a\"", true);
		if (way == 0) {
			answer(w, 0, "v");
		} else if (way == 1) {
			router_expire(w->router, 1000);
		} else {
			router_down(w->router, MAIN, 0);
			assert_int_equal(w->reading[READS - 1].sent, 0);
			router_up(w->router, NEXT, 0);
		}
		assert_int_equal(w->reading[0].ended, 1);
		assert_int_equal(w->reading[READS - 1].sent, 1);
		assert_non_null(strstr(w->sent[1], "\"key\":\"again\""));
		answer(w, 1, "v");
		assert_ended(w, READS - 1, 1, ROUTER_READ_ANSWERED);
		world_free(w);
	}
}

static void stopping_gives_back_the_reads_that_wait(void **state)
{
	struct world *w = world_new(1, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	read_key(w, 0, "\"a\"", true);
	read_key(w, 1, "\"b\"", true);
	read_key(w, 2, "\"c\"", false);
	router_stop(w->router);
	assert_ended(w, 1, 0, ROUTER_READ_LATE);
	assert_ended(w, 2, 0, ROUTER_READ_LATE);
	assert_int_equal(w->reading[0].ended, 0);
	router_abandon(w->router);
	assert_ended(w, 0, 1, ROUTER_READ_FAILED);
	world_free(w);
}

static void one_that_waits_for_its_key_on_the_old_connection_does_not_blame_the_places(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	set_x(w, 0, 1, 0);
	router_move(w->router, NEXT, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"x\",\"messageId\":2}", 0);
	router_expire(w->router, 1000);
	const char *text = assert_error(w, 0, "queue_full", "no", "2");
	assert_non_null(strstr(text, "an earlier request of its client for the same key"));
	world_free(w);
}

static void a_read_comes_back_when_the_router_ends(void **state)
{
	static const struct json_value key = {.text = SPAN("\"b\""), .type = JSON_STRING};
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	read_key(w, 0, "\"a\"", true); /* there is no connection */
	read_key(w, 1, "\"a\"", false);
	router_read_alone(w->router, &w->reading[2], &key, 0);
	for (int i = 0; i < PEERS; i++)
		router_leave(w->router, &w->peer[i], 0);
	w->reading[1].again = true; /* which comes too late */
	router_free(w->router);
	for (int i = 0; i < 3; i++)
		assert_ended(w, i, 0, ROUTER_READ_LATE);
	free(w);
}

/* ---- figures ---- */

static uint64_t ended(const struct world *w, enum request_op op, enum request_outcome outcome)
{
	return w->stats.ended[op][outcome];
}

static void each_request_ends_once(void **state)
{
	struct router_settings settings = usual;
	struct world *w;
	uint64_t all = 0;

	(void)state;
	settings.max_in_flight = 3;
	w = world_with(&settings);
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":1}", 0);
	answer(w, 0, "1");
	ask(w, 0, "{\"op\":\"delete\",\"key\":\"a\",\"messageId\":2}", 0);
	char text[100];
	snprintf(text, sizeof(text), "{\"code\":404,\"messageId\":%llu}", sent_id(w, 1));
	service_says(w, text, 0);
	ask(w, 0, "{\"op\":\"set\",\"key\":\"a\",\"value\":\"1\",\"timeoutMs\":5}", 0);
	router_expire(w->router, 5);
	ask(w, 1, "{\"op\":\"patch\",\"key\":\"b\",\"value\":\"1\"}", 5);  /* its client leaves */
	ask(w, 0, "{\"op\":\"increment\",\"key\":\"c\"}", 5);              /* lost */
	ask(w, 0, "{\"op\":\"get\",\"key\":\"e\",\"messageId\":3}", 5);    /* answered late */
	ask(w, 1, "{\"op\":\"range\",\"key\":\"d\",\"endKey\":\"e\"}", 5); /* waits, and leaves */
	router_leave(w->router, &w->peer[1], 5);
	router_join(w->router, &w->peer[1]);
	answer(w, 3, "for nobody");
	router_down(w->router, MAIN, 6);
	router_expire(w->router, 2000);
	for (unsigned op = 0; op < OP_N; op++) {
		for (unsigned outcome = 0; outcome < OUTCOME_N; outcome++)
			all += w->stats.ended[op][outcome];
	}
	assert_int_equal(ended(w, OP_GET, OUTCOME_OK), 1);
	assert_int_equal(ended(w, OP_DELETE, OUTCOME_SERVICE_ERROR), 1);
	assert_int_equal(ended(w, OP_SET, outcome_of(REPLY_TIMEOUT)), 1);
	assert_int_equal(ended(w, OP_PATCH, OUTCOME_ABANDONED), 1);
	assert_int_equal(ended(w, OP_INCREMENT, outcome_of(REPLY_OUTCOME_UNKNOWN)), 1);
	assert_int_equal(ended(w, OP_GET, outcome_of(REPLY_OUTCOME_UNKNOWN)), 1);
	assert_int_equal(ended(w, OP_RANGE, OUTCOME_ABANDONED), 1);
	assert_int_equal(all, 7);
	world_free(w);
}

static void waiting_here_and_waiting_for_the_service_are_two_things(void **state)
{
	struct world *w = world_new(1, 1 << 20);
	char text[100];

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":1}", 100);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"b\",\"messageId\":2,\"timeoutMs\":60000}", 130);
	assert_int_equal(w->stats.request_wait.sum_ms, 0);
	snprintf(text, sizeof(text), "{\"code\":200,\"messageId\":%llu}", sent_id(w, 0));
	service_says(w, text, 400); /* sends the second one, too */
	assert_int_equal(w->stats.request_service.sum_ms, 300);
	assert_int_equal(w->stats.request_wait.sum_ms, 270);

	/* A refusal is an answer; what comes behind it is waiting again. */
	snprintf(text, sizeof(text), "{\"code\":429,\"messageId\":%llu}", sent_id(w, 1));
	service_says(w, text, 450);
	assert_int_equal(w->stats.request_service.sum_ms, 350);
	int64_t now = 451;
	for (; w->n_sent == 2; now++) {
		assert_true(now < 20000);
		router_expire(w->router, now);
	}
	assert_true(w->stats.request_wait.sum_ms > 270);

	/* So is what comes behind a lost connection. */
	uint64_t waited = w->stats.request_wait.sum_ms;
	router_down(w->router, MAIN, now);
	router_up(w->router, NEXT, now += 200);
	for (; w->n_sent == 3; now++) {
		assert_true(now < 40000);
		router_expire(w->router, now);
	}
	assert_true(w->stats.request_wait.sum_ms >= waited + 200);
	assert_int_equal(w->stats.request_service.sum_ms, 350);
	world_free(w);
}

/* ---- secrets ---- */

/* All that the peer was told, shared lines included. */
static const char *all_told(struct world *w, int peer)
{
	static char text[8192];
	struct iovec iov[1];
	size_t n = 0;

	while (outq_iov(&w->peer[peer].out, iov, 1)) {
		assert_true(n + iov[0].iov_len < sizeof(text));
		memcpy(text + n, iov[0].iov_base, iov[0].iov_len);
		n += iov[0].iov_len;
		outq_take(&w->peer[peer].out, iov[0].iov_len);
	}
	text[n] = '\0';
	return text;
}

static void a_secret_answer_keeps_to_the_order_and_out_of_the_buffer(void **state)
{
	static const char token[] = "{\"op\":\"token\"}";
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	struct pending *a = hold(w, 0, token), *b = hold(w, 0, token),
		       *c = hold(w, 0, "{\"op\":\"token\",\"messageId\":\"x\"}");
	router_say(w->router, &w->peer[0], SPAN("{\"d\":444}\n"), false);
	assert_int_equal(answers_first_kept(&w->peer[0]), strlen("{\"d\":444}\n"));
	router_settle_secret(w->router, b, SPAN("{\"b\":2}"));
	assert_int_equal(answers_first_kept(&w->peer[0]), strlen("{\"b\":2}\n"));
	assert_int_equal(outq_len(&w->peer[0].out), 0);
	router_settle_secret(w->router, c, SPAN("{\"c\":3}"));
	router_settle_secret(w->router, a, SPAN("{\"a\":1}"));
	assert_span(buf_span(&w->peer[0].out.own),
		    "{\"d\":444}\n"); /* the others are lines of their own */
	const struct outq_ring *ring = w->peer[0].out.ring;
	for (uint32_t i = 0; i < 3; i++) /* which are wiped once they are written */
		assert_true(ring->slot[ring->head + i].shared->secret);
	assert_string_equal(all_told(w, 0), "{\"c\":3,\"messageId\":\"x\"}\n{\"a\":1}\n{\"b\":2}\n"
					    "{\"d\":444}\n");
	assert_int_equal(w->peer[0].answers.unanswered, 0);
	assert_int_equal(w->peer[0].answers.kept_bytes, 0);
	assert_int_equal(answers_first_kept(&w->peer[0]), 0);
	world_free(w);
}

static void a_secret_that_nobody_takes_goes_with_its_client(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	hold(w, 0, "{\"op\":\"token\"}");
	struct pending *b = hold(w, 0, "{\"op\":\"token\"}"),
		       *c = hold(w, 0, "{\"op\":\"token\",\"messageId\":1}");
	router_settle_secret(w->router, b, SPAN("{\"b\":2}"));
	router_settle_secret(w->router, c, SPAN("{\"c\":2}"));
	world_free(w); /* the sanitizers watch */
}

static void the_holder_says_what_being_late_means(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	w->reconnect_ms = 9;
	hold(w, 0, "{\"op\":\"token\",\"messageId\":1}");
	hold(w, 1, "{\"op\":\"token\",\"messageId\":2}")->deferred.timeout_error = REPLY_TIMEOUT;
	hold(w, 2, "{\"op\":\"token\",\"messageId\":3}")->deferred.timeout_error = REPLY_QUEUE_FULL;
	router_expire(w->router, 1000);
	assert_non_null(
		strstr(assert_error(w, 0, "upstream_down", "no", "1"), "\"retryAfterMs\":9"));
	assert_null(strstr(assert_error(w, 1, "timeout", "unknown", "2"), "retryAfterMs"));
	assert_null(strstr(assert_error(w, 2, "queue_full", "no", "3"), "retryAfterMs"));
	assert_int_equal(w->stats.requests_timeout, 1);
	assert_int_equal(w->stats.requests_unsent, 2);
	world_free(w);
}

static void one_that_is_refused_twice_stays_before_those_behind_it(void **state)
{
	enum { BURST = 3 };
	struct world *w = world_new(8, 1 << 20);
	int64_t now = 0;

	(void)state;
	router_up(w->router, MAIN, 0);
	for (int n = 1; n <= BURST; n++)
		set_x(w, 0, n, 0);
	for (size_t i = 0; i < BURST; i++)
		refuse(w, i, 10);
	for (int n = 1; n <= BURST; n++) {
		for (int again = 0; again < 2; again++) {
			char want[40];
			let_pass(w, now + 11, now + 3000);
			now += 3000;
			snprintf(want, sizeof(want), "\"value\":\"%d\"", n);
			assert_non_null(strstr(w->sent[w->n_sent - 1], want));
			if (again)
				answer(w, w->n_sent - 1, "done");
			else
				refuse(w, w->n_sent - 1, now);
		}
	}
	assert_int_equal(w->n_sent, 3 * BURST);
	assert_int_equal(w->stats.requests_answered, BURST);
	world_free(w);
}

static void each_refusal_of_the_same_request_lowers_the_pace(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	get_a(w, 0, 1, 60000, 0);
	refuse(w, 0, 10);
	let_pass(w, 11, 3000);
	refuse(w, 1, 3000);
	let_pass(w, 3001, 6000);
	assert_int_equal(w->n_sent, 3);
	double rate_limiter = router_pace(w->router, 6000);
	refuse(w, 2, 6000); /* each is news for the pace */
	assert_true(router_pace(w->router, 6000) < rate_limiter);
	world_free(w);
}

static void one_that_waits_for_its_key_in_vain_lets_those_behind_it_go(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	set_x(w, 0, 1, 0);
	refuse(w, 0, 10);
	let_pass(w, 11, 3000);
	assert_int_equal(w->n_sent, 2);
	ask(w, 0, "{\"op\":\"delete\",\"key\":\"x\",\"messageId\":2,\"timeoutMs\":50}", 3000);
	get_a(w, 0, 3, 5000, 3000);
	assert_int_equal(w->n_sent, 2);
	let_pass(w, 3000, 4000);
	assert_error(w, 0, "rate_limited", "no", "2");
	assert_int_equal(w->n_sent, 3);
	assert_non_null(strstr(w->sent[2], "\"key\":\"a\""));
	world_free(w);
}

/* ---- what was given up ---- */

static void garble(struct world *w, size_t i, int64_t now)
{
	char text[100];

	snprintf(text, sizeof(text), "{\"code\":\"fine\",\"messageId\":%llu}", sent_id(w, i));
	service_says(w, text, now);
}

/* One that was given up on the former connection may take effect yet: the next of its client for
 * its key waits for the answer, or for that connection's end. how: 0: the answer, 1: the end, 2: an
 * answer that can't be used. */
static void check_overdue(int how)
{
	struct world *w = world_new(8, 1 << 20);

	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"set\",\"key\":\"x\",\"value\":\"1\",\"messageId\":1,\"timeoutMs\":50}",
	    0);
	ask(w, 1, "{\"op\":\"get\",\"key\":\"y\",\"messageId\":2,\"timeoutMs\":50}", 0);
	router_expire(w->router, 51);
	assert_error(w, 0, "timeout", "unknown", "1");
	assert_error(w, 1, "timeout", "unknown", "2");
	ask(w, 0, "{\"op\":\"delete\",\"key\":\"x\",\"messageId\":3}",
	    60); /* behind it, on its way */
	assert_int_equal(w->n_sent, 3);
	answer(w, 2, "done");
	assert_true(
		router_move(w->router, MAIN + 1, 70)); /* so that connection stays for a while */
	ask(w, 0, "{\"op\":\"set\",\"key\":\"x\",\"value\":\"2\",\"messageId\":4}", 80);
	assert_int_equal(w->n_sent, 3);
	ask(w, 1, "{\"op\":\"set\",\"key\":\"x\",\"value\":\"3\",\"messageId\":5}",
	    80); /* another client's */
	ask(w, 1, "{\"op\":\"set\",\"key\":\"y\",\"value\":\"4\",\"messageId\":6}",
	    80); /* behind a read */
	assert_int_equal(w->n_sent, 5);
	if (how == 0)
		answer(w, 0, "late");
	else if (how == 1)
		router_down(w->router, MAIN, 90);
	else
		garble(w, 0, 90);
	assert_int_equal(w->n_sent, 6);
	assert_non_null(strstr(w->sent[5], "\"value\":\"2\""));
	world_free(w);
}

static void what_was_given_up_elsewhere_is_waited_for(void **state)
{
	(void)state;
	check_overdue(0);
	check_overdue(1);
	check_overdue(2);
}

/* ---- what is forbidden meanwhile ---- */

static void what_waits_is_refused_if_it_is_forbidden_now(void **state)
{
	struct world *w = world_new(2, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"set\",\"key\":\"x1\",\"value\":{\"key\":1},\"messageId\":1}", 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\"}", 0);
	ask(w, 0, "{\"op\":\"set\",\"key\":\"x2\",\"value\":\"\",\"messageId\":2}", 0);
	ask(w, 0, "{\"op\":\"range\",\"key\":\"x3\",\"endKey\":\"y\",\"limit\":3}", 0);
	ask(w, 0, "{\"op\":\"increment\",\"key\":\"b\",\"messageId\":4}", 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"x5\"}", 0);
	ask(w, 1, "{\"op\":\"get\",\"key\":\"x\",\"messageId\":6}", 0);
	assert_int_equal(w->n_sent, 2);
	restrict_up_to(w, 0, 0);
	const char *text = assert_error(w, 0, "forbidden", "no", "2");
	assert_non_null(strstr(text, "\"error\":\"no x\""));
	assert_int_equal(router_waiting(w->router), 2);
	answer(w, 1, "1"); /* those without an id come behind it */
	text = told(w, 0);
	assert_memory_equal(text, "{\"code\":200", 11);
	text = strstr(text, "\n{\"code\":403");
	assert_non_null(text);
	assert_non_null(strstr(text + 1, "\n{\"code\":403"));
	answer(w, 0, "2"); /* was sent before, and is answered */
	assert_non_null(strstr(told(w, 0), "\"messageId\":1}"));
	assert_int_equal(w->n_sent, 4);
	assert_non_null(strstr(w->sent[2], "\"b\""));
	assert_non_null(strstr(w->sent[3], "\"x\""));
	world_free(w);
}

static void a_read_that_waits_to_be_sent_again_may_have_been_executed(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"x\",\"messageId\":1}", 0);
	router_down(w->router, MAIN, 0);
	restrict_up_to(w, 0, 0);
	const char *text = assert_error(w, 0, "outcome_unknown", "unknown", "1");
	assert_non_null(strstr(text, reply_error_text(REPLY_OUTCOME_UNKNOWN)));
	world_free(w);
}

/* ... and those behind one that is refused have their turn. */
static void what_waits_behind_a_forbidden_one_goes(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	set_x(w, 0, 1, 0);
	refuse(w, 0, 10);
	let_pass(w, 11, 3000);
	ask(w, 0, "{\"op\":\"delete\",\"key\":\"x\",\"messageId\":2}", 3000);
	get_a(w, 0, 3, 5000, 3000);
	assert_int_equal(w->n_sent, 2);
	restrict_up_to(w, 0, 3000);
	assert_error(w, 0, "forbidden", "no", "2");
	assert_int_equal(w->n_sent, 3);
	assert_non_null(strstr(w->sent[2], "\"key\":\"a\""));
	world_free(w);
}

/* A write that was refused, and is forbidden by now, had no effect: a read before it is sent again.
 * late: the read is refused behind it. */
static void check_without_effect(bool late)
{
	struct world *w = world_new(8, 1 << 20);

	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"r\",\"messageId\":1,\"timeoutMs\":60000}", 0);
	ask(w, 0, "{\"op\":\"set\",\"key\":\"r\",\"value\":\"v\",\"messageId\":2}", 0);
	restrict_up_to(w, 0, 0);
	refuse(w, late ? 1 : 0, 1);
	refuse(w, late ? 0 : 1, 1);
	assert_error(w, 0, "forbidden", "no", "2");
	let_pass(w, 2, 3000);
	assert_int_equal(w->n_sent, 3);
	assert_non_null(strstr(w->sent[2], "\"op\":1"));
	world_free(w);
}

static void what_is_forbidden_by_now_had_no_effect_on_those_before_it(void **state)
{
	(void)state;
	check_without_effect(false);
	check_without_effect(true);
}

static void what_is_forbidden_by_now_is_not_sent_again(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"set\",\"key\":\"x1\",\"value\":\"v\",\"messageId\":1}", 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"x2\",\"messageId\":2}", 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":3}", 0);
	restrict_up_to(w, 0, 0);
	refuse(w, 0, 1);
	assert_error(w, 0, "forbidden", "no", "1");
	router_down(w->router, MAIN, 2);
	assert_error(w, 0, "outcome_unknown", "unknown", "2");
	assert_int_equal(router_waiting(w->router), 1);
	router_up(w->router, MAIN + 1, 3);
	router_expire(w->router, 900); /* the pace is slow by now */
	assert_int_equal(w->n_sent, 4);
	assert_non_null(strstr(w->sent[3], "\"a\""));
	world_free(w);
}

/* ---- requests that go as one ---- */

static struct world *world_combining(unsigned in_flight)
{
	struct router_settings settings = usual;

	settings.max_in_flight = in_flight;
	settings.combine = COMBINE_GETS | COMBINE_INCREMENTS;
	return world_with(&settings);
}

/* Each peer asks for the key a; the ids are 1 … PEERS. With the connection one frame is sent.
 * hasty: the peer with this timeout; the first is the leader. */
static struct world *world_sharing_with(const char *op, int hasty, unsigned timeout_ms)
{
	struct world *w = world_combining(1);
	char line[100];

	for (int i = 0; i < PEERS; i++) {
		snprintf(line, sizeof(line),
			 "{\"op\":\"%s\",\"key\":\"a\",\"messageId\":%d,\"timeoutMs\":%u}", op,
			 i + 1, i == hasty ? timeout_ms : 10000);
		ask(w, i, line, 0);
	}
	assert_true(router_waiting_bytes(w->router) > PEERS * sizeof(struct pending));
	router_up(w->router, MAIN, 5);
	assert_int_equal(w->n_sent, 1);
	assert_int_equal(router_in_flight(w->router), 1);
	assert_int_equal(router_waiting(w->router), 0);
	return w;
}

static struct world *world_sharing(const char *op, unsigned timeout_ms)
{
	return world_sharing_with(op, 0, timeout_ms);
}

static void gets_for_a_key_go_as_one_and_each_client_is_answered(void **state)
{
	struct world *w = world_sharing("get", 10000);

	(void)state;
	assert_int_equal(w->stats.requests_sent, 1);
	assert_int_equal(w->stats.combined, 2);
	assert_int_equal(w->stats.requests_saved, 2);
	assert_int_equal(w->stats.request_wait.sum_ms, 15);
	/* Companions have no slots: their memory counts as waiting. */
	assert_true(router_waiting_bytes(w->router) > 2 * sizeof(struct pending));
	assert_int_equal(w->peer[0].sched.bytes, 0);
	answer(w, 0, "v");
	assert_string_equal(told(w, 0), "{\"code\":200,\"value\":\"v\",\"messageId\":1}\n");
	assert_string_equal(told(w, 1), "{\"code\":200,\"value\":\"v\",\"messageId\":2}\n");
	assert_string_equal(told(w, 2), "{\"code\":200,\"value\":\"v\",\"messageId\":3}\n");
	assert_int_equal(router_waiting_bytes(w->router), 0);
	assert_int_equal(router_in_flight(w->router), 0);
	assert_int_equal(w->peer[1].sched.bytes, 0);
	assert_int_equal(w->stats.requests_answered, 3);
	router_down(w->router, MAIN, 10);
	assert_string_equal(told(w, 0), "");
	world_free(w);
}

static void increments_for_a_key_go_as_their_sum(void **state)
{
	struct world *w = world_sharing("increment", 10000);
	char text[100];

	(void)state;
	assert_non_null(strstr(w->sent[0], ",\"op\":6,\"key\":\"a\",\"value\":3}"));
	assert_int_equal(w->stats.upstream_bytes_out, strlen(w->sent[0]));
	snprintf(text, sizeof(text), "{\"code\":200,\"newValue\":13,\"messageId\":%llu}",
		 sent_id(w, 0));
	service_says(w, text, 6);
	assert_string_equal(told(w, 0), "{\"code\":200,\"newValue\":11,\"messageId\":1}\n");
	assert_string_equal(told(w, 1), "{\"code\":200,\"newValue\":12,\"messageId\":2}\n");
	assert_string_equal(told(w, 2), "{\"code\":200,\"newValue\":13,\"messageId\":3}\n");
	world_free(w);
}

static void a_sum_is_no_longer_than_a_frame_may_be(void **state)
{
	struct router_settings settings = usual;
	static const char line[] =
		"{\"op\":\"increment\",\"key\":\"a\",\"value\":9,\"messageId\":1}";

	(void)state;
	settings.combine = COMBINE_INCREMENTS;
	settings.max_frame = wire_length(strlen("\"op\":6,\"key\":\"a\",\"value\":9}"));
	struct world *w = world_with(&settings);
	ask(w, 0, line, 0);
	ask(w, 1, line, 0);
	router_up(w->router, MAIN, 5);
	assert_int_equal(w->n_sent, 2);
	world_free(w);
}

static void one_that_cannot_be_told_its_share_of_a_sum_is_told_so(void **state)
{
	struct world *w = world_sharing("increment", 10000);

	(void)state;
	answer(w, 0, "no newValue");
	assert_error(w, 0, "bad_upstream", "unknown", "1");
	assert_error(w, 1, "bad_upstream", "unknown", "2");
	/* The last one's share is the whole, which is passed on as it is. */
	assert_non_null(strstr(told(w, 2), "\"code\":200,\"value\":\"no newValue\""));
	assert_int_equal(router_in_flight(w->router), 0);
	world_free(w);
}

static void an_unusable_answer_fails_all_that_went_as_one(void **state)
{
	struct world *w = world_sharing("get", 10000);

	(void)state;
	garble(w, 0, 6);
	assert_error(w, 0, "bad_upstream", "unknown", "1");
	assert_error(w, 1, "bad_upstream", "unknown", "2");
	assert_error(w, 2, "bad_upstream", "unknown", "3");
	assert_int_equal(router_in_flight(w->router), 0);
	assert_int_equal(router_waiting_bytes(w->router), 0);
	world_free(w);
}

static void a_companion_leads_when_the_leaders_time_is_up(void **state)
{
	struct world *w = world_sharing("get", 50);

	(void)state;
	router_expire(w->router, 50);
	assert_error(w, 0, "timeout", "unknown", "1");
	assert_int_equal(router_in_flight(w->router), 1);
	/* The heir has the slot and counts no more as waiting. */
	assert_true(router_waiting_bytes(w->router) > sizeof(struct pending));
	router_leave(w->router, &w->peer[2], 60);
	router_join(w->router, &w->peer[2]);
	answer(w, 0, "v");
	assert_string_equal(told(w, 0), "");
	assert_string_equal(told(w, 1), "{\"code\":200,\"value\":\"v\",\"messageId\":2}\n");
	assert_string_equal(told(w, 2), "");
	assert_int_equal(w->stats.upstream_late, 0);
	assert_int_equal(router_waiting_bytes(w->router), 0);
	assert_int_equal(router_in_flight(w->router), 0);
	world_free(w);
}

/* Clients that come and leave again do not pile them up: nobody needs their answers. */
static void companions_end_with_their_clients(void **state)
{
	struct world *w = world_sharing("increment", 10000);
	char text[100];

	(void)state;
	router_leave(w->router, &w->peer[1], 10);
	router_join(w->router, &w->peer[1]);
	assert_int_equal(w->stats.ended[OP_INCREMENT][OUTCOME_ABANDONED], 1);
	router_leave(w->router, &w->peer[0], 10); /* the leader's frame is out */
	router_join(w->router, &w->peer[0]);
	assert_int_equal(w->stats.ended[OP_INCREMENT][OUTCOME_ABANDONED], 1);
	assert_int_equal(router_in_flight(w->router), 1);
	snprintf(text, sizeof(text), "{\"code\":200,\"newValue\":13,\"messageId\":%llu}",
		 sent_id(w, 0));
	service_says(w, text, 20);
	assert_string_equal(told(w, 2), "{\"code\":200,\"newValue\":13,\"messageId\":3}\n");
	assert_string_equal(told(w, 1), "");
	assert_int_equal(router_waiting_bytes(w->router), 0);
	world_free(w);
}

/* An increment is given up on the former connection. The answer that the others are given settles
 * it: a request of its client for the key goes on. */
static void check_settled(int hasty, bool usable)
{
	struct world *w = world_sharing_with("increment", hasty, 50);
	char text[100];

	router_expire(w->router, 50);
	assert_non_null(strstr(told(w, hasty), "\"reason\":\"timeout\""));
	assert_true(router_move(w->router, NEXT, 60));
	ask(w, hasty, "{\"op\":\"delete\",\"key\":\"a\",\"messageId\":4}", 60);
	ask(w, hasty, "{\"op\":\"get\",\"key\":\"b\",\"messageId\":5}", 60);
	assert_int_equal(w->n_sent, 1);
	snprintf(text, sizeof(text), "{\"code\":%s,\"newValue\":13,\"messageId\":%llu}",
		 usable ? "200" : "null", sent_id(w, 0));
	service_says(w, text, 70);
	assert_int_equal(w->n_sent, 2);
	assert_non_null(strstr(w->sent[1], "\"op\":4"));
	assert_false(router_move(w->router, NEXT + 1, 80));
	world_free(w);
}

static void an_answer_to_the_heir_settles_the_leaders_write(void **state)
{
	(void)state;
	check_settled(0, true);
}

static void an_unusable_answer_to_the_heir_settles_it_as_well(void **state)
{
	(void)state;
	check_settled(0, false);
}

static void an_answer_to_the_leader_settles_a_companions_write(void **state)
{
	(void)state;
	check_settled(1, true);
	check_settled(2, false);
}

static void those_that_went_as_one_are_repeated_together(void **state)
{
	struct world *w = world_sharing("get", 10000);

	(void)state;
	router_down(w->router, MAIN, 10);
	assert_int_equal(router_waiting(w->router), 3);
	assert_int_equal(w->stats.requests_resent, 3);
	size_t bytes = router_waiting_bytes(w->router);
	assert_true(bytes > 3 * sizeof(struct pending) && bytes < 6 * sizeof(struct pending));
	router_up(w->router, NEXT, 20);
	assert_int_equal(w->n_sent, 2);
	answer(w, 1, "v");
	assert_string_equal(told(w, 0), "{\"code\":200,\"value\":\"v\",\"messageId\":1}\n");
	assert_string_equal(told(w, 1), "{\"code\":200,\"value\":\"v\",\"messageId\":2}\n");
	assert_string_equal(told(w, 2), "{\"code\":200,\"value\":\"v\",\"messageId\":3}\n");
	world_free(w);
}

static void increments_that_went_as_one_are_not_repeated(void **state)
{
	struct world *w = world_sharing("increment", 10000);

	(void)state;
	router_down(w->router, MAIN, 10);
	assert_error(w, 0, "outcome_unknown", "unknown", "1");
	assert_error(w, 1, "outcome_unknown", "unknown", "2");
	assert_error(w, 2, "outcome_unknown", "unknown", "3");
	assert_int_equal(w->stats.requests_outcome_unknown, 3);
	assert_int_equal(router_waiting_bytes(w->router), 0);
	world_free(w);
}

static void those_that_went_as_one_are_refused_as_one(void **state)
{
	struct world *w = world_sharing("get", 10000);

	(void)state;
	refuse(w, 0, 10);
	assert_int_equal(router_waiting(w->router), 3);
	assert_int_equal(w->stats.upstream_refused, 1);
	int64_t now = 10;
	for (; w->n_sent == 1; now++)
		router_expire(w->router, now);
	/* Since the refusal, beside the 5 ms before. */
	assert_int_equal(w->stats.request_wait.sum_ms, 3 * 5 + 3 * (now - 1 - 10));
	assert_int_equal(w->n_sent, 2);
	answer(w, 1, "v");
	for (int i = 0; i < PEERS; i++)
		assert_non_null(strstr(told(w, i), "\"value\":\"v\""));
	world_free(w);
}

/* The second client's get has to wait for one on the former connection. */
static void one_that_its_order_holds_back_does_not_go_along(void **state)
{
	struct world *w = world_combining(8);

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 1, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":1}", 0);
	router_move(w->router, NEXT, 0);
	ask(w, 1, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":2}", 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":3}", 0);
	assert_int_equal(w->n_sent, 2);
	answer(w, 1, "v");
	assert_string_equal(told(w, 1), "");
	assert_string_equal(told(w, 0), "{\"code\":200,\"value\":\"v\",\"messageId\":3}\n");
	answer(w, 0, "u");
	assert_int_equal(w->n_sent, 3);
	world_free(w);
}

static void one_whose_time_is_up_while_it_waits_goes_with_nobody(void **state)
{
	struct world *w = world_combining(8);

	(void)state;
	get_a(w, 0, 1, 10, 0);
	get_a(w, 1, 2, 1000, 0);
	get_a(w, 2, 3, 1000, 0);
	router_expire(w->router, 10);
	assert_error(w, 0, "upstream_down", "no", "1");
	router_leave(w->router, &w->peer[2], 10);
	router_join(w->router, &w->peer[2]);
	router_up(w->router, MAIN, 20);
	assert_int_equal(w->n_sent, 1);
	assert_int_equal(w->stats.combined, 0);
	answer(w, 0, "v");
	assert_string_equal(told(w, 1), "{\"code\":200,\"value\":\"v\",\"messageId\":2}\n");
	world_free(w);
}

static void what_is_combined_may_change(void **state)
{
	struct router_settings settings = usual;
	struct world *w = world_combining(8);

	(void)state;
	router_set(w->router, &settings, 100);
	get_a(w, 0, 1, 1000, 100);
	get_a(w, 1, 2, 1000, 100);
	router_up(w->router, MAIN, 100);
	assert_int_equal(w->n_sent, 2);
	answer(w, 0, "v");
	answer(w, 1, "v");
	router_down(w->router, MAIN, 100);
	assert_int_equal(w->stats.combined, 0);
	settings.combine = COMBINE_GETS;
	router_set(w->router, &settings, 100);
	get_a(w, 0, 3, 1000, 100);
	get_a(w, 1, 4, 1000, 100);
	router_up(w->router, NEXT, 100);
	assert_int_equal(w->stats.combined, 1);
	world_free(w);
}

/* ---- somebody who watches ---- */

/* The log of a watcher's calls, one letter each: t: taken, s: sent, a: answered here, e: answered
 * elsewhere, o: over, m: was asked for it. The digit behind it is the last of the messageId. */
struct watcher {
	char log[200];
	bool knows; /* it serves what it is asked for */
};

static void noted(struct watcher *v, char what, const struct pending *p)
{
	size_t n = strlen(v->log);
	struct span id = pending_id(p);

	assert_true(n + 3 < sizeof(v->log));
	v->log[n] = what;
	v->log[n + 1] = id.n ? id.p[id.n - 1] : '-';
	v->log[n + 2] = '\0';
}

static void watch_taken(void *owner, struct pending *p)
{
	p->watched = true;
	noted(owner, 't', p);
}

static bool watch_serve(void *owner, struct pending *p, struct buf *out,
			enum request_outcome *outcome)
{
	struct watcher *v = owner;

	noted(v, 'm', p);
	if (!v->knows)
		return false;
	reply_ok(out, pending_id(p));
	*outcome = OUTCOME_OK;
	return true;
}

static void watch_sent(void *owner, struct pending *p)
{
	noted(owner, 's', p);
}

static void watch_answered(void *owner, struct pending *p, const struct wire_frame *frame,
			   bool here)
{
	(void)frame;
	noted(owner, here ? 'a' : 'e', p);
}

static void watch_over(void *owner, struct pending *p)
{
	assert_false(p->watched);
	noted(owner, 'o', p);
}

static const struct router_watch watch = {
	.taken = watch_taken,
	.serve = watch_serve,
	.sent = watch_sent,
	.answered = watch_answered,
	.over = watch_over,
};

static void assert_noted(struct watcher *v, const char *want)
{
	assert_string_equal(v->log, want);
	v->log[0] = '\0';
}

static void a_watcher_hears_of_each_request_and_of_reads_what_becomes_of_them(void **state)
{
	struct world *w = world_new(8, 1 << 20);
	struct watcher v = {.log = ""};

	(void)state;
	router_watch(w->router, &watch, &v);
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":1}", 0);
	ask(w, 1, "{\"op\":\"set\",\"key\":\"b\",\"value\":\"\",\"messageId\":2}", 0);
	ask(w, 2, "{\"op\":\"range\",\"key\":\"c\",\"endKey\":\"d\",\"messageId\":3}", 0);
	assert_noted(&v, "t1s1t2t3s3");
	answer(w, 0, "1");
	assert_noted(&v, "a1o1");
	answer(w, 1, "2");
	assert_noted(&v, "o2");
	router_move(w->router, NEXT, 0);
	answer(w, 2, "3");
	assert_noted(&v, "e3o3");
	router_stop(w->router);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":4}", 0);
	assert_noted(&v, "t4o4");
	world_free(w);
}

static void a_watcher_may_know_what_a_get_waits_for(void **state)
{
	struct world *w = world_new(8, 1 << 20);
	struct watcher v = {.log = ""};

	(void)state;
	router_watch(w->router, &watch, &v);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":1}", 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":2,\"fresh\":true}", 0);
	ask(w, 0, "{\"op\":\"set\",\"key\":\"a\",\"value\":\"\",\"messageId\":3}", 0);
	read_key(w, 0, "\"a\"", true);
	v.log[0] = '\0';
	router_pump(w->router, 0);
	assert_noted(&v, "m1");
	assert_int_equal(router_waiting(w->router), 4);
	v.knows = true;
	router_pump(w->router, 0); /* there is no connection yet */
	assert_noted(&v, "m1o1");
	assert_string_equal(told(w, 0), "{\"code\":200,\"messageId\":1}\n");
	assert_int_equal(w->stats.ended[OP_GET][OUTCOME_OK], 1);
	router_up(w->router, MAIN, 0);
	assert_noted(&v, "s2s-");
	assert_int_equal(w->n_sent, 3);
	w->sendable = false;
	ask(w, 1, "{\"op\":\"get\",\"key\":\"b\",\"messageId\":4}", 0);
	w->sendable = true;
	router_pump(w->router, 0);
	assert_string_equal(told(w, 1), "{\"code\":200,\"messageId\":4}\n");
	assert_int_equal(w->n_sent, 3); /* it is not sent any more */
	world_free(w);
}

static void a_new_watcher_hears_of_the_writes_under_way(void **state)
{
	struct world *w = world_new(2, 1 << 20);
	struct watcher v = {.log = ""};

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"set\",\"key\":\"a\",\"value\":\"\",\"messageId\":1}", 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":2}", 0);
	hold(w, 0, "{\"op\":\"subscribe\",\"key\":\"a\",\"messageId\":3}");
	ask(w, 0, "{\"op\":\"set\",\"key\":\"b\",\"value\":\"\",\"messageId\":4}", 0);
	router_watch(w->router, &watch, &v);
	assert_true(!strcmp(v.log, "t1t4") || !strcmp(v.log, "t4t1"));
	v.log[0] = '\0';
	router_watch(w->router, NULL, NULL);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"c\",\"messageId\":5}", 0);
	assert_noted(&v, "");
	answer(w, 0, "x");
	assert_noted(&v, "o1"); /* as it was watched already */
	answer(w, 1, "x");
	assert_noted(&v, "");
	router_watch(w->router, &watch, &v);
	v.log[0] = '\0';
	world_free(w);
}

static void a_watcher_hears_of_companions_too(void **state)
{
	struct world *w = world_combining(8);
	struct watcher v = {.log = ""};

	(void)state;
	router_watch(w->router, &watch, &v);
	get_a(w, 0, 1, 1000, 0);
	get_a(w, 1, 2, 1000, 0);
	ask(w, 0, "{\"op\":\"increment\",\"key\":\"b\",\"messageId\":3}", 0);
	ask(w, 1, "{\"op\":\"increment\",\"key\":\"b\",\"messageId\":4}", 0);
	v.log[0] = '\0';
	router_up(w->router, MAIN, 5);
	assert_int_equal(w->stats.combined, 2);
	assert_noted(&v, "m1s1s2");
	answer(w, 0, "v");
	assert_noted(&v, "a1o1a2o2");
	world_free(w);
}

/* ---- budgets ---- */

static struct budget *share_budget(struct world *w, struct budget_limits limits, int peers)
{
	struct budget *b = budget_new("web");

	budget_set(b, &limits);
	for (int i = 0; i < peers; i++) {
		struct budgets *s = budgets_new(1);
		s->budget[0] = budget_ref(b);
		budget_admit(&w->peer[i], s);
	}
	return b;
}

static void free_budget(struct world *w, struct budget *b)
{
	for (int i = 0; i < PEERS; i++)
		router_leave(w->router, &w->peer[i], 0);
	router_abandon(w->router);
	assert_int_equal(b->in_flight, 0);
	assert_int_equal(b->n_waiting, 0);
	for (int i = 0; i < PEERS; i++) {
		budget_admit(&w->peer[i], NULL);
		router_join(w->router, &w->peer[i]);
	}
	assert_int_equal(b->refs, 1);
	budget_unref(b);
	world_free(w);
}

static void clients_of_a_section_share_its_rate(void **state)
{
	struct world *w = world_new(8, 1 << 20);
	struct budget *b = share_budget(w, (struct budget_limits){.rate = 2}, 2);

	(void)state;
	router_up(w->router, MAIN, 0);
	assert_int_equal(router_budget_wait_ms(w->router, NULL, 0), 0);
	assert_int_equal(router_budget_wait_ms(w->router, &w->peer[0], 0), 0);
	get_a(w, 0, 1, 5000, 0);
	get_a(w, 1, 2, 5000, 0);
	assert_int_equal(w->n_sent, 2);
	assert_in_range(router_budget_wait_ms(w->router, &w->peer[0], 0), 500, 501);
	get_a(w, 0, 3, 5000, 0);
	get_a(w, 1, 4, 5000, 0);
	get_a(w, 2, 5, 5000, 0); /* of no section */
	assert_int_equal(w->n_sent, 3);
	assert_in_range(w->wake, 500, 501);
	router_expire(w->router, 499);
	assert_int_equal(w->n_sent, 3);
	assert_in_range(router_expire(w->router, 501), 1000, 1001);
	assert_int_equal(w->n_sent, 4);
	assert_non_null(strstr(w->sent[3], "\"op\":1"));
	router_expire(w->router, 1001);
	assert_int_equal(w->n_sent, 5);
	answer(w, 3, "v"); /* they took turns */
	assert_string_equal(told(w, 0), "{\"code\":200,\"value\":\"v\",\"messageId\":3}\n");
	free_budget(w, b);
}

static void a_budget_wakes_nobody_without_a_connection(void **state)
{
	struct world *w = world_new(8, 1 << 20);
	struct budget *b = share_budget(w, (struct budget_limits){.rate = 1}, 1);

	(void)state;
	router_up(w->router, MAIN, 0);
	get_a(w, 0, 1, 5000, 0);
	get_a(w, 0, 2, 5000, 0);
	router_down(w->router, MAIN, 10);
	assert_int_equal(router_expire(w->router, 20), 5000);
	router_up(w->router, NEXT, 30);
	assert_in_range(w->wake, 1000, 1001);
	assert_int_equal(w->n_sent, 1);
	router_expire(w->router, 1001); /* the first one again, which is paid for */
	assert_int_equal(w->n_sent, 3);
	router_stop(w->router);
	free_budget(w, b);
}

static void one_that_its_budget_would_not_let_go_in_time_is_refused_at_once(void **state)
{
	struct world *w = world_new(8, 1 << 20);
	struct budget *b = share_budget(w, (struct budget_limits){.rate = 2}, 1);

	(void)state;
	get_a(w, 0, 1, 1000, 0);
	get_a(w, 0, 2, 1000, 0);
	get_a(w, 0, 3, 1000, 0);
	get_a(w, 0, 4, 100, 0); /* without a connection it is not known */
	assert_string_equal(told(w, 0), "");
	router_expire(w->router, 100);
	assert_error(w, 0, "upstream_down", "no", "4");
	router_up(w->router, MAIN, 100);
	assert_int_equal(w->n_sent, 2);
	get_a(w, 0, 5, 998, 100); /* after 1000 ms */
	const char *text = assert_error(w, 0, "rate_limited", "no", "5");
	assert_non_null(strstr(text, "[access web] together have 2 requests/s"));
	assert_non_null(strstr(text, "\"retryAfterMs\":50"));
	assert_int_equal(w->stats.requests_refused_early, 1);
	assert_int_equal(b->refused[BUDGET_RATE_LIMITED], 1);
	get_a(w, 0, 6, 1000, 100); /* a millisecond more may be a matter of rounding */
	get_a(w, 0, 7, 100, 100);
	text = assert_error(w, 0, "rate_limited", "no", "7");
	assert_non_null(strstr(text, "\"retryAfterMs\":140")); /* 1500 less its own time */
	free_budget(w, b);
}

static void what_is_past_its_time_goes_along_with_nothing(void **state)
{
	struct router_settings settings = usual;
	static const char *const line =
		"{\"op\":\"increment\",\"key\":\"a\",\"messageId\":2,\"timeoutMs\":1500}";

	(void)state;
	settings.combine = COMBINE_INCREMENTS;
	struct world *w = world_with(&settings);
	struct budget *b =
		share_budget(w, (struct budget_limits){.rate = 1, .max_in_flight = 1}, 1);
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"b\",\"messageId\":1,\"timeoutMs\":5000}", 0);
	ask(w, 0, line, 0);
	ask(w, 1, line, 1500);
	router_expire(w->router, 1500);
	assert_error(w, 0, "queue_full", "no", "2");
	assert_int_equal(w->n_sent, 2);
	assert_non_null(strstr(w->sent[1], "\"value\":1}"));
	free_budget(w, b);
}

static void what_can_go_along_is_not_refused_for_its_budget(void **state)
{
	struct router_settings settings = usual;

	(void)state;
	settings.max_in_flight = 1;
	settings.combine = COMBINE_GETS;
	struct world *w = world_with(&settings);
	struct budget *b = share_budget(w, (struct budget_limits){.rate = 1}, 1);
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"b\",\"messageId\":1}",
	    0); /* its rate, and the place */
	get_a(w, 1, 2, 500, 0);
	get_a(w, 0, 3, 500, 0);
	assert_string_equal(told(w, 0), "");
	answer_id_at(w, sent_id(w, 0), "v", 100);
	assert_int_equal(w->n_sent, 2);
	answer(w, 1, "v");
	assert_non_null(strstr(told(w, 0), "\"messageId\":3}"));
	free_budget(w, b);
}

static void a_place_that_is_free_too_late_is_what_was_lacking(void **state)
{
	struct world *w = world_new(8, 1 << 20);
	struct budget *b = share_budget(w, (struct budget_limits){.max_in_flight = 1}, 2);

	(void)state;
	router_up(w->router, MAIN, 0);
	get_a(w, 0, 1, 100, 0);
	get_a(w, 1, 2, 100, 0);
	router_expire(w->router, 100);
	assert_error(w, 0, "timeout", "unknown", "1");
	const char *text = assert_error(w, 1, "queue_full", "no", "2");
	assert_non_null(strstr(text, "max_in_flight of [access web] was reached (1)"));
	assert_int_equal(b->refused[BUDGET_QUEUE_FULL], 1);
	free_budget(w, b);
}

static void clients_of_a_section_share_its_places(void **state)
{
	struct world *w = world_new(8, 1 << 20);
	struct budget *b = share_budget(w, (struct budget_limits){.max_in_flight = 1}, 2);

	(void)state;
	router_up(w->router, MAIN, 0);
	get_a(w, 0, 1, 5000, 0);
	get_a(w, 1, 2, 100, 0);
	get_a(w, 0, 3, 5000, 0);
	get_a(w, 2, 4, 5000, 0);
	assert_int_equal(w->n_sent, 2);
	assert_int_equal(router_expire(w->router, 100), 5000);
	const char *text = assert_error(w, 1, "queue_full", "no", "2");
	assert_non_null(strstr(text, "max_in_flight of [access web] was reached (1)"));
	assert_null(strstr(text, "retryAfterMs"));
	assert_int_equal(b->refused[BUDGET_QUEUE_FULL], 1);
	answer(w, 0, "v");
	assert_int_equal(w->n_sent, 3);
	answer(w, 2, "v");
	assert_string_equal(told(w, 0), "{\"code\":200,\"value\":\"v\",\"messageId\":1}\n"
					"{\"code\":200,\"value\":\"v\",\"messageId\":3}\n");
	free_budget(w, b);
}

/* When it came, its turn was in time; then its budget got a lower rate. */
static void one_whose_budget_has_become_slower_ends_as_rate_limited(void **state)
{
	struct world *w = world_new(16, 1 << 20);
	struct budget *b = share_budget(w, (struct budget_limits){.rate = 10}, 1);

	(void)state;
	router_up(w->router, MAIN, 0);
	for (int i = 0; i < 10; i++)
		get_a(w, 0, i, 60000, 0);
	get_a(w, 0, 11, 300, 0);
	budget_set(b, &(struct budget_limits){.rate = 1});
	router_expire(w->router, 300);
	const char *text = assert_error(w, 0, "rate_limited", "no", "11");
	/* The client has left the budget's queue with its last request, but counts here: 2 s. */
	assert_non_null(strstr(text, "\"retryAfterMs\":"));
	assert_int_equal(strtol(strstr(text, "retryAfterMs\":") + 14, NULL, 10), 1701);
	assert_int_equal(b->refused[BUDGET_RATE_LIMITED], 1);
	free_budget(w, b);
}

/* ---- the pace that was learnt ---- */

static void what_was_learnt_goes_on_in_another_router(void **state)
{
	struct world *w = world_new(8, 1 << 20), *next = world_new(8, 1 << 20);
	double rate, goal;

	(void)state;
	router_up(w->router, MAIN, 0);
	assert_false(router_learned_pace(w->router, 0, &rate, &goal));
	get_a(w, 0, 1, 60000, 0);
	refuse(w, 0, 10);
	assert_true(router_learned_pace(w->router, 10, &rate, &goal));
	assert_true(rate == 1 && goal == 50);
	assert_false(router_learned_pace(w->router, 100000, &rate, &goal)); /* it has recovered */
	router_restore_pace(next->router, 500, 3, 50);
	assert_true(router_pace(next->router, 500) == 3);
	assert_true(router_learned_pace(next->router, 500, &rate, &goal));
	assert_true(rate == 3 && goal == 50);
	world_free(w);
	world_free(next);
}

static void a_token_counts_against_the_rate(void **state)
{
	struct router_settings settings = usual;

	(void)state;
	settings.rate_limit = 10;
	struct world *w = world_with(&settings);
	router_up(w->router, MAIN, 0);
	assert_int_equal(router_spend(w->router, 0), 0);
	get_a(w, 0, 1, 5000, 0);
	assert_int_equal(w->n_sent, 0);
	assert_in_range(w->wake, 100, 101);
	router_expire(w->router, 101);
	assert_int_equal(w->n_sent, 1);
	router_spend_refused(w->router, 101);
	assert_true(router_pace(w->router, 101) == 5);
	router_spend_refused(w->router, 101); /* once for each */
	assert_true(router_pace(w->router, 101) == 5);
	world_free(w);
}

/* ---- suspect keys ---- */

static void read_suspect(struct world *w, int reading, int64_t now)
{
	static const struct json_value key = {.text = SPAN("\"doubted\""), .type = JSON_STRING};

	router_read_alone(w->router, &w->reading[reading], &key, now);
}

static void a_suspect_key_is_read_with_nothing_else_in_flight(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	get_a(w, 0, 1, 60000, 0);
	read_suspect(w, 0, 100);
	assert_int_equal(w->n_sent, 1);
	get_a(w, 1, 2, 60000, 100);
	assert_int_equal(w->n_sent, 2);
	garble(w, 0, 100);
	assert_int_equal(w->reading[0].sent, 0);
	garble(w, 1, 100);
	assert_int_equal(w->reading[0].sent, 1);
	get_a(w, 0, 3, 60000, 100); /* waits for it, but not for long */
	assert_int_equal(w->n_sent, 3);
	router_expire(w->router, 349);
	assert_int_equal(w->n_sent, 3);
	router_expire(w->router, 350);
	assert_int_equal(w->n_sent, 4);
	router_lost(w->router, MAIN, 1011, false, 400);
	assert_ended(w, 0, 1, ROUTER_READ_BLAMED);
	world_free(w);
}

static void others_go_on_as_soon_as_a_suspect_key_was_answered(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	read_suspect(w, 0, 100);
	get_a(w, 0, 1, 60000, 110);
	assert_int_equal(w->n_sent, 1);
	assert_int_equal(w->wake, 350);
	garble(w, 0, 120);
	assert_ended(w, 0, 1, ROUTER_READ_FAILED);
	get_a(w, 1, 2, 60000, 120);
	assert_int_equal(w->n_sent, 3);
	world_free(w);
}

static void a_suspect_key_has_its_turn_though_others_go_on(void **state)
{
	struct router_settings settings = usual;

	(void)state;
	settings.request_timeout_ms = 5000;
	struct world *w = world_with(&settings);
	router_up(w->router, MAIN, 0);
	get_a(w, 0, 1, 60000, 0);
	read_suspect(w, 0, 100);
	assert_int_equal(w->wake, 1100);
	router_expire(w->router, 1099);
	get_a(w, 1, 2, 60000, 1099);
	assert_int_equal(w->n_sent, 2);
	router_expire(w->router, 1100); /* after a second nothing else is sent */
	get_a(w, 1, 3, 60000, 1100);
	assert_int_equal(w->n_sent, 2);
	assert_int_equal(w->wake, 1350);
	router_expire(w->router, 1349);
	assert_int_equal(w->reading[0].sent, 0);
	router_expire(w->router, 1350);
	assert_int_equal(w->reading[0].sent, 1);
	assert_int_equal(w->n_sent, 3);
	router_expire(w->router, 1600);
	assert_int_equal(w->n_sent, 4);
	world_free(w);
}

static void a_key_that_is_too_long_is_not_read(void **state)
{
	static const struct json_value key = {.text = SPAN("\"0123456789\""), .type = JSON_STRING},
				       short_key = {.text = SPAN("\"0\""), .type = JSON_STRING};
	struct router_settings settings = usual;

	(void)state;
	settings.max_frame = wire_length(strlen("\"op\":1,\"key\":\"0123456789\"}")) - 1;
	struct world *w = world_with(&settings);
	router_up(w->router, MAIN, 0);
	router_read(w->router, &w->reading[0], &key, true, 0);
	assert_ended(w, 0, 0, ROUTER_READ_TOO_LONG);
	assert_int_equal(w->stats.requests_too_long, 1);
	assert_true(router_takes_key(w->router, &short_key, 0));
	assert_false(router_takes_key(w->router, &key, 0));
	settings.max_frame++;
	router_set(w->router, &settings, 0);
	assert_true(router_takes_key(w->router, &key, 0));
	router_read(w->router, &w->reading[1], &key, true, 0);
	assert_int_equal(w->reading[1].sent, 1);
	world_free(w);
}

/* ---- at the edges ---- */

static void one_that_is_too_long_is_told_how_long_it_is(void **state)
{
	struct router_settings settings = usual;

	(void)state;
	settings.max_frame = wire_length(strlen("\"op\":1,\"key\":\"long\"}")) - 1;
	struct world *w = world_with(&settings);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"long\",\"messageId\":1}", 0);
	const char *text = assert_error(w, 0, "too_large", "no", "1");
	char want[100];
	snprintf(want, sizeof(want), "has %zu bytes as it would be sent, and max_frame is %zu",
		 settings.max_frame + 1, settings.max_frame);
	assert_non_null(strstr(text, want));
	assert_null(strstr(text, "retryAfterMs"));
	settings.max_frame++;
	router_set(w->router, &settings, 0);
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"long\",\"messageId\":2}", 0);
	router_down(w->router, MAIN, 0);
	settings.max_frame--;
	router_set(w->router, &settings, 0);
	router_up(w->router, NEXT, 0); /* by now it is too long, but it was sent before */
	assert_error(w, 0, "outcome_unknown", "unknown", "2");
	assert_int_equal(w->stats.requests_too_long, 2);
	world_free(w);
}

static void one_that_is_as_long_as_one_that_ended_a_connection_is_told_so(void **state)
{
	struct world *w = world_new(8, 1 << 20);
	char line[BLAME_SHORT + 200];

	(void)state;
	snprintf(line, sizeof(line),
		 "{\"op\":\"set\",\"key\":\"k\",\"value\":\"%0*d\",\"messageId\":1}", BLAME_SHORT,
		 0);
	router_up(w->router, MAIN, 0);
	ask(w, 0, line, 0);
	size_t sent = wire_length(strlen(strstr(w->sent[0], "\"op\"")));
	assert_true(router_lost(w->router, MAIN, 1009, false, 10));
	told(w, 0);
	ask(w, 1, line, 20);
	const char *text = assert_error(w, 1, "too_large", "no", "1");
	char want[100];
	snprintf(want, sizeof(want), "over a message of %zu bytes, and this one has %zu", sent,
		 sent);
	assert_non_null(strstr(text, want));
	world_free(w);
}

static void suspect_keys_have_their_turns_a_second_apart_under_load(void **state)
{
	struct router_settings settings = usual;

	(void)state;
	settings.request_timeout_ms = 50000;
	struct world *w = world_with(&settings);
	router_up(w->router, MAIN, 0);
	get_a(w, 0, 1, 60000, 0); /* is never answered */
	read_suspect(w, 0, 100);
	router_expire(w->router, 600);
	read_suspect(w, 1, 600); /* the first waits since 100 all the same */
	router_expire(w->router, 1100);
	router_expire(w->router, 1350);
	assert_int_equal(w->reading[0].sent, 1);
	garble(w, 1, 1400);
	assert_int_equal(w->reading[0].ended, 1);
	assert_int_equal(w->wake, 2350); /* a second after the first was sent */
	router_expire(w->router, 2350);
	router_expire(w->router, 2599);
	assert_int_equal(w->reading[1].sent, 0);
	router_expire(w->router, 2600);
	assert_int_equal(w->reading[1].sent, 1);
	world_free(w);
}

static void what_waits_when_its_client_goes_on_trial_waits_a_second(void **state)
{
	struct world *w = world_new(1, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	set_x(w, 0, 1, 5000);
	get_a(w, 0, 2, 60000, 5000);
	get_a(w, 1, 3, 60000, 5000);
	router_lost(w->router, MAIN, 1011, false, 5000); /* it was alone in flight */
	assert_true(w->peer[0].sched.on_trial);
	router_up(w->router, NEXT, 5000);
	assert_int_equal(w->n_sent, 2); /* the other client's */
	router_expire(w->router, 5999);
	assert_int_equal(w->n_sent, 2);
	assert_int_equal(w->wake, 6000);
	garble(w, 1, 5999);
	assert_int_equal(w->n_sent, 3); /* nothing else waits or is in flight */
	world_free(w);
}

static void one_that_could_go_along_is_not_refused_early(void **state)
{
	struct router_settings settings = usual;

	(void)state;
	settings.rate_limit = 10;
	settings.combine = COMBINE_GETS;
	struct world *w = world_with(&settings);
	router_up(w->router, MAIN, 1000);
	ask(w, 2, "{\"op\":\"get\",\"key\":\"z\",\"messageId\":1}", 1000);
	get_a(w, 0, 2, 60000, 1000);
	get_a(w, 1, 3, 10, 1000);
	assert_string_equal(told(w, 1), "");
	ask(w, 1, "{\"op\":\"get\",\"key\":\"b\",\"messageId\":4,\"timeoutMs\":10}", 1000);
	assert_error(w, 1, "rate_limited", "no", "4");
	world_free(w);
}

static void a_millisecond_too_little_may_be_enough(void **state)
{
	struct router_settings settings = usual;

	(void)state;
	settings.rate_limit = 10;
	struct world *w = world_with(&settings);
	router_up(w->router, MAIN, 1000);
	get_a(w, 0, 1, 1000, 1000);
	get_a(w, 1, 2, 99, 1000); /* would be sent after 101 */
	assert_non_null(strstr(assert_error(w, 1, "rate_limited", "no", "2"),
			       "\"retryAfterMs\":101")); /* another one then, not 2 */
	get_a(w, 1, 3, 100, 1000);
	assert_string_equal(told(w, 1), "");
	get_a(w, 2, 4, 10, 1000); /* after two */
	assert_non_null(
		strstr(assert_error(w, 2, "rate_limited", "no", "4"), "\"retryAfterMs\":191"));
	world_free(w);
}

static void room_in_a_budget_that_one_has_no_use_for_is_the_next_ones(void **state)
{
	struct router_settings settings = usual;

	(void)state;
	struct world *w = world_with(&settings);
	struct budget *b = share_budget(w, (struct budget_limits){.rate = 1}, 2);
	router_up(w->router, MAIN, 0);
	get_a(w, 0, 1, 60000, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a long key\",\"messageId\":2,\"timeoutMs\":5000}", 0);
	get_a(w, 1, 3, 60000, 0);
	settings.max_frame = wire_length(strlen("\"op\":1,\"key\":\"a\"}"));
	router_set(w->router, &settings, 0);
	assert_int_equal(w->n_sent, 1);
	router_expire(w->router, 1001);
	assert_error(w, 0, "too_large", "no", "2");
	assert_int_equal(w->n_sent, 2);
	free_budget(w, b);
}

/* ... even if there is always somebody else who could be sent. */
static void one_whose_budget_has_room_again_takes_its_turn_among_the_others(void **state)
{
	struct world *w = world_new(1, 1 << 20);
	struct budget *b = share_budget(w, (struct budget_limits){.rate = 1}, 1);

	(void)state;
	router_up(w->router, MAIN, 0);
	get_a(w, 0, 1, 60000, 0);
	garble(w, 0, 1);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"short\",\"messageId\":2,\"timeoutMs\":60000}", 1);
	for (int i = 3; i < 7; i++)
		get_a(w, 2, i, 60000, 1);
	garble(w, 1, 900);
	assert_null(strstr(w->sent[2], "short"));
	garble(w, 2, 1001);
	garble(w, 3, 1002);
	assert_int_equal(w->n_sent, 5);
	assert_true(strstr(w->sent[3], "short") || strstr(w->sent[4], "short"));
	free_budget(w, b);
}

static void a_newcomer_takes_no_room_that_others_wait_for(void **state)
{
	struct world *w = world_new(8, 1 << 20);
	struct budget *b = share_budget(w, (struct budget_limits){.rate = 2}, 2);

	(void)state;
	router_up(w->router, MAIN, 0);
	get_a(w, 0, 1, 60000, 0);
	get_a(w, 0, 2, 60000, 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"first\",\"messageId\":3}", 0);
	ask(w, 1, "{\"op\":\"get\",\"key\":\"second\",\"messageId\":4}", 501);
	assert_int_equal(w->n_sent, 3);
	assert_non_null(strstr(w->sent[2], "first"));
	free_budget(w, b);
}

static void one_without_room_in_its_budget_waits_with_it_though_nothing_can_be_sent(void **state)
{
	struct world *w = world_new(8, 1 << 20);
	struct budget *b = share_budget(w, (struct budget_limits){.max_in_flight = 1}, 2);

	(void)state;
	router_up(w->router, MAIN, 0);
	get_a(w, 0, 1, 60000, 0);
	w->sendable = false;
	get_a(w, 1, 2, 1000, 0);
	assert_ptr_equal(w->peer[1].sched.short_of, b);
	get_a(w, 2, 3, 1000, 0);
	assert_null(w->peer[2].sched.short_of);
	free_budget(w, b);
}

static void the_wait_of_a_read_is_counted(void **state)
{
	static const struct json_value key = {.text = SPAN("\"k\""), .type = JSON_STRING};
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_read(w->router, &w->reading[0], &key, true, 1000);
	router_up(w->router, MAIN, 1300);
	assert_int_equal(w->stats.request_wait.sum_ms, 300);
	garble(w, 0, 1310);
	world_free(w);
}

/* It was tried before, but this time it went along with another. */
static void a_companion_is_not_on_trial(void **state)
{
	struct world *w = world_combining(8);

	(void)state;
	router_up(w->router, MAIN, 0);
	set_x(w, 0, 1, 100);
	router_lost(w->router, MAIN, 1011, false, 100);
	told(w, 0);
	router_up(w->router, NEXT, 100);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":2,\"timeoutMs\":60000}", 100);
	assert_int_equal(w->n_sent, 2); /* alone, as there is nothing else */
	ask(w, 1, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":3,\"timeoutMs\":5000}", 100);
	refuse(w, 1, 110); /* which is an answer: the trial is over */
	assert_false(w->peer[0].sched.on_trial);
	router_expire(w->router, 3000);
	assert_int_equal(w->n_sent, 3);
	assert_int_equal(w->stats.combined, 1);
	router_expire(w->router, 5100); /* the leader's time is up */
	assert_error(w, 1, "timeout", "unknown", "3");
	/* It was alone, but is not certain to be the culprit. */
	assert_false(router_lost(w->router, NEXT, 1011, false, 5200));
	assert_int_equal(w->stats.upstream_blamed, 2);
	assert_int_equal(w->peer[0].blame.weight, 12);
	world_free(w);
}

static void other_settings_count_at_once(void **state)
{
	struct router_settings settings = usual;

	(void)state;
	settings.max_in_flight = 1;
	struct world *w = world_with(&settings);
	router_up(w->router, MAIN, 1000);
	get_a(w, 0, 1, 60000, 1000);
	get_a(w, 1, 2, 60000, 1000);
	assert_int_equal(w->n_sent, 1);
	settings.max_in_flight = 8;
	router_set(w->router, &settings, 1000);
	assert_int_equal(w->n_sent, 2);
	refuse(w, 0, 1000);
	double rate = router_pace(w->router, 1000);
	assert_true(rate > 0);
	router_set(w->router, &settings, 1000); /* the same: what was learnt stays */
	assert_true(router_pace(w->router, 1000) == rate);
	settings.rate_limit = 7;
	router_set(w->router, &settings, 1000);
	assert_true(router_pace(w->router, 1000) == 7);
	refuse(w, 1, 1000); /* was sent before */
	assert_true(router_pace(w->router, 1000) == 7);
	world_free(w);
}

static void a_sudden_end_is_held_against_requests_of_a_young_connection_alone(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 1000);
	get_a(w, 0, 1, 60000, 20000);
	router_read_alone(w->router, &w->reading[1],
			  &(struct json_value){.text = SPAN("\"k\""), .type = JSON_STRING}, 20000);
	router_move(w->router, NEXT, 20000);
	assert_false(router_lost(w->router, MAIN, 0, true, 20010)); /* as it was left */
	assert_int_equal(w->stats.upstream_blamed, 0);
	router_lost(w->router, NEXT, 0, true, 20020);
	assert_int_equal(w->stats.upstream_blamed, 1);
	router_up(w->router, NEXT + 1, 20030);
	router_expire(w->router, 20030 + BLAME_YOUNG_MS - 1);
	router_lost(w->router, NEXT + 1, 0, true, 20030 + BLAME_YOUNG_MS);
	assert_int_equal(w->stats.upstream_blamed, 1);
	router_up(w->router, NEXT + 2, 50000);
	ask(w, 1, "{\"op\":\"get\",\"key\":\"b\",\"messageId\":2}", 50000);
	router_lost(w->router, NEXT + 2, 0, true, 50010);
	assert_int_equal(w->stats.upstream_blamed, 2);
	world_free(w);
}

static void a_read_that_the_network_may_have_lost_comes_back_doubted(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 0);
	read_key(w, 0, "\"a\"", true);
	router_lost(w->router, MAIN, 0, true, 10);
	assert_ended(w, 0, 1, ROUTER_READ_DOUBTED);
	world_free(w);
}

/* Each loss counts for the companions too: after three they are given up. */
static void companions_share_the_blame(void **state)
{
	struct world *w = world_sharing("get", 10000);

	(void)state;
	router_lost(w->router, MAIN, 1011, false, 10);
	router_up(w->router, NEXT, 20); /* the leader is on trial */
	assert_int_equal(w->n_sent, 2);
	router_lost(w->router, NEXT, 1011, false, 30);
	router_up(w->router, NEXT + 1, 40);
	assert_int_equal(w->n_sent, 3);
	for (int i = 0; i < PEERS; i++)
		assert_string_equal(told(w, i), "");
	router_lost(w->router, NEXT + 1, 1011, false, 50);
	unsigned unknown = 0;
	for (int i = 0; i < PEERS; i++)
		unknown += strstr(told(w, i), "outcome_unknown") != NULL;
	assert_int_equal(unknown, 1);
	world_free(w);
}

static void the_wait_of_one_that_is_sent_again_begins_with_the_loss(void **state)
{
	struct world *w = world_new(8, 1 << 20);

	(void)state;
	router_up(w->router, MAIN, 100);
	get_a(w, 0, 1, 60000, 100);
	router_down(w->router, MAIN, 1000);
	router_up(w->router, NEXT, 1300);
	assert_int_equal(w->stats.request_wait.sum_ms, 300);
	world_free(w);
}

static void one_that_waits_for_a_rate_of_one_a_second_is_told_of_that(void **state)
{
	struct router_settings settings = usual;

	(void)state;
	settings.rate_limit = 1;
	struct world *w = world_with(&settings);
	get_a(w, 0, 1, 60000, 1000);
	get_a(w, 0, 2, 500, 1000); /* without a connection it is not known to be too late */
	router_up(w->router, MAIN, 1000);
	router_expire(w->router, 1500);
	assert_error(w, 0, "rate_limited", "no", "2");
	world_free(w);
}

static void other_sections_count_at_once(void **state)
{
	struct world *w = world_new(8, 1 << 20);
	struct budget *b = share_budget(w, (struct budget_limits){.rate = 1}, 1),
		      *next = budget_new("next");
	struct budgets *budgets = budgets_new(1);

	(void)state;
	router_up(w->router, MAIN, 0);
	get_a(w, 0, 1, 60000, 0);
	get_a(w, 0, 2, 60000, 0);
	assert_ptr_equal(w->peer[0].sched.short_of, b);
	budgets->budget[0] = budget_ref(next);
	budget_admit(&w->peer[0], budgets);
	w->sendable = false;
	restrict_up_to(w, 0, 0);
	assert_null(w->peer[0].sched.short_of);
	assert_ptr_equal(w->peer[0].sched.group, next);
	w->sendable = true;
	router_pump(w->router, 0);
	assert_int_equal(w->n_sent, 2);
	free_budget(w, b);
	assert_int_equal(next->refs, 1);
	budget_unref(next);
}

/* Refusing the first request of the first client lets its subscribe be answered. That reads a key,
 * and so the router looks for what can be sent. */
static struct world *world_that_looks_while_it_judges(void)
{
	struct world *w = world_new(8, 1 << 20);

	w->settles = w->reads = true;
	router_up(w->router, MAIN, 0);
	w->sendable = false;
	ask(w, 0, "{\"op\":\"get\",\"key\":\"x1\"}", 0);
	hold(w, 0, "{\"op\":\"subscribe\",\"key\":\"a\"}");
	return w;
}

static void nothing_is_sent_before_all_clients_are_judged_again(void **state)
{
	struct world *w = world_that_looks_while_it_judges();

	(void)state;
	ask(w, 0, "{\"op\":\"set\",\"key\":\"x2\",\"value\":\"v\",\"messageId\":2}", 0);
	ask(w, 1, "{\"op\":\"set\",\"key\":\"x3\",\"value\":\"v\",\"messageId\":3}", 0);
	ask(w, 1, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":4}", 0);
	w->sendable = true;
	restrict_up_to(w, 1, 0);
	assert_int_equal(w->turns, 1);
	assert_non_null(strstr(told(w, 0), "\"executed\":\"no\",\"messageId\":2}"));
	assert_error(w, 1, "forbidden", "no", "3");
	assert_int_equal(w->n_sent, 2); /* one of them is the reading */
	assert_null(strstr(w->sent[0], "\"x"));
	assert_null(strstr(w->sent[1], "\"x"));
	world_free(w);
}

static void nothing_is_served_before_all_clients_are_judged_again(void **state)
{
	struct world *w = world_that_looks_while_it_judges();
	struct watcher v = {.knows = true};

	(void)state;
	ask(w, 0, "{\"op\":\"get\",\"key\":\"a\",\"messageId\":2}", 0);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"x3\",\"messageId\":3}", 0);
	ask(w, 1, "{\"op\":\"get\",\"key\":\"x4\",\"messageId\":4}", 0);
	router_watch(w->router, &watch, &v);
	restrict_up_to(w, 1, 0);
	assert_non_null(strstr(told(w, 0), "\"executed\":\"no\",\"messageId\":3}"));
	assert_error(w, 1, "forbidden", "no", "4");
	assert_string_equal(v.log, "m2");
	router_watch(w->router, NULL, NULL);
	world_free(w);
}

static void a_client_may_have_its_part_of_the_free_room(void **state)
{
	struct router_settings settings = usual;
	struct world *w = world_with(&settings);

	(void)state;
	get_a(w, 0, 1, 60000, 0);
	uint32_t bytes = w->peer[0].sched.bytes;
	settings.max_waiting_bytes = 17 * bytes + 16;
	router_set(w->router, &settings, 0);
	assert_true(router_may_read(w->router, &w->peer[0]));
	settings.max_waiting_bytes = 17 * bytes;
	router_set(w->router, &settings, 0);
	assert_false(router_may_read(w->router, &w->peer[0]));
	settings.max_waiting_bytes = bytes - 1; /* less than waits already */
	router_set(w->router, &settings, 0);
	assert_false(router_may_read(w->router, &w->peer[0]));
	assert_true(router_may_read(w->router, &w->peer[1]));
	world_free(w);
}

static void stopping_refuses_those_that_wait_for_their_budget(void **state)
{
	struct world *w = world_new(8, 1 << 20);
	struct budget *b = share_budget(w, (struct budget_limits){.max_in_flight = 1}, 2);

	(void)state;
	router_up(w->router, MAIN, 0);
	get_a(w, 0, 1, 60000, 0);
	get_a(w, 1, 2, 60000, 0);
	router_stop(w->router);
	assert_error(w, 1, "shutting_down", "no", "2");
	assert_int_equal(router_waiting(w->router), 0);
	free_budget(w, b);
}

static void requests_that_go_as_one_take_one_turn_of_the_rate(void **state)
{
	struct router_settings settings = usual;

	(void)state;
	settings.max_pipeline = 100;
	settings.rate_limit = 10;
	settings.combine = COMBINE_GETS;
	struct world *w = world_with(&settings);
	router_up(w->router, MAIN, 1000);
	ask(w, 2, "{\"op\":\"get\",\"key\":\"z\",\"messageId\":1}", 1000);
	for (int i = 2; i < 6; i++)
		get_a(w, 0, i, 60000, 1000);
	assert_int_equal(router_pace_wait_ms(w->router, &w->peer[0], 1000), 201);
	assert_int_equal(router_pace_wait_ms(w->router, &w->peer[1], 1000), 201);
	ask(w, 0, "{\"op\":\"get\",\"key\":\"b\",\"messageId\":7}", 1000);
	assert_int_equal(router_pace_wait_ms(w->router, &w->peer[0], 1000), 301);
	world_free(w);
}

static void a_notification_settles_nothing(void **state)
{
	struct world *w = world_new(8, 1 << 20);
	char text[150];

	(void)state;
	router_up(w->router, MAIN, 0);
	ask(w, 0, "{\"op\":\"set\",\"key\":\"x\",\"value\":\"1\",\"messageId\":1,\"timeoutMs\":50}",
	    0);
	router_expire(w->router, 51);
	told(w, 0);
	router_move(w->router, NEXT, 60);
	set_x(w, 0, 2, 60);
	snprintf(text, sizeof(text),
		 "{\"type\":\"notification\",\"key\":\"x\",\"value\":\"1\",\"timestamp\":1,"
		 "\"messageId\":%llu}",
		 sent_id(w, 0));
	service_says(w, text, 70);
	assert_int_equal(w->n_sent, 1);
	answer(w, 0, "late");
	assert_int_equal(w->n_sent, 2);
	world_free(w);
}

static void trials_pause_after_a_loss_over_one(void **state)
{
	struct router_settings settings = usual;
	int64_t now = 1000;

	(void)state;
	settings.request_timeout_ms = 60000;
	struct world *w = world_with(&settings);
	router_up(w->router, MAIN, now);
	read_suspect(w, 0, now);
	assert_int_equal(w->reading[0].sent, 1);
	router_lost(w->router, MAIN, 1011, false, now);
	router_up(w->router, NEXT, now);
	read_suspect(w, 1, now);
	assert_int_equal(w->reading[1].sent, 0);
	assert_int_equal(w->wake, 1250);
	get_a(w, 0, 1, 60000, now); /* is never answered */
	router_expire(w->router, 1250);
	assert_int_equal(w->wake, 2000);
	router_expire(w->router, 2000);
	router_expire(w->router, 2250);
	assert_int_equal(w->reading[1].sent, 1);
	router_lost(w->router, NEXT, 1011, false, 2250); /* not alone: it pauses all the same */
	router_up(w->router, NEXT + 1, 2250);
	router_leave(w->router, &w->peer[0], 2250);
	router_join(w->router, &w->peer[0]);
	read_suspect(w, 2, 2250);
	router_expire(w->router, 2749);
	assert_int_equal(w->reading[2].sent, 0);
	router_expire(w->router, 2750);
	assert_int_equal(w->reading[2].sent, 1);
	world_free(w);
}

/* After three pauses there are two seconds, which are longer than a trial waits anyway. Requests in
 * flight then have their quarter of a second. */
static void behind_a_long_pause_the_others_are_waited_for_as_well(void **state)
{
	struct router_settings settings = usual;
	uint32_t connection = MAIN;
	int64_t now = 1000;

	(void)state;
	settings.request_timeout_ms = 60000;
	struct world *w = world_with(&settings);
	router_up(w->router, connection, now);
	for (int i = 0; i < 4; i++) {
		w->reading[0].ended = 0;
		read_suspect(w, 0, now);
		now += 2000;
		router_expire(w->router, now);
		router_lost(w->router, connection, 1011, false, now);
		router_up(w->router, ++connection, now);
	}
	get_a(w, 0, 1, 60000, now);
	read_suspect(w, 1, now);
	router_expire(w->router, now + 1999);
	router_expire(w->router, now + 2000);
	assert_int_equal(w->reading[1].sent, 0);
	router_expire(w->router, now + 2249);
	assert_int_equal(w->reading[1].sent, 0);
	router_expire(w->router, now + 2250);
	assert_int_equal(w->reading[1].sent, 1);
	world_free(w);
}

static void a_sum_whose_first_client_has_left_is_told_to_the_others(void **state)
{
	struct world *w = world_sharing("increment", 10000);
	char text[100];

	(void)state;
	router_leave(w->router, &w->peer[0], 10);
	router_join(w->router, &w->peer[0]);
	snprintf(text, sizeof(text), "{\"code\":200,\"newValue\":13,\"messageId\":%llu}",
		 sent_id(w, 0));
	service_says(w, text, 20);
	assert_string_equal(told(w, 0), "");
	assert_string_equal(told(w, 1), "{\"code\":200,\"newValue\":12,\"messageId\":2}\n");
	assert_string_equal(told(w, 2), "{\"code\":200,\"newValue\":13,\"messageId\":3}\n");
	assert_int_equal(w->stats.ended[OP_INCREMENT][OUTCOME_ABANDONED], 1);
	world_free(w);
}

static void a_sum_with_an_exponent_cannot_be_shared(void **state)
{
	struct world *w = world_sharing("increment", 10000);
	char text[100];

	(void)state;
	snprintf(text, sizeof(text), "{\"code\":200,\"newValue\":1e21,\"messageId\":%llu}",
		 sent_id(w, 0));
	service_says(w, text, 20);
	assert_error(w, 0, "bad_upstream", "unknown", "1");
	assert_error(w, 1, "bad_upstream", "unknown", "2");
	assert_string_equal(told(w, 2), "{\"code\":200,\"newValue\":1e21,\"messageId\":3}\n");
	world_free(w);
}

static void stopping_refuses_those_that_could_have_gone_as_one(void **state)
{
	struct world *w = world_combining(8);

	(void)state;
	get_a(w, 0, 1, 1000, 0);
	get_a(w, 1, 2, 1000, 0);
	router_stop(w->router);
	assert_error(w, 0, "shutting_down", "no", "1");
	assert_error(w, 1, "shutting_down", "no", "2");
	world_free(w);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_answer_carries_the_clients_id),
		cmocka_unit_test(long_ids_and_values_fit),
		cmocka_unit_test(a_repeated_or_unknown_answer_reaches_nobody),
		cmocka_unit_test(answers_without_an_id_keep_the_order_of_their_requests),
		cmocka_unit_test(errors_without_an_id_keep_the_order_too),
		cmocka_unit_test(requests_wait_for_the_connection_and_then_time_out_unsent),
		cmocka_unit_test(what_is_past_its_time_is_not_sent),
		cmocka_unit_test(what_is_past_its_time_is_not_sent_while_others_are_told),
		cmocka_unit_test(a_sent_request_times_out_and_frees_its_place),
		cmocka_unit_test(one_that_never_got_a_place_is_told_so),
		cmocka_unit_test(a_lost_connection_fails_writes_and_repeats_reads),
		cmocka_unit_test(a_read_that_a_write_has_overtaken_is_not_repeated),
		cmocka_unit_test(a_read_behind_an_answered_read_is_not_repeated),
		cmocka_unit_test(a_repeated_read_that_runs_out_of_time_has_an_unknown_outcome),
		cmocka_unit_test(clients_take_turns),
		cmocka_unit_test(no_place_is_kept_while_nobody_needs_it),
		cmocka_unit_test(a_client_that_asks_one_thing_at_a_time_waits_for_no_place),
		cmocka_unit_test(places_are_kept_for_such_clients_for_a_while),
		cmocka_unit_test(many_such_clients_leave_places_to_others),
		cmocka_unit_test(a_kept_place_goes_to_whoever_waits_for_a_turn_already),
		cmocka_unit_test(a_place_that_was_kept_is_used_when_that_is_over),
		cmocka_unit_test(one_that_waited_for_a_kept_place_is_told_so),
		cmocka_unit_test(one_that_comes_last_has_none_of_these_places),
		cmocka_unit_test(a_full_network_holds_requests_back),
		cmocka_unit_test(a_rate_limit_spaces_requests),
		cmocka_unit_test(one_whose_turn_comes_too_late_is_refused_at_once),
		cmocka_unit_test(nobody_is_refused_early_who_could_be_sent),
		cmocka_unit_test(a_recovering_pace_is_taken_into_account),
		cmocka_unit_test(what_the_daemon_reads_last_does_not_count),
		cmocka_unit_test(a_request_that_the_service_refused_is_sent_again),
		cmocka_unit_test(one_that_is_refused_all_its_time_ends_as_rate_limited),
		cmocka_unit_test(one_is_not_sent_again_behind_a_later_one_that_took_effect),
		cmocka_unit_test(nor_if_the_service_refuses_it_last),
		cmocka_unit_test(nor_if_the_later_one_may_have_taken_effect),
		cmocka_unit_test(
			one_that_was_refused_ends_with_the_connection_that_has_a_later_one),
		cmocka_unit_test(all_that_were_refused_are_sent_again_in_order),
		cmocka_unit_test(one_that_was_refused_waits_for_a_later_one_whatever_the_pace),
		cmocka_unit_test(one_that_was_refused_is_not_concerned_by_other_keys),
		cmocka_unit_test(an_earlier_one_that_takes_effect_leaves_a_refused_one_waiting),
		cmocka_unit_test(a_read_that_was_on_a_lost_connection_is_not_said_to_be_unexecuted),
		cmocka_unit_test(while_paced_one_of_a_key_is_on_its_way),
		cmocka_unit_test(one_that_waits_for_its_key_does_not_hold_up_others),
		cmocka_unit_test(one_that_waits_for_its_key_is_refused_when_stopping),
		cmocka_unit_test(too_much_waiting_is_refused),
		cmocka_unit_test(a_client_with_a_full_pipeline_is_not_read),
		cmocka_unit_test(a_client_that_leaves_takes_its_unsent_requests_along),
		cmocka_unit_test(answers_that_wait_for_their_turn_are_counted),
		cmocka_unit_test(one_that_has_left_does_not_keep_its_places_for_long),
		cmocka_unit_test(an_unusable_answer_fails_its_request_alone),
		cmocka_unit_test(stopping_refuses_what_waits_and_what_comes),
		cmocka_unit_test(the_owner_hears_of_each_line_and_each_answer),
		cmocka_unit_test(the_owner_hears_when_what_waited_is_sent_or_refused),
		cmocka_unit_test(a_newcomer_waits_behind_those_that_wait),
		cmocka_unit_test(an_unusable_frame_without_an_id_concerns_nobody),
		cmocka_unit_test(a_notification_answers_nobody),
		cmocka_unit_test(a_read_whose_client_has_left_is_not_repeated),
		cmocka_unit_test(nothing_is_sent_without_a_connection),
		cmocka_unit_test(a_full_network_is_the_reason_that_is_told),
		cmocka_unit_test(full_places_are_the_reason_that_is_told_whatever_the_pace),
		cmocka_unit_test(one_that_expires_along_with_those_ahead_of_it_blames_the_places),
		cmocka_unit_test(a_client_with_much_unsent_is_not_read),
		cmocka_unit_test(nobody_takes_all_the_room),
		cmocka_unit_test(ranges_have_no_order_against_keys),
		cmocka_unit_test(reads_of_one_key_are_repeated_in_their_order),
		cmocka_unit_test(a_read_whose_answer_never_came_overtakes_nothing),
		cmocka_unit_test(a_repeated_read_goes_before_what_its_client_has_asked_since),
		cmocka_unit_test(bytes_and_requests_out_are_counted),
		cmocka_unit_test(a_sooner_time_is_told_even_after_later_ones),
		cmocka_unit_test(one_that_has_left_keeps_its_own_time_when_that_is_sooner),
		cmocka_unit_test(a_client_that_leaves_takes_its_kept_answers_along),
		cmocka_unit_test(one_refused_for_want_of_room_keeps_the_order_and_is_counted),
		cmocka_unit_test(
			stopping_tells_what_was_sent_before_that_it_may_have_been_executed),
		cmocka_unit_test(nothing_is_sent_again_while_stopping),
		cmocka_unit_test(what_the_rate_refuses_while_stopping_is_refused_like_the_rest),
		cmocka_unit_test(
			what_the_rate_refuses_while_stopping_is_not_repeated_behind_a_later_one),
		cmocka_unit_test(what_is_in_flight_may_still_be_answered_while_stopping),
		cmocka_unit_test(
			after_a_move_requests_go_out_on_the_new_connection_and_answers_come_on_both),
		cmocka_unit_test(a_connection_without_requests_is_idle_at_once),
		cmocka_unit_test(what_waits_goes_out_on_the_new_connection_at_once),
		cmocka_unit_test(a_connection_is_idle_when_its_last_request_has_ended),
		cmocka_unit_test(a_connection_that_was_left_takes_only_its_own_requests_along),
		cmocka_unit_test(
			what_is_on_its_way_on_a_connection_that_was_left_survives_the_loss_of_the_new_one),
		cmocka_unit_test(a_later_request_for_a_key_waits_for_the_one_on_the_old_connection),
		cmocka_unit_test(one_that_waits_for_the_old_connection_goes_when_that_is_lost),
		cmocka_unit_test(one_that_waits_for_the_old_connection_may_run_out_of_time),
		cmocka_unit_test(
			a_refused_request_of_the_old_connection_is_sent_again_on_the_new_one),
		cmocka_unit_test(a_held_request_is_answered_when_it_is_settled),
		cmocka_unit_test(a_refused_one_says_what_it_is_told_to),
		cmocka_unit_test(a_held_one_with_a_short_id_waits_for_nobody),
		cmocka_unit_test(a_held_one_without_an_id_waits_for_those_before_it),
		cmocka_unit_test(one_that_is_refused_before_its_turn_keeps_the_order),
		cmocka_unit_test(a_row_of_held_ones_is_settled_one_by_one),
		cmocka_unit_test(a_held_one_whose_time_is_up_says_why),
		cmocka_unit_test(held_ones_of_a_client_that_leaves_are_over),
		cmocka_unit_test(stopping_refuses_held_ones),
		cmocka_unit_test(stopping_refuses_what_nexus_has_not),
		cmocka_unit_test(a_loss_does_not_end_held_ones),
		cmocka_unit_test(a_read_is_sent_and_its_answer_is_for_the_daemon),
		cmocka_unit_test(a_read_in_a_hurry_has_its_turn_and_another_comes_last),
		cmocka_unit_test(a_read_that_the_rate_limit_refuses_comes_back_unsent),
		cmocka_unit_test(a_read_whose_time_is_up_has_failed_if_it_was_sent),
		cmocka_unit_test(a_read_with_an_unusable_answer_has_failed),
		cmocka_unit_test(a_read_on_a_lost_connection_comes_back_unsent),
		cmocka_unit_test(a_read_that_is_answered_on_a_connection_that_was_left_says_so),
		cmocka_unit_test(a_read_may_be_asked_for_when_another_ends),
		cmocka_unit_test(stopping_gives_back_the_reads_that_wait),
		cmocka_unit_test(
			one_that_waits_for_its_key_on_the_old_connection_does_not_blame_the_places),
		cmocka_unit_test(a_read_comes_back_when_the_router_ends),
		cmocka_unit_test(each_request_ends_once),
		cmocka_unit_test(waiting_here_and_waiting_for_the_service_are_two_things),
		cmocka_unit_test(a_secret_answer_keeps_to_the_order_and_out_of_the_buffer),
		cmocka_unit_test(a_secret_that_nobody_takes_goes_with_its_client),
		cmocka_unit_test(the_holder_says_what_being_late_means),
		cmocka_unit_test(one_that_is_refused_twice_stays_before_those_behind_it),
		cmocka_unit_test(each_refusal_of_the_same_request_lowers_the_pace),
		cmocka_unit_test(one_that_waits_for_its_key_in_vain_lets_those_behind_it_go),
		cmocka_unit_test(what_was_given_up_elsewhere_is_waited_for),
		cmocka_unit_test(what_waits_is_refused_if_it_is_forbidden_now),
		cmocka_unit_test(a_read_that_waits_to_be_sent_again_may_have_been_executed),
		cmocka_unit_test(what_waits_behind_a_forbidden_one_goes),
		cmocka_unit_test(what_is_forbidden_by_now_is_not_sent_again),
		cmocka_unit_test(what_is_forbidden_by_now_had_no_effect_on_those_before_it),
		cmocka_unit_test(gets_for_a_key_go_as_one_and_each_client_is_answered),
		cmocka_unit_test(increments_for_a_key_go_as_their_sum),
		cmocka_unit_test(a_sum_is_no_longer_than_a_frame_may_be),
		cmocka_unit_test(one_that_cannot_be_told_its_share_of_a_sum_is_told_so),
		cmocka_unit_test(an_unusable_answer_fails_all_that_went_as_one),
		cmocka_unit_test(a_companion_leads_when_the_leaders_time_is_up),
		cmocka_unit_test(companions_end_with_their_clients),
		cmocka_unit_test(an_answer_to_the_heir_settles_the_leaders_write),
		cmocka_unit_test(an_unusable_answer_to_the_heir_settles_it_as_well),
		cmocka_unit_test(an_answer_to_the_leader_settles_a_companions_write),
		cmocka_unit_test(those_that_went_as_one_are_repeated_together),
		cmocka_unit_test(increments_that_went_as_one_are_not_repeated),
		cmocka_unit_test(those_that_went_as_one_are_refused_as_one),
		cmocka_unit_test(one_that_its_order_holds_back_does_not_go_along),
		cmocka_unit_test(one_whose_time_is_up_while_it_waits_goes_with_nobody),
		cmocka_unit_test(what_is_combined_may_change),
		cmocka_unit_test(a_watcher_hears_of_each_request_and_of_reads_what_becomes_of_them),
		cmocka_unit_test(a_watcher_may_know_what_a_get_waits_for),
		cmocka_unit_test(a_new_watcher_hears_of_the_writes_under_way),
		cmocka_unit_test(a_watcher_hears_of_companions_too),
		cmocka_unit_test(clients_of_a_section_share_its_rate),
		cmocka_unit_test(a_budget_wakes_nobody_without_a_connection),
		cmocka_unit_test(one_that_its_budget_would_not_let_go_in_time_is_refused_at_once),
		cmocka_unit_test(what_is_past_its_time_goes_along_with_nothing),
		cmocka_unit_test(what_can_go_along_is_not_refused_for_its_budget),
		cmocka_unit_test(a_place_that_is_free_too_late_is_what_was_lacking),
		cmocka_unit_test(clients_of_a_section_share_its_places),
		cmocka_unit_test(one_whose_budget_has_become_slower_ends_as_rate_limited),
		cmocka_unit_test(what_was_learnt_goes_on_in_another_router),
		cmocka_unit_test(a_token_counts_against_the_rate),
		cmocka_unit_test(a_suspect_key_is_read_with_nothing_else_in_flight),
		cmocka_unit_test(others_go_on_as_soon_as_a_suspect_key_was_answered),
		cmocka_unit_test(a_suspect_key_has_its_turn_though_others_go_on),
		cmocka_unit_test(a_key_that_is_too_long_is_not_read),
		cmocka_unit_test(one_that_is_too_long_is_told_how_long_it_is),
		cmocka_unit_test(one_that_is_as_long_as_one_that_ended_a_connection_is_told_so),
		cmocka_unit_test(suspect_keys_have_their_turns_a_second_apart_under_load),
		cmocka_unit_test(what_waits_when_its_client_goes_on_trial_waits_a_second),
		cmocka_unit_test(one_that_could_go_along_is_not_refused_early),
		cmocka_unit_test(a_millisecond_too_little_may_be_enough),
		cmocka_unit_test(room_in_a_budget_that_one_has_no_use_for_is_the_next_ones),
		cmocka_unit_test(one_whose_budget_has_room_again_takes_its_turn_among_the_others),
		cmocka_unit_test(a_newcomer_takes_no_room_that_others_wait_for),
		cmocka_unit_test(
			one_without_room_in_its_budget_waits_with_it_though_nothing_can_be_sent),
		cmocka_unit_test(the_wait_of_a_read_is_counted),
		cmocka_unit_test(a_companion_is_not_on_trial),
		cmocka_unit_test(other_settings_count_at_once),
		cmocka_unit_test(a_sudden_end_is_held_against_requests_of_a_young_connection_alone),
		cmocka_unit_test(a_read_that_the_network_may_have_lost_comes_back_doubted),
		cmocka_unit_test(companions_share_the_blame),
		cmocka_unit_test(the_wait_of_one_that_is_sent_again_begins_with_the_loss),
		cmocka_unit_test(one_that_waits_for_a_rate_of_one_a_second_is_told_of_that),
		cmocka_unit_test(other_sections_count_at_once),
		cmocka_unit_test(nothing_is_sent_before_all_clients_are_judged_again),
		cmocka_unit_test(nothing_is_served_before_all_clients_are_judged_again),
		cmocka_unit_test(a_client_may_have_its_part_of_the_free_room),
		cmocka_unit_test(stopping_refuses_those_that_wait_for_their_budget),
		cmocka_unit_test(requests_that_go_as_one_take_one_turn_of_the_rate),
		cmocka_unit_test(a_notification_settles_nothing),
		cmocka_unit_test(trials_pause_after_a_loss_over_one),
		cmocka_unit_test(behind_a_long_pause_the_others_are_waited_for_as_well),
		cmocka_unit_test(a_sum_whose_first_client_has_left_is_told_to_the_others),
		cmocka_unit_test(a_sum_with_an_exponent_cannot_be_shared),
		cmocka_unit_test(stopping_refuses_those_that_could_have_gone_as_one),
	};

	return cmocka_run_group_tests_name("router", tests, NULL, NULL);
}
