/* One connection, from the first socket to its end. Over sockets, WebSockets and a loop that each
 * case controls. */
#include "../test.h"

#include <stdio.h>

#include "../locked.h"
#include "../loop.h"
#include "transport/conn.h"

enum { KEEPALIVE = 20 };

/* ---- what conn stands on ---- */

struct dial {
	struct dial_target target;
	const struct dial_ops *ops;
	void *owner;
	int next, given_up;
	char why[100];
};

struct websocket {
	int fd;
	const struct websocket_ops *ops;
	void *owner;
	struct websocket_target target;
	bool open;
	size_t unsent;
	uint32_t pings;
	int closed;
};

static struct dial *dial;              /* the only one; NULL: there is none */
static struct websocket *websocket_up; /* the same */
static const char *refusal;            /* of websocket_connect() */
static int good, bad;                  /* times that an address was said to be */
static long locked_before;

struct dial *dial_new(struct event_base *base, const struct dial_target *target,
		      struct dial_memory *memory, const struct dial_ops *ops, void *owner)
{
	(void)base;
	assert_null(dial);
	assert_non_null(memory);
	dial = calloc(1, sizeof(*dial));
	*dial = (struct dial){.target = *target, .ops = ops, .owner = owner};
	return dial;
}

void dial_free(struct dial *d)
{
	assert_ptr_equal(d, dial);
	free(d);
	dial = NULL;
}

void dial_good(struct dial *d)
{
	(void)d;
	good++;
}

void dial_bad(struct dial *d)
{
	(void)d;
	bad++;
}

void dial_next(struct dial *d, const char *why)
{
	assert_null(websocket_up); /* which had the socket */
	d->next++;
	snprintf(d->why, sizeof(d->why), "%s", why);
}

void dial_give_up(struct dial *d, const char *why)
{
	d->given_up++;
	snprintf(d->why, sizeof(d->why), "%s", why);
}

struct websocket *websocket_connect(struct websocket_context *ctx, int fd,
				    const struct websocket_target *target,
				    const struct websocket_ops *ops, void *owner, const char **why)
{
	(void)ctx;
	assert_null(websocket_up);
	if (refusal) {
		*why = refusal;
		return NULL;
	}
	websocket_up = calloc(1, sizeof(*websocket_up));
	*websocket_up = (struct websocket){.fd = fd, .ops = ops, .owner = owner, .target = *target};
	return websocket_up;
}

void websocket_free(struct websocket *l)
{
	assert_ptr_equal(l, websocket_up);
	free(l);
	websocket_up = NULL;
}

bool websocket_is_open(const struct websocket *l)
{
	return l->open;
}

size_t websocket_unsent(const struct websocket *l)
{
	return l->unsent;
}

void websocket_send(struct websocket *l, struct span head, struct span body)
{
	l->unsent += head.n + body.n;
}

void websocket_ping(struct websocket *l, uint32_t number)
{
	l->pings = number;
}

void websocket_close(struct websocket *l, int code)
{
	l->closed = code;
}

/* ---- whom conn tells ---- */

static struct owner {
	struct conn *conn;
	int opened, messages, drained, ended;
	uint32_t pong;
	struct conn_end end;
	char why[DIAL_WHY_MAX];
	bool frees; /* from within ended() */
} owner;

static void on_open(void *user)
{
	((struct owner *)user)->opened++;
}

static void on_message(void *user, struct span text, unsigned flags)
{
	(void)text, (void)flags;
	((struct owner *)user)->messages++;
}

static void on_pong(void *user, uint32_t number)
{
	((struct owner *)user)->pong = number;
}

static void on_drained(void *user)
{
	((struct owner *)user)->drained++;
}

static void on_ended(void *user, const struct conn_end *end)
{
	struct owner *o = user;

	o->ended++;
	o->end = *end;
	if (o->frees) {
		conn_free(o->conn);
		o->conn = NULL;
	}
	snprintf(o->why, sizeof(o->why), "%s", end->why); /* valid although it is freed */
}

static const struct conn_ops ops = {on_open, on_message, on_pong, on_drained, on_ended};

static struct stats stats;
static struct dial_memory memory;
static struct conn_shared shared;

static int begin(void **state)
{
	(void)state;
	loop_begin(1000000, 1);
	locked_before = locked_kb();
	refusal = NULL;
	good = bad = 0;
	stats = (struct stats){0};
	shared = (struct conn_shared){
		.stats = &stats,
		.memory = &memory,
		.settings = {.host = "hpkv.test",
			     .port = 443,
			     .tls = true,
			     .proxy_host = "proxy.test",
			     .proxy_port = 3128,
			     .proxy_login = "a:b",
			     .connect_timeout_ms = 5000,
			     .keepalive_ms = KEEPALIVE,
			     .max_message = 1000},
	};
	owner = (struct owner){.conn = conn_new(&shared, "/ws?apiKey=x", &ops, &owner)};
	return 0;
}

static int finish(void **state)
{
	(void)state;
	if (owner.conn)
		conn_free(owner.conn);
	assert_null(dial);
	assert_null(websocket_up);
	assert_int_equal(loop_timers(), 0);
	assert_int_equal(locked_kb(), locked_before);
	return 0;
}

static void open_it(void)
{
	dial->ops->connected(dial->owner, 7, 4000);
	websocket_up->open = true;
	websocket_up->ops->open(websocket_up->owner);
}

static void link_ends(const char *why, int status, int code)
{
	websocket_up->open = false;
	websocket_up->ops->closed(websocket_up->owner,
				  &(struct websocket_end){.was_open = owner.opened,
							  .why = why,
							  .http_status = status,
							  .retry_after_s = status ? 7 : -1,
							  .close_code = code});
}

/* ---- the way up ---- */

static void the_socket_goes_to_a_websocket(void **state)
{
	(void)state;
	assert_string_equal(dial->target.host, "hpkv.test");
	assert_int_equal(dial->target.port, 443);
	assert_string_equal(dial->target.proxy_host, "proxy.test");
	assert_int_equal(dial->target.proxy_port, 3128);
	assert_string_equal(dial->target.proxy_login, "a:b");
	assert_int_equal(dial->target.address_ms, 5000);
	assert_int_equal(dial->target.total_ms, 0);
	dial->ops->connected(dial->owner, 7, 4000);
	assert_int_equal(websocket_up->fd, 7);
	assert_string_equal(websocket_up->target.host, "hpkv.test");
	assert_int_equal(websocket_up->target.port, 443);
	assert_int_equal(websocket_up->target.timeout_ms, 4000);
	assert_int_equal(websocket_up->target.max_message, 1000);
	assert_true(websocket_up->target.tls);
	assert_string_equal(websocket_up->target.path, "/ws?apiKey=x");
	assert_false(conn_sendable(owner.conn));
	assert_int_equal(owner.opened, 0);
}

static void an_address_is_good_once_the_service_has_answered(void **state)
{
	(void)state;
	dial->ops->connected(dial->owner, 7, 4000);
	assert_int_equal(good, 0);
	websocket_up->open = true;
	websocket_up->ops->open(websocket_up->owner);
	assert_int_equal(owner.opened, 1);
	assert_int_equal(good, 1);
	assert_null(dial);                            /* not needed any more */
	assert_int_equal(locked_kb(), locked_before); /* nor is the path */
	assert_true(conn_sendable(owner.conn));
}

static void the_next_address_when_a_websocket_fails(void **state)
{
	(void)state;
	dial->ops->connected(dial->owner, 7, 4000);
	link_ends("the TLS handshake failed", 0, 0);
	assert_null(websocket_up);
	assert_int_equal(dial->next, 1);
	assert_string_equal(dial->why, "the TLS handshake failed");
	assert_int_equal(owner.ended, 0);
	dial->ops->connected(dial->owner, 8, 3000);
	assert_int_equal(websocket_up->fd, 8);
	assert_int_equal(websocket_up->target.timeout_ms, 3000);
}

static void no_address_is_the_end(void **state)
{
	(void)state;
	owner.frees = true;
	dial->ops->failed(dial->owner, "127.0.0.1 port 443: Connection refused");
	assert_int_equal(owner.ended, 1);
	assert_int_equal(owner.end.http_status, 0);
	assert_int_equal(owner.end.retry_after_s, -1);
	assert_string_equal(owner.why, "127.0.0.1 port 443: Connection refused");
	assert_false(owner.end.dropped);
}

static void a_service_that_answers_speaks_for_all_addresses(void **state)
{
	(void)state;
	dial->ops->connected(dial->owner, 7, 4000);
	link_ends("the upgrade was answered with HTTP status 429", 429, 0);
	assert_int_equal(owner.ended, 1);
	assert_int_equal(owner.end.http_status, 429);
	assert_int_equal(bad, 1);
	assert_int_equal(owner.end.retry_after_s, 7);
	assert_non_null(strstr(owner.why, "429"));
	assert_false(owner.end.dropped);
	assert_null(dial);
	assert_null(websocket_up);
	assert_int_equal(locked_kb(), locked_before); /* the path is gone as well */
}

static void a_target_that_no_websocket_takes(void **state)
{
	(void)state;
	refusal = "the path is too long";
	dial->ops->connected(dial->owner, 7, 4000);
	assert_int_equal(dial->given_up, 1);
	assert_string_equal(dial->why, "the path is too long");
	assert_int_equal(owner.ended, 0); /* dial tells it, never from within */
}

static void freed_on_the_way_up(void **state)
{
	(void)state;
	dial->ops->connected(dial->owner, 7, 4000);
	conn_free(owner.conn);
	owner.conn = NULL;
	assert_null(dial);
	assert_null(websocket_up);
	assert_int_equal(owner.ended, 0);
}

/* ---- the end of an open one ---- */

static void an_open_one_ends_at_once(void **state)
{
	(void)state;
	owner.frees = true;
	open_it();
	link_ends("Connection reset by peer", 0, 0);
	assert_int_equal(owner.ended, 1);
	assert_string_equal(owner.why, "the connection was lost: Connection reset by peer");
	assert_true(owner.end.dropped);
}

static void the_code_of_a_close_frame_is_passed_on(void **state)
{
	(void)state;
	open_it();
	link_ends("the service closed the connection (1012)", 0, 1012);
	assert_int_equal(owner.end.close_code, 1012);
	assert_false(owner.end.dropped);
	assert_string_equal(owner.why, "the service closed the connection (1012)");
	assert_null(websocket_up);
	assert_int_equal(loop_pending(), 0);
}

/* ---- is it alive? ---- */

static void silence_brings_a_ping_and_then_the_end(void **state)
{
	(void)state;
	owner.frees = true;
	open_it();
	loop_pass(KEEPALIVE - 1);
	assert_int_equal(websocket_up->pings, 0);
	loop_pass(1);
	assert_int_equal(websocket_up->pings, 1);
	assert_int_equal(stats.upstream_pings, 1);
	loop_pass(KEEPALIVE / 2 - 1);
	assert_int_equal(owner.ended, 0);
	loop_pass(1);
	assert_int_equal(owner.ended, 1);
	assert_non_null(strstr(owner.why, "no answer to a ping for 10 ms"));
}

static void a_word_counts_as_life(void **state)
{
	(void)state;
	open_it();
	loop_pass(KEEPALIVE - 1);
	websocket_up->ops->message(websocket_up->owner, SPAN("{}"), 0);
	assert_int_equal(owner.messages, 1);
	loop_pass(KEEPALIVE - 1);
	assert_int_equal(websocket_up->pings, 0);
	loop_pass(1);
	assert_int_equal(websocket_up->pings, 1);
	websocket_up->ops->pong(websocket_up->owner, 1);
	assert_int_equal(owner.pong, 1);
	loop_pass(KEEPALIVE / 2);
	assert_int_equal(owner.ended, 0);
}

static void a_part_of_a_message_is_an_answer_to_a_ping(void **state)
{
	(void)state;
	open_it();
	loop_pass(KEEPALIVE);
	assert_int_equal(websocket_up->pings, 1);
	websocket_up->ops->heard(websocket_up->owner);
	loop_pass(KEEPALIVE / 2);
	assert_int_equal(owner.ended, 0);
}

static void parts_of_a_message_count_for_a_while(void **state)
{
	(void)state;
	open_it();
	for (int i = 0; i < 8; i++) {
		loop_pass(KEEPALIVE - 1);
		websocket_up->ops->heard(websocket_up->owner);
	}
	loop_pass(8 - 1);
	websocket_up->ops->heard(websocket_up->owner);
	loop_pass(1);
	websocket_up->ops->heard(websocket_up->owner); /* too long for one message */
	assert_int_equal(websocket_up->pings, 0);
	loop_pass(KEEPALIVE - 1);
	assert_int_equal(websocket_up->pings, 1);
}

static void a_pong_that_nobody_has_asked_for(void **state)
{
	(void)state;
	open_it();
	assert_int_equal(conn_ping(owner.conn), 1);
	websocket_up->ops->pong(websocket_up->owner, 9);
	assert_int_equal(owner.pong, 0);
	websocket_up->ops->pong(websocket_up->owner, 0);
	assert_int_equal(owner.pong, 0);
	websocket_up->ops->pong(websocket_up->owner, 1);
	assert_int_equal(owner.pong, 1);
}

/* A connection that brings other things, and no answer, is of no use. */
static void a_ping_of_the_owner_must_be_answered(void **state)
{
	(void)state;
	owner.frees = true;
	open_it();
	assert_int_equal(conn_ping(owner.conn), 1);
	loop_pass(KEEPALIVE / 2 - 1);
	websocket_up->ops->message(websocket_up->owner, SPAN("{}"), 0);
	loop_turn();
	assert_int_equal(owner.ended, 0);
	loop_pass(1);
	assert_int_equal(owner.ended, 1);
	assert_non_null(strstr(owner.why, "no answer to a ping for 10 ms"));
}

static void an_answer_to_an_earlier_ping_is_not_enough(void **state)
{
	(void)state;
	open_it();
	conn_check(owner.conn);
	conn_ping(owner.conn);
	websocket_up->ops->pong(websocket_up->owner, 1);
	loop_pass(KEEPALIVE / 2);
	assert_int_equal(owner.ended, 1);
}

static void an_answered_one_is_forgotten(void **state)
{
	(void)state;
	open_it();
	conn_ping(owner.conn);
	loop_turn();
	websocket_up->ops->pong(websocket_up->owner, 1);
	loop_pass(KEEPALIVE / 2);
	assert_int_equal(owner.ended, 0);
	assert_int_equal(websocket_up->pings, 1);
	loop_pass(KEEPALIVE / 2); /* keepalive goes on */
	assert_int_equal(websocket_up->pings, 2);
}

/* ... and so does the time of a keepalive ping that was not answered before. */
static void another_ping_does_not_put_off_the_end(void **state)
{
	(void)state;
	open_it();
	conn_check(owner.conn);
	loop_pass(KEEPALIVE / 2 - 1);
	conn_ping(owner.conn);
	loop_turn();
	assert_int_equal(owner.ended, 0);
	loop_pass(1);
	assert_int_equal(owner.ended, 1);
}

static void nor_does_a_check_after_it(void **state)
{
	(void)state;
	open_it();
	conn_ping(owner.conn);
	loop_pass(KEEPALIVE / 4);
	conn_check(owner.conn);
	loop_pass(KEEPALIVE / 4);
	assert_int_equal(owner.ended, 1);
	assert_non_null(strstr(owner.why, "no answer to a ping for 10 ms"));
}

static void shorter_times_count_for_it_too(void **state)
{
	(void)state;
	shared.settings.keepalive_ms = 1000000;
	open_it();
	conn_ping(owner.conn);
	loop_pass(KEEPALIVE / 2);
	shared.settings.keepalive_ms = KEEPALIVE;
	conn_retime(owner.conn);
	loop_turn();
	assert_int_equal(owner.ended, 1);
}

static void a_check_pings_at_once_and_only_once(void **state)
{
	(void)state;
	conn_check(owner.conn); /* not open: nothing to ask */
	open_it();
	conn_check(owner.conn);
	assert_int_equal(websocket_up->pings, 1);
	conn_check(owner.conn);
	assert_int_equal(websocket_up->pings, 1);
	loop_pass(KEEPALIVE / 2 - 1);
	assert_int_equal(owner.ended, 0);
	loop_pass(1);
	assert_int_equal(owner.ended, 1);
}

static void another_keepalive_counts_from_the_next_turn_on(void **state)
{
	(void)state;
	shared.settings.keepalive_ms = 1000000;
	conn_retime(owner.conn);
	open_it();
	loop_pass(KEEPALIVE);
	shared.settings.keepalive_ms = KEEPALIVE;
	conn_retime(owner.conn);
	loop_turn();
	assert_int_equal(websocket_up->pings, 1);
}

static void when_it_was_heard_of_is_by_the_clock_that_goes_on(void **state)
{
	(void)state;
	loop_sleep(500);
	open_it();
	assert_int_equal(conn_heard_ms(owner.conn), loop_now + 500);
	loop_pass(5);
	loop_sleep(89500);
	conn_check(owner.conn);
	/* What was heard before that is not dated behind the sleep. */
	assert_int_equal(conn_heard_ms(owner.conn), loop_now - 5 + 500);
	loop_now++; /* before any timer */
	websocket_up->ops->message(websocket_up->owner, SPAN("{}"), 0);
	assert_int_equal(conn_heard_ms(owner.conn), loop_now + 90000);
	loop_pass(1);
	loop_sleep(1000);
	conn_check(owner.conn);
	assert_int_equal(conn_heard_ms(owner.conn), loop_now - 1 + 90000);
	loop_sleep(1000); /* nothing is heard any more */
	loop_pass(KEEPALIVE / 2);
	assert_int_equal(owner.end.heard_ms, loop_now - KEEPALIVE / 2 - 1 + 90000);
}

/* It may have come before the sleep. */
static void in_the_millisecond_of_a_check_it_is_by_the_time_before(void **state)
{
	(void)state;
	open_it();
	loop_pass(5);
	loop_sleep(90000);
	conn_check(owner.conn);
	websocket_up->ops->pong(websocket_up->owner, 1);
	assert_int_equal(conn_heard_ms(owner.conn), loop_now);
	loop_pass(5);
	conn_check(owner.conn);
	assert_int_equal(conn_heard_ms(owner.conn), loop_now - 5);
}

static void keepalive_is_a_check(void **state)
{
	(void)state;
	open_it();
	loop_sleep(90000);
	loop_pass(KEEPALIVE + 1);
	websocket_up->ops->pong(websocket_up->owner, 1);
	assert_int_equal(conn_heard_ms(owner.conn), loop_now + 90000);
}

/* ---- sending ---- */

static void a_full_queue_takes_no_more_until_it_is_drained(void **state)
{
	(void)state;
	open_it();
	websocket_up->unsent = (256 << 10) - 1;
	assert_true(conn_sendable(owner.conn));
	conn_send(owner.conn, SPAN("a"), SPAN("b"));
	assert_int_equal(conn_unsent(owner.conn), (256 << 10) + 1);
	websocket_up->unsent = 256 << 10;
	assert_false(conn_sendable(owner.conn));
	websocket_up->unsent = 0;
	assert_false(conn_sendable(owner.conn)); /* until that is told */
	websocket_up->ops->drained(websocket_up->owner);
	assert_int_equal(owner.drained, 1);
	assert_true(conn_sendable(owner.conn));
	websocket_up->ops->drained(websocket_up->owner); /* nobody waits */
	assert_int_equal(owner.drained, 1);
}

static void closing(void **state)
{
	(void)state;
	open_it();
	conn_close(owner.conn, 1000);
	assert_int_equal(websocket_up->closed, 1000);
	websocket_up->open = false;
	assert_false(conn_sendable(owner.conn));
	link_ends("closed as asked", 0, 0);
	assert_int_equal(owner.ended, 1);
	assert_int_equal(conn_unsent(owner.conn), 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, begin, finish)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		CASE(the_socket_goes_to_a_websocket),
		CASE(an_address_is_good_once_the_service_has_answered),
		CASE(the_next_address_when_a_websocket_fails),
		CASE(no_address_is_the_end),
		CASE(a_service_that_answers_speaks_for_all_addresses),
		CASE(a_target_that_no_websocket_takes),
		CASE(freed_on_the_way_up),
		CASE(an_open_one_ends_at_once),
		CASE(the_code_of_a_close_frame_is_passed_on),
		CASE(silence_brings_a_ping_and_then_the_end),
		CASE(a_word_counts_as_life),
		CASE(a_part_of_a_message_is_an_answer_to_a_ping),
		CASE(parts_of_a_message_count_for_a_while),
		CASE(a_pong_that_nobody_has_asked_for),
		CASE(a_ping_of_the_owner_must_be_answered),
		CASE(an_answer_to_an_earlier_ping_is_not_enough),
		CASE(an_answered_one_is_forgotten),
		CASE(another_ping_does_not_put_off_the_end),
		CASE(nor_does_a_check_after_it),
		CASE(shorter_times_count_for_it_too),
		CASE(a_check_pings_at_once_and_only_once),
		CASE(another_keepalive_counts_from_the_next_turn_on),
		CASE(when_it_was_heard_of_is_by_the_clock_that_goes_on),
		CASE(in_the_millisecond_of_a_check_it_is_by_the_time_before),
		CASE(keepalive_is_a_check),
		CASE(a_full_queue_takes_no_more_until_it_is_drained),
		CASE(closing),
	};

	return cmocka_run_group_tests_name("conn", tests, NULL, NULL);
}
