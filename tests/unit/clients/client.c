/* client.c - the local connections over socketpairs, in a real loop; the core is a small one of the
 * test's. */
#include "clients/client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clients/refusals.h"
#include "gateway/http.h"
#include "requests/answers.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/turn.h"
#include "../logged.h"
#include "../test.h"

enum { PEERS = 8, SOFT = 4096, HARD = 16384 };
enum { SLOW_US = 1000, PART_US = 2000 }; /* of lines that are handled in one part */

/* A client's other end, and what the core was told of it. */
struct other {
	int fd;
	struct peer *peer; /* NULL: has not joined, or has left */
	struct peer_identity who;
	unsigned joined, left, lines, too_long;
	char last[64];     /* line */
	bool hold;         /* may_read() says no */
	bool by_one;       /* ... behind each line, and yes when it is asked again */
	unsigned answer_n; /* bytes with which each line is answered; 0: not */
};

static struct world {
	struct event_base *base;
	struct clients *clients;
	struct stats stats;
	struct other other[PEERS];
	unsigned n, closed;
	struct other *flushed; /* is answered and flushed from within another's line */
	struct other *rings;   /* says something while another's second line is handed on */
	unsigned lines_before_rung;
	struct other *slow; /* a line of it takes SLOW_US, */
	bool all_slow;      /* or of each */
} w;

static struct other *other_of(const struct peer *peer)
{
	for (unsigned i = 0; i < w.n; i++) {
		if (w.other[i].peer == peer)
			return &w.other[i];
	}
	fail_msg("nobody's peer");
	return NULL;
}

static void on_joined(void *owner, struct peer *peer, const struct peer_identity *who)
{
	struct other *o = &w.other[w.n - 1]; /* the one that is adopted now */

	(void)owner;
	answers_join(peer);
	o->peer = peer;
	o->who = *who;
	o->joined++;
}

static void say(struct other *o, size_t n)
{
	char *text = malloc(n);

	memset(text, 'a', n);
	text[n - 1] = '\n';
	buf_add(&o->peer->out.own, text, n);
	free(text);
	clients_changed(w.clients, o->peer);
}

static void burn(int64_t us)
{
	for (int64_t until = clock_mono_us() + us; clock_mono_us() < until;)
		;
}

static void on_line(void *owner, struct peer *peer, struct span line, int64_t now)
{
	struct other *o = other_of(peer);

	(void)owner, (void)now;
	o->lines++;
	snprintf(o->last, sizeof(o->last), "%.*s", (int)line.n, line.p);
	if (w.slow == o || w.all_slow)
		burn(SLOW_US);
	if (w.rings == o)
		w.lines_before_rung = w.other[0].lines;
	else if (w.rings && o->lines == 2 && write(w.rings->fd, "x\n", 2) != 2)
		fail();
	if (o->answer_n)
		say(o, o->answer_n);
	if (w.flushed) {
		say(w.flushed, 10);
		clients_flush(w.clients, w.flushed->peer);
	}
}

static void on_too_long(void *owner, struct peer *peer, struct span prefix)
{
	(void)owner, (void)prefix;
	other_of(peer)->too_long++;
}

static bool asks_may_read(void *owner, struct peer *peer)
{
	(void)owner;
	struct other *o = other_of(peer);

	if (o->by_one)
		o->hold = !o->hold;
	return !o->hold;
}

static void on_left(void *owner, struct peer *peer)
{
	struct other *o = other_of(peer);

	(void)owner;
	o->left++;
	o->peer = NULL;
}

static void on_room(void *owner, struct peer *peer)
{
	(void)owner, (void)peer;
}

static void on_closed(void *owner)
{
	(void)owner;
	w.closed++;
}

static const char *no_room; /* for another client */

static const char *asks_room(void *owner, const struct peer_identity *who)
{
	(void)owner, (void)who;
	return no_room;
}

static const struct client_ops ops = {
	.lacks_room = asks_room,
	.joined = on_joined,
	.line = on_line,
	.too_long = on_too_long,
	.may_read = asks_may_read,
	.has_room = on_room,
	.left = on_left,
	.closed = on_closed,
};

static const struct client_settings settings = {
	.max_clients = PEERS, .max_line = 1000, .output_soft = SOFT, .output_hard = HARD};

static int set_up(void **state)
{
	(void)state;
	w = (struct world){.base = event_base_new()};
	log_set_level(LOG_LEVEL_ERROR);
	w.clients = clients_new(w.base, &settings, &ops, NULL, &w.stats);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	if (w.clients)
		clients_free(w.clients);
	for (unsigned i = 0; i < w.n; i++) {
		assert_int_equal(w.other[i].left, w.other[i].joined); /* each once */
		if (w.other[i].fd >= 0)
			close(w.other[i].fd);
	}
	event_base_free(w.base);
	return 0;
}

static struct other *adopt(int fd, int other_end)
{
	struct other *o = &w.other[w.n++];

	*o = (struct other){.fd = other_end};
	clients_adopt(w.clients, fd, false);
	return o;
}

static struct other *come(void)
{
	int fd[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd), 0);
	return adopt(fd[0], fd[1]);
}

/* All that can happen now. */
static void turn(void)
{
	for (int i = 0; i < 20; i++)
		event_base_loop(w.base, EVLOOP_NONBLOCK);
}

static void break_loop(void *base)
{
	event_base_loopbreak(base);
}

/* One turn of the loop, its end included. */
static void one_turn(void)
{
	struct turn_step last;

	turn_step_init(&last, w.base, break_loop, w.base);
	turn_step_want(&last);
	assert_int_equal(turn_loop(w.base), 0);
	turn_step_fini(&last);
}

static void write_text(struct other *o, const char *text)
{
	assert_int_equal(write(o->fd, text, strlen(text)), (ssize_t)strlen(text));
}

/* How much it can read now; -1: the end of file, or an error. */
static ssize_t take(struct other *o)
{
	static char text[1 << 20];
	ssize_t n, all = 0;

	while ((n = read(o->fd, text, sizeof(text))) > 0)
		all += n;
	return all == 0 && (n == 0 || errno != EAGAIN) ? -1 : all;
}

/* ---- bytes ---- */

static void lines_come_one_by_one_however_they_are_cut(void **state)
{
	struct other *o = come();

	(void)state;
	write_text(o, "one\ntw");
	turn();
	assert_int_equal(o->lines, 1);
	write_text(o, "o\r\nthree\n");
	turn();
	assert_int_equal(o->lines, 3);
	assert_string_equal(o->last, "three");
}

static void a_line_that_is_too_long_is_told_once(void **state)
{
	struct other *o = come();
	char text[3000];

	(void)state;
	memset(text, 'x', sizeof(text));
	text[2990] = '\n';
	memcpy(text + 2991, "ping\n", 6);
	write_text(o, text);
	turn();
	assert_int_equal(o->too_long, 1);
	assert_string_equal(o->last, "ping");
}

static void answers_of_a_turn_leave_together(void **state)
{
	struct other *o = come();

	(void)state;
	o->answer_n = 10;
	write_text(o, "a\nb\nc\n");
	turn();
	assert_int_equal(take(o), 30);
}

static void one_that_is_answered_within_anothers_turn_is_served_as_well(void **state)
{
	struct other *a = come(), *b = come(), *c = come();

	(void)state;
	w.flushed = c;
	a->answer_n = b->answer_n = 10;
	write_text(a, "x\n");
	write_text(b, "y\n");
	turn();
	assert_int_equal(take(a), 10);
	assert_int_equal(take(b), 10);
	assert_int_equal(take(c), 20);
}

/* ---- what holds them up ---- */

static void one_that_may_not_be_read_is_read_on_later(void **state)
{
	struct other *o = come();

	(void)state;
	o->hold = true;
	write_text(o, "one\ntwo\n");
	turn();
	assert_int_equal(o->lines, 1);
	assert_int_equal(clients_sum_up(w.clients).paused, 1);
	o->hold = false;
	clients_changed(w.clients, o->peer);
	turn();
	assert_int_equal(o->lines, 2);
	write_text(o, "three\n");
	turn();
	assert_int_equal(o->lines, 3);
}

static void write_lines(struct other *o, int n)
{
	for (int i = 0; i < n; i++)
		write_text(o, "a line of sixty-four bytes, its end included, as all others are\n");
}

static unsigned n_lines(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < w.n; i++)
		n += w.other[i].lines;
	return n;
}

static void of_lines_that_take_long_few_are_handed_on_at_once(void **state)
{
	enum { LINES = 60 };
	struct other *o = come(), *other = come();

	(void)state;
	w.slow = o;
	write_lines(o, LINES);
	one_turn(); /* a part when they come, and one when the turn ends */
	assert_in_range(o->lines, 1, 2 * PART_US / SLOW_US);
	write_lines(other, LINES);
	while (o->lines < LINES) {
		unsigned before = o->lines;
		one_turn();
		assert_in_range(o->lines, before, before + PART_US / SLOW_US);
	}
	assert_int_equal(other->lines, LINES);
	assert_int_equal(w.stats.client_reads_held, 0);
	w.slow = NULL;
	write_lines(o, LINES);
	while (o->lines < 2 * LINES)
		one_turn();
	turn(); /* its share may have been over with the last line */
	assert_int_equal(clients_sum_up(w.clients).paused, 0);
}

/* However many they are: those whose lines take long have a part of the turn together. */
static void those_whose_lines_take_long_take_turns(void **state)
{
	enum { LINES = 20 };
	struct other *o[PEERS];

	(void)state;
	w.all_slow = true;
	for (int i = 0; i < PEERS; i++) {
		o[i] = come();
		write_lines(o[i], LINES / 2);
	}
	one_turn();
	for (unsigned sent = LINES / 2; n_lines() < PEERS * LINES;) {
		unsigned before = n_lines(), fewest = LINES, most = 0;
		if (n_lines() >= PEERS * sent) { /* of each a line, which is put off */
			for (int i = 0; i < PEERS; i++)
				write_lines(o[i], 1);
			sent++;
		}
		one_turn();
		assert_in_range(n_lines(), before, before + PART_US / SLOW_US);
		for (int i = 0; i < PEERS; i++) {
			fewest = o[i]->lines < fewest ? o[i]->lines : fewest;
			most = o[i]->lines > most ? o[i]->lines : most;
		}
		assert_in_range(most - fewest, 0, 2);
	}
}

static void of_lines_that_were_held_few_are_handed_on_at_once(void **state)
{
	enum { LINES = 60 };
	struct other *o = come();

	(void)state;
	o->hold = true;
	write_lines(o, LINES);
	one_turn();
	assert_int_equal(o->lines, 1);
	w.slow = o;
	o->hold = false;
	clients_changed(w.clients, o->peer);
	while (o->lines < LINES) {
		unsigned before = o->lines;
		one_turn();
		assert_in_range(o->lines, before, before + PART_US / SLOW_US);
	}
	one_turn(); /* its share may have been over with the last line */
	assert_int_equal(clients_sum_up(w.clients).paused, 0);
}

/* What is left of one turn is the next turn's, and there is a look at the others between them. */
static void many_lines_that_were_held_keep_nobody_waiting(void **state)
{
	struct other *a = come(), *b = come();

	(void)state;
	a->by_one = true;
	a->answer_n = 2;
	w.rings = b;
	for (int i = 0; i < 100; i++)
		write_text(a, "line\n");
	for (int i = 0; i < 200; i++)
		turn();
	assert_int_equal(a->lines, 100);
	assert_int_equal(b->lines, 1);
	assert_true(w.lines_before_rung < 10);
}

static void one_that_does_not_read_is_dropped_with_a_last_line(void **state)
{
	struct other *o = come();

	(void)state;
	for (int i = 0; i < 400 && o->peer; i++) {
		say(o, 4000);
		turn();
	}
	assert_int_equal(o->left, 1);
	assert_int_equal(w.stats.clients_dropped_slow, 1);
	assert_int_equal(w.closed, 0); /* it may still take its last line */
	while (take(o) > 0)
		turn();
	assert_int_equal(w.closed, 1);
}

/* ---- how they go ---- */

static void one_that_is_half_closed_gets_its_answers_first(void **state)
{
	struct other *o = come();

	(void)state;
	o->answer_n = 10;
	write_text(o, "one\ntwo");
	shutdown(o->fd, SHUT_WR);
	turn();
	assert_int_equal(o->lines, 2);
	assert_int_equal(take(o), 20);
	turn();
	assert_int_equal(take(o), -1);
	assert_int_equal(o->left, 1);
}

static void one_that_is_half_closed_stays_while_it_waits_for_something(void **state)
{
	struct other *o = come();

	(void)state;
	o->peer->answers.unanswered = 1;
	shutdown(o->fd, SHUT_WR);
	turn();
	assert_int_equal(o->left, 0);
	o->peer->answers.unanswered = 0;
	o->peer->topics.n = 1;
	say(o, 10);
	turn();
	assert_int_equal(o->left, 0);
	o->peer->topics.n = 0;
	say(o, 10);
	turn();
	assert_int_equal(o->left, 1);
}

static void one_that_is_gone_leaves(void **state)
{
	struct other *o = come();

	(void)state;
	close(o->fd);
	o->fd = -1;
	turn();
	assert_int_equal(o->left, 1);
	assert_int_equal(clients_count(w.clients), 0);
}

/* No event tells that one that is not read is gone: it is looked for. */
static void one_that_goes_while_it_is_not_read_is_noticed(void **state)
{
	struct other *o = come();

	(void)state;
	o->hold = true;
	write_text(o, "one\ntwo\n");
	turn();
	assert_int_equal(clients_sum_up(w.clients).paused, 1);
	close(o->fd);
	o->fd = -1;
	turn();
	assert_int_equal(o->left, 0);
	while (!o->left)
		event_base_loop(w.base, EVLOOP_ONCE);
	assert_int_equal(clients_count(w.clients), 0);
}

/* Each of them has changed when the first is settled, and the last goes before its turn has come.
 */
static void one_may_go_while_others_are_settled(void **state)
{
	struct other *o[PEERS];

	(void)state;
	for (int i = 0; i < PEERS; i++)
		o[i] = come();
	for (int i = 0; i < PEERS; i++)
		say(o[i], 10);
	for (int i = 1; i < PEERS; i += 2) {
		close(o[i]->fd);
		o[i]->fd = -1;
	}
	turn();
	for (int i = 0; i < PEERS; i++) {
		assert_int_equal(o[i]->left, i % 2);
		if (i % 2 == 0)
			assert_int_equal(take(o[i]), 10);
	}
	assert_int_equal(clients_count(w.clients), PEERS / 2);
}

/* Seven clients send without end. In one turn of the loop each has a share of what one alone has.
 */
static void the_more_are_read_the_less_of_each(void **state)
{
	enum { ALONE = 65536, TEXT = 1 << 17, LINE = 64 };
	static char text[TEXT];
	struct other *o[PEERS - 1];

	(void)state;
	memset(text, 'x', sizeof(text));
	for (size_t i = LINE - 1; i < sizeof(text); i += LINE)
		text[i] = '\n';
	for (int i = 0; i < PEERS - 1; i++) {
		o[i] = come();
		int size = sizeof(text) * 2;
		setsockopt(o[i]->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	}
	assert_int_equal(write(o[0]->fd, text, TEXT), TEXT);
	one_turn();
	assert_int_equal(w.stats.client_bytes_in, ALONE);
	turn();
	for (int i = 0; i < PEERS - 1; i++)
		assert_int_equal(write(o[i]->fd, text, TEXT), TEXT);
	one_turn(); /* it is found out how many they are */
	while (n_lines() < PEERS * (TEXT / LINE)) {
		uint64_t before = w.stats.client_bytes_in;
		one_turn();
		assert_in_range(w.stats.client_bytes_in - before, 0,
				ALONE * (PEERS - 1) / (PEERS - 2));
	}
}

/* As at the end of the daemon: in whatever state they are. */
static void all_go_at_once(void **state)
{
	struct other *held = come(), *half = come(), *full = come(), *changed = come();

	(void)state;
	held->hold = true;
	write_text(held, "one\ntwo\n");
	half->hold = true;
	write_text(half, "x\n");
	turn();
	shutdown(half->fd, SHUT_WR);
	for (int i = 0; i < 100 && full->peer; i++) {
		say(full, 4000);
		turn();
	}
	say(changed, 10);
	clients_free(w.clients);
	w.clients = NULL;
	assert_int_equal(w.closed, 4);
}

/* ---- those who can't stay ---- */

static void one_too_many_gets_a_last_line(void **state)
{
	struct client_settings fewer = settings;
	char text[300] = "";

	(void)state;
	come();
	fewer.max_clients = 1;
	clients_set(w.clients, &fewer);
	struct other *o = come();
	assert_int_equal(o->joined, 0);
	while (read(o->fd, text, sizeof(text) - 1) < 0) /* it might have said GET */
		event_base_loop(w.base, EVLOOP_ONCE);
	assert_non_null(strstr(text, "{\"code\":503,"));
	assert_non_null(strstr(text, "too_many_clients"));
	assert_null(strstr(text, "retryAfterMs")); /* nobody knows when there is room */
	assert_null(strstr(text, "\"error\":\"\""));
	assert_int_equal(take(o), -1);
}

/* One that is refused is told why, and that it has come to the end; then it is forgotten. */
static void those_who_are_refused_wait_for_their_last_line(void **state)
{
	char text[400] = "";

	(void)state;
	no_room = "the section is full";
	struct other *o = come();
	no_room = NULL;
	assert_int_equal(o->joined, 0);
	assert_int_equal(w.stats.clients_refused, 1);
	assert_int_equal(clients_count(w.clients), 0);
	while (read(o->fd, text, sizeof(text) - 1) < 0)
		event_base_loop(w.base, EVLOOP_ONCE);
	assert_non_null(strstr(text, "the section is full"));
	assert_int_equal(take(o), -1);
	write_text(o, "what it says is no error\n");   /* its socket is there for a moment */
	while (send(o->fd, "x", 1, MSG_NOSIGNAL) == 1) /* after a second it is not */
		event_base_loop(w.base, EVLOOP_ONCE);
}

/* The oldest one gives its place to a new one. */
static void many_are_refused_at_once(void **state)
{
	int fd[REFUSALS_MAX + 1][2];
	char text[300];

	(void)state;
	no_room = "no";
	for (size_t i = 0; i < COUNT(fd); i++) {
		assert_int_equal(
			socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd[i]),
			0);
		clients_adopt(w.clients, fd[i][0], false);
	}
	no_room = NULL;
	for (size_t i = 0; i < COUNT(fd); i++)
		assert_int_equal(read(fd[i][1], text, sizeof(text)) > 0, i == 0);
	assert_int_equal(send(fd[0][1], "x", 1, MSG_NOSIGNAL), -1);
	clients_free(w.clients);
	w.clients = NULL;
	for (size_t i = 0; i < COUNT(fd); i++) {
		assert_int_equal(read(fd[i][1], text, sizeof(text)) > 0, i > 0);
		close(fd[i][1]);
	}
}

/* Whose first byte is a letter of GET. */
static void one_that_is_refused_is_told_in_http(void **state)
{
	struct client_settings http = settings;
	char text[400] = "";

	(void)state;
	http.http_on_socket = true;
	clients_set(w.clients, &http);
	no_room = "the section is full";
	struct other *o = come();
	no_room = NULL;
	write_text(o, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
	while (read(o->fd, text, sizeof(text) - 1) < 0)
		event_base_loop(w.base, EVLOOP_ONCE);
	assert_int_equal(strncmp(text, "HTTP/1.1 503 ", 13), 0);
	assert_non_null(strstr(text, "the section is full"));
}

/* ---- HTTP ---- */

static int64_t wall_ms(void)
{
	return 784111777000;
}

static struct http_settings http_settings = {
	.max_line = 1000, .max_pipeline = 10, .wall_ms = wall_ms, .stats = &w.stats};

static struct other *come_with(const char *text)
{
	struct client_settings http = settings;

	http.http_on_socket = true;
	http.http = &http_settings;
	clients_set(w.clients, &http);
	struct other *o = come();
	write_text(o, text);
	turn();
	return o;
}

static void answer_with(struct other *o, const char *line)
{
	buf_add(&o->peer->out.own, line, strlen(line));
	clients_changed(w.clients, o->peer);
	turn();
}

static void the_first_byte_tells_who_speaks_http(void **state)
{
	char text[400] = "";
	struct other *o = come_with("GET /record/k HTTP/1.1\r\nHost: localhost\r\n\r\n");

	(void)state;
	assert_int_equal(o->lines, 1);
	assert_non_null(strstr(o->last, "\"op\":\"get\""));
	struct clients_sums sums = clients_sum_up(w.clients);
	assert_int_equal(sums.door[STATS_DOOR_HTTP], 1);
	assert_int_equal(sums.door[STATS_DOOR_LINES], 0);
	answer_with(o, "{\"code\":200,\"key\":\"k\",\"value\":\"v\"}\n");
	assert_true(read(o->fd, text, sizeof(text) - 1) > 0);
	assert_int_equal(strncmp(text, "HTTP/1.1 200 ", 13), 0);
	assert_non_null(strstr(text, "\"value\":\"v\""));
	write_text(o, "GET /record/l HTTP/1.1\r\nHost: localhost\r\n\r\n");
	turn();
	assert_int_equal(o->lines, 2);
	struct other *lines = come_with("{\"op\":\"ping\"}\n");
	assert_string_equal(lines->last, "{\"op\":\"ping\"}");
}

/* Its further bytes are dropped, and do not destroy the response. */
static void a_connection_that_ends_lingers(void **state)
{
	char text[400] = "";
	struct other *o =
		come_with("GET /record/k HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");

	(void)state;
	answer_with(o, "{\"code\":200,\"key\":\"k\",\"value\":\"v\"}\n");
	assert_int_equal(o->left, 1);
	assert_int_equal(w.closed, 0);
	write_text(o, "GET /record/l HTTP/1.1\r\nHost: localhost\r\n\r\n");
	turn();
	assert_int_equal(o->lines, 1);
	assert_int_equal(w.closed, 0);
	assert_true(read(o->fd, text, sizeof(text) - 1) > 0);
	assert_int_equal(take(o), -1);
	shutdown(o->fd, SHUT_WR);
	turn();
	assert_int_equal(w.closed, 1);
	o = come_with("GET /record/k HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
	answer_with(o, "{\"code\":200,\"key\":\"k\",\"value\":\"v\"}\n");
	while (w.closed < 2) /* for a second */
		event_base_loop(w.base, EVLOOP_ONCE);
}

/* ---- what is known of them ---- */

static void the_busiest_are_told(void **state)
{
	struct client_activity top[CLIENTS_BUSIEST_MAX];
	struct other *o[3];

	(void)state;
	for (int i = 0; i < 3; i++)
		o[i] = come();
	for (int i = 0; i < 6; i++)
		write_text(o[i < 1 ? 0 : i < 4 ? 1 : 2], "x\n");
	turn();
	o[1]->peer->answers.unanswered = 2;
	o[1]->peer->topics.n = 3;
	assert_int_equal(clients_busiest(w.clients, top), 3);
	assert_int_equal(top[0].number, 2);
	assert_int_equal(top[0].requests, 3);
	assert_int_equal(top[0].pid, getpid());
	assert_int_equal(top[0].unanswered, 2);
	assert_int_equal(top[0].subscriptions, 3);
	assert_int_equal(top[0].door, STATS_DOOR_LINES);
	assert_false(top[0].tcp);
	assert_int_equal(top[1].number, 3);
	assert_int_equal(top[2].number, 1);
	/* Those of now count before those of before. */
	write_text(o[0], "x\nx\n");
	write_text(o[2], "x\nx\n");
	turn();
	assert_int_equal(clients_busiest(w.clients, top), 3);
	assert_int_equal(top[0].number, 3); /* as many, and more in all */
	assert_int_equal(top[1].number, 1);
	assert_int_equal(top[2].number, 2);
	assert_int_equal(top[0].requests, 4);
	o[1]->peer->answers.unanswered = 0;
	o[1]->peer->topics.n = 0;
	clients_dismiss(w.clients, o[0]->peer);
	assert_int_equal(clients_busiest(w.clients, top), 2);
}

static unsigned n_each;

static void on_each(void *owner, struct peer *peer, const struct peer_identity *who)
{
	(void)owner;
	n_each++;
	assert_non_null(peer);
	assert_int_equal(who->pid, getpid());
	assert_int_equal(clients_identify(w.clients, peer).pid, getpid());
}

static void each_that_has_not_left_is_told(void **state)
{
	struct other *a = come();

	(void)state;
	come();
	if (geteuid() == 65534)
		skip();
	n_each = 0;
	clients_each(w.clients, on_each);
	assert_int_equal(n_each, 2);
	say(a, 100);
	clients_dismiss(w.clients, a->peer);
	clients_each(w.clients, on_each);
	assert_int_equal(n_each, 3);
}

static void sums_are_those_of_all(void **state)
{
	struct other *a = come(), *b = come();

	(void)state;
	write_text(a, "a beginning");
	turn();
	b->hold = true;
	write_text(b, "x\ny\n");
	turn();
	say(a, 10);
	struct clients_sums sums = clients_sum_up(w.clients);
	assert_int_equal(sums.door[STATS_DOOR_LINES], 2);
	assert_int_equal(sums.tcp, 0);
	assert_int_equal(sums.paused, 1);
	assert_int_equal(sums.slow, 0);
	assert_int_equal(sums.input_bytes, strlen("a beginning") + 2);
	assert_int_equal(sums.output_bytes, 10);
	assert_int_equal(w.stats.client_reads_held, 1);
	assert_int_equal(w.stats.client_bytes_in, strlen("a beginning") + 4);
	assert_int_equal(w.stats.clients_accepted, 2);
	turn();
	assert_int_equal(w.stats.client_bytes_out, 10);
}

/* ---- the log ---- */

static void what_becomes_of_them_is_logged(void **state)
{
	char want[100];

	(void)state;
	log_begin(LOG_LEVEL_DEBUG);
	struct other *o = come();
	snprintf(want, sizeof(want), "client 1 (pid %ld, uid %ld): connected\n", (long)getpid(),
		 (long)geteuid());
	if (geteuid() != 65534)
		assert_logged(want);
	o->peer->topics.n = 1;
	shutdown(o->fd, SHUT_WR);
	turn();
	assert_logged("client 1: open -> half-closed\n");
	turn();
	assert_int_equal(lines_logged(), 0); /* once */
	o->peer->topics.n = 0;
	clients_dismiss(w.clients, o->peer);
	assert_logged("client 1: half-closed -> leaving\n");
	turn();
	assert_logged("): closed\n");
	adopt(open("/dev/null", O_RDWR | O_CLOEXEC), -1);
	turn();
	assert_logged("dropped: its socket can't be watched: ");
	log_end();
}

/* ---- the end ---- */

static void one_that_is_dismissed_gets_what_is_out(void **state)
{
	struct other *o = come();

	(void)state;
	o->peer->answers.unanswered = 1;
	say(o, 10);
	clients_dismiss(w.clients, o->peer);
	assert_int_equal(o->left, 1);
	turn();
	assert_int_equal(w.closed, 1);
	assert_int_equal(take(o), 10);
	assert_int_equal(take(o), -1);
}

static void at_the_end_what_has_come_is_still_read(void **state)
{
	struct other *a = come(), *b = come();
	char text[100];

	(void)state;
	b->answer_n = 10;
	write_text(b, "x\n");
	turn(); /* which has an answer to read */
	b->peer->answers.unanswered = 1;
	clients_will_end(w.clients);
	b->peer->answers.unanswered = 0;
	write_text(a, "the last\n");
	clients_end_input(w.clients, false); /* not those who have something to read or say */
	assert_false(clients_flush_all(w.clients));
	turn();
	assert_string_equal(a->last, "the last");
	assert_int_equal(read(b->fd, text, sizeof(text)), 10);
	clients_end_input(w.clients, false);
	assert_int_equal(send(a->fd, "x", 1, MSG_NOSIGNAL), -1);
	assert_int_equal(send(b->fd, "x", 1, MSG_NOSIGNAL), -1);
	turn();
	assert_int_equal(a->left + b->left, 2);
	assert_true(clients_flush_all(w.clients));
}

static void at_the_end_all_may_be_cut_off(void **state)
{
	struct other *a = come();

	(void)state;
	a->answer_n = 10;
	write_text(a, "x\n");
	turn();
	write_text(a, "y\n");
	clients_end_input(w.clients, true);
	assert_int_equal(send(a->fd, "x", 1, MSG_NOSIGNAL), -1);
	turn();
	assert_int_equal(a->lines, 2);
	assert_int_equal(take(a), 20);
}

/* /dev/null can't be watched, as a socket can't for which the kernel has no room. */
static void one_that_can_not_be_watched_goes(void **state)
{
	struct other *a = come(), *o = adopt(open("/dev/null", O_RDWR | O_CLOEXEC), -1);

	(void)state;
	assert_int_equal(o->joined, 1);
	turn();
	assert_int_equal(o->left, 1);
	assert_int_equal(clients_count(w.clients), 1);
	a->answer_n = 10;
	write_text(a, "x\n");
	turn();
	assert_int_equal(take(a), 10);
}

static void the_kernel_says_who_it_is(void **state)
{
	struct other *o = come();

	(void)state;
	if (geteuid() == 65534) /* nobody is who it can't name */
		skip();
	assert_true(o->who.known);
	assert_int_equal(o->who.pid, getpid());
	assert_int_equal(o->who.uid, geteuid());
	assert_int_equal(o->who.gid, getegid());
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest cases[] = {
		CASE(lines_come_one_by_one_however_they_are_cut),
		CASE(a_line_that_is_too_long_is_told_once),
		CASE(answers_of_a_turn_leave_together),
		CASE(one_that_is_answered_within_anothers_turn_is_served_as_well),
		CASE(one_that_may_not_be_read_is_read_on_later),
		CASE(of_lines_that_take_long_few_are_handed_on_at_once),
		CASE(those_whose_lines_take_long_take_turns),
		CASE(of_lines_that_were_held_few_are_handed_on_at_once),
		CASE(many_lines_that_were_held_keep_nobody_waiting),
		CASE(one_that_does_not_read_is_dropped_with_a_last_line),
		CASE(one_that_is_half_closed_gets_its_answers_first),
		CASE(one_that_is_half_closed_stays_while_it_waits_for_something),
		CASE(one_that_is_gone_leaves),
		CASE(one_that_goes_while_it_is_not_read_is_noticed),
		CASE(one_may_go_while_others_are_settled),
		CASE(all_go_at_once),
		CASE(one_too_many_gets_a_last_line),
		CASE(those_who_are_refused_wait_for_their_last_line),
		CASE(many_are_refused_at_once),
		CASE(one_that_is_refused_is_told_in_http),
		CASE(the_first_byte_tells_who_speaks_http),
		CASE(a_connection_that_ends_lingers),
		CASE(the_busiest_are_told),
		CASE(each_that_has_not_left_is_told),
		CASE(sums_are_those_of_all),
		CASE(what_becomes_of_them_is_logged),
		CASE(one_that_is_dismissed_gets_what_is_out),
		CASE(at_the_end_what_has_come_is_still_read),
		CASE(at_the_end_all_may_be_cut_off),
		CASE(one_that_can_not_be_watched_goes),
		CASE(the_more_are_read_the_less_of_each),
		CASE(the_kernel_says_who_it_is),
	};

	return cmocka_run_group_tests(cases, NULL, NULL);
}
