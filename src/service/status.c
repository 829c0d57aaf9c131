#include "service/status.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "base/mem.h"
#include "service/metrics_text.h"
#include "service/process.h"

static void add_number(cJSON *o, const char *name, double value)
{
	cJSON_AddNumberToObject(o, name, value);
}

static void add_text(cJSON *o, const char *name, const char *text_or_null)
{
	if (text_or_null)
		cJSON_AddStringToObject(o, name, text_or_null);
	else
		cJSON_AddNullToObject(o, name);
}

/* -1, unknown, becomes null. */
static void add_ms(cJSON *o, const char *name, long ms)
{
	if (ms >= 0)
		add_number(o, name, (double)ms);
	else
		cJSON_AddNullToObject(o, name);
}

/* How long a new request of this client would wait; -1: unknown. */
static long wait_ms(const struct status_source *s)
{
	if (upstream_state(s->upstream) != UPSTREAM_CONNECTED)
		return upstream_retry_ms(s->upstream);
	if (router_waiting(s->router) && !router_budget_wait_ms(s->router, s->peer, s->now_ms) &&
	    router_pace(s->router, s->now_ms) == 0)
		return -1;
	int64_t pace = router_pace_wait_ms(s->router, s->peer, s->now_ms),
		budget = router_budget_wait_ms(s->router, s->peer, s->now_ms);
	return (long)(pace > budget ? pace : budget);
}

static void add_upstream(cJSON *o, const struct status_source *s)
{
	cJSON *u = cJSON_AddObjectToObject(o, "upstream");
	enum upstream_state state = upstream_state(s->upstream);

	add_text(u, "state", upstream_state_name(state));
	add_text(u, "auth", upstream_has_token(s->upstream) ? "token" : "apiKey");
	add_text(u, "url", upstream_url(s->upstream));
	add_number(u, "sinceMs", (double)upstream_since_ms(s->upstream));
	add_number(u, "reconnects", (double)upstream_reconnects(s->upstream));
	add_text(u, "lastError", upstream_last_error(s->upstream));
	add_ms(u, "tokenExpiresInMs", (long)upstream_token_expires_ms(s->upstream));
	add_text(u, "tokenError", upstream_token_error(s->upstream));
	add_number(u, "inFlight", router_in_flight(s->router));
	add_number(u, "queued", (double)router_waiting(s->router));
	add_number(u, "handovers", (double)s->stats->upstream_handovers);
	add_number(u, "tokens", (double)s->stats->tokens_minted);
	add_ms(u, "nextHandoverMs", upstream_handover_ms(s->upstream));
	double pace = router_pace(s->router, s->now_ms);
	if (pace > 0)
		add_number(u, "pace", pace);
	else
		cJSON_AddNullToObject(u, "pace"); /* unpaced */
	add_ms(u, "waitMs", wait_ms(s));
}

/* Without those of the cache. */
static struct subscriptions_counts subscriptions_of_clients(const struct status_source *s)
{
	struct subscriptions_counts n = subscriptions_counts(s->subscriptions);

	subscriptions_discount(&n, cache_peer(s->cache));
	return n;
}

static void add_cache(cJSON *o, const struct status_source *s)
{
	cJSON *cache = cJSON_AddObjectToObject(o, "cache");
	struct cache_counts n = cache_counts(s->cache);

	cJSON_AddBoolToObject(cache, "live", n.live);
	add_number(cache, "entries", (double)n.entries);
	add_number(cache, "bytes", (double)n.bytes);
	add_number(cache, "hits", (double)s->stats->cache_hits);
	add_number(cache, "misses", (double)s->stats->cache_misses);
	add_number(cache, "saved", (double)s->stats->requests_saved);
	cJSON *mirrors = cJSON_AddArrayToObject(cache, "mirrors");
	for (size_t i = 0; i < n.mirrors; i++) {
		struct cache_mirror m = cache_mirror(s->cache, i);
		cJSON *mirror = cJSON_CreateObject();
		add_text(mirror, "pattern", m.pattern.p);
		add_text(mirror, "state", m.state);
		add_number(mirror, "keys", (double)m.keys);
		cJSON_AddItemToArray(mirrors, mirror);
	}
}

static void add_doors(cJSON *o, const struct status_source *s)
{
	cJSON *doors = cJSON_AddObjectToObject(o, "doors");
	struct clients_sums sums = clients_sum_up(s->clients);

	for (int i = 0; i < STATS_DOOR_N; i++) {
		cJSON *door = cJSON_AddObjectToObject(doors, stats_door_name((enum stats_door)i));
		add_number(door, "clients", sums.door[i]);
		add_number(door, "requests", (double)s->stats->door_requests[i]);
	}
	add_number(o, "tcpClients", sums.tcp);
}

static void add_subscriptions(cJSON *o, const struct status_source *s)
{
	cJSON *subscriptions = cJSON_AddObjectToObject(o, "subscriptions");
	struct subscriptions_counts n = subscriptions_of_clients(s);

	add_number(subscriptions, "keys", (double)n.keys);
	add_number(subscriptions, "patterns", (double)n.patterns);
	add_number(subscriptions, "total", (double)n.subscriptions);
	add_number(subscriptions, "waiting", (double)n.waiting);
	add_number(subscriptions, "leftOut", (double)n.left_out);
	add_number(subscriptions, "rereading", (double)n.rereading);
	cJSON_AddBoolToObject(subscriptions, "live", n.live);
}

static void add_limits(cJSON *o, const struct config *c)
{
	cJSON *l = cJSON_AddObjectToObject(o, "limits");

	add_number(l, "maxLine", (double)c->listen.max_line);
	add_number(l, "maxPipeline", c->listen.max_pipeline);
	add_number(l, "maxClients", c->listen.max_clients);
	add_number(l, "maxInFlight", c->upstream.max_in_flight);
	add_number(l, "outputSoft", (double)c->listen.output_soft);
	add_number(l, "outputHard", (double)c->listen.output_hard);
	add_number(l, "maxQueued", (double)c->listen.max_queued);
	add_number(l, "maxClientQueued", (double)c->listen.max_client_queued);
	add_number(l, "maxSubscriptions", c->listen.max_subscriptions);
	add_number(l, "maxClientSubscriptions", c->listen.max_client_subscriptions);
	add_number(l, "maxTopics", c->listen.max_topics);
	add_number(l, "subscriptionMemory", (double)c->listen.subscription_memory);
	add_number(l, "maxTokenRequests", c->listen.max_token_requests);
	add_number(l, "maxFrame", (double)c->upstream.max_frame);
	add_number(l, "maxMessage", (double)c->upstream.max_message);
	add_number(l, "maxHeld", (double)c->upstream.max_held);
	add_number(l, "requestTimeoutMs", (double)c->upstream.request_timeout_ms);
}

static void add_top(cJSON *o, const struct status_source *s)
{
	cJSON *top = cJSON_AddArrayToObject(o, "top");

	for (unsigned i = 0; i < s->n_top; i++) {
		const struct client_activity *a = &s->top[i];
		cJSON *client = cJSON_CreateObject();
		add_number(client, "id", (double)a->number);
		add_number(client, "pid", a->pid);
		add_number(client, "uid", a->uid);
		add_text(client, "door", stats_door_name(a->door));
		cJSON_AddBoolToObject(client, "tcp", a->tcp);
		add_number(client, "requests", (double)a->requests);
		add_number(client, "unanswered", a->unanswered);
		add_number(client, "subscriptions", a->subscriptions);
		add_number(client, "outputBytes", (double)a->unread);
		cJSON_AddItemToArray(top, client);
	}
}

static void print(cJSON *o, struct buf *out)
{
	char *text = cJSON_PrintUnformatted(o);

	if (!text)
		abort(); /* out of memory: as everywhere (mem.h) */
	buf_add(out, text, strlen(text));
	cJSON_free(text);
	cJSON_Delete(o);
}

void status_write(const struct status_source *s, struct buf *out)
{
	cJSON *o = cJSON_CreateObject();

	add_number(o, "code", 200);
	add_text(o, "version", PACKAGE_VERSION);
	add_number(o, "protocol", 1);
	add_number(o, "pid", getpid());
	add_number(o, "uptimeMs", (double)s->uptime_ms);
	add_upstream(o, s);
	add_number(o, "clients", clients_count(s->clients));
	add_doors(o, s);
	add_subscriptions(o, s);
	add_cache(o, s);
	add_limits(o, s->config);
	if (s->top)
		add_top(o, s);
	print(o, out);
}

/* ---- figures ---- */

static double seconds(int64_t ms)
{
	return ms < 0 ? NAN : (double)ms / 1000;
}

static void measure_upstream(const struct status_source *s, struct stats_gauges *g)
{
	static const char *states[UPSTREAM_STATE_N];
	double pace = router_pace(s->router, s->now_ms);

	for (unsigned i = 0; i < UPSTREAM_STATE_N; i++)
		states[i] = upstream_state_name((enum upstream_state)i);
	g->states = states;
	g->n_states = UPSTREAM_STATE_N;
	g->state = upstream_state(s->upstream);
	g->upstream_state_seconds = seconds(upstream_since_ms(s->upstream));
	g->upstream_reconnects_total = (double)upstream_reconnects(s->upstream);
	g->upstream_token_expiry_seconds = seconds(upstream_token_expires_ms(s->upstream));
	g->upstream_output_bytes = (double)upstream_unsent(s->upstream);
	g->upstream_pace_requests_per_second = pace > 0 ? pace : NAN;
}

static void measure_requests(const struct status_source *s, struct stats_gauges *g)
{
	g->requests_waiting = (double)router_waiting(s->router);
	g->requests_waiting_bytes = (double)router_waiting_bytes(s->router);
	g->requests_in_flight = router_in_flight(s->router);
	g->requests_in_flight_max = s->config->upstream.max_in_flight;
}

static void measure_clients(const struct status_source *s, struct stats_gauges *g)
{
	struct clients_sums sums = clients_sum_up(s->clients);

	g->clients = clients_count(s->clients);
	g->clients_max = s->config->listen.max_clients;
	g->clients_tcp = sums.tcp;
	for (int i = 0; i < STATS_DOOR_N; i++)
		g->door_clients[i] = sums.door[i];
	g->clients_held = sums.paused;
	g->clients_lagging = sums.slow;
	g->client_input_bytes = (double)sums.input_bytes;
	g->client_output_bytes = (double)sums.output_bytes;
}

static void measure_subscriptions(const struct status_source *s, struct stats_gauges *g)
{
	struct subscriptions_counts n = subscriptions_of_clients(s);
	struct cache_counts cache = cache_counts(s->cache);

	g->cache_entries = (double)cache.entries;
	g->cache_bytes = (double)cache.bytes;
	g->subscriptions = (double)n.subscriptions;
	g->subscriptions_bytes = (double)n.bytes;
	g->subscriptions_live = n.live;
	g->subscription_keys = (double)n.keys;
	g->subscription_patterns = (double)n.patterns;
	g->subscriptions_left_out = (double)n.left_out;
	g->subscribes_waiting = (double)n.waiting;
	g->rereads_waiting = (double)n.rereading;
}

static void measure_sections(const struct status_source *s, struct stats_gauges *g)
{
	struct stats_section *sections = mem_alloc((s->n_budgets + 1) * sizeof(*sections));

	for (size_t i = 0; i < s->n_budgets; i++) {
		const struct budget *b = s->budgets[i];
		sections[i] = (struct stats_section){
			.name = b->name,
			.clients = b->clients,
			.clients_waiting = b->n_waiting,
			.requests_in_flight = b->in_flight,
			.subscriptions = (double)b->subscriptions,
			.requests = (double)b->requests,
			.refused = {(double)b->refused[BUDGET_RATE_LIMITED],
				    (double)b->refused[BUDGET_QUEUE_FULL],
				    (double)b->refused[BUDGET_TOO_MANY_CLIENTS]},
		};
	}
	g->sections = sections;
	g->n_sections = s->n_budgets;
}

static void measure(const struct status_source *s, struct stats_gauges *g)
{
	measure_upstream(s, g);
	measure_requests(s, g);
	measure_clients(s, g);
	measure_subscriptions(s, g);
	measure_sections(s, g);
	g->config_last_reload_successful = !s->misconfigured;
	process_figures(s->started_wall_ms, g);
}

void status_write_stats(const struct status_source *s, struct buf *out)
{
	struct stats_gauges gauges;

	measure(s, &gauges);
	buf_addf(out, "{\"code\":200,\"stats\":");
	metrics_text_write_json(s->stats, &gauges, out);
	buf_addf(out, "}");
	free(gauges.sections);
}

void status_write_page(const struct status_source *s, struct buf *out)
{
	struct stats_gauges gauges;

	measure(s, &gauges);
	metrics_text_write(s->stats, &gauges, out);
	free(gauges.sections);
}
