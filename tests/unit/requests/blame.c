/* Requests over which the service closes the connection: who is suspected, and what that means for
 * the requests of all. A router with a service behind it that answers after RTT_MS, closes the
 * connection over each request for a key that begins with "poison", and is there again after
 * BACK_MS. */
#include "../test.h"
#include "../router_ops.h"

#include <stdio.h>

#include "requests/blame.h"
#include "base/mem.h"
#include "requests/router.h"

enum { PEERS = 6, SENT_MAX = 4096, RTT_MS = 5, BACK_MS = 20, READS = 3 };

struct frame {
	char *text;
	int64_t at;
};

struct reading {
	unsigned sent, ended;
	enum router_read_end end;
};

struct world {
	struct router *router;
	struct stats stats;
	struct peer peer[PEERS];
	struct reading reading[READS];
	struct frame sent[SENT_MAX]; /* on the present connection, unanswered; the oldest first */
	size_t n_sent;
	size_t most_beside; /* requests in flight beside one that closed the connection, lately */
	int64_t now, wake, up_at;
	uint32_t connection;
	bool up, mute; /* mute: nothing is answered, but poison closes all the same */
	struct blame_end end;
	unsigned losses, known;
	unsigned ok[PEERS], unknown[PEERS], refused[PEERS], other[PEERS];
	int64_t asked_at[PEERS], longest[PEERS]; /* of clients that ask one at a time */
};

/* ---- the world ---- */

static void world_send(void *owner, struct span head, struct span body)
{
	struct world *w = owner;

	assert_true(w->up && w->n_sent < SENT_MAX);
	w->sent[w->n_sent++] = (struct frame){frame_text(head, body), w->now + RTT_MS};
}

static bool world_sendable(void *owner)
{
	return ((struct world *)owner)->up;
}

static void world_wake_at(void *owner, int64_t at)
{
	((struct world *)owner)->wake = at;
}

static void world_read_sent(void *owner, void *reading)
{
	(void)owner;
	((struct reading *)reading)->sent++;
}

static void world_read_end(void *owner, void *reading, enum router_read_end end,
			   const struct wire_frame *answer)
{
	struct reading *g = reading;

	(void)owner;
	(void)answer;
	g->ended++;
	g->end = end;
}

static const struct router_ops ops = {
	.send = world_send,
	.sendable = world_sendable,
	.reconnect_ms = no_reconnect_ms,
	.changed = ignore_changed,
	.wake_at = world_wake_at,
	.connection_idle = ignore_connection_idle,
	.read_sent = world_read_sent,
	.read_end = world_read_end,
};

static void join(struct world *w, int i, uid_t uid)
{
	w->peer[i] = (struct peer){.out = w->peer[i].out, .number = (uint64_t)i + 1, .uid = uid};
	router_join(w->router, &w->peer[i]);
}

static struct world *world_new(int close_code)
{
	static const struct router_settings settings = {.max_in_flight = 256,
							.max_pipeline = 1024,
							.request_timeout_ms = 10000,
							.max_waiting_bytes = 1 << 22,
							.max_peer_waiting_bytes = 1 << 22};
	struct world *w = mem_zalloc(sizeof(*w));

	w->wake = -1;
	w->end = (struct blame_end){.close_code = close_code, .dropped = !close_code};
	w->router = router_new(&settings, &ops, w, &w->stats, 42);
	for (int i = 0; i < PEERS; i++)
		join(w, i, 1000 + (uid_t)i);
	w->now = 1000000;
	w->up_at = w->now;
	return w;
}

static void forget_sent(struct world *w)
{
	for (size_t i = 0; i < w->n_sent; i++)
		free(w->sent[i].text);
	w->n_sent = 0;
}

static void world_free(struct world *w)
{
	for (int i = 0; i < PEERS; i++)
		router_leave(w->router, &w->peer[i], w->now);
	router_free(w->router);
	for (int i = 0; i < PEERS; i++)
		outq_fini(&w->peer[i].out);
	forget_sent(w);
	free(w);
}

static void ask(struct world *w, int peer, const char *line)
{
	struct request request;
	struct request_fault fault;

	assert_int_equal(request_parse(span_of(line), &request, &fault), 0);
	router_request(w->router, &w->peer[peer], &request, w->now);
}

static void set(struct world *w, int peer, const char *key)
{
	char line[200];

	snprintf(line, sizeof(line),
		 "{\"op\":\"set\",\"key\":\"%s\",\"value\":\"v\",\"messageId\":1}", key);
	ask(w, peer, line);
}

static void get(struct world *w, int peer, const char *key)
{
	char line[200];

	snprintf(line, sizeof(line), "{\"op\":\"get\",\"key\":\"%s\",\"messageId\":1}", key);
	ask(w, peer, line);
}

/* A set whose frame's longest text has this length. */
static void set_long(struct world *w, int peer, size_t length)
{
	static const char begin[] = "{\"op\":\"set\",\"key\":\"k\",\"messageId\":1,\"value\":\"";
	size_t own = wire_length(strlen("\"op\":2,\"key\":\"k\",\"value\":\"\"}"));
	struct buf line = {0};

	assert_true(length > own);
	buf_add(&line, begin, strlen(begin));
	memset(buf_room(&line, length - own), 'v', length - own);
	buf_grew(&line, length - own);
	buf_add(&line, "\"}", 3);
	ask(w, peer, buf_span(&line).p);
	buf_release(&line);
}

/* What the peers were told since is counted. */
static void listen_to(struct world *w, int i)
{
	struct span all = buf_span(&w->peer[i].out.own);
	size_t n = all.n;

	while (all.n) {
		const char *end = memchr(all.p, '\n', all.n);
		char line[400];
		assert_non_null(end);
		snprintf(line, sizeof(line), "%.*s", (int)(end - all.p), all.p);
		if (strstr(line, "{\"code\":200,"))
			w->ok[i]++;
		else if (strstr(line, "\"outcome_unknown\""))
			w->unknown[i]++;
		else if (strstr(line, "\"too_large\"") && strstr(line, "\"executed\":\"no\""))
			w->refused[i]++;
		else
			w->other[i]++;
		if (w->asked_at[i] && w->now - w->asked_at[i] > w->longest[i])
			w->longest[i] = w->now - w->asked_at[i];
		w->asked_at[i] = 0;
		all.n -= (size_t)(end + 1 - all.p);
		all.p = end + 1;
	}
	buf_take(&w->peer[i].out.own, n);
}

static void listen_to_all(struct world *w)
{
	for (int i = 0; i < PEERS; i++)
		listen_to(w, i);
}

static void lose(struct world *w)
{
	w->most_beside = w->n_sent - 1;
	w->up = false;
	w->losses++;
	forget_sent(w);
	w->up_at = w->now + BACK_MS;
	w->known +=
		router_lost(w->router, w->connection, w->end.close_code, w->end.dropped, w->now);
}

static void answer_first(struct world *w)
{
	unsigned long long id;
	char text[100];
	struct wire_frame frame;

	assert_int_equal(sscanf(w->sent[0].text, "{\"messageId\":%llu,", &id), 1);
	free(w->sent[0].text);
	w->n_sent--;
	memmove(&w->sent[0], &w->sent[1], w->n_sent * sizeof(w->sent[0]));
	snprintf(text, sizeof(text), "{\"code\":200,\"messageId\":%llu}", id);
	wire_parse(span_of(text), &frame);
	router_frame(w->router, &frame, w->now);
}

static void serve(struct world *w)
{
	for (size_t i = 0; i < w->n_sent && w->sent[i].at <= w->now; i++) {
		if (strstr(w->sent[i].text, "\"key\":\"poison")) {
			lose(w);
			return;
		}
		if (w->mute)
			continue;
		answer_first(w);
		i = (size_t)-1;
	}
}

/* A millisecond passes. */
static void tick(struct world *w)
{
	w->now++;
	if (!w->up && w->now >= w->up_at) {
		w->up = true;
		router_up(w->router, ++w->connection, w->now);
	}
	serve(w);
	if (w->wake >= 0 && w->wake <= w->now)
		w->wake = router_expire(w->router, w->now);
	listen_to_all(w);
}

static void pass(struct world *w, int64_t ms)
{
	while (ms-- > 0)
		tick(w);
}

/* The connection is lost with what is in flight, and comes back. */
static void lose_now(struct world *w)
{
	lose(w);
	pass(w, BACK_MS);
	assert_true(w->up);
}

/* ---- how long a frame may be ---- */

static void a_frame_is_measured_as_it_is_sent(void **state)
{
	struct world *w = world_new(1009);
	struct router_settings settings = {.max_in_flight = 8,
					   .max_frame = 100,
					   .max_pipeline = 1024,
					   .request_timeout_ms = 10000,
					   .max_waiting_bytes = 1 << 20,
					   .max_peer_waiting_bytes = 1 << 20};

	(void)state;
	router_set(w->router, &settings, w->now);
	tick(w);
	set_long(w, 0, 100);
	set_long(w, 0, 101);
	listen_to_all(w);
	assert_int_equal(w->refused[0], 1);
	assert_int_equal(w->n_sent, 1);
	/* Twelve quotes and their colons and braces: the line is short, the frame is not. */
	ask(w, 1,
	    "{\"op\":\"set\",\"key\":\"k\",\"messageId\":1,\"value\":{\"a\":\"\",\"b\":\"\","
	    "\"c\":\"\"}}");
	ask(w, 1,
	    "{\"op\":\"patch\",\"key\":\"k\",\"messageId\":1,\"value\":{\"aaaa\":\"\",\"b\":\"\","
	    "\"c\":\"\","
	    "\"d\":\"\"}}");
	ask(w, 1,
	    "{\"op\":\"range\",\"key\":\"aaaaaaaaaaaaaaaaaaaa\",\"endKey\":\"bbbbbbbbbbbbbbbbbbbbb"
	    "\",\"limit\":1000,\"messageId\":1}");
	listen_to_all(w);
	assert_int_equal(w->refused[1], 2);
	assert_int_equal(w->stats.requests_too_long, 3);
	world_free(w);
}

static void what_waits_when_max_frame_is_lowered_is_refused(void **state)
{
	struct world *w = world_new(1009);
	struct router_settings settings = {.max_in_flight = 8,
					   .max_frame = 100,
					   .max_pipeline = 1024,
					   .request_timeout_ms = 10000,
					   .max_waiting_bytes = 1 << 20,
					   .max_peer_waiting_bytes = 1 << 20};

	(void)state;
	set_long(w, 0, 200);
	set(w, 0, "k");
	router_set(w->router, &settings, w->now);
	pass(w, 20);
	assert_int_equal(w->refused[0], 1);
	assert_int_equal(w->ok[0], 1);
	world_free(w);
}

static void the_longest_of_those_in_flight_is_the_culprit_of_a_1009(void **state)
{
	struct world *w = world_new(1009);

	(void)state;
	tick(w);
	set_long(w, 0, 9000);
	pass(w, 2 * RTT_MS);
	assert_int_equal(w->ok[0], 1); /* so the service takes 9000 bytes */
	set_long(w, 0, 9000);
	set_long(w, 1, 20000);
	set_long(w, 2, 30000);
	set(w, 3, "k");
	lose_now(w);
	assert_int_equal(w->known, 1);
	set_long(w, 3, 30000);
	set_long(w, 3, 29999);
	pass(w, 2 * RTT_MS);
	assert_int_equal(w->refused[3], 1);
	assert_int_equal(w->ok[3], 1);
	for (int i = 0; i < PEERS; i++)
		assert_int_equal(w->peer[i].blame.weight > 0, i == 2);
	/* ... but one that is as long as what was answered is not, nor is a short one. */
	set_long(w, 0, 29999);
	set(w, 1, "k");
	lose_now(w);
	assert_int_equal(w->known, 1);
	set_long(w, 4, 29999);
	pass(w, 2 * RTT_MS);
	assert_int_equal(w->ok[4], 1);
	world_free(w);
}

static void a_length_is_refused_for_an_hour_or_until_the_service_is_another(void **state)
{
	struct world *w = world_new(1009);

	(void)state;
	tick(w);
	set_long(w, 0, 30000);
	lose_now(w);
	set_long(w, 0, 30000);
	w->now += BLAME_LONG_MS - 1000;
	set_long(w, 0, 30000);
	listen_to_all(w);
	assert_int_equal(w->refused[0], 2);
	w->now += 1000;
	set_long(w, 0, 30000);
	pass(w, RTT_MS);
	assert_int_equal(w->ok[0], 1);
	set_long(w, 0, 40000);
	lose_now(w);
	router_forget_blame(w->router);
	set_long(w, 0, 40000);
	pass(w, RTT_MS);
	assert_int_equal(w->ok[0], 2);
	world_free(w);
}

/* ... or the service would close the connection again and again. */
static void who_sends_ever_shorter_ones_is_on_trial_soon(void **state)
{
	struct world *w = world_new(1009);

	(void)state;
	tick(w);
	for (size_t length = 30000; length > 29998; length--) {
		assert_false(w->peer[0].sched.on_trial);
		set_long(w, 0, length);
		set(w, 1, "k");
		lose_now(w);
	}
	assert_true(w->peer[0].sched.on_trial);
	assert_false(w->peer[1].sched.on_trial);
	world_free(w);
}

/* A read that is longer than a message over which the service closes is not repeated. */
static void a_culprit_that_is_a_read_is_not_repeated(void **state)
{
	struct world *w = world_new(1009);
	struct buf line = {0};

	(void)state;
	tick(w);
	buf_addf(&line, "{\"op\":\"get\",\"messageId\":1,\"key\":\"");
	memset(buf_room(&line, 20000), 'k', 20000);
	buf_grew(&line, 20000);
	buf_add(&line, "\"}", 3);
	ask(w, 0, buf_span(&line).p);
	get(w, 1, "k");
	lose(w);
	listen_to_all(w);
	assert_int_equal(w->unknown[0], 1);
	pass(w, BACK_MS + RTT_MS);
	assert_int_equal(w->ok[1], 1); /* this one is */
	buf_release(&line);
	world_free(w);
}

/* ---- which ends count ---- */

/* So many losses with a request of peer 0 in flight: is it on trial then? */
static bool counts(int code, bool dropped, int losses, int64_t lasted_ms, int64_t sent_ms)
{
	struct world *w = world_new(code);

	w->end.dropped = dropped;
	w->mute = true;
	tick(w);
	for (int i = 0; i < losses; i++) {
		pass(w, lasted_ms - sent_ms);
		set(w, 0, "k");
		set(w, 1, "k");
		pass(w, sent_ms);
		lose_now(w);
	}
	bool on_trial = w->peer[0].sched.on_trial;
	assert_int_equal(w->peer[1].sched.on_trial, on_trial);
	assert_int_equal(w->stats.upstream_blamed, on_trial ? losses : 0);
	world_free(w);
	return on_trial;
}

static void some_ends_count_and_some_do_not(void **state)
{
	static const int blaming[] = {1002, 1003, 1005, 1007, 1009, 1010, 1011, 1015, 3000, 4999},
			 innocent[] = {1000, 1001, 1012, 1013, 1014};

	(void)state;
	for (size_t i = 0; i < COUNT(blaming); i++)
		assert_true(counts(blaming[i], false, 2, 20000, 3000));
	for (size_t i = 0; i < COUNT(innocent); i++)
		assert_false(counts(innocent[i], false, 9, 10, 1));
	assert_false(counts(0, false, 9, 10, 1)); /* silence, or our own doing */
	for (int code = 0; code <= 1008; code += 1008) {
		assert_true(counts(code, true, 3, BLAME_YOUNG_MS - BACK_MS - 1000, 1));
		assert_false(counts(code, true, 3, BLAME_YOUNG_MS, 1));
		assert_false(counts(code, true, 3, 2000, BLAME_SUDDEN_MS));
	}
}

static void one_loss_puts_nobody_on_trial_unless_it_was_alone(void **state)
{
	struct world *w = world_new(1011);

	(void)state;
	tick(w);
	set(w, 0, "k");
	set(w, 1, "k");
	lose_now(w);
	assert_false(w->peer[0].sched.on_trial || w->peer[1].sched.on_trial);
	set(w, 2, "k");
	set(w, 2, "k2");
	lose_now(w);
	assert_true(w->peer[2].sched.on_trial);
	assert_int_equal(w->known, 0); /* the next one would be */
	world_free(w);
}

/* Should it have been the network, a few times in a row, then nobody works more slowly for it, and
 * no read is given up. */
static void what_may_be_the_network_is_not_held_against_anybody_soon(void **state)
{
	struct world *w = world_new(0);

	(void)state;
	w->mute = true;
	tick(w);
	get(w, 0, "a");
	get(w, 0, "b");
	get(w, 1, "c");
	for (int i = 0; i < 2; i++) {
		assert_int_equal(w->n_sent, 3);
		lose_now(w);
	}
	assert_int_equal(w->n_sent, 3);
	assert_false(w->peer[0].sched.on_trial || w->peer[1].sched.on_trial);
	for (int i = 0; i < 3; i++) {
		pass(w, 100);
		lose_now(w);
	}
	w->mute = false;
	pass(w, 5000);
	assert_int_equal(w->ok[0], 2);
	assert_int_equal(w->ok[1], 1);
	world_free(w);
}

static void losses_are_forgotten(void **state)
{
	struct world *w = world_new(1011);

	(void)state;
	tick(w);
	for (int i = 0; i < 2; i++) {
		set(w, 0, "k");
		set(w, 1, "k");
		lose_now(w);
		w->now += BLAME_MEMORY_MS;
	}
	assert_false(w->peer[0].sched.on_trial);
	set(w, 0, "k");
	lose_now(w);
	assert_true(w->peer[0].sched.on_trial);
	w->now += BLAME_MEMORY_MS;
	set(w, 0, "k");
	assert_false(w->peer[0].sched.on_trial);
	world_free(w);
}

/* ---- trials ---- */

/* Of several in flight at each loss only one is guilty. */
static void the_innocent_recover_quickly(void **state)
{
	struct world *w = world_new(1011);

	(void)state;
	tick(w);
	for (int round = 0; round < 2; round++) {
		set(w, 4, "poison");
		for (int i = 0; i < 4; i++)
			set(w, i, "k");
		pass(w, RTT_MS + BACK_MS);
	}
	assert_int_equal(w->losses, 2);
	for (int i = 0; i < 5; i++)
		assert_true(w->peer[i].sched.on_trial);
	for (int i = 0; i < 4; i++)
		set(w, i, "k");
	pass(w, 5 * RTT_MS);
	for (int i = 0; i < 4; i++)
		assert_false(w->peer[i].sched.on_trial);
	assert_true(w->peer[4].sched.on_trial);
	assert_int_equal(w->ok[0] + w->ok[1] + w->ok[2] + w->ok[3], 4);
	world_free(w);
}

static void connect_anew(struct world *w, int i)
{
	router_leave(w->router, &w->peer[i], w->now);
	outq_fini(&w->peer[i].out);
	join(w, i, 1000 + (uid_t)i);
}

static void attack(struct world *w, int how)
{
	if (how == 1 && w->now % 5 == 0) {
		connect_anew(w, 0);
		set(w, 0, "poison");
	} else if (w->peer[0].answers.unanswered) {
		return;
	} else if (how == 2) {
		set(w, 0, "k");
		set(w, 0, "poison");
	} else if (how == 4) {
		connect_anew(w, 0);
		get(w, 0, "k");
		set(w, 0, "poison");
	} else if (how != 1) {
		(how == 3 ? get : set)(w, 0, "poison");
	}
}

/* One client sends poison again and again; others ask for this and that every 10 ms. how: 0: on one
 * connection, 1: on a new one each time, gone before the loss, 2: with a good request between, 3: a
 * read, 4: on a new one each time, behind a good request. */
static void check_poison_in_a_loop(int code, int how)
{
	struct world *w = world_new(code);
	unsigned asked = 0;

	tick(w);
	for (int64_t end = w->now + 60000; w->now < end; tick(w)) {
		attack(w, how);
		for (int i = 1; i < PEERS; i++) {
			if ((w->now + i) % 10 || w->peer[i].answers.unanswered)
				continue;
			w->asked_at[i] = w->now;
			asked++;
			(w->now % 20 ? set : get)(w, i, "k");
		}
	}
	unsigned unknown = 0;
	for (int i = 1; i < PEERS; i++) {
		unknown += w->unknown[i];
		assert_int_equal(w->other[i], 0);
		/* A trial, a pause and a connection at most. */
		assert_in_range(w->longest[i], 1, 3500);
	}
	assert_in_range(w->losses, 3, 60);
	assert_true(w->known >= w->losses - 8);
	assert_in_range(unknown, 0, 8 * PEERS);
	assert_true(asked > 60000 / 10 * (PEERS - 1) / 2);
	world_free(w);
}

static void poison_in_a_loop_keeps_nobody_else_from_working(void **state)
{
	static const int codes[] = {0, 1002, 1007, 1008, 1009, 1011};

	(void)state;
	for (size_t i = 0; i < COUNT(codes); i++) {
		for (int how = 0; how < 5; how++)
			check_poison_in_a_loop(codes[i], how);
	}
}

/* Peer 0 is on trial. */
static struct world *world_with_trial(void)
{
	struct world *w = world_new(1011);

	tick(w);
	set(w, 0, "poison");
	pass(w, RTT_MS + BACK_MS);
	assert_true(w->peer[0].sched.on_trial);
	return w;
}

static void who_is_on_trial_has_its_turn_under_load(void **state)
{
	struct world *w = world_with_trial();

	(void)state;
	set(w, 1, "k");
	w->asked_at[0] = w->now;
	set(w, 0, "k");
	for (int64_t end = w->now + 1500; w->now < end; tick(w)) {
		set(w, 1, "k");
		set(w, 2, "k");
	}
	assert_int_equal(w->ok[0], 1);
	assert_in_range(w->longest[0], 900, 1100);
	assert_false(w->peer[0].sched.on_trial);
	world_free(w);
}

/* ... also if others are never answered, and it does not hold them up for long itself. */
static void nobody_waits_long_for_a_trial(void **state)
{
	struct world *w = world_with_trial();

	(void)state;
	w->mute = true;
	set(w, 1, "k");
	set(w, 0, "k");
	size_t before = w->n_sent;
	assert_int_equal(before, 1);
	pass(w, 1400);
	assert_int_equal(w->n_sent, 2); /* the trial */
	set(w, 1, "k2");
	pass(w, 260);
	assert_int_equal(w->n_sent, 3);
	world_free(w);
}

/* What is in flight when its turn is due is waited for, and nothing is sent beside it meanwhile. */
static void a_trial_waits_for_what_is_in_flight(void **state)
{
	struct world *w = world_with_trial();

	(void)state;
	w->mute = true;
	set(w, 1, "k");
	set(w, 0, "k");
	pass(w, 1010);
	set(w, 1, "k2");
	assert_int_equal(w->n_sent, 1);
	w->mute = false;
	tick(w);
	assert_int_equal(w->ok[1], 1);
	assert_int_equal(w->n_sent, 1);
	assert_true(router_in_flight(w->router) == 1 && w->peer[0].answers.unanswered == 1);
	pass(w, RTT_MS);
	assert_int_equal(w->ok[0], 1);
	world_free(w);
}

static void one_of_them_is_in_flight_at_a_time_and_alone(void **state)
{
	struct world *w = world_with_trial();

	(void)state;
	set(w, 0, "k1");
	set(w, 0, "k2");
	assert_int_equal(w->n_sent, 1);
	set(w, 1, "k3");
	assert_int_equal(w->n_sent, 1);
	pass(w, RTT_MS);
	assert_int_equal(w->ok[0], 1);
	assert_int_equal(w->n_sent, 2); /* off trial, it is like the others */
	world_free(w);
}

static void one_whose_time_is_up_on_trial_is_told_so(void **state)
{
	struct world *w = world_with_trial();

	(void)state;
	ask(w, 0, "{\"op\":\"set\",\"key\":\"poison\",\"value\":\"v\",\"messageId\":1}");
	pass(w, RTT_MS + BACK_MS);
	ask(w, 0,
	    "{\"op\":\"set\",\"key\":\"k\",\"value\":\"v\",\"messageId\":1,\"timeoutMs\":50}");
	w->now += 60; /* while trials pause */
	router_expire(w->router, w->now);
	buf_add(&w->peer[0].out.own, "", 1); /* strstr() needs an end */
	struct span text = buf_span(&w->peer[0].out.own);
	assert_non_null(strstr(text.p, "\"reason\":\"queue_full\""));
	assert_non_null(strstr(text.p, "so they come last"));
	assert_null(strstr(text.p, "retryAfterMs"));
	world_free(w);
}

static void stopping_answers_those_on_trial(void **state)
{
	struct world *w = world_with_trial();

	(void)state;
	w->mute = true;
	set(w, 0, "k1");
	set(w, 0, "k2");
	router_stop(w->router);
	listen_to_all(w);
	assert_int_equal(w->other[0], 1); /* shutting_down */
	assert_int_equal(router_waiting(w->router), 0);
	world_free(w);
}

/* ---- reads ---- */

static void a_poison_read_ends_after_three_losses(void **state)
{
	struct world *w = world_new(1011);

	(void)state;
	tick(w);
	get(w, 0, "poison");
	get(w, 1, "k");
	set(w, 2, "k");
	pass(w, 3000);
	assert_int_equal(w->losses, 3);
	assert_int_equal(w->unknown[0], 1);
	assert_int_equal(w->ok[1], 1);
	assert_int_equal(w->unknown[2], 1); /* of the first */
	assert_int_equal(w->known, 2);
	world_free(w);
}

static void read_key(struct world *w, int i, const char *name, bool alone)
{
	struct json_value key = {.text = span_of(name), .type = JSON_STRING};

	if (alone)
		router_read_alone(w->router, &w->reading[i], &key, w->now);
	else
		router_read(w->router, &w->reading[i], &key, true, w->now);
}

static void a_read_of_the_daemons_own_is_a_suspect_as_well(void **state)
{
	struct world *w = world_new(1011);

	(void)state;
	tick(w);
	read_key(w, 0, "\"poison\"", false);
	read_key(w, 1, "\"k\"", false);
	pass(w, RTT_MS + BACK_MS);
	assert_int_equal(w->reading[0].end, ROUTER_READ_BLAMED);
	assert_int_equal(w->reading[1].end, ROUTER_READ_BLAMED);
	read_key(w, 0, "\"poison\"", true);
	read_key(w, 1, "\"k\"", true);
	set(w, 2, "k");
	assert_int_equal(w->n_sent, 1);
	pass(w, 1000);
	assert_int_equal(w->most_beside, 0);
	assert_int_equal(w->reading[1].end, ROUTER_READ_ANSWERED);
	assert_int_equal(w->ok[2], 1);
	w->end.close_code = 1001;
	read_key(w, 2, "\"k\"", false);
	lose_now(w);
	assert_int_equal(w->reading[2].end, ROUTER_READ_UNSENT);
	world_free(w);
}

/* ---- who comes again ---- */

static void a_newcomer_begins_with_what_its_user_has_left(void **state)
{
	struct world *w = world_with_trial();

	(void)state;
	router_leave(w->router, &w->peer[0], w->now);
	join(w, 0, 1000);
	assert_true(w->peer[0].sched.on_trial);
	join(w, 1, 1001);
	assert_false(w->peer[1].sched.on_trial);
	set(w, 0, "k");
	pass(w, RTT_MS);
	assert_false(w->peer[0].sched.on_trial);
	router_leave(w->router, &w->peer[0], w->now);
	w->now += BLAME_MEMORY_MS;
	join(w, 0, 1000);
	set(w, 0, "k");
	assert_false(w->peer[0].sched.on_trial);
	world_free(w);
}

/* ... also of a client that has left before the connection was lost over its request. */
static void who_leaves_before_the_loss_has_it_counted(void **state)
{
	struct world *w = world_new(1011);

	(void)state;
	tick(w);
	set(w, 2, "poison");
	router_leave(w->router, &w->peer[2], w->now);
	pass(w, RTT_MS + BACK_MS);
	join(w, 2, 1002);
	assert_true(w->peer[2].sched.on_trial);
	join(w, 3, 0);
	assert_false(w->peer[3].sched.on_trial);
	world_free(w);
}

static void more_users_than_are_remembered(void **state)
{
	struct world *w = world_new(1011);

	(void)state;
	tick(w);
	for (uid_t i = 0; i < BLAME_USERS_MAX + 4; i++) {
		router_leave(w->router, &w->peer[0], w->now);
		outq_fini(&w->peer[0].out);
		join(w, 0, 5000 + i);
		set(w, 0, "poison");
		pass(w, 3000);
	}
	router_leave(w->router, &w->peer[0], w->now);
	join(w, 0, 5000);
	assert_false(w->peer[0].sched.on_trial);
	join(w, 1, 5000 + BLAME_USERS_MAX + 2);
	assert_true(w->peer[1].sched.on_trial);
	world_free(w);
}

/* ---- what was given up ---- */

/* Of too many writes that were given up the oldest is forgotten: who waited for it goes on. */
static void who_waits_for_a_forgotten_write_goes_on(void **state)
{
	struct world *w = world_new(1011);

	(void)state;
	w->mute = true;
	tick(w);
	ask(w, 0,
	    "{\"op\":\"set\",\"key\":\"k\",\"value\":\"1\",\"messageId\":1,\"timeoutMs\":10}");
	pass(w, 20);
	router_move(w->router, ++w->connection, w->now);
	forget_sent(w);
	ask(w, 0,
	    "{\"op\":\"set\",\"key\":\"k\",\"value\":\"2\",\"messageId\":2,\"timeoutMs\":9000}");
	for (int i = 0; i < 1024; i++) {
		char line[200];
		assert_int_equal(w->n_sent, (size_t)i);
		snprintf(line, sizeof(line),
			 "{\"op\":\"set\",\"key\":\"k%d\",\"value\":\"v\",\"messageId\":3,"
			 "\"timeoutMs\":1}",
			 i);
		ask(w, 1, line);
		pass(w, 2);
	}
	assert_int_equal(w->n_sent, 1025);
	assert_non_null(strstr(w->sent[1024].text, "\"value\":\"2\""));
	world_free(w);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_frame_is_measured_as_it_is_sent),
		cmocka_unit_test(what_waits_when_max_frame_is_lowered_is_refused),
		cmocka_unit_test(the_longest_of_those_in_flight_is_the_culprit_of_a_1009),
		cmocka_unit_test(a_length_is_refused_for_an_hour_or_until_the_service_is_another),
		cmocka_unit_test(who_sends_ever_shorter_ones_is_on_trial_soon),
		cmocka_unit_test(a_culprit_that_is_a_read_is_not_repeated),
		cmocka_unit_test(some_ends_count_and_some_do_not),
		cmocka_unit_test(one_loss_puts_nobody_on_trial_unless_it_was_alone),
		cmocka_unit_test(what_may_be_the_network_is_not_held_against_anybody_soon),
		cmocka_unit_test(losses_are_forgotten),
		cmocka_unit_test(the_innocent_recover_quickly),
		cmocka_unit_test(poison_in_a_loop_keeps_nobody_else_from_working),
		cmocka_unit_test(who_is_on_trial_has_its_turn_under_load),
		cmocka_unit_test(nobody_waits_long_for_a_trial),
		cmocka_unit_test(a_trial_waits_for_what_is_in_flight),
		cmocka_unit_test(one_of_them_is_in_flight_at_a_time_and_alone),
		cmocka_unit_test(one_whose_time_is_up_on_trial_is_told_so),
		cmocka_unit_test(stopping_answers_those_on_trial),
		cmocka_unit_test(a_poison_read_ends_after_three_losses),
		cmocka_unit_test(a_read_of_the_daemons_own_is_a_suspect_as_well),
		cmocka_unit_test(a_newcomer_begins_with_what_its_user_has_left),
		cmocka_unit_test(who_leaves_before_the_loss_has_it_counted),
		cmocka_unit_test(more_users_than_are_remembered),
		cmocka_unit_test(who_waits_for_a_forgotten_write_goes_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
