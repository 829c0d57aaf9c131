#include "upstream.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/util.h>

#include "buf.h"
#include "clock.h"
#include "link.h"
#include "log.h"
#include "mem.h"
#include "resolver.h"

enum {
	MESSAGE_MAX = 16 << 20,    /* bytes; a full range answer (1,000 records) with every byte
				      escaped once fits */
	UNSENT_MAX = 256 << 10,    /* bytes that may wait in the link before the router keeps its
				      requests itself */
	COMPLAIN_EVERY_MS = 10000, /* about unusable messages */
	RETRY_AFTER_MAX_MS = 600000,
	STABLE_MAX_MS = 30000, /* a connection that has lasted so long proves that backing off can
				  start anew */
	ERROR_MAX = 500,
};

static const char *const state_names[] = {"connecting", "connected", "backoff", "unauthorized",
					  "stopped"};
_Static_assert(sizeof(state_names) / sizeof(state_names[0]) == UPSTREAM_STATE_N,
	       "a name for each state");

struct upstream {
	struct event_base *base;
	struct upstream_settings settings; /* its strings: NULL but for those below */
	char *host, *proxy_host, *key_hint;
	const struct upstream_ops *ops;
	void *owner;
	struct stats *stats;

	enum upstream_state state;
	int64_t since;
	char last_error[ERROR_MAX];
	uint64_t opened; /* connections */

	struct link_context *links;
	char *path;         /* with the key: secret */
	struct event *turn; /* the next attempt, or the next address, from a fresh stack */
	struct resolver *question;
	struct resolver_answer addresses;
	size_t next_address;
	struct link *link;
	bool open, congested;

	struct event *retry;
	int64_t retry_at;
	unsigned failures; /* attempts in a row, each over all addresses */

	struct event *keepalive;
	int64_t heard_at, ping_at; /* ping_at: when the unanswered ping was sent, 0: none is */
	int64_t complained_at;
};

static const struct link_ops link_ops;
static void on_turn(evutil_socket_t fd, short what, void *arg);
static void on_keepalive(evutil_socket_t fd, short what, void *arg);

/* ---- states ---- */

const char *upstream_state_name(enum upstream_state state)
{
	return state_names[state];
}

static void set_state(struct upstream *u, enum upstream_state state, const char *cause)
{
	int64_t now = clock_mono_ms();

	if (u->state == state)
		return;
	log_at(state == UPSTREAM_UNAUTHORIZED ? LOG_LEVEL_ERROR : LOG_LEVEL_NOTICE,
	       "upstream: %s -> %s after %" PRId64 " ms: %s", state_names[u->state],
	       state_names[state], now - u->since, cause);
	u->state = state;
	u->since = now;
	u->ops->changed(u->owner);
}

static void start_timer(struct event *timer, int64_t ms)
{
	struct timeval t = {ms / 1000, ms % 1000 * 1000};

	event_add(timer, &t);
}

/* ---- pauses between attempts ---- */

static int64_t random_up_to(int64_t max)
{
	uint64_t r;

	evutil_secure_rng_get_bytes(&r, sizeof(r));
	return max > 0 ? (int64_t)(r % ((uint64_t)max + 1)) : 0;
}

/* Doubling with full jitter: anything between nothing and a limit that doubles, so that many
 * daemons that lost the service at once do not come back at once. */
static int64_t backoff_ms(const struct upstream *u)
{
	int64_t limit = u->settings.backoff_min_ms;

	for (unsigned i = 1; i < u->failures && limit < u->settings.backoff_max_ms; i++)
		limit *= 2;
	if (limit > u->settings.backoff_max_ms)
		limit = u->settings.backoff_max_ms;
	return random_up_to(limit);
}

static void pause_until(struct upstream *u, enum upstream_state state, int64_t ms,
			const char *cause)
{
	u->retry_at = clock_mono_ms() + ms;
	start_timer(u->retry, ms);
	set_state(u, state, cause);
}

/* What the service asked for by Retry-After. Whoever answers in its place may ask for a day; but
 * ten minutes at most are obeyed, so that a service that is back does not stay unused for long. */
static int64_t asked_pause_ms(const struct upstream *u, const struct link_end *end)
{
	int64_t backoff = u->settings.backoff_max_ms, ms = (int64_t)end->retry_after_s * 1000;
	int64_t most = backoff > RETRY_AFTER_MAX_MS ? backoff : RETRY_AFTER_MAX_MS;

	return ms < most ? ms : most;
}

static void attempt_failed(struct upstream *u, const struct link_end *end)
{
	int64_t ms;

	u->failures++;
	u->stats->upstream_connect_failures++;
	if (end && (end->http_status == 401 || end->http_status == 403)) {
		log_error("upstream: the service has refused the key from %s", u->key_hint);
		pause_until(u, UPSTREAM_UNAUTHORIZED, u->settings.backoff_max_ms, u->last_error);
		return;
	}
	ms = backoff_ms(u);
	if (end && ms < asked_pause_ms(u, end))
		ms = asked_pause_ms(u, end);
	pause_until(u, UPSTREAM_BACKOFF, ms, u->last_error);
}

/* ---- connecting ---- */

/* Whose addresses are connected to: the service's, or the proxy's. */
static const char *peer_host(const struct upstream *u)
{
	return u->proxy_host ? u->proxy_host : u->host;
}

static unsigned peer_port(const struct upstream *u)
{
	return u->proxy_host ? u->settings.proxy_port : u->settings.port;
}

/* One address of the attempt has failed: each tells its reason, since it is rarely the last one
 * that matters. */
static void address_failed(struct upstream *u, const char *why)
{
	size_t first = u->next_address - 1, n = first ? strlen(u->last_error) : 0;

	snprintf(u->last_error + n, sizeof(u->last_error) - n, "%s%s port %u: %s", n ? "; " : "",
		 u->addresses.address[first], peer_port(u), why);
}

static void connect_next(struct upstream *u)
{
	const struct upstream_settings *s = &u->settings;
	const char *address = u->addresses.address[u->next_address++], *why = NULL;
	struct link_target target = {
		.address = address,
		.port = s->port,
		.host = u->host,
		.proxy_address = u->proxy_host ? address : NULL,
		.proxy_port = s->proxy_port,
		.path = u->path,
		.tls = s->tls,
		.connect_timeout_ms = (int)s->connect_timeout_ms,
		.max_message = MESSAGE_MAX,
	};

	log_debug("upstream: connecting to %s port %u", address, peer_port(u));
	u->link = link_connect(u->links, &target, &link_ops, u, &why);
	if (u->link)
		return;
	address_failed(u, why);
	if (u->next_address < u->addresses.n)
		event_active(u->turn, EV_TIMEOUT, 1);
	else
		attempt_failed(u, NULL);
}

static void on_addresses(void *owner, const struct resolver_answer *answer)
{
	struct upstream *u = owner;

	u->question = NULL;
	if (answer->n == 0) {
		snprintf(u->last_error, sizeof(u->last_error), "%s: %s", peer_host(u), answer->why);
		attempt_failed(u, NULL);
		return;
	}
	u->addresses = *answer;
	u->next_address = 0;
	connect_next(u);
}

/* Begins an attempt, or goes on with the next address of the one under way. */
static void on_turn(evutil_socket_t fd, short what, void *arg)
{
	struct upstream *u = arg;

	(void)fd;
	(void)what;
	if (u->state == UPSTREAM_STOPPED || u->question || u->link)
		return;
	if (u->next_address < u->addresses.n) {
		connect_next(u);
		return;
	}
	set_state(u, UPSTREAM_CONNECTING, peer_host(u));
	u->question = resolver_ask(u->base, peer_host(u), (int)u->settings.connect_timeout_ms,
				   on_addresses, u);
}

/* ---- the link speaks ---- */

static void heard(struct upstream *u)
{
	u->heard_at = clock_mono_coarse_ms();
	u->ping_at = 0;
}

static void on_open(void *owner)
{
	struct upstream *u = owner;

	u->open = true;
	u->opened++;
	u->stats->upstream_connects++;
	u->addresses.n = u->next_address = 0;
	heard(u);
	start_timer(u->keepalive, u->settings.keepalive_ms);
	set_state(u, UPSTREAM_CONNECTED, u->host);
	u->ops->up(u->owner);
}

static void complain(struct upstream *u, const struct wire_frame *frame)
{
	int64_t now = clock_mono_ms();

	if (u->complained_at && now - u->complained_at < COMPLAIN_EVERY_MS)
		return;
	u->complained_at = now;
	log_warning("upstream: a message of the service can't be used: %s (%" PRIu64 " so far)",
		    frame->fault, u->stats->upstream_unusable + 1);
}

static void on_message(void *owner, struct span text, unsigned flags)
{
	struct upstream *u = owner;
	struct wire_frame frame;

	heard(u);
	u->stats->upstream_messages_in++;
	u->stats->upstream_bytes_in += text.n;
	wire_parse(text, &frame);
	if (flags) {
		frame.has_id |= frame.kind == WIRE_ANSWER;
		frame.kind = WIRE_UNUSABLE;
		frame.fault = flags & LINK_TRUNCATED ? "it is too long" : "it is binary";
	}
	if (frame.kind == WIRE_UNUSABLE)
		complain(u, &frame);
	u->ops->frame(u->owner, &frame);
}

static void on_pong(void *owner)
{
	heard(owner);
}

static void on_drained(void *owner)
{
	struct upstream *u = owner;

	if (!u->congested)
		return;
	u->congested = false;
	if (u->open)
		u->ops->drained(u->owner);
}

/* The link is gone, whatever it was. Says so upwards if it was open. */
static void drop_link(struct upstream *u)
{
	bool was_open = u->open;

	event_del(u->keepalive);
	link_free(u->link);
	u->link = NULL;
	u->open = u->congested = false;
	if (was_open && u->state != UPSTREAM_STOPPED) {
		u->stats->upstream_disconnects++;
		u->ops->down(u->owner);
	}
}

/* An open connection was lost. Backing off starts anew only if it was a stable one, so that a
 * service that accepts and drops is not hammered. */
static void lost(struct upstream *u)
{
	int64_t stable = u->settings.backoff_max_ms < STABLE_MAX_MS ? u->settings.backoff_max_ms
								    : STABLE_MAX_MS;

	if (clock_mono_ms() - u->since >= stable)
		u->failures = 0;
	u->failures++;
	drop_link(u);
	pause_until(u, UPSTREAM_BACKOFF, backoff_ms(u), u->last_error);
}

static void on_closed(void *owner, const struct link_end *end)
{
	struct upstream *u = owner;

	if (u->state == UPSTREAM_STOPPED) {
		drop_link(u);
		return;
	}
	if (u->open) {
		if (end->close_code)
			snprintf(u->last_error, sizeof(u->last_error),
				 "the service closed the connection (%d)", end->close_code);
		else
			snprintf(u->last_error, sizeof(u->last_error),
				 "the connection was lost: %s", end->why);
		lost(u);
		return;
	}
	address_failed(u, end->why);
	drop_link(u);
	/* A service that answers speaks for all its addresses. */
	if (u->next_address < u->addresses.n && !end->http_status) {
		event_active(u->turn, EV_TIMEOUT, 1);
		return;
	}
	u->next_address = u->addresses.n;
	attempt_failed(u, end);
}

static const struct link_ops link_ops = {
	.open = on_open,
	.message = on_message,
	.pong = on_pong,
	.drained = on_drained,
	.closed = on_closed,
};

/* ---- is the service alive? ---- */

/* Whatever is received proves it. After keepalive_ms of silence, also while we are sending, a ping
 * is sent; after half of that again without a word the connection counts as dead. */
static void on_keepalive(evutil_socket_t fd, short what, void *arg)
{
	struct upstream *u = arg;
	int64_t now = clock_mono_coarse_ms(), patience = u->settings.keepalive_ms / 2;

	(void)fd;
	(void)what;
	if (u->ping_at && now - u->ping_at >= patience) {
		snprintf(u->last_error, sizeof(u->last_error),
			 "the connection was lost: no answer to a ping for %" PRId64 " ms",
			 now - u->ping_at);
		lost(u);
		return;
	}
	if (!u->ping_at && now - u->heard_at >= u->settings.keepalive_ms) {
		u->ping_at = now;
		u->stats->upstream_pings++;
		link_ping(u->link);
	}
	start_timer(u->keepalive, u->ping_at ? u->ping_at + patience - now
					     : u->heard_at + u->settings.keepalive_ms - now);
}

/* ---- for the rooms above ---- */

void upstream_send(struct upstream *u, struct span head, struct span body)
{
	link_send(u->link, head, body);
}

bool upstream_sendable(struct upstream *u)
{
	if (!u->open || !link_is_open(u->link))
		return false;
	if (link_unsent(u->link) >= UNSENT_MAX)
		u->congested = true;
	return !u->congested;
}

/* The key as it may stand in a URL: percent-encoded but for what never needs it. */
static char *request_path(const struct upstream_settings *s)
{
	static const char plain[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
	struct buf path = {0};

	buf_addf(&path, "%s/ws?apiKey=", s->path_prefix);
	for (const char *p = s->api_key; *p; p++) {
		if (strchr(plain, *p))
			buf_add(&path, p, 1);
		else
			buf_addf(&path, "%%%02X", (unsigned char)*p);
	}
	char *copy = mem_strndup(buf_span(&path).p, buf_len(&path));
	mem_wipe(path.p, path.size);
	buf_release(&path);
	return copy;
}

struct upstream *upstream_new(struct event_base *base, const struct upstream_settings *settings,
			      const struct upstream_ops *ops, void *owner, struct stats *stats)
{
	const char *why = NULL;
	struct link_context *links = link_context_new(base, settings->ca_file, &why);

	if (!links) {
		log_error("upstream: %s", why);
		return NULL;
	}
	struct upstream *u = mem_zalloc(sizeof(*u));
	u->base = base;
	u->settings = *settings;
	u->host = mem_strdup(settings->host);
	u->proxy_host = settings->proxy_host ? mem_strdup(settings->proxy_host) : NULL;
	u->key_hint = mem_strdup(settings->key_hint);
	u->settings.host = u->settings.proxy_host = u->settings.key_hint = NULL;
	u->settings.api_key = u->settings.path_prefix = u->settings.ca_file = NULL;
	u->path = request_path(settings);
	u->ops = ops;
	u->owner = owner;
	u->stats = stats;
	u->links = links;
	u->since = clock_mono_ms();
	u->turn = event_new(base, -1, 0, on_turn, u);
	u->retry = event_new(base, -1, 0, on_turn, u);
	u->keepalive = event_new(base, -1, 0, on_keepalive, u);
	u->state = UPSTREAM_CONNECTING;
	event_active(u->turn, EV_TIMEOUT, 1);
	return u;
}

void upstream_stop(struct upstream *u)
{
	set_state(u, UPSTREAM_STOPPED, "the daemon stops");
	event_del(u->retry);
	event_del(u->keepalive);
	if (u->question)
		resolver_cancel(u->question);
	u->question = NULL;
	if (u->open)
		link_close(u->link, 1000);
	else if (u->link)
		drop_link(u);
}

bool upstream_closed(const struct upstream *u)
{
	return !u->link;
}

void upstream_free(struct upstream *u)
{
	if (!u)
		return;
	if (u->state != UPSTREAM_STOPPED)
		upstream_stop(u);
	if (u->link)
		drop_link(u);
	link_context_free(u->links);
	event_free(u->turn);
	event_free(u->retry);
	event_free(u->keepalive);
	mem_wipe(u->path, strlen(u->path));
	free(u->path);
	free(u->host);
	free(u->proxy_host);
	free(u->key_hint);
	free(u);
}

enum upstream_state upstream_state(const struct upstream *u)
{
	return u->state;
}

int64_t upstream_since_ms(const struct upstream *u)
{
	return clock_mono_ms() - u->since;
}

uint64_t upstream_reconnects(const struct upstream *u)
{
	return u->opened ? u->opened - 1 : 0;
}

const char *upstream_last_error(const struct upstream *u)
{
	return u->last_error[0] ? u->last_error : NULL;
}

long upstream_retry_ms(const struct upstream *u)
{
	if (u->state != UPSTREAM_BACKOFF && u->state != UPSTREAM_UNAUTHORIZED)
		return -1;
	int64_t left = u->retry_at - clock_mono_ms();
	return left > 0 ? (long)left : 0;
}
