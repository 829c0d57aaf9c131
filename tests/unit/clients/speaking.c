/* speaking.c - the local connections that speak something else than lines, over socketpairs in a
 * real loop. The speeches, the core and the clock are the test's.
 *
 * A speech cuts its bytes into lines and hands these on, but for some: "up" makes another speech
 * of it, "known" says that it has shown a key, "key" shows one, "long" is too long, "soon" and
 * "later" ask to be woken, "over" ends it. */
#include "clients/client.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/turn.h"
#include "gateway/http.h"
#include "requests/answers.h"
#include "../test.h"

enum {
	PEERS = 300,
	SOFT = 4096,
	HARD = 16384,
	TIME = 1000000,
	SOON_MS = 20,
	LATER_MS = 40,
	KEY_BYTE = 7
};

/* A client's other end, and what was done with it. */
struct other {
	int fd;
	struct peer *peer; /* NULL: has left */
	unsigned lines, left;
	char last[32]; /* line */
	bool hold;     /* may_read() says no */
	unsigned resumed, finished, woken;
};

static struct world {
	struct event_base *base;
	struct clients *clients;
	struct stats stats;
	struct other *other;
	unsigned n, closed;
	int64_t us;        /* the time */
	unsigned line_us;  /* each line takes so long */
	unsigned answer_n; /* bytes with which each line is answered; 0: not */
	unsigned kept_out; /* bytes that each speech keeps */
	bool revoked;      /* the core knows no key */
	struct peer_identity admitted;
	struct local_key key; /* of that, when it was admitted */
	const char *refusal;  /* what became of that */
	unsigned n_too_long;
	bool busy; /* speeches are */
	unsigned speeches, farewells;
	const struct peer_identity *who; /* of the speech behind an upgrade; or NULL */
} w;

/* ---- the clock ---- */

int64_t clock_mono_us(void)
{
	return w.us;
}

int64_t clock_mono_ms(void)
{
	return w.us / 1000;
}

int64_t clock_wall_ms(void)
{
	return w.us / 1000;
}

int64_t clock_boot_ms(void)
{
	return w.us / 1000;
}

int64_t clock_mono_coarse_ms(void)
{
	return w.us / 1000;
}

int64_t clock_slept_ms(void)
{
	return 0;
}

/* ---- the speeches ---- */

struct fake {
	struct speech speech;
	struct buf kept;
};

static struct other *other_of(const struct peer *peer)
{
	for (unsigned i = 0; i < w.n; i++) {
		if (w.other[i].peer == peer)
			return &w.other[i];
	}
	fail_msg("nobody's peer");
	return NULL;
}

static struct fake *fake_of(struct speech *s)
{
	return (struct fake *)(void *)s;
}

static struct speech *fake_new(enum stats_door door);

static bool is_word(struct span line, const char *word)
{
	return span_equal(line, span_of(word));
}

static void show_key(struct speech *s)
{
	memset(&s->key, KEY_BYTE, sizeof(s->key));
	if (!s->host->knows(s->owner, &s->key))
		return;
	s->has_key = true;
	w.refusal = s->host->admit(s->owner);
}

/* Hands on what is kept. */
static bool go_on(struct speech *s)
{
	struct fake *f = fake_of(s);
	const char *end;
	bool more = true;

	while (more && buf_len(&f->kept) &&
	       (end = memchr(buf_span(&f->kept).p, '\n', buf_len(&f->kept)))) {
		struct span line = {buf_span(&f->kept).p, (size_t)(end - buf_span(&f->kept).p)};
		if (is_word(line, "up")) {
			buf_take(&f->kept, line.n + 1);
			s->next = fake_new(STATS_DOOR_WEBSOCKET);
			s->next->who = w.who;
			s->rest = f->kept;
			f->kept = (struct buf){0};
			return true;
		}
		if (is_word(line, "over"))
			s->over = true;
		else if (is_word(line, "known"))
			s->known = true;
		else if (is_word(line, "key"))
			show_key(s);
		else if (is_word(line, "long"))
			s->host->too_long(s->owner, line);
		else if (is_word(line, "soon") || is_word(line, "later"))
			s->wake_at = clock_mono_ms() + (line.p[0] == 's' ? SOON_MS : LATER_MS);
		else
			s->host->line(s->owner, line, 0);
		buf_take(&f->kept, line.n + 1);
		more = s->host->may_read(s->owner);
	}
	return more;
}

static bool fake_feed(struct speech *s, struct span bytes, int64_t now)
{
	(void)now;
	buf_add(&fake_of(s)->kept, bytes.p, bytes.n);
	return go_on(s);
}

static bool fake_resume(struct speech *s, int64_t now)
{
	(void)now;
	other_of(s->peer)->resumed++;
	return go_on(s);
}

static void fake_finish(struct speech *s, int64_t now)
{
	(void)now;
	other_of(s->peer)->finished++;
}

static void fake_fill(struct speech *s, int64_t now)
{
	struct span line;

	(void)now;
	while (outq_len(&s->out) < SPEECH_FILL_MAX && (line = speech_line(s)).n) {
		buf_add(&s->out.own, line.p, line.n);
		outq_take(&s->peer->out, line.n);
	}
}

static void fake_wake(struct speech *s, int64_t now)
{
	(void)now;
	other_of(s->peer)->woken++;
	s->wake_at = 0;
}

static size_t fake_kept_in(const struct speech *s)
{
	return buf_len(&((const struct fake *)(const void *)s)->kept);
}

static size_t fake_kept_out(const struct speech *s)
{
	(void)s;
	return w.kept_out;
}

static bool fake_is_busy(const struct speech *s)
{
	(void)s;
	return w.busy;
}

static void fake_farewell(struct speech *s, enum reply_error why)
{
	(void)why;
	w.farewells++;
	buf_add(&s->out.own, "bye\n", 4);
	s->over = true;
}

static void fake_free(struct speech *s)
{
	w.speeches--;
	buf_release(&fake_of(s)->kept);
	free(s);
}

static struct speech *fake_new(enum stats_door door)
{
	static struct speech_ops kinds[STATS_DOOR_N];
	struct fake *f = calloc(1, sizeof(*f));

	kinds[door] = (struct speech_ops){.feed = fake_feed,
					  .resume = fake_resume,
					  .finish = fake_finish,
					  .fill = fake_fill,
					  .wake = fake_wake,
					  .kept_in = fake_kept_in,
					  .kept_out = fake_kept_out,
					  .is_busy = fake_is_busy,
					  .farewell = fake_farewell,
					  .free = fake_free,
					  .name = "fake",
					  .door = door};
	assert_non_null(f);
	w.speeches++;
	f->speech.ops = &kinds[door];
	return &f->speech;
}

struct speech *http_new(const struct http_settings *settings, bool tcp, int64_t now)
{
	struct speech *s = fake_new(STATS_DOOR_HTTP);

	(void)settings, (void)now;
	s->tcp = tcp;
	return s;
}

void http_refusal(struct buf *out, enum reply_error error, const char *why, int64_t wall_ms)
{
	(void)out, (void)error, (void)why, (void)wall_ms;
	fail();
}

/* ---- the core ---- */

static void on_joined(void *owner, struct peer *peer, const struct peer_identity *who)
{
	(void)owner, (void)who;
	answers_join(peer);
	w.other[w.n - 1].peer = peer; /* the one that is adopted now */
}

static void say(struct other *o, size_t n)
{
	char *text = malloc(n);

	assert_non_null(text);
	memset(text, 'a', n);
	text[n - 1] = '\n';
	buf_add(&o->peer->out.own, text, n);
	free(text);
	clients_changed(w.clients, o->peer);
}

static void on_line(void *owner, struct peer *peer, struct span line, int64_t now)
{
	struct other *o = other_of(peer);

	(void)owner, (void)now;
	o->lines++;
	snprintf(o->last, sizeof(o->last), "%.*s", (int)line.n, line.p);
	w.us += w.line_us;
	if (w.answer_n)
		say(o, w.answer_n);
}

static bool asks_may_read(void *owner, struct peer *peer)
{
	(void)owner;
	return !other_of(peer)->hold;
}

static void on_left(void *owner, struct peer *peer)
{
	struct other *o = other_of(peer);

	(void)owner;
	o->left++;
	o->peer = NULL;
}

static void on_closed(void *owner)
{
	(void)owner;
	w.closed++;
}

static const char *asks_room(void *owner, const struct peer_identity *who)
{
	(void)owner, (void)who;
	return NULL;
}

static bool knows(void *owner, const struct local_key *key)
{
	(void)owner;
	assert_int_equal(((const unsigned char *)key)[0], KEY_BYTE);
	return !w.revoked;
}

static const char *admit(void *owner, struct peer *peer, const struct peer_identity *who)
{
	(void)owner, (void)peer;
	w.admitted = *who;
	if (who->key)
		w.key = *who->key;
	return "no room";
}

static void on_too_long(void *owner, struct peer *peer, struct span prefix)
{
	(void)owner, (void)peer;
	assert_span(prefix, "long");
	w.n_too_long++;
}

static const struct client_ops ops = {
	.lacks_room = asks_room,
	.joined = on_joined,
	.knows = knows,
	.admit = admit,
	.too_long = on_too_long,
	.line = on_line,
	.may_read = asks_may_read,
	.left = on_left,
	.closed = on_closed,
};

static const struct client_settings settings = {.max_clients = PEERS,
						.max_line = 1000,
						.output_soft = SOFT,
						.output_hard = HARD,
						.http_on_socket = true};

static int set_up(void **state)
{
	(void)state;
	w = (struct world){.base = event_base_new(), .us = TIME};
	w.other = calloc(PEERS, sizeof(*w.other));
	log_set_level(LOG_LEVEL_ERROR);
	w.clients = clients_new(w.base, &settings, &ops, NULL, &w.stats);
	return w.other ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	clients_free(w.clients);
	assert_int_equal(w.closed, w.n);
	assert_int_equal(w.speeches, 0);
	for (unsigned i = 0; i < w.n; i++) {
		assert_int_equal(w.other[i].left, 1);
		close(w.other[i].fd);
	}
	free(w.other);
	event_base_free(w.base);
	return 0;
}

static struct other *come_by(bool tcp)
{
	struct other *o = &w.other[w.n++];
	int fd[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd), 0);
	*o = (struct other){.fd = fd[1]};
	clients_adopt(w.clients, fd[0], tcp);
	return o;
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

/* All that can happen now. */
static void turn(void)
{
	for (int i = 0; i < 20; i++)
		event_base_loop(w.base, EVLOOP_NONBLOCK);
}

static void write_text(struct other *o, const char *text)
{
	assert_int_equal(write(o->fd, text, strlen(text)), (ssize_t)strlen(text));
}

/* A first byte that lines do not begin with. */
static struct other *come_with(const char *text)
{
	struct other *o = come_by(false);

	write_text(o, text);
	turn();
	return o;
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

static unsigned at_door(enum stats_door door)
{
	return clients_sum_up(w.clients).door[door];
}

/* ---- lines ---- */

static void its_lines_are_handed_on(void **state)
{
	struct other *o = come_with("A\nb");

	(void)state;
	assert_int_equal(o->lines, 1);
	assert_int_equal(at_door(STATS_DOOR_HTTP), 1);
	assert_int_equal(clients_sum_up(w.clients).input_bytes, 1);
	write_text(o, "c\n");
	turn();
	assert_int_equal(o->lines, 2);
	assert_string_equal(o->last, "bc");
}

/* Over TCP a key is all that somebody is known by. */
static void who_shows_a_key_is_judged_by_it(void **state)
{
	struct other *o = come_by(true), *local = come_with("A\n");

	(void)state;
	w.revoked = true;
	write_text(o, "key\n");
	turn();
	assert_null(clients_identify(w.clients, o->peer).key);
	assert_null(w.refusal);
	w.revoked = false;
	write_text(o, "key\n");
	turn();
	assert_string_equal(w.refusal, "no room");
	assert_true(w.admitted.by_key);
	assert_int_equal(w.admitted.uid, (uid_t)-1);
	assert_int_equal(w.admitted.gid, (gid_t)-1);
	assert_int_equal(((unsigned char *)&w.key)[0], KEY_BYTE);
	assert_non_null(clients_identify(w.clients, o->peer).key);
	assert_false(clients_identify(w.clients, local->peer).by_key);
}

static void all_that_it_asks_is_counted(void **state)
{
	struct client_activity top[CLIENTS_BUSIEST_MAX];
	struct other *o = come_with("A\nlong\nb\n");

	(void)state;
	assert_int_equal(o->lines, 2);
	assert_int_equal(w.n_too_long, 1);
	assert_int_equal(clients_busiest(w.clients, top), 1);
	assert_int_equal(top[0].requests, 3);
}

static void what_the_speech_keeps_is_unread(void **state)
{
	struct client_activity top[CLIENTS_BUSIEST_MAX];
	struct other *o = come_with("A\n");

	(void)state;
	w.kept_out = 100;
	say(o, SOFT);
	clients_busiest(w.clients, top);
	assert_int_equal(top[0].unread, SOFT + 100);
	assert_int_equal(clients_sum_up(w.clients).output_bytes, SOFT + 100);
	w.kept_out = 0;
	turn();
	assert_int_equal(take(o), SOFT);
}

static void the_rest_waits_for_room(void **state)
{
	struct other *o = come_with("A\n");

	(void)state;
	o->hold = true;
	write_text(o, "b\nc\nd\n");
	turn();
	assert_int_equal(o->lines, 2);
	assert_int_equal(clients_sum_up(w.clients).paused, 1);
	assert_int_equal(w.stats.client_reads_held, 1);
	o->hold = false;
	clients_changed(w.clients, o->peer);
	turn();
	assert_int_equal(o->lines, 4);
	assert_int_equal(o->resumed, 1);
	assert_int_equal(clients_sum_up(w.clients).paused, 0);
}

static void the_rest_waits_for_its_turn(void **state)
{
	struct other *o = come_by(false);

	(void)state;
	w.line_us = 5000;
	write_text(o, "A\nb\nc\nd\n");
	turn();
	assert_int_equal(o->lines, 4);
	assert_int_equal(o->resumed, 4); /* the last finds nothing */
	assert_int_equal(w.stats.client_reads_held, 0);
}

/* One that lacked time lacks room when its turn has come. */
static void who_waits_for_its_turn_may_come_to_wait_for_room(void **state)
{
	struct other *o = come_by(false);

	(void)state;
	w.line_us = 5000;
	write_text(o, "A\nb\nc\n");
	one_turn();
	assert_int_equal(o->lines, 2);
	o->hold = true;
	turn();
	assert_int_equal(o->lines, 2);
	assert_int_equal(w.stats.client_reads_held, 1);
	o->hold = false;
	clients_changed(w.clients, o->peer);
	turn();
	assert_int_equal(o->lines, 3);
	assert_int_equal(w.stats.client_reads_held, 1);
}

/* Is its next line handed on when it comes, and not only when the turn ends? */
static bool is_heard_at_once(struct other *o, unsigned line_us)
{
	unsigned before = o->lines;

	w.line_us = line_us;
	write_text(o, "b\n");
	event_base_loop(w.base, EVLOOP_ONCE); /* the turn does not end yet */
	bool heard = o->lines > before;
	turn();
	assert_int_equal(o->lines, before + 1);
	return heard;
}

static void who_is_slow_is_so_no_longer_than_its_lines_take_long(void **state)
{
	enum { SLOW_MAX = 4, LONG_US = 5000 }; /* reads, as in client.c */
	struct other *o = come_with("A\n");

	(void)state;
	assert_true(is_heard_at_once(o, LONG_US)); /* one delay makes nobody slow */
	for (int i = 0; i < SLOW_MAX; i++)
		assert_true(is_heard_at_once(o, 0));
	for (int i = 0; i < 2 * SLOW_MAX; i++)
		is_heard_at_once(o, LONG_US);
	assert_false(is_heard_at_once(o, LONG_US));
	for (int i = 0; i < SLOW_MAX; i++)
		is_heard_at_once(o, 0);
	assert_true(is_heard_at_once(o, 0));
}

/* ---- an upgrade ---- */

static void the_next_speech_gets_what_came_behind(void **state)
{
	struct other *o = come_by(false);

	(void)state;
	w.answer_n = 10;
	write_text(o, "A\nup\nb\nc");
	turn();
	assert_int_equal(o->lines, 2);
	assert_string_equal(o->last, "b");
	assert_int_equal(at_door(STATS_DOOR_HTTP), 0);
	assert_int_equal(at_door(STATS_DOOR_WEBSOCKET), 1);
	assert_int_equal(take(o), 20);
	write_text(o, "d\n");
	turn();
	assert_string_equal(o->last, "cd");
	assert_int_equal(take(o), 10);
	assert_int_equal(w.speeches, 1);
}

static void it_waits_for_room_as_well(void **state)
{
	struct other *o = come_with("A\n");

	(void)state;
	o->hold = true;
	write_text(o, "up\nb\nc\n");
	turn();
	assert_int_equal(o->lines, 2);
	assert_int_equal(clients_sum_up(w.clients).paused, 1);
	write_text(o, "d\n");
	turn();
	assert_int_equal(o->lines, 2);
	o->hold = false;
	clients_changed(w.clients, o->peer);
	turn();
	assert_int_equal(o->lines, 4);
	assert_string_equal(o->last, "d");
}

/* A client whose lines have taken long is to be read when the turn ends. */
static void who_has_become_slow_can_be_upgraded(void **state)
{
	struct other *o = come_with("A\n");

	(void)state;
	w.line_us = 5000;
	for (int i = 0; i < 4; i++) {
		write_text(o, "b\n");
		turn();
	}
	write_text(o, "up\nc\nd\n");
	turn();
	write_text(o, "e\nf\n");
	turn();
	assert_int_equal(o->lines, 9);
	assert_string_equal(o->last, "f");
	assert_int_equal(at_door(STATS_DOOR_WEBSOCKET), 1);
}

/* Its lines would be nobody's: the core has forgotten it. */
static void who_is_to_be_read_and_leaves_is_not_read(void **state)
{
	struct other *o = come_with("a\n");

	(void)state;
	w.line_us = 5000;
	for (int i = 0; i < 4; i++) {
		write_text(o, "b\n");
		turn();
	}
	write_text(o, "c\n");
	event_base_loop(w.base, EVLOOP_ONCE); /* the turn does not end yet */
	say(o, 1000000);
	clients_dismiss(w.clients, o->peer);
	turn();
	assert_int_equal(o->left, 1);
	assert_int_equal(o->lines, 5);
	assert_int_equal(w.closed, 0);
}

static void the_end_of_input_reaches_the_next_speech(void **state)
{
	struct other *o = come_by(false);

	(void)state;
	w.busy = true;
	write_text(o, "A\n");
	turn();
	shutdown(o->fd, SHUT_WR);
	turn();
	assert_int_equal(o->finished, 1);
	w.busy = false;
	clients_changed(w.clients, o->peer);
	turn();
	assert_int_equal(w.closed, 1);
}

static void who_holds_a_token_is_taken_for_its_maker(void **state)
{
	gid_t groups[] = {7, 8, 9};
	const struct peer_identity who = {
		.known = true, .uid = 5, .gid = 6, .groups = groups, .n_groups = COUNT(groups)};
	struct other *o = come_by(true);

	(void)state;
	w.who = &who;
	write_text(o, "A\n");
	turn();
	assert_int_equal(clients_identify(w.clients, o->peer).uid, (uid_t)-1);
	assert_true(clients_identify(w.clients, o->peer).by_key);
	write_text(o, "up\n");
	turn();
	struct peer_identity seen = clients_identify(w.clients, o->peer);
	assert_int_equal(seen.uid, 5);
	assert_int_equal(seen.n_groups, COUNT(groups));
	assert_memory_equal(seen.groups, groups, sizeof(groups));
}

/* ---- strangers ---- */

static void too_many_strangers_go_the_oldest_first(void **state)
{
	struct other *known = come_by(true);

	(void)state;
	write_text(known, "known\n");
	turn();
	for (int i = 0; i < CLIENTS_STRANGERS_MIN; i++)
		come_by(true);
	assert_int_equal(w.stats.clients_refused, 0);
	come_by(true);
	assert_int_equal(w.stats.clients_refused, 1);
	assert_int_equal(w.farewells, 1);
	turn();
	assert_int_equal(known->left, 0);
	assert_int_equal(w.other[1].left, 1);
	assert_int_equal(w.other[2].left, 0);
	assert_int_equal(take(&w.other[1]), 4);
	assert_int_equal(clients_sum_up(w.clients).tcp, CLIENTS_STRANGERS_MIN + 1);
}

static void one_that_goes_makes_room_for_a_stranger(void **state)
{
	(void)state;
	for (int i = 0; i < CLIENTS_STRANGERS_MIN; i++)
		come_by(true);
	shutdown(w.other[3].fd, SHUT_RDWR);
	turn();
	come_by(true);
	assert_int_equal(w.stats.clients_refused, 0);
}

/* ---- time ---- */

static void each_is_woken_in_its_time(void **state)
{
	struct other *later = come_with("A\nlater\n"), *soon = come_with("A\nsoon\n");

	(void)state;
	turn();
	assert_int_equal(soon->woken, 0);
	w.us += SOON_MS * 1000;
	while (!soon->woken)
		event_base_loop(w.base, EVLOOP_ONCE);
	assert_int_equal(later->woken, 0);
	w.us += (LATER_MS - SOON_MS) * 1000;
	while (!later->woken)
		event_base_loop(w.base, EVLOOP_ONCE);
	turn();
	assert_int_equal(soon->woken + later->woken, 2);
}

/* One that has another time now, and one that is gone. */
static void a_time_may_change_or_go(void **state)
{
	struct other *o = come_with("A\nsoon\n"), *gone = come_with("A\nsoon\n");

	(void)state;
	write_text(o, "later\n");
	close(gone->fd);
	gone->fd = -1;
	turn();
	assert_int_equal(w.closed, 1);
	w.us += LATER_MS * 1000 - 1;
	event_base_loop(w.base, EVLOOP_ONCE);
	assert_int_equal(o->woken, 0);
	w.us += 1;
	while (!o->woken)
		event_base_loop(w.base, EVLOOP_ONCE);
	assert_int_equal(gone->woken, 0);
}

/* ---- the end ---- */

static void its_connection_ends_gently(void **state)
{
	struct other *o = come_by(false);

	(void)state;
	w.answer_n = 10;
	write_text(o, "A\nover\n");
	turn();
	assert_int_equal(o->left, 1);
	assert_int_equal(w.closed, 0);
	write_text(o, "b\n");
	turn();
	assert_int_equal(o->lines, 1);
	assert_int_equal(take(o), 10);
	assert_int_equal(take(o), -1);
	close(o->fd);
	o->fd = -1;
	turn();
	assert_int_equal(w.closed, 1);
}

static void a_gentle_end_has_an_end(void **state)
{
	struct other *o = come_with("A\nover\n");

	(void)state;
	(void)o;
	assert_int_equal(w.closed, 0);
	w.us += 1000000;
	while (!w.closed)
		event_base_loop(w.base, EVLOOP_ONCE);
}

/* As WebSocket clients whose messages took long: these were read before the end. */
static void what_was_kept_for_lack_of_time_is_heard_at_the_end(void **state)
{
	struct other *o = come_with("A\nup\n");

	(void)state;
	w.line_us = 5000;
	write_text(o, "a\nb\nc\n");
	one_turn();
	assert_int_equal(o->lines, 3);
	write_text(o, "d\n");
	clients_end_input(w.clients, true);
	assert_int_equal(o->lines, 5);
	assert_int_equal(o->finished, 0);
	assert_int_equal(w.farewells, 1);
	turn();
	assert_int_equal(take(o), 4);
	assert_false(clients_flush_all(w.clients)); /* it has not closed its end */
	write_text(o, "e\n");                       /* it may send on until then */
	turn();
	assert_int_equal(o->lines, 5);
	shutdown(o->fd, SHUT_WR);
	turn();
	assert_int_equal(w.closed, 1);
	assert_true(clients_flush_all(w.clients));
}

static void what_had_no_room_is_not(void **state)
{
	struct other *o = come_with("A\nup\n");

	(void)state;
	o->hold = true;
	write_text(o, "a\nb\n");
	turn();
	write_text(o, "c\n");
	clients_end_input(w.clients, true);
	assert_int_equal(o->lines, 2);
	assert_int_equal(w.farewells, 1);
}

static void one_that_does_not_read_is_told_before_it_is_dropped(void **state)
{
	struct other *o = come_with("A\nup\n");

	(void)state;
	for (int i = 0; i < 100 && !o->left; i++) {
		say(o, SOFT);
		turn();
	}
	assert_int_equal(o->left, 1);
	assert_int_equal(w.stats.clients_dropped_slow, 1);
	assert_int_equal(w.farewells, 1);
	assert_int_equal(w.closed, 0);
}

static void what_is_flushed_is_put_in_its_words(void **state)
{
	struct other *o = come_with("A\nup\n");

	(void)state;
	buf_add(&o->peer->out.own, "one\n", 4);
	clients_flush(w.clients, o->peer);
	assert_int_equal(take(o), 4);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(its_lines_are_handed_on),
		CASE(who_shows_a_key_is_judged_by_it),
		CASE(all_that_it_asks_is_counted),
		CASE(what_the_speech_keeps_is_unread),
		CASE(the_rest_waits_for_room),
		CASE(the_rest_waits_for_its_turn),
		CASE(who_waits_for_its_turn_may_come_to_wait_for_room),
		CASE(who_is_slow_is_so_no_longer_than_its_lines_take_long),
		CASE(the_next_speech_gets_what_came_behind),
		CASE(it_waits_for_room_as_well),
		CASE(who_has_become_slow_can_be_upgraded),
		CASE(who_is_to_be_read_and_leaves_is_not_read),
		CASE(the_end_of_input_reaches_the_next_speech),
		CASE(who_holds_a_token_is_taken_for_its_maker),
		CASE(too_many_strangers_go_the_oldest_first),
		CASE(one_that_goes_makes_room_for_a_stranger),
		CASE(each_is_woken_in_its_time),
		CASE(a_time_may_change_or_go),
		CASE(its_connection_ends_gently),
		CASE(a_gentle_end_has_an_end),
		CASE(what_was_kept_for_lack_of_time_is_heard_at_the_end),
		CASE(what_had_no_room_is_not),
		CASE(one_that_does_not_read_is_told_before_it_is_dropped),
		CASE(what_is_flushed_is_put_in_its_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
