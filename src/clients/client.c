#include "clients/client.h"

#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <event2/event_struct.h>

#include "requests/answers.h"
#include "base/clock.h"
#include "base/heap.h"
#include "gateway/http.h"
#include "clients/identities.h"
#include "clients/line.h"
#include "clients/refusals.h"
#include "base/log.h"
#include "base/mem.h"
#include "codec/reply.h"
#include "base/timer.h"
#include "base/turn.h"

enum {
	GATHER_MAX = 65536,     /* bytes of short lines that are one part of a write */
	READ_MAX = 65536,       /* bytes of all clients in one turn of the loop */
	READ_MIN = 256,         /* ... of each that sends, at least */
	READ_US = 2000,         /* in which these are to be handled, ... */
	SHARE_MIN_US = 20,      /* ... of which each client has a share, at least this */
	SLOW_ONCE = 2,          /* client::slowness after a read that took longer than its share */
	SLOW_MAX = 4,           /* ... and after the next such read; another takes one off */
	LAST_LINE_MS = 1000,    /* for the last line of a client that is dropped */
	LINGER_MS = 1000,       /* for a client to take what is out before its socket is closed */
	BUSY_MS = 1000,         /* over which the busiest are found, at least */
	HANGUP_CHECK_MS = 2000, /* how often each client that is not read is looked at */
	HANGUPS_AT_ONCE = 100,  /* of all clients, about so many are looked at in one turn, ... */
	HANGUP_STEP_MS = 10,    /* ... but not more often */
	LAST_READS = 16,        /* of READ_MAX, when a WebSocket's input ends */
	IOV_BATCH = 256,        /* parts in one write */
	CHANGED_FEWEST = 16,    /* places in clients::changed */
	CHANGED_KEPT = 1024,    /* ... more are freed once it is empty */
};

enum client_state {
	CLIENT_OPEN,
	CLIENT_HALF_CLOSED, /* has sent its last byte, still gets its answers */
	CLIENT_LEAVING,     /* the other rooms have forgotten it; its last bytes are written */
	CLIENT_STATE_N
};

static const char *const state_names[] = {"open", "half-closed", "leaving"};
_Static_assert(sizeof(state_names) / sizeof(state_names[0]) == CLIENT_STATE_N,
	       "a name for each state");

struct client {
	struct peer peer;
	struct line_reader lines;   /* to clients::lines of its set */
	struct speech *speech;      /* in the place of lines; or NULL */
	struct event read;          /* of its socket */
	struct event *write;        /* once the socket was full */
	TAILQ_ENTRY(client) of_set; /* clients::all */
	uint64_t requests;          /* lines read */
	uint32_t requests_before;   /* low 32 bits of requests at clients::busy_since */
	uint32_t gone_at;           /* when CLIENT_LEAVING ends: low 32 bits of ms */
	uint32_t change;            /* its place in clients::changed, if it is changed */
	enum client_state state : 8;
	uint8_t slowness;     /* of its last reads; it is slow above SLOW_ONCE */
	bool tcp : 1;         /* the kernel does not know whose it is */
	bool decided : 1;     /* its first byte has come: it speaks lines, or has a speech */
	bool speaking : 1;    /* a function of its speech is being called */
	bool lingers : 1;     /* has left, and got all; what still comes is dropped */
	bool paused : 1;      /* not read further until there is room, and time */
	bool held : 1;        /* ... for lack of room: counted in the stats */
	bool put_off : 1;     /* slow, and to be read when the turn ends */
	bool quiet : 1;       /* not read, for whatever reason: counted in clients::n_quiet */
	bool changed : 1;     /* in clients::changed */
	bool broken : 1;      /* its socket can't be watched: freed when the turn ends */
	bool asking : 1;      /* has an answer to read, since clients_will_end() */
	bool input_ended : 1; /* by clients_end_input() */
};

TAILQ_HEAD(client_list, client); /* in no order: on_hangup_check() rotates it */
TAILQ_HEAD(stranger_list, speech);

struct clients {
	struct event_base *base;
	struct client_settings settings;
	const struct client_ops *ops;
	void *owner;
	struct stats *stats;
	struct client_list all;
	struct stranger_list strangers; /* the first to come is first */
	unsigned n_strangers;
	/* Clients that are settled when the turn ends, in this order; NULL: freed since. */
	struct client **changed;
	uint32_t n_changed, changed_size;
	struct line_receiver lines;
	unsigned n_quiet;    /* of all, those that are not read */
	bool settling;       /* on_turn_end() runs */
	int64_t slow_us;     /* left of READ_US for slow clients in this turn */
	int64_t share_us;    /* of each of these */
	int64_t share_until; /* lines of one client are handed on for so long */
	bool share_is_over;  /* that is why no more of them are */
	bool stopping;       /* clients_will_end() was called */
	bool ending;         /* clients_end_input() was called */
	struct turn_step turn_end;
	struct event *hangups; /* armed while there are quiet clients */
	int64_t hangups_since; /* when it was last armed */
	unsigned hangups_n;    /* clients when the present round of checks began, ... */
	unsigned hangups_left; /* ... and those of them that are still to be looked at */
	unsigned hangups_rate; /* looked at in HANGUP_CHECK_MS */
	unsigned n;
	struct refusals *refusals;
	struct identities identities;
	struct heap dues;
	struct event *dues_timer;
	unsigned readers, readers_before; /* who have sent, in this turn and in the one before */
	uint32_t readers_turn;            /* turn_number() of these */
	int64_t now;                      /* when the lines that are handed on now were read */
	uint64_t last_number;
	int64_t busy_since;        /* when requests_before was last set */
	char gathered[GATHER_MAX]; /* short lines while they are written */
	char input[READ_MAX];      /* shared by all clients; line_feed() copies what it keeps */
};

static enum line_verdict on_line(struct line_reader *lines, struct span line);
static enum line_verdict on_too_long(struct line_reader *lines, struct span prefix);
static void on_readable(evutil_socket_t fd, short what, void *arg);
static void on_writable(evutil_socket_t fd, short what, void *arg);
static void on_turn_end(void *arg);
static void on_hangup_check(evutil_socket_t fd, short what, void *arg);
static void on_due(evutil_socket_t fd, short what, void *arg);
static bool speak(struct client *c);
static void take_over(struct client *c);

struct clients *clients_new(struct event_base *base, const struct client_settings *settings,
			    const struct client_ops *ops, void *owner, struct stats *stats)
{
	struct clients *cs = mem_zalloc(sizeof(*cs));

	cs->base = base;
	cs->settings = *settings;
	cs->ops = ops;
	cs->owner = owner;
	cs->stats = stats;
	cs->lines = (struct line_receiver){on_line, on_too_long, settings->max_line};
	TAILQ_INIT(&cs->all);
	TAILQ_INIT(&cs->strangers);
	turn_step_init(&cs->turn_end, base, on_turn_end, cs);
	cs->hangups = timer_new(base, on_hangup_check, cs);
	cs->dues_timer = timer_new(base, on_due, cs);
	cs->refusals = refusals_new(base);
	identities_init(&cs->identities);
	return cs;
}

static struct client *client_of(struct peer *peer)
{
	return (struct client *)(void *)((char *)peer - offsetof(struct client, peer));
}

static struct clients *set_of(const struct client *c)
{
	return (struct clients *)(void *)((uintptr_t)c->lines.to - offsetof(struct clients, lines));
}

static int fd_of(const struct client *c)
{
	return c->read.ev_fd;
}

static void client_log(enum log_level level, const struct client *c, const char *text)
{
	log_at(level, "client %llu (pid %ld, uid %ld): %s", (unsigned long long)c->peer.number,
	       (long)c->peer.pid, (long)c->peer.uid, text);
}

/* ---- states ---- */

/* The kernel may have no memory to watch one more socket. Such a client would never be heard or
 * answered again, so it is dropped; not before the turn ends, since the caller still uses it. */
static bool client_watch(struct client *c, struct event *e)
{
	int err = watch_start(e);

	if (err == 0)
		return true;
	if (!c->broken)
		log_warning(
			"client %llu (pid %ld, uid %ld): dropped: its socket can't be watched: %s",
			(unsigned long long)c->peer.number, (long)c->peer.pid, (long)c->peer.uid,
			strerror(-err));
	c->broken = true;
	clients_changed(set_of(c), &c->peer);
	return false;
}

/* If clients go, the next round is as fast as this one: otherwise one that was among the first in
 * this round, and is among the last in the next, would be looked at late. */
static void begin_round(struct clients *cs)
{
	cs->hangups_rate = cs->n > cs->hangups_n ? cs->n : cs->hangups_n;
	cs->hangups_n = cs->hangups_left = cs->n;
}

/* The next check comes when HANGUPS_AT_ONCE clients, or all, are to be looked at. */
static void await_hangups(struct clients *cs, int64_t now)
{
	int64_t ms = HANGUP_CHECK_MS;

	if (!cs->hangups_left)
		begin_round(cs);
	if (cs->hangups_rate > HANGUPS_AT_ONCE)
		ms = ms * HANGUPS_AT_ONCE / cs->hangups_rate;
	cs->hangups_since = now;
	timer_start(cs->hangups, ms > HANGUP_STEP_MS ? ms : HANGUP_STEP_MS);
}

/* Starts or stops to read the client. No event reports the hangup of a client that is not read, so
 * on_hangup_check() looks. */
static void client_read(struct client *c, bool on)
{
	struct clients *cs = set_of(c);

	if (c->quiet != on)
		return;
	if (on) {
		if (!client_watch(c, &c->read))
			return;
		cs->n_quiet--;
	} else {
		event_del(&c->read);
		c->put_off = false;
		cs->n_quiet++;
		if (!event_pending(cs->hangups, EV_TIMEOUT, NULL))
			await_hangups(cs, clock_mono_ms());
	}
	c->quiet = !on;
}

static void client_set_state(struct client *c, enum client_state state)
{
	if (c->state == state)
		return;
	if (log_level() >= LOG_LEVEL_DEBUG)
		log_debug("client %llu: %s -> %s", (unsigned long long)c->peer.number,
			  state_names[c->state], state_names[state]);
	c->state = state;
}

/* Of what is spoken now. */
static enum stats_door door_of(const struct client *c)
{
	return c->speech ? c->speech->ops->door : STATS_DOOR_LINES;
}

/* What the socket is to take next. */
static struct outq *out_of(struct client *c)
{
	return c->speech ? &c->speech->out : &c->peer.out;
}

/* All that the client has not taken. */
static size_t unread(const struct client *c)
{
	const struct speech *s = c->speech;

	return peer_unread(&c->peer) + (s ? outq_len(&s->out) + s->ops->kept_out(s) : 0);
}

/* Of one with a speech: when that is to be woken, or the end of lingering. */
static void set_due(struct client *c, int64_t at)
{
	struct heap *dues = &set_of(c)->dues;
	struct heap_node *due = &c->speech->due;

	if (due->index ? due->at == at : at == 0)
		return;
	heap_remove(dues, due);
	if (at)
		heap_add(dues, due, at);
	if (heap_first(dues) == due)
		timer_start(set_of(c)->dues_timer, at - clock_mono_ms());
}

static void no_stranger(struct client *c)
{
	struct clients *cs = set_of(c);

	if (!c->speech || !c->speech->stranger)
		return;
	TAILQ_REMOVE(&cs->strangers, c->speech, of_strangers);
	c->speech->stranger = false;
	cs->n_strangers--;
}

/* Leaves the core: no answer will reach it any more. */
static void client_leave(struct client *c)
{
	if (c->state == CLIENT_LEAVING)
		return;
	no_stranger(c);
	set_of(c)->ops->left(set_of(c)->owner, &c->peer);
	client_set_state(c, CLIENT_LEAVING);
	client_read(c, false);
}

static void client_free(struct client *c)
{
	struct clients *cs = set_of(c);

	client_leave(c);
	client_read(c, false);
	if (c->speech)
		set_due(c, 0);
	client_log(LOG_LEVEL_DEBUG, c, "closed");
	if (c->changed)
		cs->changed[c->change] = NULL;
	cs->n_quiet--;
	TAILQ_REMOVE(&cs->all, c, of_set);
	cs->n--;
	if (c->write)
		event_free(c->write);
	close(fd_of(c));
	line_fini(&c->lines);
	speech_free(c->speech);
	outq_fini(&c->peer.out);
	free(c);
	cs->ops->closed(cs->owner);
}

/* ---- arrival ---- */

/* On TCP nobody but who has presented a key is anybody. */
static struct peer_identity recorded(struct clients *cs, const struct client *c)
{
	if (c->tcp)
		return (struct peer_identity){
			.by_key = true,
			.key = c->speech && c->speech->has_key ? &c->speech->key : NULL,
			.uid = (uid_t)-1,
			.gid = (gid_t)-1};
	return identities_ask(&cs->identities, fd_of(c));
}

static struct peer_identity identity_of(struct clients *cs, const struct client *c)
{
	if (c->speech && c->speech->who)
		return *c->speech->who;
	return identities_nameable(&cs->identities, recorded(cs, c));
}

static void refuse(struct clients *cs, int fd, bool tcp, const char *why)
{
	enum refusal_speech unix_socket =
		cs->settings.http_on_socket ? REFUSAL_LINES_OR_HTTP : REFUSAL_LINES;

	cs->stats->clients_refused++;
	refusals_add(cs->refusals, fd, tcp ? REFUSAL_HTTP : unix_socket, why);
}

struct peer_identity clients_identify(struct clients *cs, const struct peer *peer)
{
	const struct client *c =
		(const struct client *)(const void *)((const char *)peer -
						      offsetof(struct client, peer));

	return identity_of(cs, c);
}

void clients_each(struct clients *cs,
		  void (*each)(void *owner, struct peer *peer, const struct peer_identity *who))
{
	struct client *c;

	TAILQ_FOREACH (c, &cs->all, of_set) {
		if (c->state == CLIENT_LEAVING)
			continue;
		struct peer_identity who = identity_of(cs, c);
		each(cs->owner, &c->peer, &who);
	}
}

/* ---- what is spoken ---- */

static void host_line(void *owner, struct span line, int64_t now)
{
	struct client *c = owner;

	c->requests++;
	c->asking |= set_of(c)->stopping;
	set_of(c)->ops->line(set_of(c)->owner, &c->peer, line, now);
}

static void host_too_long(void *owner, struct span prefix)
{
	struct client *c = owner;

	c->requests++;
	c->asking |= set_of(c)->stopping;
	set_of(c)->ops->too_long(set_of(c)->owner, &c->peer, prefix);
}

static bool may_read(struct client *c);

static bool host_may_read(void *owner)
{
	return may_read(owner);
}

static bool host_knows(void *owner, const struct local_key *key)
{
	struct client *c = owner;

	return set_of(c)->ops->knows(set_of(c)->owner, key);
}

static const char *host_admit(void *owner)
{
	struct client *c = owner;
	struct peer_identity who = identity_of(set_of(c), c);

	return set_of(c)->ops->admit(set_of(c)->owner, &c->peer, &who);
}

static const struct speech_host speech_host = {
	.line = host_line,
	.too_long = host_too_long,
	.may_read = host_may_read,
	.knows = host_knows,
	.admit = host_admit,
};

static void give_speech(struct client *c, struct speech *speech)
{
	speech->host = &speech_host;
	speech->owner = c;
	speech->peer = &c->peer;
	c->speech = speech;
}

static void begin_http(struct client *c)
{
	c->decided = true;
	give_speech(c, http_new(set_of(c)->settings.http, c->tcp, clock_mono_ms()));
	set_due(c, c->speech->wake_at);
}

/* Clients without a key keep nobody else out, however many there are. */
static void add_stranger(struct client *c)
{
	struct clients *cs = set_of(c);
	unsigned max = cs->settings.max_clients / CLIENTS_STRANGERS_PART;

	if (max < CLIENTS_STRANGERS_MIN)
		max = CLIENTS_STRANGERS_MIN;
	while (cs->n_strangers >= max) {
		cs->stats->clients_refused++;
		clients_dismiss(cs, TAILQ_FIRST(&cs->strangers)->peer);
	}
	TAILQ_INSERT_TAIL(&cs->strangers, c->speech, of_strangers);
	c->speech->stranger = true;
	cs->n_strangers++;
}

void clients_adopt(struct clients *cs, int fd, bool tcp)
{
	if (cs->n >= cs->settings.max_clients) {
		refuse(cs, fd, tcp, NULL);
		return;
	}
	struct client *c = mem_zalloc(sizeof(*c));
	line_init(&c->lines, &cs->lines);
	event_assign(&c->read, cs->base, fd, EV_READ | EV_PERSIST, on_readable, c);
	c->tcp = tcp;
	c->peer.number = ++cs->last_number;
	struct peer_identity who = recorded(cs, c);
	c->peer.pid = who.pid;
	c->peer.uid = who.uid;
	who = identities_nameable(&cs->identities, who);
	const char *no_room = cs->ops->lacks_room(cs->owner, &who);
	if (no_room) {
		free(c);
		refuse(cs, fd, tcp, no_room);
		return;
	}
	TAILQ_INSERT_TAIL(&cs->all, c, of_set);
	cs->n++;
	cs->stats->clients_accepted++;
	cs->ops->joined(cs->owner, &c->peer, &who);
	client_log(LOG_LEVEL_DEBUG, c, "connected");
	c->quiet = true;
	cs->n_quiet++;
	if (tcp) {
		begin_http(c);
		add_stranger(c);
	}
	client_read(c, true);
}

unsigned clients_count(const struct clients *cs)
{
	return cs->n;
}

struct clients_sums clients_sum_up(const struct clients *cs)
{
	struct clients_sums sums = {0};
	struct client *c;

	TAILQ_FOREACH (c, &cs->all, of_set) {
		sums.paused += c->paused;
		sums.slow += c->peer.fanout.conflation != NULL;
		sums.input_bytes +=
			line_kept(&c->lines) + (c->speech ? c->speech->ops->kept_in(c->speech) : 0);
		sums.output_bytes += unread(c);
		sums.door[door_of(c)]++;
		sums.tcp += c->tcp;
	}
	return sums;
}

/* ---- bytes in ---- */

static bool has_room(struct client *c)
{
	return unread(c) < set_of(c)->settings.output_soft &&
	       set_of(c)->ops->may_read(set_of(c)->owner, &c->peer);
}

/* After each line. */
static bool may_read(struct client *c)
{
	struct clients *cs = set_of(c);
	bool room = has_room(c);

	cs->share_is_over = room && clock_mono_us() >= cs->share_until;
	return room && !cs->share_is_over;
}

static struct client *of_lines(struct line_reader *lines)
{
	return (struct client *)(void *)((char *)lines - offsetof(struct client, lines));
}

static enum line_verdict on_line(struct line_reader *lines, struct span line)
{
	struct client *c = of_lines(lines);

	c->requests += line.n > 0;
	c->asking |= set_of(c)->stopping;
	set_of(c)->stats->door_requests[STATS_DOOR_LINES] += line.n > 0;
	set_of(c)->ops->line(set_of(c)->owner, &c->peer, line, set_of(c)->now);
	return may_read(c) ? LINE_MORE : LINE_PAUSE;
}

static enum line_verdict on_too_long(struct line_reader *lines, struct span prefix)
{
	struct client *c = of_lines(lines);

	c->requests++;
	c->asking |= set_of(c)->stopping;
	set_of(c)->ops->too_long(set_of(c)->owner, &c->peer, prefix);
	return may_read(c) ? LINE_MORE : LINE_PAUSE;
}

/* It is not read further, or no longer so, since there is no room; a lack of time is not that. */
static void set_held(struct client *c, bool held)
{
	set_of(c)->stats->client_reads_held += held && !c->held;
	c->held = held;
}

/* Pauses or resumes reading. */
static void apply_verdict(struct client *c, enum line_verdict verdict)
{
	bool pause = verdict == LINE_PAUSE;

	set_held(c, pause && !set_of(c)->share_is_over);
	if (pause == c->paused)
		return;
	c->paused = pause;
	client_read(c, !pause && c->state == CLIENT_OPEN);
}

/* The daemon ends: a speech says so, behind all that is for its client. */
static void say_farewell(struct client *c)
{
	speak(c);
	c->speech->ops->farewell(c->speech, REPLY_SHUTTING_DOWN);
}

static void end_of_input(struct client *c)
{
	client_set_state(c, CLIENT_HALF_CLOSED);
	client_read(c, false);
	if (!c->speech)
		line_finish(&c->lines);
	else if (!set_of(c)->ending) /* else it is the daemon that hears nothing more */
		c->speech->ops->finish(c->speech, set_of(c)->now);
	/* Who is subscribed to something is told later, with the end of that. */
	if (c->speech && set_of(c)->ending && !c->peer.topics.n)
		say_farewell(c);
	clients_changed(set_of(c), &c->peer); /* it may have got all its answers already */
}

/* There may be a key or a token in it, of which no copy is to stay here. */
static void feed_speech(struct client *c, struct span bytes)
{
	struct clients *cs = set_of(c);

	c->speaking = true;
	bool more = c->speech->ops->feed(c->speech, bytes, cs->now);
	c->speaking = false;
	if (c->speech->known)
		no_stranger(c);
	mem_wipe(cs->input, bytes.n);
	apply_verdict(c, more ? LINE_MORE : LINE_PAUSE);
	clients_changed(cs, &c->peer);
}

static void feed(struct client *c, struct span bytes)
{
	if (!c->decided && set_of(c)->settings.http_on_socket && http_begins(bytes.p[0]))
		begin_http(c);
	c->decided = true;
	if (c->speech)
		feed_speech(c, bytes);
	else
		apply_verdict(c, line_feed(&c->lines, bytes));
}

/* ---- shares of a turn ----
 *
 * The turns of many clients who send all they can are to be short, so that nobody waits long for
 * the next one. So the more of them there are, the less is read of each, and the lines of each are
 * handed on for its share of READ_US, and one line at least; the rest is kept.
 *
 * Some lines take long, as a request for a token with many patterns. A client whose lines take
 * longer than its share again and again is slow; one delay, as of the processor, makes nobody slow.
 * Slow clients, and those whose lines were kept, have READ_US together: they take turns in the
 * order of clients::changed, and are read and handed on in on_turn_end(). */

static unsigned not_below(unsigned least, unsigned n)
{
	return n > least ? n : least;
}

static void count_reader(struct clients *cs)
{
	if (cs->readers_turn != turn_number()) {
		cs->readers_turn = turn_number();
		cs->readers_before = cs->readers;
		cs->readers = 0;
	}
	cs->readers++;
}

/* As far as that is known in this turn. */
static unsigned n_readers(const struct clients *cs)
{
	return cs->readers > cs->readers_before ? cs->readers : cs->readers_before;
}

/* Returns when it begins. */
static int64_t begin_share(struct clients *cs, int64_t us)
{
	int64_t now = clock_mono_us();

	cs->now = now / 1000;
	cs->share_until = now + us;
	cs->share_is_over = false;
	return now;
}

/* Returns how long it took. */
static int64_t end_share(struct client *c, int64_t began)
{
	int64_t now = clock_mono_us();

	if (now > set_of(c)->share_until)
		c->slowness = c->slowness ? SLOW_MAX : SLOW_ONCE;
	else if (c->slowness)
		c->slowness--;
	if (set_of(c)->share_is_over)
		clients_changed(set_of(c), &c->peer);
	return now - began;
}

static void on_bytes(struct client *c, size_t n)
{
	struct clients *cs = set_of(c);

	if (c->lingers) {
		mem_wipe(cs->input, n);
		return;
	}
	cs->stats->client_bytes_in += n;
	feed(c, (struct span){cs->input, n});
}

static void on_end_of_stream(struct client *c)
{
	if (c->lingers)
		client_free(c);
	else
		end_of_input(c);
}

/* Reads once, and hands on lines for so long. Returns how long it took. May free the client. */
static int64_t client_receive(struct client *c, int64_t us)
{
	struct clients *cs = set_of(c);
	ssize_t n = recv(fd_of(c), cs->input, not_below(READ_MIN, READ_MAX / n_readers(cs)), 0);
	int64_t began = begin_share(cs, us);

	c->put_off = false;
	if (n > 0) {
		on_bytes(c, (size_t)n);
		return end_share(c, began);
	}
	if (n == 0)
		on_end_of_stream(c);
	else if (errno != EAGAIN && errno != EINTR)
		client_free(c);
	return 0;
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct client *c = arg;
	struct clients *cs = set_of(c);

	(void)fd;
	(void)what;
	count_reader(cs);
	c->put_off = c->slowness > SLOW_ONCE && !c->lingers;
	if (c->put_off)
		clients_changed(cs, &c->peer);
	else
		client_receive(c, not_below(SHARE_MIN_US, READ_US / n_readers(cs)));
}

/* ---- bytes out ---- */

void clients_changed(struct clients *cs, struct peer *peer)
{
	struct client *c = client_of(peer);

	if (c->changed || (!peer_unread(peer) && !c->paused && !c->put_off && !c->broken &&
			   !c->speech && c->state == CLIENT_OPEN))
		return;
	if (!cs->n_changed && !cs->settling)
		turn_step_want(&cs->turn_end);
	if (cs->n_changed == cs->changed_size) {
		cs->changed_size = cs->changed_size ? 2 * cs->changed_size : CHANGED_FEWEST;
		cs->changed = mem_resize(cs->changed, cs->changed_size * sizeof(cs->changed[0]));
	}
	c->changed = true;
	c->change = cs->n_changed;
	cs->changed[cs->n_changed++] = c;
}

static void wait_writable(struct client *c)
{
	if (!c->write)
		c->write = watch_new(set_of(c)->base, fd_of(c), EV_WRITE, on_writable, c);
	if (client_watch(c, c->write) && c->state == CLIENT_LEAVING)
		timer_start(c->write, (int32_t)(c->gone_at - (uint32_t)clock_mono_ms()));
}

/* send() is cheaper than sendmsg(), and most writes have one part. */
static ssize_t send_parts(int fd, struct iovec *iov, int parts)
{
	struct msghdr message = {.msg_iov = iov, .msg_iovlen = (size_t)parts};

	if (parts == 1)
		return send(fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL);
	return sendmsg(fd, &message, MSG_NOSIGNAL);
}

/* Writes until the socket is full. False: the peer is gone. */
static bool write_out(struct client *c)
{
	struct iovec iov[IOV_BATCH];
	struct clients *cs = set_of(c);
	struct outq *out = out_of(c);

	while (outq_len(out)) {
		size_t offered = 0;
		int parts = outq_gather(out, iov, IOV_BATCH, cs->gathered, sizeof(cs->gathered));
		for (int i = 0; i < parts; i++)
			offered += iov[i].iov_len;
		ssize_t n = send_parts(fd_of(c), iov, parts);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN;
		cs->stats->client_bytes_out += (uint64_t)n;
		outq_take(out, (size_t)n);
		if ((size_t)n < offered) /* the socket is full: asking again would only say so */
			return true;
	}
	outq_trim(out);
	return true;
}

static void drop_slow(struct client *c)
{
	client_log(LOG_LEVEL_NOTICE, c, "dropped: it does not read what it is sent (output_hard)");
	set_of(c)->stats->clients_dropped_slow++;
	client_leave(c);
	if (c->speech)
		c->speech->ops->farewell(c->speech, REPLY_SLOW_CLIENT);
	else
		reply_error(&c->peer.out.own, REPLY_SLOW_CLIENT, (struct span){0}, NULL, -1);
	c->gone_at = (uint32_t)clock_mono_ms() + LAST_LINE_MS;
}

/* A single line is never too much, however long. Only the bytes behind the first line count, be it
 * in the output or the first kept answer. */
static bool has_too_much(const struct client *c)
{
	size_t all = unread(c), hard = set_of(c)->settings.output_hard;

	/* A response is a line's, and what a speech has made bytes of it has bounds of its own. */
	if (c->speech)
		all -= outq_len(&c->speech->out);
	return all > hard && outq_first_line(&c->peer.out, all - hard) < all - hard &&
	       answers_first_kept(&c->peer) < all - hard;
}

static bool is_full(const struct client *c)
{
	return c->write && event_pending(c->write, EV_WRITE, NULL);
}

/* Writes the output, then conflated changes, until nothing is left or the socket is full. False:
 * the peer is gone. */
static bool write_all(struct client *c)
{
	while (write_out(c)) {
		bool full = outq_len(out_of(c)) > 0;
		if (!full && speak(c))
			continue;
		size_t left = outq_len(&c->peer.out);
		if (!c->peer.fanout.conflation || left >= set_of(c)->settings.output_soft)
			return true;
		set_of(c)->ops->has_room(set_of(c)->owner, &c->peer);
		if (full || outq_len(&c->peer.out) == left)
			return true;
	}
	return false;
}

/* Lets the speech make bytes of what the core has said; another one may take its place. Whether
 * there are more bytes now. */
static bool speak(struct client *c)
{
	if (!c->speech || c->state == CLIENT_LEAVING)
		return false;
	size_t before = outq_len(&c->speech->out);
	c->speaking = true;
	c->speech->ops->fill(c->speech, clock_mono_ms());
	c->speaking = false;
	if (c->speech->next)
		take_over(c);
	set_due(c, c->speech->wake_at);
	return outq_len(&c->speech->out) > before;
}

/* The speech that an upgrade has led to: it is fed with what came behind the upgrade. */
static void take_over(struct client *c)
{
	struct speech *former = c->speech, *next = former->next;
	struct buf rest = former->rest;

	if (log_level() >= LOG_LEVEL_DEBUG)
		log_debug("client %llu: %s -> %s", (unsigned long long)c->peer.number,
			  former->ops->name, next->ops->name);
	next->out = former->out;
	former->out = (struct outq){0};
	former->rest = (struct buf){0};
	former->next = NULL;
	if (!next->has_key && former->has_key) {
		next->key = former->key;
		next->has_key = true;
	}
	next->tcp = former->tcp;
	set_due(c, 0);
	no_stranger(c);
	give_speech(c, next);
	speech_free(former);
	c->speaking = true;
	bool more = next->ops->feed(next, buf_span(&rest), clock_mono_ms());
	if (c->state == CLIENT_HALF_CLOSED && more && !set_of(c)->ending)
		next->ops->finish(next, clock_mono_ms());
	c->speaking = false;
	buf_release(&rest);
	apply_verdict(c, more ? LINE_MORE : LINE_PAUSE);
	clients_changed(set_of(c), &c->peer);
}

/* Has it got all that it is ever going to get? */
static bool is_done(const struct client *c)
{
	return c->state == CLIENT_LEAVING || (c->speech && c->speech->over) ||
	       (c->state == CLIENT_HALF_CLOSED && !c->peer.answers.unanswered &&
		!c->peer.topics.n && !(c->speech && c->speech->ops->is_busy(c->speech)));
}

/* The client has got all. To close a socket that has unread input destroys what is on its way: so
 * who may still be sending is waited for. */
static void client_end(struct client *c)
{
	bool may_send =
		c->state == CLIENT_OPEN || (c->input_ended && door_of(c) == STATS_DOOR_WEBSOCKET);

	if (!c->speech || !may_send || shutdown(fd_of(c), SHUT_WR) < 0) {
		client_free(c);
		return;
	}
	client_leave(c);
	c->lingers = true;
	c->paused = false;
	set_due(c, clock_mono_ms() + LINGER_MS);
	client_read(c, true);
}

static bool resume_speech(struct client *c)
{
	c->speaking = true;
	bool more = c->speech->ops->resume(c->speech, set_of(c)->now);
	c->speaking = false;
	if (c->speech->known)
		no_stranger(c);
	set_due(c, c->speech->wake_at);
	return more;
}

static void hand_on_kept(struct client *c)
{
	bool more = c->speech ? resume_speech(c) : line_resume(&c->lines) == LINE_MORE;

	apply_verdict(c, more ? LINE_MORE : LINE_PAUSE);
	/* A speech may have answered by itself: nobody else reports that as a change. */
	if (c->speech && (more || speak(c)))
		clients_changed(set_of(c), &c->peer);
}

/* The client is one of those who have READ_US together, and has its turn. May free it. */
static void go_on(struct client *c)
{
	struct clients *cs = set_of(c);

	if (c->put_off) {
		cs->slow_us -= client_receive(c, cs->share_us);
		return;
	}
	int64_t began = begin_share(cs, cs->share_us);
	hand_on_kept(c);
	cs->slow_us -= end_share(c, began);
}

static bool go_on_in_time(struct client *c)
{
	bool in_time = set_of(c)->slow_us > 0;

	if (in_time)
		go_on(c);
	return in_time;
}

/* After its output or its requests have changed: writes, reads on, or closes. False: there is no
 * time left to read on. */
static bool client_settle(struct client *c)
{
	if (c->lingers && !c->broken)
		return true;
	speak(c);
	if (c->broken || (!is_full(c) && !write_all(c))) {
		client_free(c);
		return true;
	}
	if (c->state != CLIENT_LEAVING && has_too_much(c))
		drop_slow(c);
	if (outq_len(out_of(c))) {
		wait_writable(c);
	} else if (is_done(c)) {
		client_end(c);
		return true;
	}
	if (c->paused && c->state == CLIENT_OPEN && !has_room(c))
		set_held(c, true);
	else if (c->put_off || (c->paused && c->state == CLIENT_OPEN))
		return go_on_in_time(c);
	return true;
}

void clients_flush(struct clients *cs, struct peer *peer)
{
	struct client *c = client_of(peer);

	(void)cs;
	if (c->speaking) /* it is about to be written out */
		return;
	if (c->speech && !c->speech->next)
		c->speech->ops->fill(c->speech, clock_mono_ms());
	/* One that is gone is found out when its turn ends. */
	if (!is_full(c) && write_out(c) && outq_len(out_of(c)))
		wait_writable(c);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct client *c = arg;

	(void)fd;
	if (what & EV_TIMEOUT)
		client_free(c);
	else if (c->paused || c->put_off)
		clients_changed(set_of(c), &c->peer); /* it may be read on then */
	else
		client_settle(c);
}

static void put_changed(struct clients *cs, uint32_t at, struct client *c)
{
	cs->changed[at] = c;
	if (c)
		c->change = at;
}

/* Of the first n of clients::changed all but the first `waiting` are settled. */
static void forget_settled(struct clients *cs, uint32_t n, uint32_t waiting)
{
	for (uint32_t i = n; i < cs->n_changed; i++)
		put_changed(cs, waiting + i - n, cs->changed[i]);
	cs->n_changed -= n - waiting;
	if (!cs->n_changed && cs->changed_size > CHANGED_KEPT) {
		free(cs->changed);
		cs->changed = NULL;
		cs->changed_size = 0;
	}
}

static void on_turn_end(void *arg)
{
	struct clients *cs = arg;
	uint32_t n = cs->n_changed, waiting = 0;

	cs->settling = true;
	cs->slow_us = READ_US;
	cs->share_us = n ? not_below(SHARE_MIN_US, READ_US / n) : 0;
	for (uint32_t i = 0; i < n; i++) {
		struct client *c = cs->changed[i];
		if (!c)
			continue;
		c->changed = false;
		if (client_settle(c))
			continue;
		if (c->changed) /* meanwhile: it keeps its place all the same */
			cs->changed[c->change] = NULL;
		c->changed = true;
		put_changed(cs, waiting++, c);
	}
	cs->settling = false;
	/* Clients that changed meanwhile (one was read on, for example) are settled after the loop
	 * has looked at other events. */
	forget_settled(cs, n, waiting);
	if (cs->n_changed)
		turn_step_later(&cs->turn_end);
}

static struct client *of_due(struct heap_node *due)
{
	struct speech *s = (void *)((char *)due - offsetof(struct speech, due));

	return s->owner;
}

static void on_due(evutil_socket_t fd, short what, void *arg)
{
	struct clients *cs = arg;
	int64_t now = clock_mono_ms();
	struct heap_node *first;

	(void)fd;
	(void)what;
	while ((first = heap_first(&cs->dues)) && first->at <= now) {
		struct client *c = of_due(first);
		heap_remove(&cs->dues, first);
		if (c->lingers) {
			client_free(c);
		} else if (c->state != CLIENT_LEAVING) {
			c->speech->ops->wake(c->speech, now);
			clients_changed(cs, &c->peer);
		}
	}
	if (first)
		timer_start(cs->dues_timer, first->at - now);
}

void clients_dismiss(struct clients *cs, struct peer *peer)
{
	struct client *c = client_of(peer);

	if (c->state == CLIENT_LEAVING)
		return;
	client_leave(c);
	if (c->speech)
		c->speech->ops->farewell(c->speech, REPLY_FORBIDDEN);
	c->gone_at = (uint32_t)clock_mono_ms() + LAST_LINE_MS;
	clients_changed(cs, peer);
}

/* ---- peers that have gone without a word ---- */

/* Only the hangup of its socket tells that a client that is not read (paused or half-closed) is
 * gone. The kernel reports it once both directions are shut, so a half-closed peer is no hangup. */
static void on_hangup_check(evutil_socket_t fd, short what, void *arg)
{
	struct clients *cs = arg;
	struct client *c;
	int64_t now = clock_mono_ms(), passed = now - cs->hangups_since;
	int64_t n = cs->hangups_rate * passed / HANGUP_CHECK_MS + 1;

	(void)fd;
	(void)what;
	for (; n > 0 && cs->hangups_left && (c = TAILQ_FIRST(&cs->all)); n--) {
		cs->hangups_left--;
		TAILQ_REMOVE(&cs->all, c, of_set);
		TAILQ_INSERT_TAIL(&cs->all, c, of_set);
		struct pollfd p = {.fd = fd_of(c)};
		if (c->quiet && poll(&p, 1, 0) == 1 && p.revents & (POLLHUP | POLLERR))
			client_free(c);
	}
	if (cs->n_quiet)
		await_hangups(cs, now);
}

/* ---- new settings ---- */

void clients_set(struct clients *cs, const struct client_settings *settings)
{
	struct client *c;

	cs->settings = *settings;
	identities_renew(&cs->identities);
	cs->lines.limit = settings->max_line;
	TAILQ_FOREACH (c, &cs->all, of_set)
		clients_changed(cs, &c->peer); /* it may have room now, or none */
}

/* ---- who is busy ---- */

static bool is_busier(const struct client *a, const struct client *b)
{
	uint32_t recent_a = (uint32_t)a->requests - a->requests_before;
	uint32_t recent_b = (uint32_t)b->requests - b->requests_before;

	return recent_a != recent_b ? recent_a > recent_b : a->requests > b->requests;
}

/* Inserts c among the n busiest so far; returns their number. */
static unsigned rank(struct client *c, struct client *busiest[CLIENTS_BUSIEST_MAX], unsigned n)
{
	unsigned at = n;

	if (n == CLIENTS_BUSIEST_MAX && !is_busier(c, busiest[--at]))
		return n;
	for (; at > 0 && is_busier(c, busiest[at - 1]); at--)
		busiest[at] = busiest[at - 1];
	busiest[at] = c;
	return n < CLIENTS_BUSIEST_MAX ? n + 1 : n;
}

static struct client_activity activity(const struct client *c)
{
	return (struct client_activity){
		.number = c->peer.number,
		.pid = c->peer.pid,
		.uid = c->peer.uid,
		.requests = c->requests,
		.unanswered = c->peer.answers.unanswered,
		.subscriptions = c->peer.topics.n,
		.unread = unread(c),
		.door = door_of(c),
		.tcp = c->tcp,
	};
}

unsigned clients_busiest(struct clients *cs, struct client_activity top[CLIENTS_BUSIEST_MAX])
{
	struct client *busiest[CLIENTS_BUSIEST_MAX], *c;
	int64_t now = clock_mono_ms();
	bool anew = now - cs->busy_since >= BUSY_MS;
	unsigned n = 0;

	TAILQ_FOREACH (c, &cs->all, of_set) {
		if (c->state != CLIENT_LEAVING)
			n = rank(c, busiest, n);
	}
	for (unsigned i = 0; i < n; i++)
		top[i] = activity(busiest[i]);
	if (!anew)
		return n;
	cs->busy_since = now;
	TAILQ_FOREACH (c, &cs->all, of_set)
		c->requests_before = (uint32_t)c->requests;
	return n;
}

/* ---- the end ---- */

/* Bytes that it has not read of what its socket has taken. */
static bool has_unread(const struct client *c)
{
	int n = 0;

	return ioctl(fd_of(c), SIOCOUTQ, &n) == 0 && n > 0;
}

void clients_will_end(struct clients *cs)
{
	struct client *c;

	cs->stopping = true;
	TAILQ_FOREACH (c, &cs->all, of_set)
		c->asking = c->peer.answers.unanswered || (!c->peer.topics.n && has_unread(c));
}

/* Has it yet to read an answer, or has sent what is yet to be read? A client whose socket is full
 * does not read. */
static bool is_talking(struct client *c)
{
	int unheard = 0;

	return outq_len(out_of(c)) == 0 &&
	       ((c->asking && has_unread(c)) ||
		(ioctl(fd_of(c), FIONREAD, &unheard) == 0 && unheard > 0));
}

/* What has come by now is handed on; what comes later is dropped, and not executed, which the last
 * words of the protocol tell the client. Its socket stays readable: the client may send until it
 * has read these, and to refuse that would destroy them. */
static void hear_the_last(struct client *c)
{
	struct clients *cs = set_of(c);
	ssize_t n = 1;

	begin_share(cs, INT64_MAX / 2);
	if (c->paused && has_room(c))
		hand_on_kept(c);
	for (int i = 0; i < LAST_READS && n > 0 && !c->paused; i++) {
		n = recv(fd_of(c), cs->input, sizeof(cs->input), 0);
		if (n > 0)
			feed(c, (struct span){cs->input, (size_t)n});
	}
	end_of_input(c);
}

static void end_input(struct client *c)
{
	c->input_ended = true;
	if (door_of(c) != STATS_DOOR_WEBSOCKET)
		shutdown(fd_of(c), SHUT_RD);
	else if (c->state == CLIENT_OPEN)
		hear_the_last(c);
}

void clients_end_input(struct clients *cs, bool all)
{
	struct client *c;

	cs->ending = true;
	TAILQ_FOREACH (c, &cs->all, of_set) {
		if (!c->input_ended && (all || !is_talking(c)))
			end_input(c);
	}
}

void clients_farewell(struct clients *cs)
{
	struct client *c;

	TAILQ_FOREACH (c, &cs->all, of_set) {
		if (c->speech && c->state != CLIENT_LEAVING)
			say_farewell(c);
	}
}

bool clients_flush_all(struct clients *cs)
{
	struct client *next;
	bool all = true;

	for (struct client *c = TAILQ_FIRST(&cs->all); c; c = next) {
		next = TAILQ_NEXT(c, of_set);
		speak(c);
		if (!write_out(c))
			client_free(c);
		else if (outq_len(out_of(c)) || (cs->ending && c->state == CLIENT_OPEN) ||
			 (c->lingers && c->input_ended))
			all = false;
	}
	return all;
}

void clients_free(struct clients *cs)
{
	struct client *c;

	while ((c = TAILQ_FIRST(&cs->all)))
		client_free(c);
	turn_step_fini(&cs->turn_end);
	event_free(cs->hangups);
	refusals_free(cs->refusals);
	identities_fini(&cs->identities);
	event_free(cs->dues_timer);
	heap_fini(&cs->dues);
	free(cs->changed);
	free(cs);
}
