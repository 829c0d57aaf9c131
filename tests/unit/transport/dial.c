/* dial.c - from a name to a connected socket. The names, the sockets, the proxy and the time are
 * the test's. */
#include "transport/dial.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "transport/tunnel.h"
#include "../loop.h"
#include "../test.h"

enum { SOCKETS = RESOLVER_ADDRESSES_MAX + 1, PORT = 4321, PROXY_PORT = 8080, ADDRESS_MS = 10000 };

/* A socket, which dial has opened. */
struct fake {
	char address[INET6_ADDRSTRLEN];
	unsigned port;
	bool open, connected, at_once; /* at_once: it does not wait to send */
	int error;                     /* of SO_ERROR */
};

static struct world {
	struct dial *dial;
	struct dial_memory memory;
	struct dial_target target;
	struct fake sockets[SOCKETS];
	unsigned n;
	const char *refused; /* connect() to this address fails at once with ENETUNREACH */
	const char *near;    /* ... to this one succeeds at once */
	bool no_socket;      /* socket() fails with EMFILE, ... */
	bool no_sockopt;     /* ... and getsockopt() with ENOBUFS */

	resolver_done *answer; /* NULL: nothing is asked */
	void *asker;
	const char *asked;
	int patience; /* for the name */
	const struct resolver_files *files;
	bool system; /* the system's files */

	tunnel_done *tunnelled; /* NULL: there is no tunnel */
	void *tunneller;
	struct tunnel_wish wish;
	bool no_tunnel; /* no memory for one */

	int fd, left; /* as connected() was told; -1: it was not called */
	char why[DIAL_WHY_MAX];
	unsigned n_connected, n_failed;
	bool free_at_call;
} w;

/* ---- the kernel ---- */

/* The first one is 0. */
static struct fake *fake_of(int fd)
{
	assert_in_range(fd, 0, SOCKETS - 1);
	return &w.sockets[fd];
}

int socket(int family, int type, int protocol)
{
	assert_true((family == AF_INET || family == AF_INET6) && !protocol);
	assert_int_equal(type, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (w.no_socket) {
		errno = EMFILE;
		return -1;
	}
	assert_true(w.n < SOCKETS);
	w.sockets[w.n] = (struct fake){.open = true};
	return (int)w.n++;
}

int setsockopt(int fd, int level, int name, const void *value, socklen_t n)
{
	int on;

	assert_true(level == IPPROTO_TCP && name == TCP_NODELAY && n == sizeof(on));
	memcpy(&on, value, sizeof(on));
	fake_of(fd)->at_once = on;
	return 0;
}

int connect(int fd, const struct sockaddr *to, socklen_t n)
{
	struct fake *s = fake_of(fd);

	(void)n;
	if (to->sa_family == AF_INET) {
		const struct sockaddr_in *in = (const void *)to;
		s->port = ntohs(in->sin_port);
		inet_ntop(AF_INET, &in->sin_addr, s->address, sizeof(s->address));
	} else {
		const struct sockaddr_in6 *in = (const void *)to;
		s->port = ntohs(in->sin6_port);
		inet_ntop(AF_INET6, &in->sin6_addr, s->address, sizeof(s->address));
	}
	errno = 0;
	if (w.near && strcmp(w.near, s->address) == 0)
		return 0;
	errno = w.refused && strcmp(w.refused, s->address) == 0 ? ENETUNREACH : EINPROGRESS;
	return -1;
}

int getsockopt(int fd, int level, int name, void *value, socklen_t *n)
{
	struct fake *s = fake_of(fd);

	assert_true(s->open && level == SOL_SOCKET && name == SO_ERROR);
	if (w.no_sockopt) {
		errno = ENOBUFS;
		return -1;
	}
	memcpy(value, &s->error, *n);
	return 0;
}

int close(int fd)
{
	struct fake *s = fake_of(fd);

	assert_true(s->open);
	s->open = false;
	return 0;
}

/* ---- names ---- */

static struct resolver *ask(const char *host, int timeout_ms, resolver_done *done, void *owner)
{
	assert_null(w.answer);
	w.asked = host;
	w.patience = timeout_ms;
	w.answer = done;
	w.asker = owner;
	return (struct resolver *)&w;
}

struct resolver *resolver_ask(struct event_base *base, const char *host, int timeout_ms,
			      resolver_done *done, void *owner)
{
	(void)base;
	w.system = true;
	return ask(host, timeout_ms, done, owner);
}

struct resolver *resolver_ask_with(struct event_base *base, const struct resolver_files *files,
				   const char *host, int timeout_ms, resolver_done *done,
				   void *owner)
{
	(void)base;
	w.files = files;
	return ask(host, timeout_ms, done, owner);
}

void resolver_cancel(struct resolver *r)
{
	assert_ptr_equal(r, &w);
	assert_non_null(w.answer);
	w.answer = NULL;
}

/* Numeric ones, with spaces between them. */
static void answer(const char *addresses)
{
	struct resolver_answer a = {.why = "no such name"};
	resolver_done *done = w.answer;
	char text[2000], *at, *one;

	snprintf(text, sizeof(text), "%s", addresses);
	for (one = strtok_r(text, " ", &at); one; one = strtok_r(NULL, " ", &at))
		snprintf(a.address[a.n++], sizeof(a.address[0]), "%s", one);
	assert_non_null(done);
	w.answer = NULL;
	done(w.asker, &a);
}

/* ---- the proxy ---- */

struct tunnel *tunnel_new(struct event_base *base, const struct tunnel_wish *wish,
			  tunnel_done *done, void *owner)
{
	(void)base;
	assert_null(w.tunnelled);
	if (w.no_tunnel)
		return NULL;
	w.wish = *wish;
	w.tunnelled = done;
	w.tunneller = owner;
	return (struct tunnel *)&w;
}

void tunnel_cancel(struct tunnel *t)
{
	assert_ptr_equal(t, &w);
	assert_non_null(w.tunnelled);
	w.tunnelled = NULL;
}

static void tunnel_ends(int status, const char *why)
{
	tunnel_done *done = w.tunnelled;
	struct tunnel_answer a = {.why = why, .status = status};

	assert_non_null(done);
	w.tunnelled = NULL;
	done(w.tunneller, &a);
}

/* ---- the owner ---- */

static void free_dial(void)
{
	dial_free(w.dial);
	w.dial = NULL;
}

static void on_connected(void *owner, int fd, int left_ms)
{
	assert_ptr_equal(owner, &w);
	w.n_connected++;
	w.fd = fd;
	w.left = left_ms;
	if (w.free_at_call)
		free_dial();
}

static void on_failed(void *owner, const char *why)
{
	assert_ptr_equal(owner, &w);
	w.n_failed++;
	if (w.free_at_call)
		free_dial();
	snprintf(w.why, sizeof(w.why), "%s", why);
}

static const struct dial_ops ops = {.connected = on_connected, .failed = on_failed};

static int begin(void **state)
{
	(void)state;
	loop_begin(1000, 1);
	w = (struct world){.target = {.host = "many.test", .port = PORT, .address_ms = ADDRESS_MS},
			   .fd = -1};
	return 0;
}

/* The one that was handed over is its owner's. */
static int end(void **state)
{
	(void)state;
	if (w.dial)
		free_dial();
	if (w.fd >= 0)
		close(w.fd);
	for (unsigned i = 0; i < w.n; i++)
		assert_false(w.sockets[i].open);
	assert_null(w.answer);
	assert_null(w.tunnelled);
	assert_int_equal(loop_timers(), 0);
	return 0;
}

static void dial(void)
{
	w.dial = dial_new(NULL, &w.target, &w.memory, &ops, &w);
}

static void dial_to(const char *addresses)
{
	dial();
	answer(addresses);
}

/* What is connecting, in the order of being begun. */
static const char *connecting(void)
{
	static char text[400];

	text[0] = '\0';
	for (unsigned i = 0; i < w.n; i++) {
		struct fake *s = &w.sockets[i];
		size_t n = strlen(text);
		if (s->open && !s->connected)
			snprintf(text + n, sizeof(text) - n, "%s%s", n ? " " : "", s->address);
	}
	return text;
}

static int find(const char *address)
{
	for (unsigned i = w.n; i-- > 0;) {
		if (w.sockets[i].open && strcmp(w.sockets[i].address, address) == 0)
			return (int)i;
	}
	fail_msg("nothing connects to %s", address);
	return 0;
}

static void connects(const char *address)
{
	int i = find(address);

	w.sockets[i].connected = true;
	loop_ready(i, EV_WRITE);
}

static void refuses(const char *address)
{
	int i = find(address);

	w.sockets[i].error = ECONNREFUSED;
	loop_ready(i, EV_WRITE);
}

static void is_connected_to(const char *address)
{
	assert_int_equal(w.n_connected, 1);
	assert_string_equal(fake_of(w.fd)->address, address);
}

/* Its owner tells, and closes it. */
static void is_no_good(void (*told)(struct dial *d, const char *why), const char *why)
{
	close(w.fd);
	w.fd = -1;
	w.n_connected = 0;
	told(w.dial, why);
	assert_int_equal(w.n_connected + w.n_failed, 0); /* not from within */
	loop_pass(0);
}

static void has_failed(const char *why)
{
	assert_int_equal(w.n_failed, 1);
	assert_string_equal(w.why, why);
	assert_string_equal(connecting(), "");
	if (w.dial)
		assert_int_equal(loop_pending(), 0);
}

/* ---- a race ---- */

static void the_next_is_tried_a_moment_later(void **state)
{
	(void)state;
	dial_to("10.0.0.1 ::2 10.0.0.3");
	assert_string_equal(connecting(), "10.0.0.1");
	assert_int_equal(w.sockets[0].port, PORT);
	loop_pass(DIAL_STAGGER_MS - 1);
	assert_string_equal(connecting(), "10.0.0.1");
	loop_pass(1);
	assert_string_equal(connecting(), "10.0.0.1 ::2");
	assert_int_equal(w.sockets[1].port, PORT);
	loop_pass(DIAL_STAGGER_MS);
	assert_string_equal(connecting(), "10.0.0.1 ::2 10.0.0.3");
	loop_pass(ADDRESS_MS - 2 * DIAL_STAGGER_MS - 1);
	assert_string_equal(connecting(), "10.0.0.1 ::2 10.0.0.3");
}

static void or_as_soon_as_one_has_failed(void **state)
{
	(void)state;
	dial_to("10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4");
	loop_pass(10);
	refuses("10.0.0.1");
	assert_string_equal(connecting(), "");
	loop_pass(0);
	assert_string_equal(connecting(), "10.0.0.2");
	loop_pass(DIAL_STAGGER_MS - 1); /* the moment begins anew */
	assert_string_equal(connecting(), "10.0.0.2");
	loop_pass(1);
	refuses("10.0.0.2");
	loop_pass(0);
	assert_string_equal(connecting(), "10.0.0.3 10.0.0.4");
	refuses("10.0.0.4");
	loop_pass(0);
	assert_int_equal(w.n_failed, 0);
	refuses("10.0.0.3");
	loop_pass(0);
	has_failed(
		"10.0.0.1 port 4321: Connection refused; 10.0.0.2 port 4321: Connection refused; "
		"10.0.0.4 port 4321: Connection refused; 10.0.0.3 port 4321: Connection refused");
}

static void one_that_fails_at_once_takes_no_turn(void **state)
{
	(void)state;
	w.refused = "10.0.0.1";
	dial_to("10.0.0.1 10.0.0.1 10.0.0.3 10.0.0.4");
	assert_string_equal(connecting(), "10.0.0.3");
	refuses("10.0.0.3");
	loop_pass(0);
	refuses("10.0.0.4");
	loop_pass(0);
	has_failed(
		"10.0.0.1 port 4321: Network is unreachable; 10.0.0.1 port 4321: Network is "
		"unreachable; "
		"10.0.0.3 port 4321: Connection refused; 10.0.0.4 port 4321: Connection refused");
}

static void all_may_fail_at_once(void **state)
{
	(void)state;
	dial();
	w.no_socket = true;
	answer("10.0.0.1 10.0.0.2");
	has_failed(
		"10.0.0.1 port 4321: Too many open files; 10.0.0.2 port 4321: Too many open files");
	assert_int_equal(w.n, 0);
}

static void no_number_is_no_address(void **state)
{
	(void)state;
	dial_to("2001:db8:1111:2222:3333:4444:5555:6666%there_is_no_such_iface");
	has_failed("2001:db8:1111:2222:3333:4444:5555:6666%there_is_no_such_iface port 4321: "
		   "Cannot assign requested address");
}

static void a_socket_may_be_connected_at_once(void **state)
{
	(void)state;
	w.near = "10.0.0.1";
	dial_to("10.0.0.1");
	assert_int_equal(w.n_connected, 0); /* not from within */
	connects("10.0.0.1");
	is_connected_to("10.0.0.1");
	assert_true(w.sockets[0].at_once);
}

static void one_whose_state_is_unknown_has_failed(void **state)
{
	(void)state;
	dial_to("10.0.0.1");
	w.no_sockopt = true;
	connects("10.0.0.1");
	loop_pass(0);
	has_failed("10.0.0.1 port 4321: No buffer space available");
}

static void one_that_can_not_be_watched_has_failed(void **state)
{
	(void)state;
	loop_failing = LOOP_NO_WATCH;
	dial_to("10.0.0.1");
	has_failed("10.0.0.1 port 4321: the socket can't be watched");
}

static void the_first_to_connect_wins(void **state)
{
	(void)state;
	dial_to("10.0.0.1 10.0.0.2 10.0.0.3");
	loop_pass(DIAL_STAGGER_MS);
	loop_pass(100);
	connects("10.0.0.2");
	is_connected_to("10.0.0.2");
	assert_int_equal(w.left, ADDRESS_MS - 100);
	assert_string_equal(connecting(), "");
	assert_int_equal(loop_pending(), 0);
	assert_true(w.system);
	assert_string_equal(w.asked, "many.test");
}

/* Before the loop has come to the consequence. */
static void also_in_the_moment_in_which_another_fails(void **state)
{
	(void)state;
	dial_to("10.0.0.1 10.0.0.2");
	loop_pass(DIAL_STAGGER_MS);
	refuses("10.0.0.1");
	connects("10.0.0.2");
	is_connected_to("10.0.0.2");
	assert_int_equal(loop_pass(ADDRESS_MS), 0);
	assert_int_equal(w.n_failed, 0);
}

static void no_more_than_four_are_connecting(void **state)
{
	(void)state;
	w.refused = "10.0.0.1";
	dial_to("10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5 10.0.0.6");
	for (int i = 1; i < DIAL_AT_ONCE; i++)
		loop_pass(DIAL_STAGGER_MS);
	assert_string_equal(connecting(), "10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5");
	loop_pass(DIAL_STAGGER_MS - 1);
	assert_string_equal(connecting(), "10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5");
	loop_pass(1);
	assert_string_equal(connecting(), "10.0.0.3 10.0.0.4 10.0.0.5 10.0.0.6");
	assert_int_equal(loop_pass(2 * DIAL_STAGGER_MS), 0); /* nobody waits for a place */
	for (int i = 3; i <= 6; i++) {
		char address[32];
		snprintf(address, sizeof(address), "10.0.0.%d", i);
		refuses(address);
		loop_pass(0);
	}
	has_failed(
		"10.0.0.1 port 4321: Network is unreachable; "
		"10.0.0.2 port 4321: no answer yet, given up for the others; "
		"10.0.0.3 port 4321: Connection refused; 10.0.0.4 port 4321: Connection refused; "
		"10.0.0.5 port 4321: Connection refused; 10.0.0.6 port 4321: Connection refused");
}

static void the_reasons_have_an_end(void **state)
{
	(void)state;
	w.refused = "2001:db8:1111:2222:3333:4444:5555:6666";
	dial_to("2001:db8:1111:2222:3333:4444:5555:6666 2001:db8:1111:2222:3333:4444:5555:6666 "
		"2001:db8:1111:2222:3333:4444:5555:6666 2001:db8:1111:2222:3333:4444:5555:6666 "
		"2001:db8:1111:2222:3333:4444:5555:6666 2001:db8:1111:2222:3333:4444:5555:6666 "
		"2001:db8:1111:2222:3333:4444:5555:6666 2001:db8:1111:2222:3333:4444:5555:6666");
	assert_int_equal(w.n_failed, 1);
	assert_int_equal(strlen(w.why), DIAL_WHY_MAX - 1);
}

/* ---- time ---- */

static void each_address_has_its_time(void **state)
{
	(void)state;
	w.target.address_ms = 1500;
	dial_to("10.0.0.1 10.0.0.2");
	assert_int_equal(w.patience, 1500);
	loop_pass(1499);
	assert_string_equal(connecting(), "10.0.0.1 10.0.0.2");
	loop_pass(1);
	assert_string_equal(connecting(), "10.0.0.2");
	loop_pass(DIAL_STAGGER_MS);
	has_failed("10.0.0.1 port 4321: timed out while connecting; 10.0.0.2 port 4321: timed out "
		   "while connecting");
}

static void all_have_a_time_together(void **state)
{
	(void)state;
	w.target.total_ms = 3000;
	dial();
	assert_int_equal(w.patience, 3000);
	loop_pass(1000); /* the name's part of it */
	answer("10.0.0.1 10.0.0.2");
	loop_pass(1999);
	assert_int_equal(w.n_failed, 0);
	loop_pass(1);
	has_failed("10.0.0.1 port 4321: timed out while connecting; 10.0.0.2 port 4321: timed out "
		   "while connecting");
}

static void a_race_may_be_over_before_the_time_of_all(void **state)
{
	(void)state;
	w.target.total_ms = 3000;
	dial_to("10.0.0.1");
	refuses("10.0.0.1");
	loop_pass(0);
	has_failed("10.0.0.1 port 4321: Connection refused");
}

static void or_in_the_same_moment(void **state)
{
	(void)state;
	w.target.total_ms = 200;
	dial_to("10.0.0.1 10.0.0.2");
	loop_now += 200;
	refuses("10.0.0.1");
	loop_pass(0);
	has_failed("10.0.0.1 port 4321: Connection refused");
}

static void a_name_has_no_longer_than_an_address(void **state)
{
	(void)state;
	w.target.total_ms = 3 * ADDRESS_MS;
	dial();
	assert_int_equal(w.patience, ADDRESS_MS);
}

/* What is left of the time of all is shared with those that may have to be tried behind it. */
static void a_socket_is_told_what_is_left(void **state)
{
	static const struct {
		const char *addresses;
		int total, wait, left;
	} rows[] = {
		{"10.0.0.1", 0, 0, ADDRESS_MS},
		{"10.0.0.1", 0, 300, ADDRESS_MS - 300},
		{"10.0.0.1", 4000, 300, 3700},
		{"10.0.0.1", 40000, 300, ADDRESS_MS - 300},
		{"10.0.0.1 10.0.0.2", 4000, 200, 1900},
		{"10.0.0.1 10.0.0.2", 4000, 300, 1850}, /* the other one is given up for now */
		{"10.0.0.1 10.0.0.2", 2 * ADDRESS_MS, 0, ADDRESS_MS},
		{"10.0.0.1", 1, 0, 1},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		w.target.total_ms = rows[i].total;
		w.n_connected = 0;
		dial_to(rows[i].addresses);
		loop_pass(rows[i].wait);
		connects("10.0.0.1");
		is_connected_to("10.0.0.1");
		if (w.left != rows[i].left)
			fail_msg("row %zu: %d ms are left", i, w.left);
		assert_int_equal(loop_pending(), 0);
		free_dial();
		close(w.fd);
		w.fd = -1;
	}
}

/* Its time is over, and the loop comes to that late: to hear of the connection first. */
static void a_late_socket_has_a_moment_left(void **state)
{
	(void)state;
	w.target.address_ms = 100;
	dial_to("10.0.0.1");
	loop_now += 200;
	connects("10.0.0.1");
	is_connected_to("10.0.0.1");
	assert_int_equal(w.left, 1);
}

/* ---- in use ---- */

static void the_others_follow_one_that_is_no_good(void **state)
{
	(void)state;
	w.target.total_ms = 6000;
	dial_to("10.0.0.1 10.0.0.2 10.0.0.3");
	loop_pass(DIAL_STAGGER_MS);
	connects("10.0.0.2");
	loop_pass(1000);
	is_no_good(dial_next, "speaks no TLS");
	assert_string_equal(connecting(), "10.0.0.1"); /* was given up for it */
	loop_pass(DIAL_STAGGER_MS);
	assert_string_equal(connecting(), "10.0.0.1 10.0.0.3");
	connects("10.0.0.3");
	is_connected_to("10.0.0.3");
	is_no_good(dial_next, "has another name");
	assert_string_equal(connecting(), "10.0.0.1");
	loop_pass(6000 - 1000 - 2 * DIAL_STAGGER_MS - 1);
	assert_int_equal(w.n_failed, 0);
	loop_pass(1); /* the time of all went on */
	has_failed("10.0.0.2 port 4321: speaks no TLS; 10.0.0.3 port 4321: has another name; "
		   "10.0.0.1 port 4321: timed out while connecting");
}

static void the_last_that_is_no_good_ends_it(void **state)
{
	(void)state;
	dial_to("10.0.0.1");
	connects("10.0.0.1");
	is_no_good(dial_next, "is no good");
	has_failed("10.0.0.1 port 4321: is no good");
}

static void one_may_answer_for_all(void **state)
{
	(void)state;
	dial_to("10.0.0.1 10.0.0.2 10.0.0.3");
	loop_pass(DIAL_STAGGER_MS);
	connects("10.0.0.2");
	is_no_good(dial_give_up, "says no");
	has_failed("10.0.0.2 port 4321: says no");
	assert_int_equal(w.n, 2);
}

static void what_went_before_a_good_one_is_forgotten(void **state)
{
	(void)state;
	w.refused = "10.0.0.1";
	dial_to("10.0.0.1 10.0.0.2");
	connects("10.0.0.2");
	dial_good(w.dial);
	is_no_good(dial_next, "broke");
	has_failed("10.0.0.2 port 4321: broke");
}

/* ---- memory ---- */

static void remembers(const char *good, const char *useless)
{
	assert_string_equal(w.memory.address, good);
	assert_string_equal(w.memory.useless, useless);
}

static void a_good_one_goes_first(void **state)
{
	(void)state;
	dial_to("10.0.0.1 10.0.0.2 10.0.0.3");
	w.refused = "10.0.0.1";
	loop_pass(2 * DIAL_STAGGER_MS);
	connects("10.0.0.3");
	remembers("", "");
	dial_good(w.dial);
	remembers("10.0.0.3", "");
	free_dial();
	w.refused = NULL;
	dial_to("10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4");
	assert_string_equal(connecting(), "10.0.0.3");
	w.refused = "10.0.0.1";
	loop_pass(DIAL_STAGGER_MS); /* the first of the others fails at once */
	assert_string_equal(connecting(), "10.0.0.3 10.0.0.2");
	loop_pass(DIAL_STAGGER_MS);
	assert_string_equal(connecting(), "10.0.0.3 10.0.0.2 10.0.0.4");
	remembers("10.0.0.3", "");
	refuses("10.0.0.3");
	remembers("", "");
}

static void a_useless_one_goes_last(void **state)
{
	(void)state;
	snprintf(w.memory.useless, sizeof(w.memory.useless), "10.0.0.1");
	dial_to("10.0.0.1 10.0.0.2 10.0.0.3");
	assert_string_equal(connecting(), "10.0.0.2");
	loop_pass(DIAL_STAGGER_MS);
	assert_string_equal(connecting(), "10.0.0.2 10.0.0.3");
	connects("10.0.0.3");
	is_no_good(dial_next, "is no good");
	remembers("", "10.0.0.3");
	refuses("10.0.0.2");
	loop_pass(0);
	connects("10.0.0.1");
	is_connected_to("10.0.0.1");
	remembers("", "10.0.0.3");
	dial_good(w.dial);
	remembers("10.0.0.1", "10.0.0.3");
}

static void also_one_from_the_middle(void **state)
{
	(void)state;
	snprintf(w.memory.useless, sizeof(w.memory.useless), "10.0.0.2");
	dial_to("10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4");
	loop_pass(3 * DIAL_STAGGER_MS);
	assert_string_equal(connecting(), "10.0.0.1 10.0.0.3 10.0.0.4 10.0.0.2");
}

static void what_is_remembered_may_be_no_answer(void **state)
{
	(void)state;
	snprintf(w.memory.address, sizeof(w.memory.address), "10.0.0.8");
	snprintf(w.memory.useless, sizeof(w.memory.useless), "10.0.0.9");
	dial_to("10.0.0.1 10.0.0.2");
	assert_string_equal(connecting(), "10.0.0.1");
	loop_pass(DIAL_STAGGER_MS);
	assert_string_equal(connecting(), "10.0.0.1 10.0.0.2");
	refuses("10.0.0.1");
	remembers("10.0.0.8", "10.0.0.9");
}

static void good_and_useless_change_places(void **state)
{
	(void)state;
	dial_to("10.0.0.1");
	connects("10.0.0.1");
	dial_good(w.dial);
	dial_bad(w.dial);
	remembers("", "10.0.0.1");
	dial_good(w.dial);
	remembers("10.0.0.1", "");
	snprintf(w.memory.address, sizeof(w.memory.address), "10.0.0.2");
	dial_bad(w.dial);
	remembers("10.0.0.2", "10.0.0.1");
	assert_int_equal(loop_pending(), 0); /* nothing follows */
}

/* ---- the name ---- */

static void a_name_without_addresses(void **state)
{
	(void)state;
	dial_to("");
	has_failed("many.test: no such name");
}

static void a_name_with_as_many_as_there_may_be(void **state)
{
	char all[2000] = "";

	(void)state;
	for (int i = 1; i <= RESOLVER_ADDRESSES_MAX; i++) {
		size_t n = strlen(all);
		snprintf(all + n, sizeof(all) - n, "10.0.1.%d ", i);
	}
	snprintf(w.memory.address, sizeof(w.memory.address), "10.0.1.64");
	snprintf(w.memory.useless, sizeof(w.memory.useless), "10.0.1.1");
	w.target.address_ms = 60000;
	dial_to(all);
	loop_pass((int64_t)RESOLVER_ADDRESSES_MAX * DIAL_STAGGER_MS);
	assert_string_equal(connecting(), "10.0.1.61 10.0.1.62 10.0.1.63 10.0.1.1");
	assert_string_equal(w.sockets[0].address, "10.0.1.64");
	loop_pass(60000);
	assert_int_equal(w.n_failed, 1);
}

static void its_files_may_be_others(void **state)
{
	struct resolver_files files = {"resolv.conf", "hosts"};

	(void)state;
	w.target.files = &files;
	dial();
	assert_ptr_equal(w.files, &files);
	assert_false(w.system);
}

static void it_may_be_freed_before_the_answer(void **state)
{
	(void)state;
	dial();
	free_dial();
	assert_null(w.answer);
}

static void it_may_be_freed_while_it_connects(void **state)
{
	(void)state;
	dial_to("10.0.0.1 10.0.0.2");
	loop_pass(DIAL_STAGGER_MS);
	free_dial();
	assert_string_equal(connecting(), "");
}

static void it_may_be_freed_by_its_owner(void **state)
{
	(void)state;
	w.free_at_call = true;
	dial_to("10.0.0.1 10.0.0.2");
	loop_pass(DIAL_STAGGER_MS);
	connects("10.0.0.2");
	is_connected_to("10.0.0.2");
	dial_to("");
	has_failed("many.test: no such name");
}

/* ---- a proxy ---- */

static void dial_through_proxy(const char *addresses)
{
	w.target.proxy_host = "proxy.test";
	w.target.proxy_port = PROXY_PORT;
	w.target.proxy_login = "user:password";
	dial_to(addresses);
}

static void a_tunnel_is_asked_for(void **state)
{
	(void)state;
	dial_through_proxy("10.0.0.1 10.0.0.2");
	assert_string_equal(w.asked, "proxy.test");
	assert_int_equal(w.sockets[0].port, PROXY_PORT);
	loop_pass(DIAL_STAGGER_MS + 50);
	connects("10.0.0.2");
	assert_int_equal(w.n_connected, 0);
	assert_string_equal(connecting(), "");
	assert_int_equal(w.wish.fd, 1);
	assert_string_equal(w.wish.host, "many.test");
	assert_int_equal(w.wish.port, PORT);
	assert_string_equal(w.wish.login, "user:password");
	assert_int_equal(w.wish.timeout_ms, ADDRESS_MS - 50);
	loop_pass(150);
	tunnel_ends(200, NULL);
	is_connected_to("10.0.0.2");
	assert_int_equal(w.left, ADDRESS_MS - 200);
	assert_int_equal(loop_pending(), 0);
}

static void a_proxy_that_answers_does_so_for_all_its_addresses(void **state)
{
	(void)state;
	dial_through_proxy("10.0.0.1 10.0.0.2");
	connects("10.0.0.1");
	tunnel_ends(403, "the proxy answered 403");
	loop_pass(0);
	has_failed("10.0.0.1 port 8080: the proxy answered 403");
	remembers("", "10.0.0.1");
}

static void one_that_does_not_is_followed_by_the_next(void **state)
{
	(void)state;
	dial_through_proxy("10.0.0.1 10.0.0.2");
	connects("10.0.0.1");
	tunnel_ends(0, "the proxy closed the connection");
	loop_pass(0);
	w.no_tunnel = true;
	connects("10.0.0.2");
	loop_pass(0);
	has_failed("10.0.0.1 port 8080: the proxy closed the connection; 10.0.0.2 port 8080: no "
		   "memory");
}

static void its_silence_ends_with_the_time_of_all(void **state)
{
	(void)state;
	w.target.total_ms = 3000;
	dial_through_proxy("10.0.0.1");
	connects("10.0.0.1");
	loop_pass(2999);
	assert_int_equal(w.n_failed, 0);
	loop_pass(1);
	assert_null(w.tunnelled);
	has_failed("10.0.0.1 port 8080: the proxy did not answer in time");
}

static void it_may_be_freed_before_the_proxy_answers(void **state)
{
	(void)state;
	dial_through_proxy("10.0.0.1");
	connects("10.0.0.1");
	free_dial();
	assert_null(w.tunnelled);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(the_next_is_tried_a_moment_later),
		CASE(or_as_soon_as_one_has_failed),
		CASE(one_that_fails_at_once_takes_no_turn),
		CASE(all_may_fail_at_once),
		CASE(no_number_is_no_address),
		CASE(a_socket_may_be_connected_at_once),
		CASE(one_whose_state_is_unknown_has_failed),
		CASE(one_that_can_not_be_watched_has_failed),
		CASE(the_first_to_connect_wins),
		CASE(also_in_the_moment_in_which_another_fails),
		CASE(no_more_than_four_are_connecting),
		CASE(the_reasons_have_an_end),
		CASE(each_address_has_its_time),
		CASE(all_have_a_time_together),
		CASE(a_race_may_be_over_before_the_time_of_all),
		CASE(or_in_the_same_moment),
		CASE(a_name_has_no_longer_than_an_address),
		CASE(a_socket_is_told_what_is_left),
		CASE(a_late_socket_has_a_moment_left),
		CASE(the_others_follow_one_that_is_no_good),
		CASE(the_last_that_is_no_good_ends_it),
		CASE(one_may_answer_for_all),
		CASE(what_went_before_a_good_one_is_forgotten),
		CASE(a_good_one_goes_first),
		CASE(a_useless_one_goes_last),
		CASE(also_one_from_the_middle),
		CASE(what_is_remembered_may_be_no_answer),
		CASE(good_and_useless_change_places),
		CASE(a_name_without_addresses),
		CASE(a_name_with_as_many_as_there_may_be),
		CASE(its_files_may_be_others),
		CASE(it_may_be_freed_before_the_answer),
		CASE(it_may_be_freed_while_it_connects),
		CASE(it_may_be_freed_by_its_owner),
		CASE(a_tunnel_is_asked_for),
		CASE(a_proxy_that_answers_does_so_for_all_its_addresses),
		CASE(one_that_does_not_is_followed_by_the_next),
		CASE(its_silence_ends_with_the_time_of_all),
		CASE(it_may_be_freed_before_the_proxy_answers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
