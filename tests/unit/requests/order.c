/* The router's promises under whatever may happen, drawn by lot: a service that refuses, answers
 * late or never, connections that are lost and replaced, times that are up, other limits. What it
 * executed when is compared with what the clients were told, and with the order in which they
 * asked. */
#include "../test.h"
#include "../random.h"
#include "../router_ops.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "requests/router.h"

enum {
	CLIENTS = 3,
	KEYS = 2,
	ASKS = 120,    /* requests of one run */
	FRAMES = 5000, /* that a run may send */
	STEPS = 1500,
	RUNS = 300,
	NUMBER_BITS = 8,
	TIME_TO_END = 700000,
};

/* What a client has asked, and what became of it. */
struct ask {
	int client, key;
	uint64_t peer; /* of the client until it leaves */
	bool read;
	bool abandoned; /* its client has left */
	unsigned answers;
	bool said_no;       /* the answer says that it was not executed */
	unsigned executed;  /* how often */
	unsigned effect_at; /* the execution that counts: a write's, or the one that the client was
			       told of; 0: none */
};

enum frame_state { FRAME_SENT, FRAME_REFUSED, FRAME_EXECUTED, FRAME_OVER };

struct frame {
	unsigned long long id;
	unsigned ask;
	uint32_t connection;
	enum frame_state state;
	unsigned executed_at;
};

struct world {
	struct router *router;
	struct router_settings settings;
	struct stats stats;
	struct peer peer[CLIENTS];
	uint64_t last_peer;
	uint32_t seed;
	int64_t now;
	uint32_t connection, oldest; /* the present one, and the oldest that is there */
	bool up;
	struct ask ask[ASKS];
	unsigned n_asks;
	struct frame frame[FRAMES];
	unsigned n_frames;
	unsigned clock; /* of executions */
};

static unsigned lot(struct world *w, unsigned below)
{
	return random_below(&w->seed, below);
}

/* ---- what the router asks for ---- */

/* A key says by its spelling which request it is of: each of its letters may be escaped. */
static void spell(char *out, int key, unsigned number)
{
	for (int bit = 0; bit < NUMBER_BITS; bit++)
		out += sprintf(out, number >> bit & 1 ? "\\u006%d" : "%c",
			       number >> bit & 1 ? key + 1 : 'a' + key);
}

static unsigned number_of(const char *spelt)
{
	unsigned number = 0;

	for (int bit = 0; bit < NUMBER_BITS; bit++) {
		bool escaped = *spelt == '\\';
		number |= (unsigned)escaped << bit;
		spelt += escaped ? 6 : 1;
	}
	return number;
}

static void sends(void *owner, struct span head, struct span body)
{
	struct world *w = owner;
	struct frame *f = &w->frame[w->n_frames++];
	char *text = frame_text(head, body);

	assert_true(w->n_frames < FRAMES && w->up);
	const char *key = strstr(text, "\"key\":\"");
	assert_non_null(key);
	*f = (struct frame){.ask = number_of(key + 7), .connection = w->connection};
	assert_int_equal(sscanf(text, "{\"messageId\":%llu,", &f->id), 1);
	free(text);
}

static bool is_sendable(void *owner)
{
	return lot(owner, 10) > 0;
}

static const struct router_ops ops = {
	.send = sends,
	.sendable = is_sendable,
	.reconnect_ms = no_reconnect_ms,
	.forbids = forbid_nothing,
	.changed = ignore_changed,
	.wake_at = ignore_wake_at,
	.connection_idle = ignore_connection_idle,
};

/* ---- the clients ---- */

static void join(struct world *w, int client)
{
	struct peer *peer = &w->peer[client];

	*peer = (struct peer){.number = ++w->last_peer};
	router_join(w->router, peer);
}

static void ask(struct world *w)
{
	static const char *const ops_of[] = {"get", "set", "increment", "delete"};
	char key[6 * NUMBER_BITS + 1], line[400];
	struct request request;
	struct request_fault fault;

	if (w->n_asks == ASKS)
		return;
	unsigned number = w->n_asks++, op = lot(w, 4);
	struct ask *a = &w->ask[number];
	*a = (struct ask){
		.client = (int)lot(w, CLIENTS), .key = (int)lot(w, KEYS), .read = op == 0};
	a->peer = w->peer[a->client].number;
	spell(key, a->key, number);
	int n = snprintf(line, sizeof(line), "{\"op\":\"%s\",\"key\":\"%s\",\"messageId\":%u%s",
			 ops_of[op], key, number, op == 1 ? ",\"value\":\"v\"" : "");
	if (lot(w, 2))
		n += snprintf(line + n, sizeof(line) - (size_t)n, ",\"timeoutMs\":%u",
			      1 + lot(w, lot(w, 2) ? 100 : 60000));
	n += snprintf(line + n, sizeof(line) - (size_t)n, "}");
	assert_int_equal(request_parse((struct span){line, (size_t)n}, &request, &fault), 0);
	router_request(w->router, &w->peer[a->client], &request, w->now);
}

static void take_line(struct world *w, const char *line)
{
	const char *id = strstr(line, "\"messageId\":"), *at = strstr(line, "\"at\":");
	unsigned number = id ? (unsigned)atoi(id + 12) : ASKS;

	assert_true(number < w->n_asks);
	struct ask *a = &w->ask[number];
	a->answers++;
	a->said_no = strstr(line, "\"executed\":\"no\"") != NULL;
	if (a->read && at)
		a->effect_at = (unsigned)atoi(at + 5);
}

static void read_answers(struct world *w)
{
	for (int i = 0; i < CLIENTS; i++) {
		struct buf *own = &w->peer[i].out.own;
		buf_add(own, "", 1);
		char *line = mem_strndup(buf_span(own).p, buf_len(own)), *rest = line, *end;
		buf_take(own, buf_len(own));
		for (; (end = strchr(rest, '\n')); rest = end + 1) {
			*end = '\0';
			take_line(w, rest);
		}
		free(line);
	}
}

static void leave(struct world *w, int client)
{
	read_answers(w);
	for (unsigned i = 0; i < w->n_asks; i++)
		w->ask[i].abandoned |= w->ask[i].client == client && !w->ask[i].answers;
	router_leave(w->router, &w->peer[client], w->now);
	outq_fini(&w->peer[client].out);
	w->peer[client].out = (struct outq){0};
	join(w, client);
}

/* ---- the service ---- */

static void execute(struct world *w, struct frame *f)
{
	struct ask *a = &w->ask[f->ask];

	f->state = FRAME_EXECUTED;
	f->executed_at = ++w->clock;
	a->executed++;
	if (!a->read)
		a->effect_at = f->executed_at;
}

/* The next one of a connection: what comes by one connection it takes in its order. */
static void take_frame(struct world *w)
{
	uint32_t connection = w->oldest + lot(w, w->connection - w->oldest + 1);

	for (unsigned i = 0; i < w->n_frames; i++) {
		struct frame *f = &w->frame[i];
		if (f->connection != connection || f->state != FRAME_SENT)
			continue;
		if (lot(w, 3) == 0)
			f->state = FRAME_REFUSED;
		else
			execute(w, f);
		return;
	}
}

static void answer(struct world *w)
{
	char text[120];
	unsigned from = w->n_frames ? lot(w, w->n_frames) : 0;

	for (unsigned i = 0; i < w->n_frames; i++) {
		struct frame *f = &w->frame[(from + i) % w->n_frames];
		if (f->state != FRAME_EXECUTED && f->state != FRAME_REFUSED)
			continue;
		int n = snprintf(text, sizeof(text), "{\"code\":%d,\"at\":%u,\"messageId\":%llu}",
				 f->state == FRAME_REFUSED ? 429
				 : lot(w, 9)               ? 200
							   : 404,
				 f->executed_at, f->id);
		f->state = FRAME_OVER;
		if (lot(w, 20) == 0)
			return; /* it gets lost */
		struct wire_frame frame;
		wire_parse((struct span){text, (size_t)n}, &frame);
		router_frame(w->router, &frame, w->now);
		return;
	}
}

/* What was on its way there may have got through. */
static void lose(struct world *w, uint32_t connection)
{
	bool through = true;

	for (unsigned i = 0; i < w->n_frames; i++) {
		struct frame *f = &w->frame[i];
		if (f->connection != connection)
			continue;
		through = through && lot(w, 3);
		if (f->state == FRAME_SENT && through)
			execute(w, f);
		f->state = FRAME_OVER;
	}
	if (connection == w->connection)
		w->up = false;
	router_down(w->router, connection, w->now);
}

static void change_connection(struct world *w)
{
	unsigned what = lot(w, 4);

	if (!w->up) {
		w->up = true;
		router_up(w->router, ++w->connection, w->now);
	} else if (what == 0) {
		lose(w, w->connection);
	} else if (what == 1 && w->oldest < w->connection) {
		lose(w, w->oldest++);
	} else if (w->connection - w->oldest < 3) {
		router_move(w->router, ++w->connection, w->now);
	}
}

static void change_limits(struct world *w)
{
	w->settings.rate_limit = lot(w, 2) ? 0 : 1 + lot(w, 50);
	w->settings.max_in_flight = 1 + lot(w, 20);
	router_set(w->router, &w->settings, w->now);
}

/* ---- a run ---- */

static void step(struct world *w)
{
	unsigned what = lot(w, 100);

	if (what < 25)
		ask(w);
	else if (what < 50)
		take_frame(w);
	else if (what < 72)
		answer(w);
	else if (what < 90)
		router_expire(w->router, w->now += lot(w, lot(w, 8) ? 20 : 2000));
	else if (what < 96)
		change_connection(w);
	else if (what < 98)
		change_limits(w);
	else if (lot(w, 6) == 0)
		leave(w, (int)lot(w, CLIENTS));
	read_answers(w);
}

/* Has it taken effect, and is anybody there who minds when? One whose time was up counts as well.
 */
static bool counts(const struct ask *a)
{
	return a->effect_at && !a->abandoned;
}

static void check_ask(const struct world *w, unsigned i, unsigned run)
{
	const struct ask *a = &w->ask[i];

	if (a->answers != (a->abandoned ? 0 : 1))
		fail_msg("run %u: request %u got %u answers", run, i, a->answers);
	if (!a->read && a->executed > 1)
		fail_msg("run %u: write %u was executed %u times", run, i, a->executed);
	if (a->said_no && a->executed)
		fail_msg("run %u: request %u was executed, and its client told that it was not",
			 run, i);
	for (unsigned j = i + 1; j < w->n_asks; j++) {
		const struct ask *b = &w->ask[j];
		if (a->peer == b->peer && a->key == b->key && counts(a) && counts(b) &&
		    a->effect_at > b->effect_at)
			fail_msg("run %u: request %u of client %d took effect before request %u",
				 run, j, a->client, i);
	}
}

static void run(unsigned number)
{
	struct world *w = mem_zalloc(sizeof(*w));

	w->seed = number;
	w->settings = (struct router_settings){.max_in_flight = 8,
					       .max_pipeline = 1000,
					       .request_timeout_ms = 5000,
					       .max_waiting_bytes = 1 << 20,
					       .max_peer_waiting_bytes = 1 << 20};
	w->router = router_new(&w->settings, &ops, w, &w->stats, number);
	for (int i = 0; i < CLIENTS; i++)
		join(w, i);
	w->connection = w->oldest = 1;
	w->up = true;
	router_up(w->router, w->connection, w->now);
	for (int i = 0; i < STEPS; i++)
		step(w);
	router_expire(w->router, w->now + TIME_TO_END);
	read_answers(w);
	assert_int_equal(router_in_flight(w->router), 0);
	assert_int_equal(router_waiting(w->router), 0);
	for (unsigned i = 0; i < w->n_asks; i++)
		check_ask(w, i, number);
	for (int i = 0; i < CLIENTS; i++)
		router_leave(w->router, &w->peer[i], w->now);
	router_free(w->router);
	for (int i = 0; i < CLIENTS; i++)
		outq_fini(&w->peer[i].out);
	free(w);
}

static void whatever_happens_the_promises_hold(void **state)
{
	(void)state;
	for (unsigned number = 1; number <= RUNS; number++)
		run(number);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(whatever_happens_the_promises_hold),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
