#include "daemon/daemon.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <event2/event.h>
#include <event2/util.h>

#include "access/access.h"
#include "service/activation.h"
#include "clients/client.h"
#include "base/clock.h"
#include "daemon/descriptors.h"
#include "clients/dispatch.h"
#include "subscriptions/subscriptions.h"
#include "clients/listener.h"
#include "base/mem.h"
#include "service/metrics_page.h"
#include "access/token_minter.h"
#include "service/notify.h"
#include "base/orphans.h"
#include "requests/router.h"
#include "base/secret.h"
#include "daemon/settings.h"
#include "service/status.h"
#include "base/timer.h"
#include "upstream/upstream.h"

enum {
	DRAIN_MS = 5000,    /* for what is in flight when the daemon is told to stop */
	FAREWELL_MS = 1000, /* for the last bytes and the close frame after that */
	STOP_STEP_MS = 10,
};

enum stop_phase { STOP_NOT, STOP_DRAIN, STOP_FAREWELL, STOP_PHASE_N };

struct daemon {
	struct event_base *base;
	struct config *config; /* owned */
	struct daemon_options options;
	int64_t started, started_wall;
	struct stats stats;
	struct router *router;
	struct subscriptions *subscriptions;
	struct access *access;
	struct token_minter *minter;
	struct dispatch dispatch;
	struct clients *clients;
	struct listener *listener;
	struct upstream *upstream;
	struct metrics_page *metrics_page; /* NULL: no page is served */
	unsigned descriptors_before;       /* how many were open at the start */
	unsigned
		clients_possible; /* within the limit of open files; may be less than max_clients */
	struct event *deadline;   /* of the router's requests */
	struct event *sigterm, *sigint, *sighup; /* NULL: not watched, as any event below */
	struct event *reload; /* due; however many SIGHUPs there were, it is one */
	struct notify *notify;
	struct event *watchdog;  /* tells the service manager that the loop turns; or NULL */
	struct event *stop_step; /* runs only while stopping */
	enum stop_phase stop;
	int64_t stop_until;
	bool misconfigured; /* the last reload was refused */
};

/* ---- what the router asks for ---- */

static void router_sends(void *owner, struct span head, struct span body)
{
	struct daemon *d = owner;
	upstream_send(d->upstream, head, body);
}

static bool router_asks_sendable(void *owner)
{
	struct daemon *d = owner;
	return upstream_sendable(d->upstream);
}

static long router_asks_reconnect(void *owner)
{
	struct daemon *d = owner;
	return upstream_retry_ms(d->upstream);
}

static void router_changed(void *owner, struct peer *peer)
{
	struct daemon *d = owner;
	clients_changed(d->clients, peer);
}

static void router_wants_wake(void *owner, int64_t at)
{
	struct daemon *d = owner;

	timer_start(d->deadline, at - clock_mono_ms());
}

static void router_leaves_lane(void *owner, uint32_t connection)
{
	struct daemon *d = owner;
	if (d->upstream)
		upstream_lane_idle(d->upstream, connection);
}

static void router_gives_turn(void *owner, struct pending *p)
{
	struct daemon *d = owner;
	if (p->op != OP_TOKEN) /* whose answer is kept until its turn */
		subscriptions_deferred_turn(d->subscriptions, p);
}

static const char *router_ends_deferred(void *owner, struct pending *p)
{
	struct daemon *d = owner;
	return p->op == OP_TOKEN ? token_requests_deferred_end(token_minter_issuer(d->minter), p)
				 : subscriptions_deferred_end(d->subscriptions, p);
}

static void router_has_sent_read(void *owner, void *reading)
{
	struct daemon *d = owner;
	subscriptions_read_sent(d->subscriptions, reading);
}

static void router_ends_read(void *owner, void *reading, enum router_read_end end,
			     const struct wire_frame *answer)
{
	struct daemon *d = owner;
	subscriptions_read_end(d->subscriptions, reading, end, answer, clock_mono_coarse_ms());
}

static const char *router_asks_forbidden(void *owner, struct peer *peer,
					 const struct request *request)
{
	struct daemon *d = owner;
	return access_forbids(d->access, peer, request, clock_mono_ms());
}

static const struct router_ops router_ops = {
	.send = router_sends,
	.sendable = router_asks_sendable,
	.reconnect_ms = router_asks_reconnect,
	.changed = router_changed,
	.wake_at = router_wants_wake,
	.connection_idle = router_leaves_lane,
	.deferred_turn = router_gives_turn,
	.deferred_end = router_ends_deferred,
	.read_sent = router_has_sent_read,
	.forbids = router_asks_forbidden,
	.read_end = router_ends_read,
};

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
	struct daemon *d = arg;
	int64_t next = router_expire(d->router, clock_mono_ms());

	(void)fd;
	(void)what;
	if (next >= 0)
		router_wants_wake(d, next);
}

/* ---- what the clients bring ---- */

static void client_joined(void *owner, struct peer *peer, const struct peer_identity *who)
{
	struct daemon *d = owner;
	router_join(d->router, peer);
	subscriptions_join(d->subscriptions, peer);
	token_requests_join(peer);
	access_admit(d->access, peer, who);
}

static void client_line(void *owner, struct peer *peer, struct span line, int64_t now)
{
	struct daemon *d = owner;
	dispatch_line(&d->dispatch, peer, line, now);
}

static void client_too_long(void *owner, struct peer *peer, struct span prefix)
{
	struct daemon *d = owner;
	dispatch_too_long(&d->dispatch, peer, prefix, d->config->listen.max_line);
}

static bool client_may_read(void *owner, struct peer *peer)
{
	struct daemon *d = owner;
	return router_may_read(d->router, peer);
}

static void client_left(void *owner, struct peer *peer)
{
	struct daemon *d = owner;
	router_leave(d->router, peer, clock_mono_ms());
	subscriptions_leave(d->subscriptions, peer);
	access_leave(peer);
}

static void client_has_room(void *owner, struct peer *peer)
{
	struct daemon *d = owner;
	subscriptions_caught_up(d->subscriptions, peer);
}

static void client_closed(void *owner)
{
	struct daemon *d = owner;

	if (d->listener && clients_count(d->clients) < d->clients_possible)
		listener_resume(d->listener);
}

static const struct client_ops client_ops = {
	.joined = client_joined,
	.line = client_line,
	.too_long = client_too_long,
	.may_read = client_may_read,
	.has_room = client_has_room,
	.left = client_left,
	.closed = client_closed,
};

/* Clients never get the last descriptors: without some for itself the daemon could not reconnect.
 */
static bool listener_asks_room(void *owner)
{
	struct daemon *d = owner;

	return clients_count(d->clients) < d->clients_possible;
}

static void listener_brings(void *owner, int fd)
{
	struct daemon *d = owner;

	clients_adopt(d->clients, fd);
}

static const struct listener_ops listener_ops = {
	.has_room = listener_asks_room,
	.accepted = listener_brings,
};

/* ---- other access rules ---- */

static void judge_again(void *owner, struct peer *peer, const struct peer_identity *who)
{
	struct daemon *d = owner;

	access_admit(d->access, peer, who);
	router_restrict(d->router, peer);
	subscriptions_restrict(d->subscriptions, peer);
	clients_changed(d->clients, peer);
}

/* Puts these rules into force, for all who are connected as well. The former ones may be freed once
 * this has returned. */
static void set_access_rules(struct daemon *d, const struct access_rules *rules)
{
	access_set(d->access, rules);
	clients_each(d->clients, judge_again);
	router_pump(d->router, clock_mono_ms()); /* what waited behind what was refused */
}

/* ---- what the feed asks for ---- */

static void feed_flushes(void *owner, struct peer *peer)
{
	struct daemon *d = owner;
	clients_flush(d->clients, peer);
}

static void feed_wants_more(void *owner)
{
	struct daemon *d = owner;
	upstream_want(d->upstream);
}

/* What keeps subscriptions from being live: that there is no token, or no connection at all. */
static const char *feed_asks_why(void *owner)
{
	struct daemon *d = owner;
	const char *why = d->upstream ? upstream_token_error(d->upstream) : NULL;

	if (why || !d->upstream || upstream_state(d->upstream) == UPSTREAM_CONNECTED)
		return why;
	return upstream_last_error(d->upstream);
}

static void feed_tells_forbidden(void *owner, struct peer *peer, struct span name)
{
	struct daemon *d = owner;
	access_tell_ended(d->access, peer, name, clock_mono_ms());
}

static int64_t feed_asks_time(void *owner)
{
	(void)owner;
	return clock_mono_ms();
}

static const struct subscriptions_ops subscriptions_ops = {
	.changed = router_changed,
	.flush = feed_flushes,
	.wanted = feed_wants_more,
	.why_not_live = feed_asks_why,
	.forbidden = feed_tells_forbidden,
	.wall_ms = clock_wall_ms,
	.boot_ms = clock_boot_ms,
	.mono_ms = feed_asks_time,
};

/* ---- what the service brings ---- */

static void upstream_is_up(void *owner, uint32_t connection)
{
	struct daemon *d = owner;
	router_up(d->router, connection, clock_mono_ms());
}

static bool upstream_has_moved(void *owner, uint32_t connection)
{
	struct daemon *d = owner;
	return router_move(d->router, connection, clock_mono_ms());
}

static void upstream_is_down(void *owner, uint32_t connection)
{
	struct daemon *d = owner;
	struct blame_end end = {.close_code = upstream_close_code(d->upstream),
				.dropped = upstream_dropped(d->upstream)};

	if (router_lost(d->router, connection, end, clock_mono_ms()))
		upstream_excuse(d->upstream);
}

static void upstream_brings(void *owner, const struct wire_frame *frame)
{
	struct daemon *d = owner;
	router_frame(d->router, frame, clock_mono_coarse_ms());
}

static void upstream_notifies(void *owner, const struct wire_frame *frame,
			      const struct notification *change)
{
	struct daemon *d = owner;
	subscriptions_change(d->subscriptions, frame, change);
}

static void upstream_has_straggler(void *owner, const struct wire_frame *frame,
				   const struct notification *change)
{
	struct daemon *d = owner;
	subscriptions_straggler(d->subscriptions, frame, change);
}

static void upstream_cannot_read(void *owner)
{
	struct daemon *d = owner;
	subscriptions_unreadable(d->subscriptions);
}

static void upstream_has_missed(void *owner, int64_t since_ms)
{
	struct daemon *d = owner;
	subscriptions_missed(d->subscriptions, since_ms);
}

static bool upstream_asks_wants(void *owner)
{
	struct daemon *d = owner;
	return subscriptions_wants(d->subscriptions);
}

static bool upstream_asks_stale(void *owner)
{
	struct daemon *d = owner;
	return subscriptions_is_stale(d->subscriptions);
}

static size_t upstream_asks_list(void *owner, size_t budget, struct buf *list)
{
	struct daemon *d = owner;
	return subscriptions_make_list(d->subscriptions, budget, list);
}

static void upstream_list_is_live(void *owner)
{
	struct daemon *d = owner;
	subscriptions_live(d->subscriptions, clock_mono_ms());
}

static void upstream_is_without_list(void *owner)
{
	struct daemon *d = owner;
	subscriptions_without(d->subscriptions);
}

static void upstream_list_failed(void *owner)
{
	struct daemon *d = owner;
	subscriptions_list_failed(d->subscriptions);
}

static bool upstream_list_refused(void *owner, const char *why)
{
	struct daemon *d = owner;
	return subscriptions_list_refused(d->subscriptions, why);
}

static void upstream_refuses_all(void *owner, const char *why, long retry_ms)
{
	struct daemon *d = owner;
	subscriptions_refuse_all(d->subscriptions, why, retry_ms);
}

static void upstream_was_lost(void *owner, int64_t heard_ms)
{
	struct daemon *d = owner;
	subscriptions_lost(d->subscriptions, heard_ms);
}

static void upstream_has_room(void *owner)
{
	struct daemon *d = owner;
	router_pump(d->router, clock_mono_ms());
}

static void upstream_changed(void *owner)
{
	struct daemon *d = owner;
	char text[400];

	if (!d->upstream)
		return;
	snprintf(text, sizeof(text), "%s: %s%s", upstream_url(d->upstream),
		 upstream_state_name(upstream_state(d->upstream)),
		 d->misconfigured ? " (the last reload was refused: see the log)" : "");
	notify_status(d->notify, text);
}

static const struct upstream_ops upstream_ops = {
	.up = upstream_is_up,
	.moved = upstream_has_moved,
	.down = upstream_is_down,
	.drained = upstream_has_room,
	.changed = upstream_changed,
	.frame = upstream_brings,
	.change = upstream_notifies,
	.straggler = upstream_has_straggler,
	.unreadable = upstream_cannot_read,
	.missed = upstream_has_missed,
	.wants = upstream_asks_wants,
	.stale = upstream_asks_stale,
	.make_list = upstream_asks_list,
	.live = upstream_list_is_live,
	.without = upstream_is_without_list,
	.list_failed = upstream_list_failed,
	.list_refused = upstream_list_refused,
	.refuse_all = upstream_refuses_all,
	.lost = upstream_was_lost,
};

/* ---- status ---- */

/* peer: who asks; NULL: nobody in particular. */
static struct status_source status_source(const struct daemon *d, const struct peer *peer)
{
	int64_t now = clock_mono_ms();

	return (struct status_source){
		.config = d->config,
		.router = d->router,
		.subscriptions = d->subscriptions,
		.upstream = d->upstream,
		.stats = &d->stats,
		.clients = d->clients,
		.peer = peer,
		.now_ms = now,
		.uptime_ms = now - d->started,
		.started_wall_ms = d->started_wall,
		.misconfigured = d->misconfigured,
	};
}

static void dispatch_wants_status(void *owner, const struct peer *peer, bool top, struct buf *out)
{
	struct daemon *d = owner;
	struct client_activity busiest[CLIENTS_BUSIEST_MAX];
	struct status_source source = status_source(d, peer);

	if (top) {
		source.n_top = clients_busiest(d->clients, busiest);
		source.top = busiest;
	}
	status_write(&source, out);
}

static void dispatch_wants_stats(void *owner, struct buf *out)
{
	struct status_source source = status_source(owner, NULL);
	status_write_stats(&source, out);
}

static const struct dispatch_ops dispatch_ops = {
	.status = dispatch_wants_status,
	.stats = dispatch_wants_stats,
};

static void metrics_wants_page(void *owner, struct buf *out)
{
	struct status_source source = status_source(owner, NULL);
	status_write_page(&source, out);
}

static const struct metrics_page_ops metrics_page_ops = {.page = metrics_wants_page};

/* ---- the end ---- */

/* Drain: what is in flight gets its answers. Farewell: clients take their last bytes, the service
 * its close frame. */
static void on_stop_step(evutil_socket_t fd, short what, void *arg)
{
	struct daemon *d = arg;
	bool late = clock_mono_ms() >= d->stop_until;

	(void)fd;
	(void)what;
	if (d->stop == STOP_DRAIN && (late || router_in_flight(d->router) == 0)) {
		router_abandon(d->router);
		upstream_stop(d->upstream);
		d->stop = STOP_FAREWELL;
		d->stop_until = clock_mono_ms() + FAREWELL_MS;
	} else if (d->stop == STOP_FAREWELL) {
		bool flushed = clients_flush_all(d->clients);
		if (late || (flushed && upstream_closed(d->upstream)))
			event_base_loopbreak(d->base);
	}
}

static void on_stop_signal(evutil_socket_t number, short what, void *arg)
{
	struct daemon *d = arg;

	(void)what;
	if (d->stop != STOP_NOT) {
		log_notice("signal %d again: stopping at once", (int)number);
		event_base_loopbreak(d->base);
		return;
	}
	log_notice("signal %d: stopping", (int)number);
	notify_stopping(d->notify);
	d->stop = STOP_DRAIN;
	d->stop_until = clock_mono_ms() + DRAIN_MS;
	listener_free(d->listener);
	d->listener = NULL;
	subscriptions_stop(d->subscriptions);
	token_requests_stop(token_minter_issuer(d->minter));
	router_stop(d->router);
	timer_start(d->stop_step, STOP_STEP_MS);
}

/* ---- the beginning ---- */

/* False: the limit of open files is too low even for the daemon. */
static bool reserve_descriptors(struct daemon *d, unsigned max_clients)
{
	long long room = descriptors_reserve(max_clients, d->descriptors_before);

	d->clients_possible = room < 0 ? 0 : (unsigned)room;
	return room >= 0;
}

static void start_core(struct daemon *d)
{
	struct router_settings router = settings_router(d->config);
	struct subscriptions_settings subscriptions = settings_feed(d->config);
	struct token_minter_settings minter = settings_mint(d->config);
	uint64_t seed;

	evutil_secure_rng_get_bytes(&seed, sizeof(seed));
	d->router = router_new(&router, &router_ops, d, &d->stats, seed);
	d->subscriptions = subscriptions_new(&subscriptions, &subscriptions_ops, d, d->router,
					     &d->stats, seed);
	d->access = access_new(&d->stats);
	d->minter = token_minter_new(d->base, &minter, d->router, d->access, &d->stats);
	d->dispatch = (struct dispatch){.router = d->router,
					.subscriptions = d->subscriptions,
					.token_requests = token_minter_issuer(d->minter),
					.access = d->access,
					.stats = &d->stats,
					.ops = &dispatch_ops,
					.owner = d};
}

static int start_upstream(struct daemon *d)
{
	struct upstream_settings settings =
		settings_upstream(d->config, subscriptions_seed(d->subscriptions));

	d->upstream = upstream_new(d->base, &settings, &upstream_ops, d, &d->stats);
	return d->upstream ? 0 : -EINVAL;
}

/* The socket that the service manager has passed, or else our own. */
static int start_listener(struct daemon *d)
{
	struct listener_settings listener = settings_listener(d->config);
	int fd = activation_take();

	listener.may_wait = true;
	if (fd == -ENOENT)
		return listener_new(d->base, &listener, &listener_ops, d, &d->stats, &d->listener);
	if (fd < 0)
		return fd;
	d->listener = listener_adopt(d->base, fd, &listener_ops, d, &d->stats);
	return 0;
}

static int start_local(struct daemon *d)
{
	struct client_settings clients = settings_clients(d->config);

	d->clients = clients_new(d->base, &clients, &client_ops, d, &d->stats);
	set_access_rules(d, d->config->access);
	return start_listener(d);
}

/* ---- the watchdog ---- */

static void on_watchdog(evutil_socket_t fd, short what, void *arg)
{
	struct daemon *d = arg;

	(void)fd;
	(void)what;
	notify_alive(d->notify);
}

/* Only a loop that turns says that it is alive. It is about this process: a service that is away is
 * no reason to be killed. */
static void start_watchdog(struct daemon *d)
{
	uint64_t us = notify_watchdog_us();

	if (us == 0)
		return;
	d->watchdog = watch_new(d->base, -1, EV_PERSIST, on_watchdog, d);
	timer_start(d->watchdog, (int64_t)(us / 2000));
}

/* Once all is there that the page tells of. */
static int start_metrics(struct daemon *d, const struct config *config, bool may_wait)
{
	struct metrics_page_settings settings = settings_metrics(config);

	settings.may_wait = may_wait;
	d->metrics_page = NULL;
	if (!settings.path && !settings.address)
		return 0;
	return metrics_page_new(d->base, &settings, &metrics_page_ops, d, &d->metrics_page);
}

/* ---- new settings ---- */

static void take_log_level(struct daemon *d)
{
	log_set_level(d->options.level_forced ? d->options.level : d->config->log.level);
}

/* What an administrator would not want, but has written. */
static void warn_of_settings(const struct config *config, const struct config *before)
{
	static const enum config_exposed writable[] = {CONFIG_WRITABLE, CONFIG_CA_WRITABLE},
					 foreign[] = {CONFIG_FOREIGN, CONFIG_CA_FOREIGN};

	for (int i = 0; i < 2; i++) {
		if (config->exposed[writable[i]])
			log_warning("%s can be written by everybody, who could have the key sent "
				    "anywhere: chmod o-w it",
				    config->exposed[writable[i]]);
		if (config->exposed[foreign[i]])
			log_warning("%s belongs to another user, who could have the key sent "
				    "anywhere: chown it to root, or to the user that hpkvd runs as",
				    config->exposed[foreign[i]]);
	}
	if (config->exposed[CONFIG_ORIGIN_OPEN])
		log_warning("%s can be used by others than its owner and group: chmod o= it, and "
			    "if a key is in it take another one",
			    config->exposed[CONFIG_ORIGIN_OPEN]);
	if (config->upstream.no_proxy_useless)
		log_warning(
			"the entry \"%s\" of NO_PROXY has no effect: it is neither a host name nor "
			"an address, with a port or without, nor a network as in 10.0.0.0/8",
			config->upstream.no_proxy_useless);
	for (size_t i = 0; i < config->warnings.n; i++)
		log_warning("%s", config->warnings.text[i]);
	if (before && before->access && !config->access)
		log_warning("there are no access rules any more: whoever may open the socket may "
			    "do everything but mint tokens");
}

static void warn_of_abstract(const struct daemon *d)
{
	if (listener_path(d->listener)[0] == '@' && !d->config->access)
		log_warning("%s is an abstract socket, to which every user may connect: without "
			    "access rules they may do everything but mint tokens",
			    listener_path(d->listener));
}

/* The file, the key and what else belongs to them; NULL, with all that is wrong in the log. A file
 * that is gone, or that somebody has emptied to write it anew, is as bad as a wrong one: without it
 * there would be no access rules. */
static struct config *read_again(const struct daemon *d)
{
	struct config_source source = d->options.source;
	struct config_report report = {0};
	struct config *config = NULL;

	source.required |= d->config->has_file;
	source.filled = d->config->has_text;
	source.at_once = true;
	if (config_load(&source, &config, &report) < 0)
		config = NULL;
	for (size_t i = 0; i < report.n; i++)
		log_error("%s", report.text[i]);
	config_report_free(&report);
	if (config)
		config_share_key(config, d->config);
	return config;
}

/* The socket goes where the new settings want it. Those who are connected stay, and those who wait
 * to be accepted are. */
static int move_listener(struct daemon *d, const struct config *config, struct listener **former)
{
	struct listener_settings settings = settings_listener(config);
	struct listener *l;

	*former = NULL;
	if (listener_is_adopted(d->listener)) /* its path and access are the service manager's */
		return 0;
	if (listener_is_at(d->listener, settings.path))
		return listener_set_access(d->listener, &settings);
	int err = listener_new(d->base, &settings, &listener_ops, d, &d->stats, &l);
	if (err == 0) {
		*former = d->listener;
		d->listener = l;
	}
	return err;
}

static void move_listener_back(struct daemon *d, struct listener *former)
{
	struct listener_settings settings = settings_listener(d->config);

	if (listener_is_adopted(d->listener))
		return;
	if (!former) {
		listener_set_access(d->listener, &settings);
		return;
	}
	listener_free(d->listener);
	d->listener = former;
}

/* The same for the metrics page, of which there may be none, before and after. */
static int move_metrics(struct daemon *d, const struct config *config)
{
	struct metrics_page_settings settings = settings_metrics(config);
	struct metrics_page *former = d->metrics_page;

	if (former && metrics_page_is_at(former, &settings))
		return metrics_page_set_access(former, &settings);
	return start_metrics(d, config, false);
}

static void move_metrics_back(struct daemon *d, struct metrics_page *former)
{
	struct metrics_page_settings settings = settings_metrics(d->config);

	if (d->metrics_page == former) {
		if (former)
			metrics_page_set_access(former, &settings);
		return;
	}
	metrics_page_free(d->metrics_page);
	d->metrics_page = former;
}

/* A path that one of our two sockets is to have, and the other one has and leaves. */
static void make_way(struct daemon *d, const struct config *config)
{
	const char *page = config->metrics.path;
	struct metrics_page_settings wanted = {.path = config->listen.socket};

	if (page && listener_is_at(d->listener, page))
		listener_step_aside(d->listener);
	if (d->metrics_page && !listener_is_adopted(d->listener) &&
	    metrics_page_is_at(d->metrics_page, &wanted))
		metrics_page_step_aside(d->metrics_page);
}

static void make_way_back(struct daemon *d)
{
	listener_step_back(d->listener);
	if (d->metrics_page)
		metrics_page_step_back(d->metrics_page);
}

/* What can fail comes first, so that either all of the new settings are in force or none. */
static int take_config(struct daemon *d, struct config *config, bool another)
{
	struct client_settings clients = settings_clients(config);
	struct router_settings router = settings_router(config);
	struct subscriptions_settings subscriptions = settings_feed(config);
	struct upstream_settings upstream = settings_upstream(config, 0);
	struct token_minter_settings minter = settings_mint(config);
	struct listener *former;
	struct metrics_page *former_page = d->metrics_page;

	make_way(d, config);
	int err = move_listener(d, config, &former);
	if (err == 0) {
		err = move_metrics(d, config);
		if (err == 0)
			err = upstream_reload(d->upstream, &upstream, another);
		if (err < 0) {
			move_metrics_back(d, former_page);
			move_listener_back(d, former);
		}
	}
	if (err < 0) {
		make_way_back(d);
		return err;
	}
	listener_retire(former);
	if (d->metrics_page != former_page)
		metrics_page_free(former_page);
	struct config *before = d->config;
	d->config = config;
	take_log_level(d);
	reserve_descriptors(d, config->listen.max_clients);
	set_access_rules(d, config->access); /* before anything is sent that they forbid */
	client_closed(d);                    /* there may be room for more */
	if (another)
		router_forget_blame(d->router);
	router_set(d->router, &router, clock_mono_ms());
	subscriptions_set(d->subscriptions, &subscriptions);
	clients_set(d->clients, &clients);
	token_minter_set(d->minter, &minter);
	warn_of_settings(config, before);
	warn_of_abstract(d);
	config_free(before);
	return 0;
}

static void reload(struct daemon *d)
{
	struct config *config = read_again(d);
	struct buf names = {0};
	bool another = config && config_compare(d->config, config, &names);

	d->misconfigured = !config || take_config(d, config, another) < 0;
	if (d->misconfigured) {
		log_error("the new settings are not used: the ones before stay in force");
		config_free(config);
	} else if (buf_len(&names)) {
		log_notice("new settings are in force:%.*s", (int)buf_len(&names),
			   buf_span(&names).p);
	} else {
		log_notice("no setting has changed");
	}
	buf_release(&names);
}

/* Those that come while it runs are one more together. */
static void on_sighup(evutil_socket_t number, short what, void *arg)
{
	struct daemon *d = arg;

	(void)number;
	(void)what;
	timer_next_turn(d->reload);
}

static void on_reload(evutil_socket_t fd, short what, void *arg)
{
	struct daemon *d = arg;

	(void)fd;
	(void)what;
	if (d->stop != STOP_NOT)
		return;
	log_notice("SIGHUP: reading the settings again");
	notify_reloading(d->notify);
	reload(d);
	notify_ready(d->notify);
	upstream_changed(d);
}

/* There is nothing yet that would have to be put in order. */
static void end_early(int number)
{
	(void)number;
	_exit(EXIT_SUCCESS);
}

void daemon_expect_signals(void)
{
	sigset_t hangup;

	signal(SIGTERM, end_early);
	signal(SIGINT, end_early);
	orphans_discard();
	sigemptyset(&hangup);
	sigaddset(&hangup, SIGHUP);
	sigprocmask(SIG_BLOCK, &hangup, NULL);
}

/* Those that the loop takes, whatever whoever started us has blocked. */
static void let_signals_come(void)
{
	sigset_t ours;

	sigemptyset(&ours);
	sigaddset(&ours, SIGTERM);
	sigaddset(&ours, SIGINT);
	sigaddset(&ours, SIGHUP);
	sigprocmask(SIG_UNBLOCK, &ours, NULL);
}

static bool watch_signal(struct daemon *d, int number, event_callback_fn callback,
			 struct event **event)
{
	*event = watch_new(d->base, number, EV_SIGNAL | EV_PERSIST, callback, d);
	int err = watch_start(*event);

	if (err < 0)
		log_error("can't watch for signal %d: %s", number, strerror(-err));
	return err == 0;
}

/* A daemon that would not hear that it is to end does not begin. */
static bool watch_signals(struct daemon *d)
{
	if (!watch_signal(d, SIGTERM, on_stop_signal, &d->sigterm) ||
	    !watch_signal(d, SIGINT, on_stop_signal, &d->sigint) ||
	    !watch_signal(d, SIGHUP, on_sighup, &d->sighup))
		return false;
	let_signals_come();
	return true;
}

/* libevent's own words, which it would write to stderr and wait until they are read. */
static void on_loop_log(int severity, const char *text)
{
	static const enum log_level levels_of[] = {
		[EVENT_LOG_DEBUG] = LOG_LEVEL_DEBUG,
		[EVENT_LOG_MSG] = LOG_LEVEL_INFO,
		[EVENT_LOG_WARN] = LOG_LEVEL_WARNING,
		[EVENT_LOG_ERR] = LOG_LEVEL_ERROR,
	};

	log_at(levels_of[severity & 3], "libevent: %s", text);
}

static void warn_of_swap(void)
{
	int err = secret_check();

	if (err < 0)
		log_notice("memory can't be locked (%s), so the key may be swapped out: raise "
			   "LimitMEMLOCK= or ulimit -l",
			   strerror(-err));
}

static int start(struct daemon *d)
{
	d->started = clock_mono_ms();
	d->started_wall = clock_wall_ms();
	warn_of_swap();
	warn_of_settings(d->config, NULL);
	d->descriptors_before = descriptors_open();
	if (!reserve_descriptors(d, d->config->listen.max_clients))
		return -EMFILE;
	event_set_log_callback(on_loop_log);
	d->base = event_base_new();
	if (!d->base) {
		log_error("can't make an event loop: %s", strerror(errno));
		return -ENOMEM;
	}
	d->deadline = timer_new(d->base, on_deadline, d);
	d->stop_step = watch_new(d->base, -1, EV_PERSIST, on_stop_step, d);
	d->reload = timer_new(d->base, on_reload, d);
	if (!watch_signals(d))
		return -EINVAL;
	d->notify = notify_new(d->base);
	start_watchdog(d);
	start_core(d);
	if (start_local(d) < 0 || start_upstream(d) < 0 || start_metrics(d, d->config, true) < 0)
		return -EINVAL;
	warn_of_abstract(d);
	return 0;
}

static void free_event(struct event *e)
{
	if (e)
		event_free(e);
}

/* From here on no signal is ours to handle, and none shall end us in the middle of this. */
static void block_signals(void)
{
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
}

/* From wherever start() got to. First goes whoever asks for something, then whom they ask: what
 * clients leave behind is told to the upstream, and what the upstream leaves behind to the core. */
static void finish(struct daemon *d)
{
	block_signals();
	metrics_page_free(d->metrics_page);
	listener_free(d->listener);
	d->listener = NULL;
	if (d->clients)
		clients_free(d->clients);
	upstream_free(d->upstream);
	d->upstream = NULL;
	dispatch_fini(&d->dispatch);
	if (d->minter)
		token_minter_free(d->minter);
	if (d->access)
		access_free(d->access);
	if (d->subscriptions)
		subscriptions_stop(d->subscriptions);
	if (d->router)
		router_free(d->router);
	if (d->subscriptions)
		subscriptions_free(d->subscriptions);
	free_event(d->watchdog);
	notify_free(d->notify);
	free_event(d->sighup);
	free_event(d->sigint);
	free_event(d->sigterm);
	free_event(d->reload);
	free_event(d->stop_step);
	free_event(d->deadline);
	for (int i = 0; d->base && i < 2;
	     i++) /* what the resolver still holds goes within two turns */
		event_base_loop(d->base, EVLOOP_NONBLOCK);
	if (d->base)
		event_base_free(d->base);
	config_free(d->config);
	free(d);
}

int daemon_run(struct daemon_options *options)
{
	struct daemon *d = mem_zalloc(sizeof(*d));

	d->options = *options;
	d->config = options->config;
	options->config = d->options.config = NULL;
	take_log_level(d);
	int err = start(d);
	if (err == 0) {
		log_notice("hpkvd %s listens on %s for %s", PACKAGE_VERSION,
			   listener_path(d->listener), d->config->upstream.url.text);
		notify_ready(d->notify);
		upstream_changed(d);
		err = event_base_dispatch(d->base);
		if (err < 0)
			log_error("the event loop has failed: %s", strerror(errno));
		log_notice("stopped");
	}
	finish(d);
	return err < 0 ? 1 : 0;
}
