#include "daemon/wiring.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include <event2/util.h>

#include "access/access.h"
#include "access/nexus.h"
#include "access/token_minter.h"
#include "base/clock.h"
#include "base/timer.h"
#include "cache/cache.h"
#include "clients/client.h"
#include "clients/dispatch.h"
#include "clients/listener.h"
#include "clients/tcpsocket.h"
#include "daemon/descriptors.h"
#include "daemon/learned_pace.h"
#include "daemon/settings.h"
#include "daemon/tcp_doors.h"
#include "requests/router.h"
#include "service/activation.h"
#include "service/metrics_page.h"
#include "service/notify.h"
#include "service/status.h"
#include "subscriptions/subscriptions.h"
#include "upstream/upstream.h"

/* ---- for the router ---- */

static void router_send(void *owner, struct span head, struct span body)
{
	struct wiring *w = owner;
	upstream_send(w->upstream, head, body);
}

static bool router_sendable(void *owner)
{
	struct wiring *w = owner;
	return upstream_sendable(w->upstream);
}

static long router_reconnect_ms(void *owner)
{
	struct wiring *w = owner;
	return upstream_retry_ms(w->upstream);
}

static void peer_changed(void *owner, struct peer *peer)
{
	struct wiring *w = owner;

	if (cache_is_peer(w->cache, peer))
		cache_heard(w->cache);
	else
		clients_changed(w->clients, peer);
}

static void router_wake_at(void *owner, int64_t at)
{
	struct wiring *w = owner;

	timer_start(w->deadline, at - clock_mono_ms());
}

static void router_connection_idle(void *owner, uint32_t connection)
{
	struct wiring *w = owner;
	if (w->upstream)
		upstream_connection_idle(w->upstream, connection);
}

/* Answers to others are kept until their turn. */
static void router_deferred_turn(void *owner, struct pending *p)
{
	struct wiring *w = owner;
	if (p->op == OP_SUBSCRIBE)
		subscriptions_deferred_turn(w->subscriptions, p);
}

static const char *router_deferred_end(void *owner, struct pending *p)
{
	struct wiring *w = owner;
	if (request_op_is_nexus(p->op))
		return nexus_deferred_end(w->nexus, p);
	return p->op == OP_TOKEN ? token_requests_deferred_end(token_minter_requests(w->minter), p)
				 : subscriptions_deferred_end(w->subscriptions, p);
}

static void router_read_sent(void *owner, void *reading)
{
	struct wiring *w = owner;
	subscriptions_read_sent(w->subscriptions, reading);
}

static void router_read_ended(void *owner, void *reading, enum router_read_end end,
			      const struct wire_frame *answer)
{
	struct wiring *w = owner;
	subscriptions_read_end(w->subscriptions, reading, end, answer, clock_mono_coarse_ms());
}

static const char *router_forbids(void *owner, struct peer *peer, const struct request *request)
{
	struct wiring *w = owner;
	return access_forbids(w->access, peer, request, clock_mono_ms());
}

static const struct router_ops router_ops = {
	.send = router_send,
	.sendable = router_sendable,
	.reconnect_ms = router_reconnect_ms,
	.changed = peer_changed,
	.wake_at = router_wake_at,
	.connection_idle = router_connection_idle,
	.deferred_turn = router_deferred_turn,
	.deferred_end = router_deferred_end,
	.read_sent = router_read_sent,
	.forbids = router_forbids,
	.read_end = router_read_ended,
};

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
	struct wiring *w = arg;
	int64_t next = router_expire(w->router, clock_mono_ms());

	(void)fd;
	(void)what;
	if (next >= 0)
		router_wake_at(w, next);
}

/* ---- for the cache ---- */

static void cache_wake_at(void *owner, int64_t at)
{
	struct wiring *w = owner;

	timer_start(w->cache_due, at - clock_mono_ms());
}

static void on_cache_due(evutil_socket_t fd, short what, void *arg)
{
	struct wiring *w = arg;

	(void)fd;
	(void)what;
	cache_expire(w->cache, clock_mono_ms());
}

static const struct cache_ops cache_ops = {
	.mono_ms = clock_mono_coarse_ms,
	.boot_ms = clock_boot_ms,
	.wake_at = cache_wake_at,
};

/* ---- for clients and their socket ---- */

static const char *client_lacks_room(void *owner, const struct peer_identity *who)
{
	struct wiring *w = owner;
	const struct budget *b = access_lacks_room(w->access, who);

	if (!b)
		return NULL;
	snprintf(w->no_room, sizeof(w->no_room),
		 "too many clients of [access %s] (max_clients: %u)", b->name,
		 b->limits.max_clients);
	return w->no_room;
}

static void client_joined(void *owner, struct peer *peer, const struct peer_identity *who)
{
	struct wiring *w = owner;
	router_join(w->router, peer);
	subscriptions_join(w->subscriptions, peer);
	token_requests_join(peer);
	nexus_join(peer);
	access_admit(w->access, peer, who);
}

static void client_line(void *owner, struct peer *peer, struct span line, int64_t now)
{
	struct wiring *w = owner;
	dispatch_line(&w->dispatch, peer, line, now);
}

static void client_too_long(void *owner, struct peer *peer, struct span prefix)
{
	struct wiring *w = owner;
	dispatch_too_long(&w->dispatch, peer, prefix, w->config->listen.max_line);
}

static bool client_may_read(void *owner, struct peer *peer)
{
	struct wiring *w = owner;
	return router_may_read(w->router, peer);
}

static void client_left(void *owner, struct peer *peer)
{
	struct wiring *w = owner;
	router_leave(w->router, peer, clock_mono_ms());
	subscriptions_leave(w->subscriptions, peer);
	access_leave(peer);
}

static void client_has_room(void *owner, struct peer *peer)
{
	struct wiring *w = owner;
	subscriptions_caught_up(w->subscriptions, peer);
}

void wiring_accept_more(struct wiring *w)
{
	if (!w->listener || clients_count(w->clients) >= w->clients_possible)
		return;
	listener_resume(w->listener);
	tcp_doors_resume(w->tcp_doors);
}

static void client_closed(void *owner)
{
	wiring_accept_more(owner);
}

static bool client_knows(void *owner, const struct local_key *key)
{
	struct wiring *w = owner;

	return access_knows(w->access, key);
}

static const char *client_admit(void *owner, struct peer *peer, const struct peer_identity *who)
{
	struct wiring *w = owner;
	const char *no_room = client_lacks_room(owner, who);

	if (!no_room)
		access_admit(w->access, peer, who);
	return no_room;
}

static const struct client_ops client_ops = {
	.lacks_room = client_lacks_room,
	.joined = client_joined,
	.knows = client_knows,
	.admit = client_admit,
	.line = client_line,
	.too_long = client_too_long,
	.may_read = client_may_read,
	.has_room = client_has_room,
	.left = client_left,
	.closed = client_closed,
};

/* The last descriptors are kept for the daemon itself, which needs some to reconnect. */
static bool listener_has_room(void *owner)
{
	struct wiring *w = owner;

	return clients_count(w->clients) < w->clients_possible;
}

static void listener_accepted(void *owner, int fd)
{
	struct wiring *w = owner;

	clients_adopt(w->clients, fd, false);
}

static const struct listener_ops listener_ops = {
	.has_room = listener_has_room,
	.accepted = listener_accepted,
};

static void tcp_accepted(void *owner, int fd)
{
	struct wiring *w = owner;

	tcpsocket_prepare(fd);
	clients_adopt(w->clients, fd, true);
}

static const struct listener_ops tcp_ops = {
	.has_room = listener_has_room,
	.accepted = tcp_accepted,
};

/* ---- for clients that speak HTTP ---- */

static bool http_ready(void *owner)
{
	struct wiring *w = owner;

	return w->upstream && upstream_state(w->upstream) == UPSTREAM_CONNECTED &&
	       !router_is_stopping(w->router);
}

static void http_upgrade(void *owner, const struct http_request *r, struct http_offer *offer)
{
	struct wiring *w = owner;

	ws_door_upgrade(&w->ws_door, r, offer);
}

static const struct http_ops http_ops = {.ready = http_ready, .upgrade = http_upgrade};

static int ws_open_token(void *owner, struct span token, struct token_grant *grant,
			 int64_t *left_ms, const char **why)
{
	struct wiring *w = owner;

	return tokens_open(&w->tokens, token, grant, left_ms, why);
}

/* The client may hold a place in the same section already, which is free then. */
static int ws_admit(void *owner, struct peer *peer, struct speech *next, const char **why)
{
	struct wiring *w = owner;
	struct peer_identity before = clients_identify(w->clients, peer);

	*why = "the local key that the token was made for has been revoked";
	if (next->who->key && !access_knows(w->access, next->who->key))
		return 403;
	access_leave(peer);
	*why = client_lacks_room(w, next->who);
	access_admit(w->access, peer, *why ? &before : next->who);
	return *why ? 503 : 0;
}

static const struct ws_door_ops ws_door_ops = {.open_token = ws_open_token, .admit = ws_admit};

/* ---- for the requests for tokens ---- */

static int minter_makes_local(void *owner, struct peer *peer, const struct request *request,
			      struct buf *token, char why[ACCESS_PATTERN_WHY_MAX])
{
	struct wiring *w = owner;
	struct peer_identity who = clients_identify(w->clients, peer);

	return tokens_make_local(&w->tokens, request, &who, token, why);
}

static void minter_has_made(void *owner, struct peer *peer, const struct request *request,
			    struct span access_pattern, struct span token)
{
	struct wiring *w = owner;
	struct peer_identity who = clients_identify(w->clients, peer);

	tokens_remember(&w->tokens, request, access_pattern, &who, token,
			w->config->upstream.token_lifetime_ms);
}

static const struct token_minter_ops minter_ops = {
	.make_local = minter_makes_local,
	.made = minter_has_made,
};

/* ---- access rules ---- */

static void judge_again(void *owner, struct peer *peer, const struct peer_identity *who)
{
	struct wiring *w = owner;

	if (who->key && !access_knows(w->access, who->key)) {
		clients_dismiss(w->clients, peer);
		return;
	}
	access_admit(w->access, peer, who);
	router_restrict(w->router, peer);
	subscriptions_restrict(w->subscriptions, peer);
	clients_changed(w->clients, peer);
}

void wiring_set_access_rules(struct wiring *w, const struct config *config)
{
	access_set_keyless(w->access, !config->upstream.api_key);
	access_set(w->access, config->access);
	access_set_key(w->access, config->listen.has_local_key ? &config->listen.local_key : NULL);
	router_hold(w->router);
	clients_each(w->clients, judge_again);
	router_release(w->router, clock_mono_ms());
}

/* ---- for the subscriptions ---- */

static void subscriptions_flush(void *owner, struct peer *peer)
{
	struct wiring *w = owner;
	clients_flush(w->clients, peer);
}

static void subscriptions_wanted(void *owner)
{
	struct wiring *w = owner;
	upstream_want(w->upstream);
}

static const char *subscriptions_why_not_live(void *owner)
{
	struct wiring *w = owner;
	return w->upstream ? upstream_why_not_live(w->upstream) : NULL;
}

static void subscriptions_forbidden(void *owner, struct peer *peer, struct span name)
{
	struct wiring *w = owner;
	access_log_ended(w->access, peer, name, clock_mono_ms());
}

static const struct subscriptions_ops subscriptions_ops = {
	.changed = peer_changed,
	.flush = subscriptions_flush,
	.wanted = subscriptions_wanted,
	.why_not_live = subscriptions_why_not_live,
	.forbidden = subscriptions_forbidden,
	.wall_ms = clock_wall_ms,
	.boot_ms = clock_boot_ms,
	.mono_ms = clock_mono_ms,
};

/* ---- for the connection to the service ---- */

void wiring_tell_state(struct wiring *w)
{
	char text[400];

	if (!w->upstream) /* it is being made */
		return;
	snprintf(text, sizeof(text), "%s: %s%s", upstream_url(w->upstream),
		 upstream_state_name(upstream_state(w->upstream)),
		 w->misconfigured ? " (the last reload was refused: see the log)" : "");
	notify_status(w->notify, text);
}

static void upstream_changed(void *owner)
{
	wiring_tell_state(owner);
}

static const struct upstream_ops upstream_ops = {
	.changed = upstream_changed,
	.up = router_up,
	.moved = router_move,
	.down = router_lost,
	.spend = router_spend,
	.spend_refused = router_spend_refused,
	.drained = router_pump,
	.frame = router_frame,
	.change = subscriptions_change,
	.straggler = subscriptions_straggler,
	.unreadable = subscriptions_unreadable,
	.missed = subscriptions_missed,
	.list =
		{
			.wants = subscriptions_wants,
			.stale = subscriptions_is_stale,
			.make = subscriptions_make_list,
			.live = subscriptions_live,
			.without = subscriptions_without,
			.failed = subscriptions_list_failed,
			.refused = subscriptions_list_refused,
			.refuse_all = subscriptions_refuse_all,
			.lost = subscriptions_lost,
		},
	.cache =
		{
			.up = cache_up,
			.live = cache_live,
			.lost = cache_lost,
			.arrived = cache_arrived,
			.change = cache_change,
			.missed = cache_missed,
		},
};

/* ---- for status and metrics ---- */

/* peer: the client that asks; NULL: no client. */
static struct status_source status_source(const struct wiring *w, const struct peer *peer)
{
	int64_t now = clock_mono_ms();
	size_t n_budgets;
	struct budget *const *budgets = access_budgets(w->access, &n_budgets);

	return (struct status_source){
		.config = w->config,
		.router = w->router,
		.subscriptions = w->subscriptions,
		.cache = w->cache,
		.upstream = w->upstream,
		.stats = &w->stats,
		.clients = w->clients,
		.budgets = budgets,
		.n_budgets = n_budgets,
		.peer = peer,
		.now_ms = now,
		.uptime_ms = now - w->started,
		.started_wall_ms = w->started_wall,
		.misconfigured = w->misconfigured,
	};
}

static void dispatch_status(void *owner, const struct peer *peer, bool top, struct buf *out)
{
	struct wiring *w = owner;
	struct client_activity busiest[CLIENTS_BUSIEST_MAX];
	struct status_source source = status_source(w, peer);

	if (top) {
		source.n_top = clients_busiest(w->clients, busiest);
		source.top = busiest;
	}
	status_write(&source, out);
}

static void dispatch_stats(void *owner, struct buf *out)
{
	struct status_source source = status_source(owner, NULL);
	status_write_stats(&source, out);
}

static bool dispatch_nexus(void *owner, struct peer *peer, const struct request *request,
			   int64_t now)
{
	struct wiring *w = owner;

	if (!nexus_is_there(w->nexus))
		return false;
	nexus_ask(w->nexus, peer, request, now);
	return true;
}

static const struct dispatch_ops dispatch_ops = {
	.nexus = dispatch_nexus,
	.status = dispatch_status,
	.stats = dispatch_stats,
};

static void metrics_page_write(void *owner, struct buf *out)
{
	struct status_source source = status_source(owner, NULL);
	status_write_page(&source, out);
}

static const struct metrics_page_ops metrics_page_ops = {.page = metrics_page_write};

/* ---- start and end ---- */

bool wiring_reserve_descriptors(struct wiring *w, unsigned max_clients)
{
	long long room = descriptors_reserve(max_clients, w->descriptors_before);

	w->clients_possible = room < 0 ? 0 : (unsigned)room;
	return room >= 0;
}

static void start_core(struct wiring *w)
{
	struct router_settings router = settings_router(w->config);
	struct subscriptions_settings subscriptions = settings_subscriptions(w->config);
	struct token_minter_settings minter = settings_token_minter(w->config);
	struct cache_settings cache = settings_cache(w->config);
	struct nexus_settings nexus = settings_nexus(w->config);
	uint64_t seed;

	evutil_secure_rng_get_bytes(&seed, sizeof(seed));
	w->router = router_new(&router, &router_ops, w, &w->stats, seed);
	learned_pace_take(w->router);
	w->subscriptions = subscriptions_new(&subscriptions, &subscriptions_ops, w, w->router,
					     &w->stats, seed);
	w->cache = cache_new(&cache, &cache_ops, w, w->router, w->subscriptions, &w->stats, seed);
	w->access = access_new(&w->stats);
	tokens_init(&w->tokens, w->access);
	w->minter =
		token_minter_new(w->base, &minter, w->router, w->access, &minter_ops, w, &w->stats);
	w->nexus = nexus_new(w->base, &nexus, w->router, w->access);
	w->dispatch = (struct dispatch){.cache = w->cache,
					.router = w->router,
					.subscriptions = w->subscriptions,
					.token_requests = token_minter_requests(w->minter),
					.access = w->access,
					.stats = &w->stats,
					.ops = &dispatch_ops,
					.owner = w};
}

static int start_upstream(struct wiring *w)
{
	struct upstream_settings settings =
		settings_upstream(w->config, subscriptions_seed(w->subscriptions));
	struct upstream_users users = {.router = w->router,
				       .subscriptions = w->subscriptions,
				       .cache = w->cache,
				       .owner = w};

	w->upstream = upstream_new(w->base, &settings, &upstream_ops, &users, &w->stats);
	return w->upstream ? 0 : -EINVAL;
}

int wiring_new_listener(struct wiring *w, const struct listener_settings *settings,
			struct listener **out)
{
	return listener_new(w->base, settings, &listener_ops, w, &w->stats, out);
}

/* The socket that the program in whose place we are has left. It may be configured to be elsewhere
 * now: then those who wait there are accepted yet. */
static int inherit_listener(struct wiring *w, const struct listener_settings *settings, int fd,
			    char *own)
{
	struct listener *former = listener_inherit(w->base, fd, own, &listener_ops, w, &w->stats);

	free(own);
	if (former && listener_is_at(former, settings->path)) {
		w->listener = former;
		return listener_set_access(former, settings);
	}
	int err = wiring_new_listener(w, settings, &w->listener);
	listener_retire(former);
	return err;
}

static int take_passed_doors(struct wiring *w, const struct activation *passed)
{
	for (unsigned i = 0; i < passed->n_http; i++)
		tcp_doors_adopt(w->tcp_doors, passed->http[i]);
	for (unsigned i = 0; i < passed->n_own_http; i++)
		tcp_doors_inherit(w->tcp_doors, passed->own_http[i]);
	if (passed->n_http == 0 || config_has_local_keys(w->config))
		return 0;
	log_error("the service manager passes a socket for HTTP on TCP, but there is no local key, "
		  "without which nobody may use it: set local_key_file");
	return -EINVAL;
}

/* The sockets that the service manager has passed, or our own. */
static int start_listeners(struct wiring *w)
{
	struct listener_settings settings = settings_listener(w->config);
	struct activation passed;
	int err = activation_take(&passed);

	if (err < 0)
		return err;
	settings.may_wait = true;
	char *own = activation_own_socket();
	w->tcp_doors = tcp_doors_new(w->base, &tcp_ops, w, &w->stats);
	if (passed.socket >= 0 && own)
		err = inherit_listener(w, &settings, passed.socket, own);
	else if (passed.socket >= 0)
		w->listener = listener_adopt(w->base, passed.socket, &listener_ops, w, &w->stats);
	else
		err = wiring_new_listener(w, &settings, &w->listener);
	if (err == 0)
		err = take_passed_doors(w, &passed);
	if (err == 0)
		err = tcp_doors_prepare(w->tcp_doors, w->config);
	if (err == 0)
		tcp_doors_commit(w->tcp_doors);
	return err;
}

static int start_local(struct wiring *w)
{
	struct client_settings clients;

	settings_http(w->config, &w->http);
	w->http.ops = &http_ops;
	w->http.owner = w;
	w->http.wall_ms = clock_wall_ms;
	w->http.stats = &w->stats;
	w->ws_door = (struct ws_door){.settings = {.max_line = &w->http.max_line,
						   .stats = &w->stats,
						   .boot_ms = clock_boot_ms},
				      .ops = &ws_door_ops,
				      .owner = w};
	clients = settings_clients(w->config, &w->http);
	w->clients = clients_new(w->base, &clients, &client_ops, w, &w->stats);
	wiring_set_access_rules(w, w->config);
	tokens_set_service(&w->tokens, w->config);
	tokens_load(&w->tokens);
	return start_listeners(w);
}

int wiring_start_metrics(struct wiring *w, const struct config *config, bool may_wait)
{
	struct metrics_page_settings settings = settings_metrics(config);

	settings.may_wait = may_wait;
	w->metrics_page = NULL;
	if (!settings.path && !settings.address)
		return 0;
	return metrics_page_new(w->base, &settings, &metrics_page_ops, w, &w->metrics_page);
}

int wiring_start(struct wiring *w)
{
	w->started = clock_mono_ms();
	w->started_wall = clock_wall_ms();
	w->deadline = timer_new(w->base, on_deadline, w);
	w->cache_due = timer_new(w->base, on_cache_due, w);
	w->notify = notify_new(w->base);
	start_core(w);
	if (start_local(w) < 0 || start_upstream(w) < 0 ||
	    wiring_start_metrics(w, w->config, true) < 0)
		return -EINVAL;
	return 0;
}

/* The cache's memory goes with the process, which ends now or becomes another program: to free a
 * million entries one by one takes a second. A pointer to it stays, so that it is no leak. */
static struct cache *volatile left_to_exit; /* else the compiler would remove it */

/* From wherever wiring_start() got to. Rooms that ask go before rooms that are asked: clients leave
 * requests behind for upstream, and upstream leaves them behind for the router. */
void wiring_stop(struct wiring *w)
{
	metrics_page_free(w->metrics_page);
	listener_free(w->listener);
	w->listener = NULL;
	tcp_doors_free(w->tcp_doors);
	w->tcp_doors = NULL;
	if (w->clients)
		clients_free(w->clients);
	upstream_free(w->upstream);
	w->upstream = NULL;
	dispatch_fini(&w->dispatch);
	if (w->minter)
		token_minter_free(w->minter);
	if (w->nexus)
		nexus_free(w->nexus);
	if (w->tokens.loaded)
		tokens_save(&w->tokens);
	tokens_fini(&w->tokens);
	if (w->access)
		access_free(w->access);
	if (w->subscriptions)
		subscriptions_stop(w->subscriptions);
	if (w->cache)
		cache_leave(w->cache);
	if (w->router)
		router_free(w->router);
	left_to_exit = w->cache;
	w->cache = NULL;
	if (w->subscriptions)
		subscriptions_free(w->subscriptions);
	notify_free(w->notify);
	if (w->cache_due)
		event_free(w->cache_due);
	if (w->deadline)
		event_free(w->deadline);
}
