/* The connections that exist at a time: the stages of a takeover, what becomes of replaced ones,
 * and what the owner is told of their ends. Over connections and a loop that each case controls. */
#include "../test.h"

#include <stdio.h>

#include "conns.h"
#include "upstream/connections.h"
#include "../loop.h"
#include "upstream/endpoint.h"

enum { KEEPALIVE = 2000, LINGER = 7500, LATE = 32500, REPLACED_MAX = 16 };

static struct stats stats;
static struct endpoints endpoints;
static struct connections connections;
static char told[1000], changes[1000], before_move[1000];
static unsigned arrivals; /* notifications, of whichever connection */
static uint32_t busy;     /* the connection with requests in flight; 0: none */
static bool late_writes;  /* the next one that is replaced has writes that were given up */

static void __attribute__((format(printf, 1, 2))) tell(const char *format, ...)
{
	size_t n = strlen(told);
	va_list args;

	va_start(args, format);
	vsnprintf(told + n, sizeof(told) - n, format, args);
	va_end(args);
}

static void expect(const char *what)
{
	char seen[sizeof(told)];

	memcpy(seen, told, sizeof(seen));
	told[0] = '\0';
	assert_string_equal(seen, what);
}

static void expect_changes(const char *what)
{
	char seen[sizeof(changes)];

	memcpy(seen, changes, sizeof(seen));
	changes[0] = '\0';
	assert_string_equal(seen, what);
}

/* ---- whoever owns them: decides as plainly as can be ---- */

static void is_first(void *owner)
{
	(void)owner;
	tell("first;");
}

static bool has_moved(void *owner)
{
	(void)owner;
	tell("moved;");
	memcpy(before_move, changes, sizeof(changes));
	if (connections.former->number != busy)
		connections_idle(&connections, connections.former->number);
	return late_writes;
}

static void main_ended(void *owner, uint32_t number, bool token, const struct conn_end *end)
{
	(void)owner;
	assert_null(connections.main);
	tell("main %u%s ended: %s;", number, token ? "" : " without a token", end->why);
}

static void next_ended(void *owner, bool token, const struct conn_end *end)
{
	(void)owner;
	assert_null(connections.next);
	assert_int_equal(end->retry_after_s, -1);
	tell("next%s ended: %s;", token ? "" : " without a token", end->why);
}

static void replaced_ended(void *owner, uint32_t number, const struct conn_end *end)
{
	(void)owner, (void)end;
	tell("left %u ended;", number);
}

static void drained(void *owner)
{
	(void)owner;
	tell("drained;");
}

static void frame_came(void *owner, const struct wire_frame *frame)
{
	(void)owner;
	if (frame->kind == WIRE_UNUSABLE)
		tell("unusable%s: %s;", frame->has_id ? " answer" : "", frame->fault);
	else
		tell("frame %d;", (int)frame->id);
}

static void change_came(void *owner, const struct wire_frame *frame,
			const struct notification *change)
{
	size_t n = strlen(changes);
	struct span key = json_string_raw(&frame->key), value = json_string_raw(&frame->value);

	(void)owner, (void)change;
	snprintf(changes + n, sizeof(changes) - n, "%.*s=%.*s;", (int)key.n, key.p, (int)value.n,
		 value.p);
}

static void arrived(void *owner, const struct wire_frame *frame)
{
	(void)owner;
	assert_int_equal(frame->kind, WIRE_NOTIFICATION);
	arrivals++;
}

static void strays(void *owner, const struct wire_frame *frame, const struct notification *change)
{
	(void)change;
	if (frame)
		change_came(owner, frame, change);
	snprintf(changes + strlen(changes), sizeof(changes) - strlen(changes), "lost;");
}

static const struct connections_ops ops = {
	.first = is_first,
	.moved = has_moved,
	.main_ended = main_ended,
	.next_ended = next_ended,
	.replaced_ended = replaced_ended,
	.drained = drained,
	.frame = frame_came,
	.arrived = arrived,
	.stream = {.change = change_came, .straggler = strays},
};

static const struct endpoint_settings here = {
	.shown = "url",
	.conn = {.host = "service", .port = 443, .keepalive_ms = KEEPALIVE},
	.ca_digest = (const unsigned char[CA_DIGEST_SIZE]){0},
};

static int begin(void **state)
{
	const char *why = NULL;

	(void)state;
	told[0] = changes[0] = '\0';
	busy = arrivals = 0;
	late_writes = false;
	stats = (struct stats){0};
	loop_begin(1000, 1);
	conns_begin();
	endpoints_init(&endpoints, NULL, &stats);
	endpoints_set(&endpoints, endpoint_new(&endpoints, &here, &why));
	connections_init(&connections, NULL, &endpoints, 42, &ops, NULL, &stats);
	handover_limit(&connections.handover, 4 * HANDOVER_RECORD_BYTES);
	return 0;
}

static int end(void **state)
{
	(void)state;
	connections_stop(&connections);
	connections_fini(&connections);
	endpoints_fini(&endpoints);
	assert_int_equal(conns_left(), 0);
	assert_int_equal(loop_timers(), 0);
	return 0;
}

static void first_is_there(void)
{
	connections_connect(&connections, "token", true);
	conns_open(1);
	conns_pong(1);
	expect("first;");
}

/* It is subscribed, and the main one was sent a ping. */
static void next_is_proven(void)
{
	connections_connect(&connections, "token", true);
	conns_open(conns_made());
	conns_pong(conns_made());
}

static void next_takes_over(void)
{
	unsigned old = connections.main->conn->number;

	connections_connect(&connections, "token", true);
	conns_take_over(conns_made(), old);
	expect("moved;");
}

/* ---- the first one ---- */

static void without_a_token_it_is_it_once_it_is_open(void **state)
{
	(void)state;
	connections_connect(&connections, "key", false);
	assert_true(connections.next && !connections.ping);
	conns_open(1);
	expect("first;");
	assert_int_equal(conns_get(1)->pings, 0);
}

static void with_one_it_has_to_answer(void **state)
{
	(void)state;
	connections_connect(&connections, "token", true);
	conns_open(1);
	expect("");
	assert_true(connections.ping && !connections.proven);
	conns_end(1, 0, -1);
	expect("next ended: it was lost;");
	assert_true(!connections.next && !connections.ping && !connections.proven);
	assert_true(TAILQ_EMPTY(&connections.all));
}

static void an_answer_to_another_ping_is_none(void **state)
{
	(void)state;
	first_is_there();
	conn_ping(conns_get(1)); /* of keepalive, say; its answer is in flight */
	next_is_proven();
	struct conn *c = conns_get(1);
	c->ops->pong(c->owner, c->pings - 1);
	expect("");
	c->ops->pong(c->owner, c->pings + 1);
	expect("moved;");
}

/* ---- taking over ---- */

static void the_stages(void **state)
{
	(void)state;
	first_is_there();
	connections_connect(&connections, "token", true);
	conns_open(2);
	assert_int_equal(conns_get(2)->pings, 1);
	assert_int_equal(conns_get(1)->pings, 1);
	conns_pong(2);
	assert_true(connections.proven);
	assert_int_equal(conns_get(1)->pings, 2); /* has it brought everything that came before? */
	expect("");
	conns_pong(1);
	expect("moved;");
	assert_int_equal(stats.upstream_handovers, 1);
	assert_true(!connections.next && !connections.ping && !connections.proven);
}

static void each_change_is_told_once(void **state)
{
	(void)state;
	first_is_there();
	conns_tell(1, "a", "1", 1);
	connections_connect(&connections, "token", true);
	conns_tell(1, "a", "2", 2);
	conns_open(2);
	conns_tell(2, "a", "2", 2);
	conns_tell(2, "a", "3", 3);
	conns_pong(2);
	conns_tell(1, "a", "3", 3);
	conns_tell(1, "a", "4", 4);
	expect_changes("a=1;a=2;a=3;a=4;");
	conns_pong(1);
	expect("moved;");
	conns_tell(2, "a", "4", 4);
	conns_tell(2, "a", "5", 5);
	conns_tell(1, "a", "5", 5);
	expect_changes("a=5;");
	assert_true(stats.upstream_doubles > 0);
}

static void what_only_the_next_one_has_is_told_when_it_takes_over(void **state)
{
	(void)state;
	first_is_there();
	next_is_proven();
	conns_tell(2, "a", "1", 1);
	conns_tell(2, "a", "2", 2);
	expect_changes("");
	conns_pong(1);
	expect("moved;");
	assert_string_equal(
		before_move,
		"a=1;a=2;"); /* and changes for those that this makes live come behind */
	expect_changes("a=1;a=2;");
}

static void other_times_are_for_all(void **state)
{
	struct conn_settings settings = here.conn;

	(void)state;
	first_is_there();
	next_is_proven();
	settings.keepalive_ms = 200;
	connections_set_times(&connections, &settings);
	for (unsigned i = 1; i <= 2; i++) {
		assert_int_equal(conns_get(i)->retimes, 1);
		assert_int_equal(conns_get(i)->shared->settings.keepalive_ms, 200);
	}
}

static void also_for_those_to_another_place_and_those_to_come(void **state)
{
	const char *why = NULL;
	struct conn_settings settings = here.conn;

	(void)state;
	first_is_there();
	endpoints_set(&endpoints, endpoint_new(&endpoints, &here, &why));
	settings.keepalive_ms = 200;
	connections_set_times(&connections, &settings);
	assert_int_equal(conns_get(1)->shared->settings.keepalive_ms, 200);
	assert_int_equal(endpoints.present->shared.settings.keepalive_ms, 200);
}

/* ---- messages ---- */

static void what_comes_is_counted(void **state)
{
	static const char answer[] = "{\"code\":200,\"messageId\":7}";

	(void)state;
	first_is_there();
	next_takes_over();
	conns_say(2, answer);
	conns_say(1, answer);
	expect("frame 7;frame 7;");
	assert_int_equal(stats.upstream_connects, 2);
	assert_int_equal(stats.upstream_messages_in, 2);
	assert_int_equal(stats.upstream_bytes_in, 2 * strlen(answer));
	conns_tell(2, "a", "1", 1);
	conns_tell(1, "a", "1", 1);
	expect_changes("a=1;");
	assert_int_equal(arrivals, 2);
	assert_int_equal(stats.upstream_messages_in, 4);
	assert_int_equal(stats.upstream_notifications, 2);
	assert_int_equal(stats.upstream_doubles, 1);
}

/* Its kind does not matter. */
static void a_binary_or_too_long_message_cannot_be_used(void **state)
{
	static const char answer[] = "{\"code\":200,\"messageId\":7}",
			  change[] = "{\"type\":\"notification\",\"key\":\"a\"}";

	(void)state;
	first_is_there();
	conns_say_flagged(1, answer, WEBSOCKET_BINARY);
	expect("unusable answer: it is binary;");
	conns_say_flagged(1, change, WEBSOCKET_TRUNCATED | WEBSOCKET_BINARY);
	expect("unusable: it is too long;");
	expect_changes("");
	assert_int_equal(arrivals, 0);
}

static void they_are_looked_after(void **state)
{
	(void)state;
	first_is_there();
	next_takes_over();
	connections_connect(&connections, "token", true);
	connections_check(&connections);
	for (unsigned i = 1; i <= 3; i++)
		assert_int_equal(conns_get(i)->checks, 1);
}

static void next_is_lost_when_it_is_proven(void)
{
	first_is_there();
	next_is_proven();
	conns_tell(2, "a", "1", 1);
	conns_end(2, 0, -1);
	expect("next ended: it was lost;");
}

static void the_next_one_ends(void **state)
{
	(void)state;
	next_is_lost_when_it_is_proven();
	conns_pong(1);
	loop_pass(60000);
	expect("");
	expect_changes("");
	conns_tell(1, "a", "1", 1);
	expect_changes("a=1;");
}

static void the_next_one_ends_when_it_is_proven(void **state)
{
	(void)state;
	next_is_lost_when_it_is_proven();
	assert_true(!connections.next && !connections.ping && !connections.proven);
	next_takes_over();
	expect_changes(""); /* the main one would have brought it */
}

/* ---- the present one ends ---- */

static void before_it_has_said_that_it_brought_all(void **state)
{
	(void)state;
	first_is_there();
	next_is_proven();
	conns_tell(2, "a", "1", 1);
	conns_end(1, 0, -1);
	expect("main 1 ended: it was lost;first;"); /* there was no move: it may have had more */
	expect_changes("a=1;");
	assert_null(conns_get(1));
	assert_int_equal(connections.main->number, 2);
}

static void after_it_has(void **state)
{
	(void)state;
	first_is_there();
	next_is_proven();
	conns_tell(2, "a", "1", 1);
	conns_pong(1);
	conns_end(1, 0, -1);
	expect("moved;left 1 ended;");
	expect_changes("a=1;");
}

/* Changes that it has brought are still known when the next one brings them. */
static void and_its_changes_are_not_told_again(void **state)
{
	(void)state;
	first_is_there();
	next_is_proven();
	conns_tell(1, "a", "1", 1);
	conns_end(1, 0, -1);
	expect("main 1 ended: it was lost;first;");
	conns_tell(2, "a", "1", 1);
	conns_tell(2, "a", "2", 2);
	expect_changes("a=1;a=2;");
}

static void after_a_while_they_are_compared_no_more(void **state)
{
	static const char one[] = "{\"type\":\"notification\",\"key\":\"a\",\"value\":\"1\"}";

	(void)state;
	first_is_there();
	connections_connect(&connections, "token", true);
	conns_say(1, one); /* the next one does not bring it: it was not subscribed yet */
	expect_changes("a=1;");
	conns_take_over(2, 1);
	expect("moved;");
	loop_pass(LATE);
	conns_say(2, one); /* so this is another one */
	expect_changes("a=1;");
}

/* A service without timestamps: two changes to the same value are two. */
static void what_was_brought_before_is_no_double_of_what_comes_later(void **state)
{
	static const char one[] = "{\"type\":\"notification\",\"key\":\"a\",\"value\":\"1\"}",
			  two[] = "{\"type\":\"notification\",\"key\":\"a\",\"value\":\"2\"}";

	(void)state;
	first_is_there();
	connections_connect(&connections, "token", true);
	conns_say(1, one);
	conns_open(2);
	conns_pong(2);
	conns_say(2, two);
	conns_pong(1);
	conns_end(1, 0, -1);
	expect("moved;left 1 ended;");
	expect_changes("a=1;a=2;");
	conns_say(2, one);
	expect_changes("a=1;");
}

/* ---- too much to compare ---- */

static void fill(unsigned number)
{
	char key[16];

	for (int i = 0; i < 9 && conns_get(number); i++) {
		snprintf(key, sizeof(key), "k%d", i);
		conns_tell(number, key, "v", 1);
	}
}

static void of_the_present_one(void **state)
{
	(void)state;
	first_is_there();
	connections_connect(&connections, "token", true);
	fill(1);
	expect("next ended: too many notifications during the handover;");
	expect_changes("k0=v;k1=v;k2=v;k3=v;k4=v;k5=v;k6=v;k7=v;k8=v;");
	assert_null(conns_get(2));
	next_takes_over(); /* the next time there may be fewer */
}

static void of_the_next_one(void **state)
{
	(void)state;
	first_is_there();
	next_is_proven();
	fill(2);
	expect("next ended: too many notifications during the handover;");
	expect_changes("");
	conns_tell(1, "a", "1", 1);
	expect_changes("a=1;");
}

/* Then no next connection can be given up. Changes that the former one brings late are lost. */
static void of_the_former_one(void **state)
{
	(void)state;
	first_is_there();
	next_takes_over();
	fill(2);
	expect("");
	expect_changes("k0=v;k1=v;k2=v;k3=v;lost;k4=v;k5=v;k6=v;k7=v;k8=v;");
	conns_tell(1, "a", "1", 1);
	expect_changes("");
	next_takes_over();
	conns_tell(3, "a", "2", 2);
	expect_changes("a=2;");
}

/* ---- replaced ones ---- */

static void one_stays_for_a_while(void **state)
{
	(void)state;
	first_is_there();
	next_takes_over();
	loop_pass(LINGER - 1);
	assert_int_equal(conns_get(1)->closing, 0);
	loop_pass(1);
	assert_int_equal(conns_get(1)->closing, 1000);
	conns_end(1, 0, -1);
	expect("left 1 ended;");
	loop_pass(LATE);
	assert_int_equal(loop_pending(), 0);
}

static void one_that_is_busy_stays_until_it_is_not(void **state)
{
	(void)state;
	first_is_there();
	busy = 1;
	next_takes_over();
	assert_true(loop_pass(60000) < 30); /* no timer goes mad */
	assert_int_equal(conns_get(1)->closing, 0);
	conns_say(1, "{\"code\":200,\"messageId\":7}");
	expect("frame 7;");
	busy = 0;
	connections_idle(&connections, 1);
	assert_int_equal(conns_get(1)->closing, 1000);
}

static void an_older_one_goes_as_soon_as_it_is_idle(void **state)
{
	(void)state;
	first_is_there();
	next_takes_over();
	next_takes_over();
	assert_int_equal(conns_get(1)->closing, 1000);
	assert_int_equal(conns_get(2)->closing, 0);
}

/* It brings no notifications. */
static void one_without_a_token_goes_at_once(void **state)
{
	(void)state;
	connections_connect(&connections, "key", false);
	conns_open(1);
	expect("first;");
	next_takes_over();
	assert_int_equal(conns_get(1)->closing, 1000);
}

/* So subscribers learn first that there is a connection again. */
static void behind_one_without_a_token_it_is_told_later(void **state)
{
	(void)state;
	connections_connect(&connections, "key", false);
	conns_open(1);
	expect("first;");
	next_is_proven();
	conns_tell(2, "a", "1", 1);
	conns_pong(1);
	expect("moved;");
	assert_string_equal(before_move, "");
	expect_changes("a=1;");
}

/* Nothing is told to anybody any more. */
static void one_goes_at_once_if_the_new_one_has_no_token(void **state)
{
	(void)state;
	first_is_there();
	connections_connect(&connections, "key", false);
	conns_take_over(2, 1);
	expect("moved;");
	assert_int_equal(conns_get(1)->closing, 1000);
}

static void one_without_a_token_is_busy_as_well(void **state)
{
	(void)state;
	connections_connect(&connections, "key", false);
	conns_open(1);
	expect("first;");
	busy = 1;
	next_takes_over();
	loop_pass(60000);
	assert_int_equal(conns_get(1)->closing, 0);
	connections_idle(&connections, 1);
	assert_int_equal(conns_get(1)->closing, 1000);
}

/* A write that was given up there may take effect yet, so the connection stays for its answer. */
static void unless_it_has_late_writes(void **state)
{
	(void)state;
	connections_connect(&connections, "key", false);
	conns_open(1);
	expect("first;");
	late_writes = true;
	next_takes_over();
	loop_pass(LINGER - 1);
	assert_int_equal(conns_get(1)->closing, 0);
	loop_pass(1);
	assert_int_equal(conns_get(1)->closing, 1000);
}

/* It stays for such writes, but its notifications are ignored: they are older than the loss. */
static void one_outlives_the_main_one(void **state)
{
	(void)state;
	first_is_there();
	next_takes_over();
	conns_end(2, 0, -1);
	expect("main 2 ended: it was lost;");
	conns_tell(1, "a", "1", 1);
	connections_connect(&connections, "token", true);
	conns_open(3);
	conns_pong(3);
	expect("first;");
	conns_tell(1, "b", "1", 1);
	expect_changes("");
	assert_int_equal(conns_get(1)->closing, 0);
	loop_pass(LINGER);
	assert_int_equal(conns_get(1)->closing, 1000);
}

static void the_former_one_is_ahead(void **state)
{
	(void)state;
	first_is_there();
	next_takes_over();
	conns_tell(1, "a", "1", 1);
	conns_tell(1, "a", "2", 2);
	expect_changes("a=1;a=2;"); /* the main one has brought nothing of the key */
	conns_tell(2, "a", "1", 1);
	conns_tell(1, "a", "3", 3);
	expect_changes(""); /* now it has, so this may be older than the changes told since */
	conns_tell(2, "a", "2", 2);
	conns_tell(2, "a", "3", 3);
	expect_changes("a=3;");
}

static void what_comes_too_late_is_lost(void **state)
{
	(void)state;
	first_is_there();
	next_takes_over();
	loop_pass(1000);
	conns_tell(2, "a", "2", 2);
	conns_tell(1, "a", "1", 1);
	expect_changes("a=2;");
	loop_pass(5000);
	conns_tell(1, "b", "1", 1); /* this is not: nothing has come before it */
	loop_pass(LINGER - 5000);
	expect_changes("b=1;a=1;lost;");
}

/* Requests may keep it longer than it would linger. */
static void one_is_compared_as_long_as_it_is_there(void **state)
{
	(void)state;
	first_is_there();
	busy = 1;
	next_takes_over();
	conns_tell(2, "a", "2", 2);
	loop_pass(2 * LATE);
	conns_tell(1, "a", "1", 1);
	conns_tell(1, "a", "3", 3);
	conns_tell(2, "a", "3", 3);
	expect_changes("a=2;a=3;");
	loop_pass(LINGER);
	expect_changes("a=1;lost;");
	conns_end(1, 0, -1);
	expect("left 1 ended;");
	conns_tell(2, "a", "4", 4);
	loop_pass(LINGER);
	assert_int_equal(connections.handover.awaited, 0);
	assert_int_equal(loop_pending(), 0);
}

/* However often a connection takes over, a straggler is lost in time. */
static void handovers_in_a_row_keep_no_straggler(void **state)
{
	(void)state;
	first_is_there();
	next_takes_over();
	conns_tell(2, "a", "2", 2);
	conns_tell(1, "a", "1", 1);
	expect_changes("a=2;");
	for (int i = 0; i < 10; i++) {
		loop_pass(1000);
		next_takes_over();
	}
	expect_changes("a=1;lost;");
}

static void of_an_older_one_nothing_is_believed(void **state)
{
	(void)state;
	first_is_there();
	busy = 1;
	next_takes_over();
	next_takes_over();
	conns_tell(1, "a", "1", 1);
	expect_changes("");
	conns_tell(3, "a", "2", 2);
	expect_changes("a=2;");
}

static void so_many_are_enough(void **state)
{
	(void)state;
	first_is_there();
	for (unsigned i = 1; i <= REPLACED_MAX; i++) {
		assert_false(connections_too_many(&connections));
		busy = i;
		next_takes_over();
		assert_int_equal(conns_get(i)->closing, 0);
	}
	assert_true(connections_too_many(&connections));
	connections_idle(&connections, 3);
	assert_false(connections_too_many(&connections)); /* closing ones do not count */
}

/* ---- other endpoints ---- */

static void another_place(void **state)
{
	const char *why = NULL;
	struct endpoint_settings there = here;

	(void)state;
	first_is_there();
	assert_ptr_equal(connections.main->endpoint, endpoints.present);
	there.shown = "other";
	endpoints_set(&endpoints, endpoint_new(&endpoints, &there, &why));
	assert_ptr_not_equal(connections.main->endpoint, endpoints.present);
	next_takes_over();
	assert_ptr_equal(connections.main->endpoint, endpoints.present);
	conns_end(1, 0, -1); /* the former endpoint goes with it, a turn later */
	expect("left 1 ended;");
	assert_int_equal(loop_turn(), 1);
}

/* ---- the end ---- */

static void all_say_goodbye(void **state)
{
	(void)state;
	first_is_there();
	next_takes_over();
	connections_connect(&connections, "token", true);
	connections_stop(&connections);
	assert_int_equal(loop_pending(), 0);
	assert_null(conns_get(3));
	assert_int_equal(conns_get(1)->closing, 1000);
	assert_int_equal(conns_get(2)->closing, 1000);
	conns_end(2, 0, -1);
	assert_false(TAILQ_EMPTY(&connections.all));
	conns_end(1, 0, -1);
	assert_true(TAILQ_EMPTY(&connections.all));
	expect("left 2 ended;left 1 ended;");
}

static void or_go_without(void **state)
{
	(void)state;
	first_is_there();
	next_takes_over();
	connections_stop(&connections);
	assert_false(TAILQ_EMPTY(&connections.all));
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		CASE(without_a_token_it_is_it_once_it_is_open),
		CASE(with_one_it_has_to_answer),
		CASE(an_answer_to_another_ping_is_none),
		CASE(the_stages),
		CASE(each_change_is_told_once),
		CASE(what_only_the_next_one_has_is_told_when_it_takes_over),
		CASE(other_times_are_for_all),
		CASE(also_for_those_to_another_place_and_those_to_come),
		CASE(what_comes_is_counted),
		CASE(a_binary_or_too_long_message_cannot_be_used),
		CASE(they_are_looked_after),
		CASE(the_next_one_ends),
		CASE(the_next_one_ends_when_it_is_proven),
		CASE(before_it_has_said_that_it_brought_all),
		CASE(after_it_has),
		CASE(and_its_changes_are_not_told_again),
		CASE(after_a_while_they_are_compared_no_more),
		CASE(what_was_brought_before_is_no_double_of_what_comes_later),
		CASE(of_the_present_one),
		CASE(of_the_next_one),
		CASE(of_the_former_one),
		CASE(one_stays_for_a_while),
		CASE(one_that_is_busy_stays_until_it_is_not),
		CASE(an_older_one_goes_as_soon_as_it_is_idle),
		CASE(one_without_a_token_goes_at_once),
		CASE(behind_one_without_a_token_it_is_told_later),
		CASE(one_goes_at_once_if_the_new_one_has_no_token),
		CASE(one_without_a_token_is_busy_as_well),
		CASE(unless_it_has_late_writes),
		CASE(one_outlives_the_main_one),
		CASE(the_former_one_is_ahead),
		CASE(what_comes_too_late_is_lost),
		CASE(one_is_compared_as_long_as_it_is_there),
		CASE(handovers_in_a_row_keep_no_straggler),
		CASE(of_an_older_one_nothing_is_believed),
		CASE(so_many_are_enough),
		CASE(another_place),
		CASE(all_say_goodbye),
		CASE(or_go_without),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
