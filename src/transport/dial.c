#include "transport/dial.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/secret.h"
#include "base/timer.h"
#include "transport/tunnel.h"

enum attempt_state {
	ATTEMPT_UNTRIED,
	ATTEMPT_CONNECTING,
	ATTEMPT_WON,  /* it is connected, and in use */
	ATTEMPT_OVER, /* it has failed, or was given up */
	ATTEMPT_STATE_N
};

struct attempt {
	struct dial *dial;
	enum attempt_state state;
	int fd;                 /* while connecting, and in the proxy's tunnel; else -1 */
	struct event *writable; /* while connecting */
	int64_t began;
};

struct dial {
	struct event_base *base;
	const struct dial_ops *ops;
	void *owner;
	struct dial_memory *memory;
	char *host, *proxy_host, *proxy_login; /* the last one: secret */
	uint16_t port, proxy_port;
	int address_ms;
	int64_t until; /* of all; 0: unlimited */

	struct resolver *question;
	struct resolver_answer addresses; /* in the order of trying */
	struct attempt attempts[RESOLVER_ADDRESSES_MAX];
	size_t connecting;     /* of them were started */
	struct attempt *won;   /* the last one; or NULL */
	struct tunnel *tunnel; /* where the winner is to lead */
	struct event *turn;    /* goes on from a fresh stack */
	struct event *stagger; /* starts the next one beside those that are connecting */
	struct event *total;   /* "until" has come */
	char why[DIAL_WHY_MAX];
};

static const char *peer_host(const struct dial *d)
{
	return d->proxy_host ? d->proxy_host : d->host;
}

static unsigned peer_port(const struct dial *d)
{
	return d->proxy_host ? d->proxy_port : d->port;
}

static const char *address_of(const struct attempt *a)
{
	return a->dial->addresses.address[a - a->dial->attempts];
}

/* ---- an attempt ends ---- */

static void stop(struct attempt *a, enum attempt_state state)
{
	if (a->state == ATTEMPT_CONNECTING)
		a->dial->connecting--;
	if (a->writable)
		event_free(a->writable);
	a->writable = NULL;
	if (a->fd >= 0)
		close(a->fd);
	a->fd = -1;
	a->state = state;
}

static void shared(struct dial *d, const char *who, const char *why)
{
	size_t n = strlen(d->why);

	snprintf(d->why + n, sizeof(d->why) - n, "%s%s: %s", n ? "; " : "", who, why);
}

static void attempt_failed(struct attempt *a, const char *why)
{
	struct dial *d = a->dial;
	char who[RESOLVER_ADDRESS_MAX + sizeof(" port 65535")];

	snprintf(who, sizeof(who), "%s port %u", address_of(a), peer_port(d));
	shared(d, who, why);
	if (strcmp(d->memory->address, address_of(a)) == 0)
		d->memory->address[0] = '\0';
	if (d->won == a)
		dial_bad(d);
	stop(a, ATTEMPT_OVER);
}

/* The others are no longer needed; if the winner is no good, they are tried anew. */
static void stop_others(struct dial *d)
{
	event_del(d->turn); /* for one that has just failed */
	event_del(d->stagger);
	for (size_t i = 0; i < d->addresses.n; i++) {
		if (d->attempts[i].state == ATTEMPT_CONNECTING)
			stop(&d->attempts[i], ATTEMPT_UNTRIED);
	}
}

static void go_on(struct dial *d)
{
	timer_next_turn(d->turn);
}

/* Calls of the owner are the last act of a function: the owner may free the dial from within. */
static void fail(struct dial *d)
{
	char why[DIAL_WHY_MAX];

	memcpy(why, d->why, sizeof(why));
	event_del(d->total);
	stop_others(d);
	d->ops->failed(d->owner, why);
}

/* ---- an address is connected ---- */

static struct attempt *find_untried(struct dial *d)
{
	for (size_t i = 0; i < d->addresses.n; i++) {
		if (d->attempts[i].state == ATTEMPT_UNTRIED)
			return &d->attempts[i];
	}
	return NULL;
}

/* The time that is left for this address. While another one has not been tried, it gets at most
 * half of the time of all. */
static int left_ms(struct dial *d, const struct attempt *a)
{
	int64_t now = clock_mono_ms(), left = a->began + d->address_ms - now;
	int64_t share = d->until ? (d->until - now) / (find_untried(d) ? 2 : 1) : left;

	left = share < left ? share : left;
	return left > 1 ? (int)left : 1;
}

static void hand_over(struct dial *d)
{
	int fd = d->won->fd;

	d->won->fd = -1;
	event_del(d->total);
	d->ops->connected(d->owner, fd, left_ms(d, d->won));
}

static void on_tunnel(void *owner, const struct tunnel_answer *answer)
{
	struct dial *d = owner;

	d->tunnel = NULL;
	if (!answer->why)
		hand_over(d);
	else if (answer->status)
		dial_give_up(d, answer->why);
	else
		dial_next(d, answer->why);
}

static void win(struct attempt *a)
{
	struct dial *d = a->dial;
	struct tunnel_wish wish = {
		.fd = a->fd, .host = d->host, .port = d->port, .login = d->proxy_login};

	d->connecting--;
	event_free(a->writable);
	a->writable = NULL;
	a->state = ATTEMPT_WON;
	d->won = a;
	stop_others(d);
	if (!d->proxy_host) {
		hand_over(d);
		return;
	}
	wish.timeout_ms = left_ms(d, a);
	d->tunnel = tunnel_new(d->base, &wish, on_tunnel, d);
	if (!d->tunnel)
		dial_next(d, "no memory");
}

/* Connected, or failed with the kernel's reason, or its time is up. */
static void on_writable(evutil_socket_t fd, short what, void *user)
{
	struct attempt *a = user;
	struct dial *d = a->dial;
	int err = 0;
	socklen_t n = sizeof(err);

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &n) < 0)
		err = errno;
	if (!err && (what & EV_WRITE)) {
		win(a);
		return;
	}
	attempt_failed(a, err ? strerror(err) : "timed out while connecting");
	go_on(d);
}

/* The socket, or -errno. */
static int begin_to_connect(const char *address, unsigned port)
{
	struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
				 .ai_socktype = SOCK_STREAM},
			*to = NULL;
	char number[sizeof("65535")];
	int one = 1, err = 0;

	snprintf(number, sizeof(number), "%u", port & UINT16_MAX);
	if (getaddrinfo(address, number, &hints, &to))
		return -EADDRNOTAVAIL;
	int fd = socket(to->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		err = errno;
	} else {
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		if (connect(fd, to->ai_addr, to->ai_addrlen) < 0 && errno != EINPROGRESS) {
			err = errno;
			close(fd);
		}
	}
	freeaddrinfo(to);
	return err ? -err : fd;
}

static void begin(struct attempt *a)
{
	struct dial *d = a->dial;
	int fd = begin_to_connect(address_of(a), peer_port(d));

	if (fd < 0) {
		attempt_failed(a, strerror(-fd));
		return;
	}
	a->fd = fd;
	a->began = clock_mono_ms();
	a->state = ATTEMPT_CONNECTING;
	d->connecting++;
	struct timeval patience = {d->address_ms / 1000, d->address_ms % 1000 * 1000};
	a->writable = watch_new(d->base, fd, EV_WRITE, on_writable, a);
	if (event_add(a->writable, &patience) < 0)
		attempt_failed(a, "the socket can't be watched");
}

/* The one that has been connecting for the longest. */
static struct attempt *oldest(struct dial *d)
{
	struct attempt *found = NULL;

	for (size_t i = 0; i < d->addresses.n; i++) {
		struct attempt *a = &d->attempts[i];
		if (a->state == ATTEMPT_CONNECTING && (!found || a->began < found->began))
			found = a;
	}
	return found;
}

/* Starts the next address, beside those that are connecting. If it fails at once, the one behind it
 * is started. */
static void try_next(struct dial *d)
{
	struct attempt *a;
	size_t before = d->connecting;

	if (d->connecting == DIAL_AT_ONCE && find_untried(d)) {
		attempt_failed(oldest(d), "no answer yet, given up for the others");
		before = d->connecting;
	}
	while (d->connecting == before && (a = find_untried(d)))
		begin(a);
	if (find_untried(d))
		timer_start(d->stagger, DIAL_STAGGER_MS);
	else if (!d->connecting)
		fail(d);
}

static void on_turn(evutil_socket_t fd, short what, void *user)
{
	(void)fd, (void)what;
	try_next(user);
}

static void on_total(evutil_socket_t fd, short what, void *user)
{
	struct dial *d = user;

	(void)fd, (void)what;
	if (d->tunnel) {
		tunnel_cancel(d->tunnel);
		d->tunnel = NULL;
		attempt_failed(d->won, "the proxy did not answer in time");
	}
	for (size_t i = 0; i < d->addresses.n; i++) {
		if (d->attempts[i].state == ATTEMPT_CONNECTING)
			attempt_failed(&d->attempts[i], "timed out while connecting");
	}
	fail(d);
}

/* ---- the name ---- */

/* Moves this address to another place, if it is among them; the order of the others stays. */
static void move(struct resolver_answer *answer, const char *address, size_t to)
{
	char moved[RESOLVER_ADDRESS_MAX];
	size_t at = 0;

	while (at < answer->n && strcmp(answer->address[at], address) != 0)
		at++;
	if (at == answer->n)
		return;
	memcpy(moved, answer->address[at], sizeof(moved));
	for (; at > to; at--)
		memcpy(answer->address[at], answer->address[at - 1], sizeof(moved));
	for (; at < to; at++)
		memcpy(answer->address[at], answer->address[at + 1], sizeof(moved));
	memcpy(answer->address[to], moved, sizeof(moved));
}

static void start_total(struct dial *d)
{
	if (d->until)
		timer_start(d->total, d->until - clock_mono_ms());
}

static void on_addresses(void *owner, const struct resolver_answer *answer)
{
	struct dial *d = owner;

	d->question = NULL;
	d->addresses = *answer;
	move(&d->addresses, d->memory->address, 0);
	move(&d->addresses, d->memory->useless, answer->n - 1);
	for (size_t i = 0; i < answer->n; i++)
		d->attempts[i] = (struct attempt){.dial = d, .fd = -1};
	if (!answer->n)
		shared(d, peer_host(d), answer->why);
	start_total(d);
	try_next(d);
}

/* ---- public functions ---- */

struct dial *dial_new(struct event_base *base, const struct dial_target *target,
		      struct dial_memory *memory, const struct dial_ops *ops, void *owner)
{
	struct dial *d = mem_zalloc(sizeof(*d));
	int total = target->total_ms, time = target->address_ms;

	*d = (struct dial){
		.base = base,
		.ops = ops,
		.owner = owner,
		.memory = memory,
		.host = mem_strdup(target->host),
		.proxy_host = target->proxy_host ? mem_strdup(target->proxy_host) : NULL,
		.proxy_login = target->proxy_login ? secret_dup(target->proxy_login) : NULL,
		.port = target->port,
		.proxy_port = target->proxy_port,
		.address_ms = target->address_ms,
		.until = total ? clock_mono_ms() + total : 0,
		.turn = timer_new(base, on_turn, d),
		.stagger = timer_new(base, on_turn, d),
		.total = timer_new(base, on_total, d),
	};
	if (total && total < time)
		time = total;
	d->question = target->files ? resolver_ask_with(base, target->files, peer_host(d), time,
							on_addresses, d)
				    : resolver_ask(base, peer_host(d), time, on_addresses, d);
	return d;
}

void dial_free(struct dial *d)
{
	if (d->question)
		resolver_cancel(d->question);
	if (d->tunnel)
		tunnel_cancel(d->tunnel);
	for (size_t i = 0; i < d->addresses.n; i++)
		stop(&d->attempts[i], ATTEMPT_OVER);
	event_free(d->turn);
	event_free(d->stagger);
	event_free(d->total);
	secret_free(&d->proxy_login);
	free(d->proxy_host);
	free(d->host);
	free(d);
}

void dial_good(struct dial *d)
{
	struct dial_memory *m = d->memory;

	snprintf(m->address, sizeof(m->address), "%s", address_of(d->won));
	if (strcmp(m->useless, m->address) == 0)
		m->useless[0] = '\0';
	d->why[0] = '\0';
}

void dial_bad(struct dial *d)
{
	struct dial_memory *m = d->memory;

	snprintf(m->useless, sizeof(m->useless), "%s", address_of(d->won));
	if (strcmp(m->useless, m->address) == 0)
		m->address[0] = '\0';
}

void dial_next(struct dial *d, const char *why)
{
	attempt_failed(d->won, why);
	start_total(d);
	go_on(d);
}

void dial_give_up(struct dial *d, const char *why)
{
	attempt_failed(d->won, why);
	for (size_t i = 0; i < d->addresses.n; i++)
		stop(&d->attempts[i], ATTEMPT_OVER);
	go_on(d);
}
