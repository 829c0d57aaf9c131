#include "daemon/reload.h"

#include "access/nexus.h"
#include "base/clock.h"
#include "base/timer.h"
#include "clients/client.h"
#include "clients/listener.h"
#include "config/settings_table.h"
#include "daemon/settings.h"
#include "daemon/tcp_doors.h"
#include "daemon/warnings.h"
#include "requests/router.h"
#include "service/metrics_page.h"
#include "service/notify.h"
#include "subscriptions/subscriptions.h"
#include "upstream/upstream.h"

/* Returns NULL, with all faults in the log, if the configuration is wrong. A file that is gone is
 * wrong, and so is one that is empty now, since somebody may be writing it: without a file there
 * would be no access rules. */
static struct config *read_again(const struct reload *r)
{
	const struct config *before = r->rooms->config;
	struct config_source source = r->source;
	struct config_report report = {0};
	struct config *config = NULL;

	source.required |= before->has_file;
	source.filled = before->has_text;
	source.at_once = true;
	if (config_load(&source, &config, &report) < 0)
		config = NULL;
	for (size_t i = 0; i < report.n; i++)
		log_error("%s", report.text[i]);
	config_report_free(&report);
	if (config)
		config_share_key(config, before);
	return config;
}

/* Moves the socket to where the new settings want it. Connected clients stay, and clients that wait
 * to be accepted are accepted. */
static int move_listener(struct wiring *w, const struct config *config, struct listener **former)
{
	struct listener_settings settings = settings_listener(config);
	struct listener *l;

	*former = NULL;
	if (listener_is_adopted(w->listener)) /* its path and mode are the service manager's */
		return 0;
	if (listener_is_at(w->listener, settings.path))
		return listener_set_access(w->listener, &settings);
	int err = wiring_new_listener(w, &settings, &l);
	if (err == 0) {
		*former = w->listener;
		w->listener = l;
	}
	return err;
}

static void move_listener_back(struct wiring *w, struct listener *former)
{
	struct listener_settings settings = settings_listener(w->config);

	if (listener_is_adopted(w->listener))
		return;
	if (!former) {
		listener_set_access(w->listener, &settings);
		return;
	}
	listener_free(w->listener);
	w->listener = former;
}

/* The same for the metrics page, which may be absent before and after. */
static int move_metrics(struct wiring *w, const struct config *config)
{
	struct metrics_page_settings settings = settings_metrics(config);
	struct metrics_page *former = w->metrics_page;

	if (former && metrics_page_is_at(former, &settings))
		return metrics_page_set_access(former, &settings);
	return wiring_start_metrics(w, config, false);
}

static void move_metrics_back(struct wiring *w, struct metrics_page *former)
{
	struct metrics_page_settings settings = settings_metrics(w->config);

	if (w->metrics_page == former) {
		if (former)
			metrics_page_set_access(former, &settings);
		return;
	}
	metrics_page_free(w->metrics_page);
	w->metrics_page = former;
}

/* One of our two sockets may get the path that the other one leaves. */
static void make_way(struct wiring *w, const struct config *config)
{
	const char *page = config->metrics.path;
	struct metrics_page_settings wanted = {.path = config->listen.socket};

	if (page && listener_is_at(w->listener, page))
		listener_step_aside(w->listener);
	if (w->metrics_page && !listener_is_adopted(w->listener) &&
	    metrics_page_is_at(w->metrics_page, &wanted))
		metrics_page_step_aside(w->metrics_page);
}

static void make_way_back(struct wiring *w)
{
	listener_step_back(w->listener);
	if (w->metrics_page)
		metrics_page_step_back(w->metrics_page);
}

static int take_page_and_connection(struct wiring *w, const struct config *config, bool another,
				    const struct upstream_settings *upstream)
{
	struct metrics_page *former = w->metrics_page;
	int err = move_metrics(w, config);

	if (err == 0)
		err = upstream_reload(w->upstream, upstream, another);
	if (err == 0)
		return 0;
	move_metrics_back(w, former);
	tcp_doors_undo(w->tcp_doors);
	return err;
}

/* Steps that can fail: the sockets, the page and the connection. All succeed, or all are undone. */
static int take_places(struct wiring *w, const struct config *config, bool another)
{
	struct upstream_settings upstream = settings_upstream(config, 0);
	struct listener *former;
	struct metrics_page *former_page = w->metrics_page;

	make_way(w, config);
	int err = move_listener(w, config, &former);
	if (err == 0) {
		err = tcp_doors_prepare(w->tcp_doors, config);
		if (err == 0)
			err = take_page_and_connection(w, config, another, &upstream);
		if (err < 0)
			move_listener_back(w, former);
	}
	if (err < 0) {
		make_way_back(w);
		return err;
	}
	listener_retire(former);
	tcp_doors_commit(w->tcp_doors);
	if (w->metrics_page != former_page)
		metrics_page_free(former_page);
	return 0;
}

/* Steps that can't fail. Access rules come before anything is sent that they forbid. */
static void take_limits(struct wiring *w, bool another)
{
	const struct config *config = w->config;
	struct client_settings clients = settings_clients(config, &w->http);
	struct router_settings router = settings_router(config);
	struct subscriptions_settings subscriptions = settings_subscriptions(config);
	struct token_minter_settings minter = settings_token_minter(config);
	struct cache_settings cache = settings_cache(config);
	struct nexus_settings nexus = settings_nexus(config);

	wiring_reserve_descriptors(w, config->listen.max_clients);
	settings_http(config, &w->http);
	nexus_interrupt(w->nexus);
	wiring_set_access_rules(w, config);
	wiring_accept_more(w);
	if (another) {
		router_forget_blame(w->router);
		cache_elsewhere(w->cache);
		remembered_tokens_clear(w->tokens.remembered);
		tokens_set_service(&w->tokens, config);
	}
	router_set(w->router, &router, clock_mono_ms());
	subscriptions_set(w->subscriptions, &subscriptions);
	cache_set(w->cache, &cache);
	clients_set(w->clients, &clients);
	token_minter_set(w->minter, &minter);
	nexus_set(w->nexus, &nexus, clock_mono_ms());
}

static int take_config(struct reload *r, struct config *config, bool another)
{
	struct wiring *w = r->rooms;
	struct config *before = w->config;

	config_keep_trust(config, before);
	int err = take_places(w, config, another);

	if (err < 0)
		return err;
	w->config = config;
	log_set_level(r->level_forced ? r->level : config->log.level);
	take_limits(w, another);
	warnings_of_settings(config, before);
	warnings_of_socket(listener_path(w->listener), config);
	config_free(before);
	return 0;
}

static void reload(struct reload *r)
{
	struct wiring *w = r->rooms;
	struct config *config = read_again(r);
	struct buf names = {0};
	bool another = config && setting_changes(w->config, config, &names);

	w->misconfigured = !config || take_config(r, config, another) < 0;
	if (w->misconfigured) {
		log_error("the new settings are not used: the former settings stay in force");
		config_free(config);
	} else if (buf_len(&names)) {
		log_notice("new settings are in force:%.*s", (int)buf_len(&names),
			   buf_span(&names).p);
	} else {
		log_notice("no setting has changed");
	}
	buf_release(&names);
}

static void on_due(evutil_socket_t fd, short what, void *arg)
{
	struct reload *r = arg;
	struct wiring *w = r->rooms;

	(void)fd;
	(void)what;
	if (router_is_stopping(w->router))
		return;
	log_notice("SIGHUP: reading the settings again");
	notify_reloading(w->notify);
	reload(r);
	notify_ready(w->notify);
	wiring_tell_state(w);
}

void reload_init(struct reload *r)
{
	r->due = timer_new(r->rooms->base, on_due, r);
}

void reload_fini(struct reload *r)
{
	if (r->due)
		event_free(r->due);
}

void reload_request(struct reload *r)
{
	timer_next_turn(r->due);
}
